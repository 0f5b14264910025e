"""Flags by bit, for each column of flags."""

from __future__ import annotations

import numpy as np

from astroml_plugin.catalog import sql
from astroml_plugin.core.flags import FLAG_MEANINGS, OBJECT_FLAGS
from astroml_plugin.reporting.charts import Axis, Bars, Chart
from astroml_plugin.reporting.pages import Block, Missing, Section, Table
from astroml_plugin.reporting.run.subject import PRIMARY, RunSubject
from astroml_plugin.reporting.words import many, share

TITLE = "Flags"
_COLUMNS = 8


def section(subject: RunSubject) -> Section | Missing:
    """How many objects carry each bit."""
    objects = subject.counts["objects"]
    if not objects:
        return Missing(TITLE, "the catalog has no rows")
    columns = ["flags", *(name for name in subject.schema.names if name.endswith("_flags"))][:_COLUMNS]
    known = sum(OBJECT_FLAGS.values())
    parts = [
        f"count(*) FILTER ({sql.name(column)} & {bit} <> 0) AS b{k}_{bit}"
        for k, column in enumerate(columns)
        for bit in OBJECT_FLAGS.values()
    ]
    parts += [f"count(*) FILTER ({sql.name(c)} & {~known} <> 0) AS other{k}" for k, c in enumerate(columns)]
    row = subject.session.row(f"SELECT {', '.join(parts)} FROM catalog WHERE {PRIMARY}")  # noqa: S608
    counts = np.array([[row[f"b{k}_{bit}"] for bit in OBJECT_FLAGS.values()] for k in range(len(columns))], float)
    names = list(OBJECT_FLAGS)
    places = np.arange(len(names))[::-1].astype(float)
    bars = [
        Bars(
            places - 0.4 * (2 * k + 1 - len(columns)) / len(columns),
            counts[k] / objects,
            name,
            0.8 / len(columns),
            sideways=True,
        )
        for k, name in enumerate(columns)
    ]
    figure = Chart(
        "Part of the objects with each flag",
        Axis("part of the objects"),
        Axis("", ticks=names[::-1]),
        bars,
        height=90 + 30 * len(names),
        half=False,
    )
    rows = [
        [name, f"{bit}", FLAG_MEANINGS[name], *(f"{int(c):,}" for c in counts[:, k]), share(counts[0, k], objects)]
        for k, (name, bit) in enumerate(OBJECT_FLAGS.items())
    ]
    blocks: list[Block] = [figure, Table(("flag", "bit", "meaning", *columns, "part"), rows, "Flags by bit")]
    text = (
        f"{many(subject.counts['flagged'], 'object carries', 'objects carry')} a flag, "
        f"{share(subject.counts['flagged'], objects)} of {objects:,}. Flags reject nothing: rows with a flag "
        "are in the "
        f"catalog, and `WHERE flags = 0` leaves them out."
    )
    unknown = sum(int(row[f"other{k}"]) for k in range(len(columns)))
    if unknown:
        text += f" {many(unknown, 'object has', 'objects have')} bits that this version does not know."
    return Section(TITLE, text, blocks)
