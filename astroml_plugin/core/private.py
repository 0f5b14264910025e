"""Folders of this user alone in places that all users share, such as the system's temporary one."""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from pathlib import Path

from astroml_plugin.core.errors import InputError

CACHE = "ASTROML_CACHE"
"""Environment variable: a folder to use instead of the one in the system's temporary place."""


def user_name() -> str:
    """Name of the user of this process; the number where the system knows no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # by Python's version
        return str(os.getuid())


def private_folder(*parts: str) -> Path:
    """A folder below ASTROML_CACHE, or below a folder of this user in the temporary place, made where it is missing.

    Its name can be guessed. So every level that is ours is checked: another user may have made it first, to plant files
    in it or to have files of this user overwritten through links.

    Raises:
        InputError: a level is a link or no folder, belongs to another user, or others may write to it; or the folder of
            ASTROML_CACHE cannot be made or written to.
    """
    chosen = os.environ.get(CACHE)
    if chosen:
        path = Path(chosen).expanduser().absolute()
        _make_chosen(path)
    else:
        path = Path(tempfile.gettempdir()) / f"astroml-plugin-{os.getuid()}"
        own_folder(path)
    for part in parts:
        path = path / part
        own_folder(path)
    return path


def _make_chosen(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise InputError(
            f"{path}, which the environment variable {CACHE} names, cannot be used ({error.strerror}): name a folder "
            f"that you may write to"
        ) from error


def own_folder(path: Path) -> None:
    """Make a folder that only this user may enter, or check that one is so; its parent must exist.

    Raises:
        InputError: it is a link or no folder, belongs to another user, or others may write to it.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        _check(path)


def _check(path: Path) -> None:
    found = path.lstat()
    remedy = f"remove it, or name a folder of your own by the environment variable {CACHE}"
    if not stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path} is a link or no folder, and files of yours would go there: {remedy}")
    if found.st_uid != os.getuid():
        raise InputError(f"{path} belongs to another user (uid {found.st_uid}), who could change your files: {remedy}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(f"other users may write to {path}: {remedy}")
    if stat.S_IMODE(found.st_mode) != stat.S_IRWXU:
        path.chmod(stat.S_IRWXU)


def open_lock(path: Path) -> int:
    """Open a lock file for reading and writing without following a link or emptying it; gives the descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
