"""Areas of the sky as MOC and as region files of DS9, from cells, outlines and positions."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from astroml_plugin.core import storage
from astroml_plugin.core.astropy_later import coordinates, u
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64

_AT_ONCE = 1000
"""Outlines that are joined at once."""


@dataclass(frozen=True)
class Outline:
    """A named polygon on the sky."""

    name: str
    """Name of what it surrounds."""
    ra: F64
    """(4,) corners in degrees, ICRS, in order."""
    dec: F64
    """(4,) corners in degrees."""


def moc_bytes(moc: Any, suffix: str) -> bytes:
    """A `mocpy.MOC` as a file: FITS (.fits, .moc), JSON (.json) or text (.txt)."""
    if suffix in ("json", "txt"):
        return str(moc.to_string("json" if suffix == "json" else "ascii")).encode()
    sink = io.BytesIO()
    moc.serialize("fits").writeto(sink)
    return sink.getvalue()


def mocpy() -> Any:
    """The library mocpy; InputError where it is not installed."""
    try:
        import mocpy as library
    except ImportError as error:
        raise InputError("a MOC needs the extra `hats`: pip install 'astroml-plugin[hats]'") from error
    return library


def moc_of_cells(cells: I64, order: int) -> Any:
    """The MOC of nested HEALPix cells (k,) of one order."""
    depth = np.full(len(cells), order, np.uint8)
    return mocpy().MOC.from_healpix_cells(cells.astype(np.uint64), depth, max_depth=order)


def moc_json(cells: I64, order: int) -> bytes:
    """The MOC of nested HEALPix cells (k,) of one order as JSON, without mocpy: four cells of one become that one."""
    found: dict[str, list[int]] = {}
    left = np.unique(cells)
    for depth in range(order, 0, -1):
        parents, counts = np.unique(left >> 2, return_counts=True)
        whole = counts == 4
        alone = left[~np.repeat(whole, counts)]
        if len(alone):
            found[str(depth)] = alone.tolist()
        left = parents[whole]
    if len(left):
        found["0"] = left.tolist()
    return json.dumps(dict(sorted(found.items(), key=lambda item: int(item[0])))).encode()


def moc_of_outlines(outlines: Iterable[Outline], order: int) -> Any:
    """The MOC that holds all outlines: cells of an order, or larger ones, that touch one."""
    library = mocpy()
    whole = library.MOC.new_empty(order)
    waiting = iter(outlines)
    while some := list(itertools.islice(waiting, _AT_ONCE)):
        corners = [coordinates.SkyCoord(one.ra * u.deg, one.dec * u.deg) for one in some]
        whole = whole.union(*library.MOC.from_polygons(corners, max_depth=order, n_threads=1))
    return whole


def region_lines(outlines: Iterable[Outline]) -> Iterator[str]:
    """A region file of DS9, line by line: a polygon for each outline."""
    yield from _head()
    for one in outlines:
        numbers = ",".join(f"{value:.8f}" for pair in zip(one.ra, one.dec, strict=True) for value in pair)
        yield f"polygon({numbers}) # text={_words(one.name)}\n"


def point_lines(positions: Iterable[tuple[F64, F64, I64]]) -> Iterator[str]:
    """A region file of DS9: a point for each position.

    Args:
        positions: blocks of (ra (n,), dec (n,), object ids (n,)), degrees, ICRS.
    """
    yield from _head()
    for ra, dec, names in positions:
        for one, two, name in zip(ra.tolist(), dec.tolist(), names.tolist(), strict=True):
            yield f"point({one:.8f},{two:.8f}) # point=circle text={{{name}}}\n"


def _head() -> Iterator[str]:
    yield "# Region file format: DS9 version 4.1\n"
    yield "icrs\n"


def _words(text: str) -> str:
    """A text between braces, without the letters that would end it."""
    return "{" + " ".join(text.replace("{", "(").replace("}", ")").split()) + "}"


def suffix_of(to: str) -> str:
    """Suffix of a file name, without its dot, small letters."""
    return storage.path_of(to).rsplit(".", 1)[-1].lower()
