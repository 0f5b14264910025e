"""Keys for the Dask cluster of one job: `python -m astroml_plugin.compute.cluster.job_credentials FOLDER`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from distributed import Security

FILES = {"tls_ca_file": "ca.pem", "tls_client_cert": "cert.pem", "tls_client_key": "key.pem"}
"""Field of Dask's Security -> file in the job's folder."""


def write_credentials(folder: Path | str) -> None:
    """Make a key and a certificate for one job, in files that their owner alone can read.

    Args:
        folder: of the job; only its owner may enter it.

    Raises:
        PermissionError: others may enter the folder.
    """
    if Path(folder).stat().st_mode & 0o077:
        raise PermissionError(f"others may enter {folder}: make it with mode 0700")
    security = Security.temporary()
    for field, name in FILES.items():
        handle = os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(getattr(security, field))


if __name__ == "__main__":
    write_credentials(sys.argv[1])
