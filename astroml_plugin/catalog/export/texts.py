"""Texts as FITS and VOTable hold them: printable ASCII or UTF-16, every row of a column in one width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.core.typing import Array

_SAFE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
ENCODED = "percent-encoded UTF-8, as FITS holds ASCII only"
"""Words in the comment of a column whose texts went through `ascii_text`."""


def ascii_text(text: str) -> str:
    """A text as FITS can hold it: letters beyond printable ASCII, `%` and spaces at the end as in URLs (K%C3%B6ln)."""
    if is_plain(text) and "%" not in text:
        return text
    coded = quote(text, safe=_SAFE)
    return coded.rstrip(" ") + "%20" * (len(coded) - len(coded.rstrip(" ")))


def is_plain(text: str) -> bool:
    """Whether FITS can hold a text as it is."""
    return text.isascii() and (not text or (text.isprintable() and text[-1] != " "))


def plain_or_coded(texts: Sequence[str]) -> tuple[list[str], bool]:
    """Texts of one column for FITS, and whether they are percent-encoded: all are, where one needs it."""
    if all(map(is_plain, texts)):
        return list(texts), False
    return [ascii_text(text) for text in texts], True


def records(texts: pa.ChunkedArray, width: int, encode: Callable[[str], bytes]) -> Array:
    """Texts (n) as bytes (n,) of one width, filled with zeros; null is empty.

    Args:
        texts: large strings.
        width: bytes of a record.
        encode: gives the bytes of a text, at most `width`.

    Raises:
        ValueError: a text is longer.
    """
    whole = pc.fill_null(texts, "").combine_chunks()
    coded = whole.dictionary_encode() if isinstance(whole, pa.Array) else whole.chunk(0).dictionary_encode()
    words = [encode(word) for word in coded.dictionary.to_pylist()]
    if any(len(word) > width for word in words):
        raise ValueError(f"a text has more than {width} bytes")
    found: Array = np.array([*words, b""], f"S{width}")[:-1][coded.indices.to_numpy()]
    return found
