"""Keys and certificates for the processes of one job, as deploy/slurm/job.sh makes them.

`python -m astroml_plugin.compute.cluster.job_credentials dask FOLDER` makes a pair for Dask,
`… authority FOLDER` one that signs certificates, `… node FOLDER` a pair of this machine for Ray, whose settings it
prints for a shell, and `… node FOLDER COMMAND…` runs a command with them.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path

from distributed import Security

from astroml_plugin.compute.cluster import certificates

FILES = {"tls_ca_file": "ca.pem", "tls_client_cert": "cert.pem", "tls_client_key": "key.pem"}
"""Field of Dask's Security -> file in the job's folder."""

AUTHORITY = {"certificate": "authority.pem", "key": "authority.key"}
"""Files of the pair that signs the certificates of a job's nodes."""


def write_credentials(folder: Path | str) -> None:
    """Make a key and a certificate for the Dask of one job, in files that their owner alone can read.

    Args:
        folder: of the job; only its owner may enter it.

    Raises:
        PermissionError: others may enter the folder.
    """
    _refuse_open(folder)
    security = Security.temporary()
    for field, name in FILES.items():
        _write(Path(folder) / name, getattr(security, field).encode())


def write_authority(folder: Path | str) -> None:
    """Make the pair that signs the certificates of the job's nodes.

    Args:
        folder: of the job; only its owner may enter it.

    Raises:
        PermissionError: others may enter the folder.
    """
    _refuse_open(folder)
    made = certificates.authority()
    _write(Path(folder) / AUTHORITY["certificate"], made.certificate)
    _write(Path(folder) / AUTHORITY["key"], made.key)


def node_settings(folder: Path | str) -> dict[str, str]:
    """Make a pair for the processes of this machine; gives the environment variables by which Ray takes it.

    Ray then talks by TLS on all its ports to other nodes, and takes only who shows a certificate of the same authority.

    Args:
        folder: of the job, where `write_authority` was called.

    Raises:
        PermissionError: others may enter the folder.
    """
    _refuse_open(folder)
    paths = {name: Path(folder) / file for name, file in AUTHORITY.items()}
    signer = certificates.Pair(**{name: path.read_bytes() for name, path in paths.items()})
    made = certificates.signed(signer, certificates.own_names())
    own = Path(tempfile.mkdtemp(prefix="node-", dir=folder))  # mode 0700
    _write(own / "cert.pem", made.certificate)
    _write(own / "key.pem", made.key)
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(own / "cert.pem"),
        "RAY_TLS_SERVER_KEY": str(own / "key.pem"),
        "RAY_TLS_CA_CERT": str(paths["certificate"]),
    }


def _refuse_open(folder: Path | str) -> None:
    if Path(folder).stat().st_mode & 0o077:
        raise PermissionError(f"others may enter {folder}: make it with mode 0700")


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def main(arguments: list[str]) -> None:
    """Make what the words of a command line ask for."""
    what, folder, *command = arguments
    if what == "node":
        settings = node_settings(folder)
        if command:
            os.execvpe(command[0], command, {**os.environ, **settings})  # noqa: S606
        sys.stdout.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
    else:
        {"dask": write_credentials, "authority": write_authority}[what](folder)


if __name__ == "__main__":
    main(sys.argv[1:])
