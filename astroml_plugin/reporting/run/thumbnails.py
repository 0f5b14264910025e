"""Small pictures of a catalog's rows: one by one, or many of them in one sheet."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image as Pillow

from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError
from astroml_plugin.core.typing import U8
from astroml_plugin.labelling.paint import Painter
from astroml_plugin.labelling.pixels import PixelReader
from astroml_plugin.reporting.charts import Sheet
from astroml_plugin.reporting.pages import Picture
from astroml_plugin.sources.stamps import Stamps

_SAMPLE = 24
_LARGEST = 96
_QUALITY = 82
_GREY = 120

Row = Mapping[str, Any]
"""object_id, tile, x and y of a row of a catalog, and what its caption tells."""


def pictures(reader: PixelReader, rows: Sequence[Row], caption: Callable[[Row], Sequence[str]]) -> list[Picture]:
    """Pictures of rows, stretched in the same way; a grey one where the pixels cannot be read.

    Args:
        reader: of their pixels.
        rows: the rows.
        caption: gives the lines below the picture of a row.
    """
    side = min(reader.side, _LARGEST) if isinstance(reader.source, Stamps) else reader.side
    drawn, told = _drawn(reader, rows, side)
    return [
        Picture(_png(picture), f"object {row['object_id']}", [*caption(row), *([why] if why else [])])
        for row, picture, why in zip(rows, drawn, told, strict=True)
    ]


def sheet(reader: PixelReader, rows: Sequence[Row], side: int) -> Sheet:
    """Pictures of rows side by side in one JPEG, row by row.

    Args:
        reader: of their pixels.
        rows: the rows.
        side: pixels of each picture.
    """
    around = min(reader.side, _LARGEST)
    drawn, _ = _drawn(reader, rows, around)
    columns = max(1, int(np.ceil(np.sqrt(len(drawn)))))
    whole = Pillow.new("RGB", (columns * side, -(-len(drawn) // columns) * side), (_GREY,) * 3)
    for place, picture in enumerate(drawn):
        small = Pillow.fromarray(picture).resize((side, side), Pillow.Resampling.LANCZOS)
        whole.paste(small, ((place % columns) * side, (place // columns) * side))
    sink = io.BytesIO()
    whole.save(sink, "JPEG", quality=_QUALITY)
    return Sheet(sink.getvalue(), side, columns)


def _drawn(reader: PixelReader, rows: Sequence[Row], side: int) -> tuple[list[U8], list[str]]:
    """Pictures (side, side, 3), and why one is grey."""
    stamps: list[tuple[Any, Any] | str] = []
    for row in rows:
        try:
            stamps.append(reader.stamp(row, side))
        except AstromlError as error:
            stamps.append(storage.redact(str(error)))
    painter = Painter.of([one[0] for one in stamps if not isinstance(one, str)][:_SAMPLE], reader.bands)
    grey = np.full((side, side, 3), _GREY, np.uint8)
    drawn = [grey if isinstance(one, str) else painter.picture(*one) for one in stamps]
    return drawn, [one if isinstance(one, str) else "" for one in stamps]


def _png(picture: U8) -> bytes:
    sink = io.BytesIO()
    Pillow.fromarray(picture).save(sink, "PNG", optimize=True)
    return sink.getvalue()
