"""One process at a time in a folder of this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError


@contextlib.contextmanager
def alone_in(url: str, does: str) -> Iterator[None]:
    """Hold a folder, so that no second process of this machine does the same there at once; no lock at URLs.

    Args:
        url: an existing folder, or a URL.
        does: what another process does there, for the error: "searches in".

    Raises:
        InputError: another process holds it.
    """
    if not storage.is_local(url):
        yield
        return
    handle = os.open(storage.local_path(storage.join(url, ".lock")), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process {does} {storage.redact(url)}: wait for it or stop it") from None
        yield
    finally:
        os.close(handle)
