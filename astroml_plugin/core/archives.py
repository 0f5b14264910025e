"""Compressed files of others, unpacked within limits: a file of a kilobyte cannot fill the memory."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from astroml_plugin.core.errors import InputError

FREE_BYTES = 2**30
"""A file may unpack to so many bytes, however small it is: masks of zeros are legitimate."""

RATIO = 200
"""A file may unpack to so many times its size. Images and tables stay below 30."""

_XZ_MEMORY = 2**28
_STEP = 2**22


class _Gzip:
    """zlib's decoder with the methods of bz2's and lzma's."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)
        self.needs_input = True

    def decompress(self, data: bytes, most: int) -> bytes:
        """At most so many bytes; what was not looked at is kept for the next call."""
        piece = self._decoder.decompress(self._decoder.unconsumed_tail + data, most)
        self.needs_input = not self._decoder.unconsumed_tail and len(piece) < most
        return piece

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        """Bytes behind the end of the stream."""
        return self._decoder.unused_data


_DECODERS: dict[str, Callable[[], Any]] = {
    ".gz": _Gzip,
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY),
}
SUFFIXES = tuple(_DECODERS)
"""Endings of the names of files that `unpack` knows."""


def allowed_bytes(packed: int) -> int:
    """Bytes that a compressed file of a size may unpack to."""
    return max(FREE_BYTES, RATIO * packed)


def refuse_larger(size: int, packed: int, shown: str) -> None:
    """Refuse what unpacks to more than is allowed.

    Raises:
        InputError: says both sizes.
    """
    if size > allowed_bytes(packed):
        raise InputError(
            f"{shown} has {packed / 1e6:.3g} MB and unpacks to more than {allowed_bytes(packed) / 1e9:.3g} GB: that is "
            f"refused, since such files fill the memory; unpack it yourself if you trust it"
        )


def unpack(data: bytes, suffix: str, shown: str, packed: int | None = None) -> bytes:
    """All bytes of a compressed file.

    Args:
        data: the file.
        suffix: one of `SUFFIXES`.
        shown: its name, for messages.
        packed: size of the file that the data came from, where it was packed twice.

    Raises:
        InputError: it unpacks to more than is allowed.
        OSError, EOFError, zlib.error, lzma.LZMAError: it is damaged.
    """
    return b"".join(_pieces([data], suffix, packed or len(data), shown))


def check_file(path: Path) -> None:
    """Refuse a local compressed file that unpacks to more than is allowed; costs one pass of unpacking.

    Raises:
        InputError: see above; damaged files pass, as their reader says more.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or not path.is_file():
        return
    with path.open("rb") as file:
        try:
            for _ in _pieces(iter(lambda: file.read(_STEP), b""), suffix, path.stat().st_size, path.name):
                pass
        except (OSError, EOFError, zlib.error, lzma.LZMAError):
            return


def _pieces(data: Iterable[bytes], suffix: str, packed: int, shown: str) -> Iterator[bytes]:
    """Unpacked pieces; a file may consist of several streams, and zeros may follow each."""
    decoder, begun, total = None, False, 0
    for part in data:
        feed = part
        while feed or (decoder is not None and not decoder.needs_input):
            if decoder is None:
                feed = feed.lstrip(b"\0") if begun else feed
                if not feed:
                    break
                decoder, begun = _DECODERS[suffix](), True
            piece: bytes = decoder.decompress(feed, _STEP)
            feed = b""
            if decoder.eof:
                feed, decoder = decoder.unused_data, None
            total += len(piece)
            refuse_larger(total, packed, shown)
            if piece:
                yield piece
    if decoder is not None or not begun:
        raise EOFError("the compressed file ends early")
