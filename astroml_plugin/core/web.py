"""Files of a web server for those who read Parquet: in parts where the server gives parts, else whole."""

from __future__ import annotations

import io
import re
import tempfile
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast
from urllib.parse import quote, unquote

from fsspec.spec import AbstractFileSystem

from astroml_plugin.core import storage

PROTOCOL = "astromlweb"
_WHOLE = 4 << 20
"""Files up to this size are read whole: one request instead of several."""
_BUFFER = 1 << 20
_ESCAPED = re.compile(r"\[([*?\[])\]")


def open_file(url: str) -> BinaryIO:
    """A file of a web server that can be sought in.

    Raises:
        FileNotFoundError: it is not there.
    """
    size, ranges = storage.head(url)
    if size is not None and size <= _WHOLE:
        return io.BytesIO(storage.read_bytes(url))
    if size is not None and ranges:
        return io.BufferedReader(_Ranges(url, size), _BUFFER)
    whole = tempfile.NamedTemporaryFile(prefix="astroml-")  # noqa: SIM115 - goes when the caller closes it
    fs, path = storage.filesystem(url)
    storage.retrying(fs.get_file, path, whole.name)
    return cast(BinaryIO, whole)


class _Ranges(io.RawIOBase):
    """A file read in parts."""

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self._url, self._size, self._at = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        fs, path = storage.filesystem(self._url)
        data = storage.retrying(fs.cat_file, path, start=self._at, end=stop)
        if len(data) != stop - self._at:
            raise OSError(f"{self._url} changed while it was read, or its server gives other parts than asked for")
        buffer[: len(data)] = data
        self._at = stop
        return len(data)


class WebFiles(AbstractFileSystem):  # type: ignore[misc]
    """Read-only files of web servers for DuckDB, which asks for nothing but the names it was given.

    A name is `folder(URL)`, a slash, and the path below it.
    """

    protocol = PROTOCOL
    cachable = False

    @staticmethod
    def folder(url: str) -> str:
        """Name of a folder of a web server."""
        return f"{PROTOCOL}://{quote(url, safe='')}"

    @staticmethod
    def _url(name: str) -> str:
        folder, _, path = name.removeprefix(f"{PROTOCOL}://").partition("/")
        if ".." in path.split("/"):
            raise PermissionError(name)
        return f"{unquote(folder)}/{quote(path)}"

    def glob(self, path: str, **_: Any) -> list[str]:
        """The one file that a name means; letters of patterns are escaped in it."""
        return [_ESCAPED.sub(r"\1", path)]

    def open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
        """A file for reading."""
        if mode != "rb":
            raise PermissionError(path)
        return open_file(self._url(path))

    def exists(self, path: str, **_: Any) -> bool:
        """Whether the server has it."""
        return storage.exists(self._url(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name and size."""
        return {"name": path, "size": storage.head(self._url(path))[0], "type": "file"}

    def modified(self, path: str) -> datetime:
        """The moment of asking: nothing is kept between two readings."""
        return datetime.now(UTC)
