"""Sections about a store of stamps: what it holds, some of its pictures, and its label columns."""

from __future__ import annotations

import io
import shlex
from collections import Counter

import numpy as np
import pyarrow as pa
from PIL import Image as Pillow

from astroml_plugin.core import storage
from astroml_plugin.labelling.paint import Painter
from astroml_plugin.pixels import pixel_bits
from astroml_plugin.reporting.pages import Block, Commands, Maker, Missing, Picture, Pictures, Section, Table
from astroml_plugin.reporting.words import many, number
from astroml_plugin.sources.stamps import Stamps

CONTENT, EXAMPLES, LABELS, NEXT = "What it holds", "Some of the stamps", "Columns of labels", "What to do next"
_SHOWN = 24
_LOOKED_AT = 100_000
_LARGEST = 200


def facts(stamps: Stamps) -> list[tuple[str, str]]:
    """Numbers below the page's title."""
    height, width = stamps.size
    scale = "–" if stamps.pixel_scale is None else f"{stamps.pixel_scale:.4g}"
    found = [("stamps", f"{stamps.count:,}"), ("pixels", f"{width} × {height}"), ("bands", ", ".join(stamps.bands[:8]))]
    return [*found, ("arcsec per pixel", scale)]


def content(stamps: Stamps) -> Section:
    """Arrays, bands and zero points."""
    rows = [[band, number(zero)] for band, zero in zip(stamps.bands, stamps.zero_points, strict=True)]
    about = [["store", storage.redact(stamps.url)], ["id", stamps.id], ["arrays", ", ".join(stamps.array_names)]]
    text = f"{many(stamps.count, 'stamp')} of {stamps.dtype} in {many(len(stamps.units()), 'block')}."
    return Section(
        CONTENT, text, [Table(("band", "zero point (AB)"), rows, "Bands"), Table(("what", "value"), about, "Store")]
    )


def examples(stamps: Stamps) -> Section | Missing:
    """Pictures of stamps at even distances in the store."""
    if not stamps.count:
        return Missing(EXAMPLES, "there are no stamps yet")
    chosen = np.unique(np.linspace(0, stamps.count - 1, min(_SHOWN, stamps.count)).astype(int)).tolist()
    image, variance, _ = stamps.read_rows(chosen)
    usable = pixel_bits(image, variance, stamps.read_masks(chosen)) == 0
    painter = Painter.of(list(image), stamps.bands)
    pictures = []
    for place, one in enumerate(chosen):
        sink = io.BytesIO()
        painted = Pillow.fromarray(painter.picture(image[place], usable[place]))
        if max(painted.size) > _LARGEST:
            painted.thumbnail((_LARGEST, _LARGEST))
        painted.save(sink, "PNG")
        pictures.append(Picture(sink.getvalue(), f"stamp {one}", [f"stamp {one}"]))
    return Section(EXAMPLES, "Evenly chosen, stretched alike; violet pixels cannot be used.", [Pictures(pictures)])


def labels(stamps: Stamps) -> Section | Missing:
    """Ranges and texts of the columns of the objects; of a large store, of the first objects."""
    if not stamps.count:
        return Missing(LABELS, "there are no stamps yet")
    rows: list[list[str]] = []
    tables: list[pa.Table] = []
    for block in stamps.units():
        tables.append(stamps.read_objects(block.index))
        if (looked := sum(table.num_rows for table in tables)) >= _LOOKED_AT:
            break
    for field in tables[0].schema:
        values = [v for table in tables if field.name in table.column_names for v in table[field.name].to_pylist()]
        known = [value for value in values if value is not None]
        rows.append([field.name, str(field.type), f"{len(known):,}", _told(known)])
    more = f" of the first {looked:,} objects" if looked < stamps.count else ""
    blocks: list[Block] = [Table(("column", "type", "values", "what is there"), rows, "Columns")]
    return Section(LABELS, f"Columns of the objects{more}.", blocks)


def _told(values: list[object]) -> str:
    """Range of numbers, most frequent texts."""
    if not values:
        return ""
    if all(isinstance(value, int | float) for value in values):
        array = np.array(values, float)
        array = array[np.isfinite(array)]
        return f"{number(float(array.min()))} to {number(float(array.max()))}" if len(array) else "none is finite"
    common = Counter(str(value)[:40] for value in values).most_common(6)
    return ", ".join(f"{name} ({count:,})" for name, count in common)


def next_steps(stamps: Stamps) -> Section:
    """Commands to go on with."""
    place = shlex.quote(storage.redact(stamps.url))
    lines = [
        ("Measure the stamps with a bundle", f"astroml-plugin infer {place} --bundle BUNDLE --out catalog --report"),
        ("Learn from their labels", f"astroml-plugin train RECIPE --data {place} --out my_bundle"),
        ("Judge a bundle on their labels", f"astroml-plugin evaluate {place} --bundle BUNDLE --out report"),
    ]
    return Section(NEXT, "", [Commands(lines)])


MAKERS = (Maker(CONTENT, content), Maker(EXAMPLES, examples), Maker(LABELS, labels), Maker(NEXT, next_steps))
"""The sections of a page about stamps, in their order. A section is added here."""
