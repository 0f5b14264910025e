"""Explanations beside a catalog: what the network looks at, in words, numbers and maps of the top objects."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import sql
from astroml_plugin.catalog.schema import matrix
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError
from astroml_plugin.explanation.pictures import draw, first_rows
from astroml_plugin.explanation.store import ExplanationStore
from astroml_plugin.explanation.summaries import CELLS, Layout
from astroml_plugin.explanation.trust import Trust, trust_of
from astroml_plugin.explanation.words import Finding, findings, of_trust
from astroml_plugin.reporting.charts import Axis, Bars, Chart, Grid, Line, Series
from astroml_plugin.reporting.pages import Block, Missing, Note, Picture, Pictures, Section, Table
from astroml_plugin.reporting.run.beside import EXPLANATION, Beside, all_beside, joined, newest
from astroml_plugin.reporting.run.subject import RunSubject
from astroml_plugin.reporting.still import small
from astroml_plugin.reporting.words import label, many, number

TITLE = "Attributions"
_SHOWN = 2
_READ = 5000
"""Objects whose summaries are read: the first ones of the list."""

_LISTED = 40
_FAR_ABOVE, _ALONE = 1.5, 0.8
"""Times its share, and part, of the attribution from which a band is worth a warning."""

_PLAIN = ("outline", "core", "top", "completeness", "faithfulness")
"""Findings that are no warnings."""


def section(subject: RunSubject) -> Section | Missing:
    """Words, numbers and maps of the newest explanations."""
    known = [one for one in all_beside(subject) if one.kind == EXPLANATION]
    if not known:
        return Missing(TITLE, "there are none beside the catalog: `explain CATALOG` makes them")
    text, blocks = newest(subject, known, _SHOWN, _about)
    rule = (
        "A band is named in red where it has 1.5 times its share, or four fifths, of the attribution; a ninth of the "
        "stamp besides the middle one where it has twice its share. So is attribution of which more than half lies "
        "outside the objects' outlines, or of which outlines have less than 1.1 times their part of the pixels: a mark "
        "over the whole stamp, such as a watermark, looks like that. Attributions that were judged are named where "
        "their pixels are not shown to matter more than others, or where maps stay alike without what was learned."
    )
    return Section(TITLE, text, blocks, rule)


def _about(subject: RunSubject, one: Beside) -> tuple[str, list[Block]]:
    store = ExplanationStore.of(subject.catalog.url, one.name)
    layout, record = store.layout(), store.record() or {}
    columns = ", ".join(f"{sql.name(one.name)}.{sql.name(name)}" for name in ("object_id", "tile", *one.columns))
    text = (
        f"SELECT {columns} FROM catalog JOIN {sql.name(one.name)} USING (object_id, tile) "  # noqa: S608
        f"ORDER BY {sql.name(one.name)}.rank LIMIT {_READ}"
    )
    rows = joined(subject, text)
    if not rows.num_rows:
        return f"{one.name}: no object is explained yet.", []
    trust = trust_of(store.judged())
    found = [*findings(rows, layout.bands, layout.side), *of_trust(trust)]
    method = str(record["identity"].get("method", "")).replace("-", " ")
    what = (
        f"{one.name}: pixels that made {record['number']} of {many(rows.num_rows, 'object')}, by {method}. "
        f"{' '.join(one.sentence for one in found if not is_warning(one))}"
    )
    if not store.has_maps():
        what += " It was made without maps."
    blocks: list[Block] = [
        Note(f"{one.name}: {finding.sentence}", bad=True) for finding in found if is_warning(finding)
    ]
    if trust is None:
        what += " Nobody has judged how faithful it is: `explain` with `--faithfulness 64` does."
    else:
        blocks.append(_trusted(one.name, trust))
    return what, [*blocks, *_charts(one.name, rows, layout), _table(one.name, rows), *_maps(subject, one.name, store)]


def is_warning(finding: Finding) -> bool:
    """Whether a finding says that the network looks where no object is, or at one band alone."""
    if finding.about == "band":
        return finding.fraction >= min(_FAR_ABOVE * finding.chance, _ALONE)
    return finding.about not in _PLAIN


def _trusted(name: str, trust: Trust) -> Table:
    """Figures of the judged objects with their intervals."""
    told = (
        ("deletion: pixels taken away in order of attribution, against random order", trust.deletion, "above 0"),
        ("insertion: pixels given in order of attribution, against random order", trust.insertion, "above 0"),
        ("maps alike after the last layer was drawn anew (rank correlation)", trust.last_layer, "below 1"),
        ("maps alike after all layers were drawn anew (rank correlation)", trust.all_layers, "near 0"),
    )
    cells = [[what, f"{one.value:.2f}", f"{one.low:.2f} to {one.high:.2f}", wanted] for what, one, wanted in told]
    title = f"{name}: how faithful it is, of {many(trust.objects, 'object')}"
    return Table(("judged by", "value", "95 %", "wanted"), cells, title)


def _charts(name: str, rows: pa.Table, layout: Layout) -> list[Block]:
    bands, cells, rings = (
        np.nanmean(matrix(rows[column]).astype(float), axis=0)
        for column in ("band_fraction", "cell_fraction", "radial_profile")
    )
    found: list[Block] = []
    if len(bands) > 1:
        series: Sequence[Series] = [Bars(np.arange(len(bands), dtype=float), bands)]
        axis = Axis("band", ticks=[label(band, 16) for band in layout.bands])
        found.append(Chart(f"{name}: part in each band", axis, Axis("part"), series, 260, legend=False))
    square = cells.reshape(CELLS, CELLS)
    words = [[f"{value:.0%}" for value in row] for row in square.tolist()]
    grid = [Grid(square, words, "part", (0.0, 1.0))]
    ticks = ["low", "middle", "high"]
    found.append(
        Chart(f"{name}: part in ninths of the stamp", Axis("x", ticks=ticks), Axis("y", ticks=ticks), grid, 260)
    )
    line = [Line(np.arange(len(rings), dtype=float), rings, "part of a ring")]
    found.append(
        Chart(
            f"{name}: part by distance", Axis("pixels from the object"), Axis("part in a ring"), line, 260, legend=False
        )
    )
    return found


def _table(name: str, rows: pa.Table) -> Table:
    parts = ("outline_fraction", "core_fraction", "top_fraction")
    columns = ("rank", "object_id", "value", "baseline_value", *parts, "completeness_error")
    cells = [
        [str(value) if key in ("rank", "object_id") else number(value) for key, value in row.items()]
        for row in rows.select(list(columns)).slice(0, _LISTED).to_pylist()
    ]
    left = rows.num_rows - len(cells)
    return Table(columns, cells, f"{name}: the first objects", left, folded=True)


def _maps(subject: RunSubject, name: str, store: ExplanationStore) -> list[Block]:
    """Stamps of the first objects with their maps."""
    if not store.has_maps():
        return []
    if subject.source is None:
        return [Note(f"No maps of {name}: {subject.no_source}")]
    try:
        with tempfile.TemporaryDirectory(prefix="astroml-") as folder:
            file = Path(folder) / "maps.png"
            draw(subject.catalog, subject.source.url, store, first_rows(subject.catalog, name), str(file))
            data = small(file.read_bytes())
    except AstromlError as error:
        return [Note(f"No maps of {name}: {storage.redact(str(error))}")]
    alt = f"Stamps of the first objects and maps of what made their number, {name}"
    return [Pictures([Picture(data, alt, ["red raises the number, blue lowers it"])], wide=True)]
