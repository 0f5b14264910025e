"""Arrays of an .npz archive read in blocks: never pickled, never a whole array at once; ids of any kind."""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

import numpy as np
import pyarrow as pa

from astroml_plugin.core import archives, foreign, storage, web
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import I64

LARGEST_SMALL = 2**26
"""Bytes of an array that is read as a whole, at most."""

_SKIP_BYTES = 1 << 22
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class NpzArray:
    """One array of an archive, by its header."""

    archive: zipfile.ZipFile
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def name(self) -> str:
        """The key under which it was saved."""
        return self.member.removesuffix(".npy")

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry along the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """The whole array (small ones).

        Raises:
            InputError: it is damaged, or larger than `LARGEST_SMALL`.
        """
        size = math.prod(self.shape) * self.dtype.itemsize
        if size > LARGEST_SMALL:
            raise InputError(
                f"array {self.name} has {size / 1e6:.3g} MB, and a few values are wanted there: map another one with "
                f"--npz-map"
            )
        with _refusing(self.member), self.archive.open(self.member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    @contextlib.contextmanager
    def blocks(self, rows: int) -> Iterator[Blocks]:
        """Consecutive blocks of `rows` along the first axis."""
        if self.fortran and len(self.shape) > 1:
            raise InputError(f"array {self.name} is stored in Fortran order: save it with numpy.ascontiguousarray")
        with contextlib.ExitStack() as stack:
            with _refusing(self.member):
                stream = stack.enter_context(self.archive.open(self.member))
                _header(stream)
            yield Blocks(self, stream, rows)


@dataclass
class Blocks:
    """A reader of consecutive blocks."""

    array: NpzArray
    stream: IO[bytes]
    rows: int
    position: int = 0

    def _next(self) -> int:
        count = min(self.rows, self.array.shape[0] - self.position)
        self.position += count
        return count

    def read(self) -> np.ndarray:
        """The next block (fewer rows at the end), in native byte order."""
        count, dtype, inner = self._next(), self.array.dtype, self.array.shape[1:]
        size = count * self.array.row_bytes
        with _refusing(self.array.member):
            data = _exactly(self.stream, size)
            values = np.frombuffer(data, dtype).reshape(count, *inner)
        return values.astype(dtype.newbyteorder("="), copy=False)

    def skip(self) -> None:
        """Pass over the next block."""
        size = self._next() * self.array.row_bytes
        with _refusing(self.array.member):
            while size > 0:
                size -= len(_exactly(self.stream, min(size, _SKIP_BYTES)))


def is_archive(url: str) -> bool:
    """Whether a path or URL names an .npz archive, whatever query stands behind it."""
    return storage.path_of(url).lower().endswith(".npz")


@contextlib.contextmanager
def open_npz(url: str) -> Iterator[dict[str, NpzArray]]:
    """The arrays of an archive by name, without reading their values.

    Raises:
        InputError: not there, damaged, or with an array of Python objects (a pickle, which is never loaded).
    """
    shown = storage.redact(url)
    with contextlib.ExitStack() as stack:
        try:
            with foreign.refusing(shown, "is it an .npz archive, and whole? Save it again"):
                file = stack.enter_context(_opened(url))
                archive = stack.enter_context(zipfile.ZipFile(file))
                packed = file.seek(0, io.SEEK_END)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise InputError(f"{shown} does not exist: check the path") from None
        archives.refuse_larger(sum(entry.file_size for entry in archive.infolist()), packed, shown)
        members = [name for name in archive.namelist() if name.endswith(".npy")]
        arrays = [_describe(archive, member, shown) for member in members]
        yield {array.name: array for array in arrays}


def _opened(url: str) -> BinaryIO:
    if storage.is_web(url):
        return web.open_file(url)
    filesystem, path = storage.filesystem(url)
    return cast(BinaryIO, filesystem.open(path, "rb"))


def _describe(archive: zipfile.ZipFile, member: str, shown: str) -> NpzArray:
    with _refusing(member), archive.open(member) as stream:
        shape, fortran, dtype = _header(stream)
        held = archive.getinfo(member).file_size - stream.tell()
    name = member.removesuffix(".npy")[:80]
    if any(not isinstance(side, int) or isinstance(side, bool) or side < 0 for side in shape):
        raise InputError(f"{shown}: array {name} has an impossible shape {shape}: save it again")
    size = math.prod(shape) * dtype.itemsize
    if size > held and not dtype.hasobject:
        raise InputError(f"{shown}: array {name} {shape} has {size:.3g} bytes, the archive {held:.3g}: save it again")
    if dtype.hasobject:
        raise InputError(f"{shown}: array {name} holds Python objects, never loaded here: save it as text or numbers")
    return NpzArray(archive, member, shape, dtype, fortran)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError(f"{size - len(data)} bytes are missing")
    return data


def _refusing(member: str) -> contextlib.AbstractContextManager[None]:
    name = member.removesuffix(".npy")[:80]
    return foreign.refusing(f"array {name} of the archive", "the file is damaged or no .npz: save it again")


def decoded(values: np.ndarray) -> np.ndarray:
    """Text stored as bytes becomes text; other arrays pass."""
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def parse_ids(values: Any, where: str) -> I64:
    """Ids (n,) of any kind as int64, kept exactly; duplicates stay.

    Raises:
        InputError: text that is no whole number, or a number beyond int64.
    """
    raw = (
        values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array | pa.ChunkedArray) else np.asarray(values)
    )
    if raw.dtype.kind == "i":
        return raw.astype(np.int64)
    try:
        ids = [_parse_id(value) for value in raw.tolist()]
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{where}: ids must be whole numbers within 64 bits ({error}): number the objects anew"
        ) from error
    return np.array(ids, np.int64)


def _parse_id(value: Any) -> int:
    if isinstance(value, bytes):
        value = value.decode("ascii")
    if isinstance(value, float) and (not value.is_integer() or abs(value) > 2**53):
        raise ValueError(f"{value!r} is no exact whole number")
    number = int(value.strip()) if isinstance(value, str) else int(value)
    if not _INT64.min <= number <= _INT64.max:
        raise ValueError(f"{value!r} is beyond int64")
    return number
