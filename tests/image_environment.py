"""Images built and run without a registry and without a daemon: Debian's Python stands in for `python:3.11-slim`.

debootstrap makes the stand-in, once, below the repository; buildah builds on it. Programs run as user 10001 in a root
file system that cannot be written, in a mount namespace of their own. All of it needs root.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-image"
PACKAGES = "python3.11,python3-pip,python3.11-venv,ca-certificates"
USER = "10001:10001"
SOURCE, OUT = "/srv", "/mnt"
"""Where a program in an image finds what it reads, and may write."""


def needed(*tools: str) -> None:
    """Skip where images cannot be built."""
    if os.geteuid() or missing(*tools):
        pytest.skip(f"building images needs root and {', '.join(missing(*tools)) or 'nothing else'} (apt-get install)")


def missing(*tools: str) -> list[str]:
    """Those of the programs that are not installed."""
    return [tool for tool in tools if shutil.which(tool) is None]


def base() -> Path:
    """Root file system of a Debian with Python 3.11, pip and venv; root's."""
    folder, stamp = FOLDER / "base", FOLDER / ".ready"
    if not stamp.exists() or stamp.read_text() != PACKAGES:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(folder), _mirror()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        (folder / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
        for package in (folder / "var/cache/apt/archives").glob("*.deb"):
            package.unlink()
        certificates = "etc/ssl/certs/ca-certificates.crt"  # this machine may know more authorities
        shutil.copyfile(f"/{certificates}", folder / certificates)
        stamp.write_text(PACKAGES)
    return folder


def _mirror() -> str:
    """Where this machine's apt takes Debian from."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for text in (path.read_text() for path in sources if path.exists()):
        for line in text.splitlines():
            found = re.match(r"(?:deb|URIs:)\s+(?:\[.*?\]\s+)?(\S+://\S+)", line)
            if found and "security" not in found[1]:
                return found[1]
    pytest.skip("apt's sources name no mirror to make a root file system from")


def pip_settings() -> dict[str, str]:
    """This machine's folders of wheels, as pip's environment variable; nothing where it has none."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True
    )
    folders = [word for word in done.stdout.split() if Path(word).is_dir()]
    return {"PIP_FIND_LINKS": " ".join(folders)} if folders else {}


@dataclass(frozen=True)
class Image:
    """An image that is mounted."""

    root: Path
    """Its root file system."""
    configuration: Mapping[str, object]
    """Its user, environment, entry point, as OCI names them."""


class Builder:
    """buildah with a store of its own.

    Args:
        folder: place of the store, which is emptied by `close`.
    """

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", str(folder / "store"), "--runroot", str(folder / "run")]

    def call(self, verb: str, *words: str, timeout: float = 300) -> str:
        """What buildah prints; AssertionError with its last words where it fails."""
        command = ["buildah", *self._options, verb, *words]
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()

    def image(self, file: Path, arguments: Mapping[str, str]) -> Image:
        """Build a Dockerfile of the repository on the stand-in."""
        container = self.call("from", "scratch")
        self.call("add", "--quiet", container, str(base()), "/")
        self.call("commit", "--quiet", "--rm", container, "stand-in")
        pip = pip_settings()
        volumes = [f"--volume={path}:{path}:ro" for path in pip.get("PIP_FIND_LINKS", "").split()]
        told = {**pip, **arguments, "BASE": "localhost/stand-in"}
        words = [
            "--pull-never",
            "--network=host",
            *volumes,
            *(f"--build-arg={key}={value}" for key, value in told.items()),
        ]
        self.call("bud", *words, "--file", str(file), "--tag", "built", str(ROOT), timeout=3600)
        container = self.call("from", "--pull-never", "built")
        inspected = json.loads(self.call("inspect", "--type", "image", "built"))
        return Image(Path(self.call("mount", container)), inspected["OCIv1"]["config"])

    def close(self) -> None:
        """Unmount and delete everything."""
        self.call("rm", "--all")
        self.call("rmi", "--all", "--force")


INSIDE = """
set -eu
root=$1 source=$2 out=$3 user=$4
shift 4
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$source" "$root/srv"
mount -o remount,bind,ro "$root/srv"
mount --bind "$out" "$root/mnt"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" /usr/bin/env --ignore-environment "$@"
"""


def inside(root: Path, source: Path, out: Path, command: Sequence[str], environment: Sequence[str]) -> str:
    """What a program prints that runs in a root file system which it cannot write, but for /tmp and the folder `out`.

    Raises:
        AssertionError: it failed; with what it said.
    """
    words = ["unshare", "--mount", "sh", "-c", INSIDE, "inside", str(root), str(source), str(out), USER]
    done = subprocess.run([*words, *environment, *command], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
