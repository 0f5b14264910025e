"""A catalog in the files of other programs: the formats, and what is told about each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from astroml_plugin.catalog import Catalog, coverage
from astroml_plugin.catalog.hats import HatsCollection, HatsOptions, write_hats
from astroml_plugin.catalog.streamed import CatalogRows
from astroml_plugin.catalog.write import write_streamed
from astroml_plugin.compute.cluster import ClusterOptions, connect, connecting
from astroml_plugin.sky.coverage import Outline
from astroml_plugin.sources.survey import Survey


@dataclass(frozen=True)
class ExportOptions(HatsOptions, ClusterOptions):
    """Which rows and columns of a catalog are exported, and how; some count for one format only."""

    columns: Sequence[str] | None = None
    """Columns, in this order; default: all."""
    where: str | None = None
    """SQL condition on the rows, as in `query`."""
    order: int | None = None
    """HEALPix order of the cells of a MOC; default 12 (52 arcsec) for rows, 14 (13 arcsec) for tiles."""
    survey: str | None = None
    """Survey of the catalog: a MOC or region file is then of its tiles that are done, not of the rows."""
    memory: str = "1GB"
    """Bound of the memory in which rows are read."""


@dataclass(frozen=True)
class ExportResult:
    """Outcome of an export."""

    out: str
    """The file or folder."""
    bytes: int = 0
    """Size of the file of a bundle."""
    description: dict[str, Any] = field(default_factory=dict)
    """Facts about a bundle that users need: bands, sizes, units, inputs, outputs; also in the file's metadata."""
    differences: dict[str, float] = field(default_factory=dict)
    """Output -> largest difference from our own measurement of drawn stamps, relative above 1."""
    rows: int = 0
    """Rows, or outlines of tiles."""
    notes: tuple[str, ...] = ()
    """Sentences about rows that are not in the file."""
    hats: HatsCollection | None = None
    """The HATS collection."""


def write_catalog(source: str, to: str, out: str, options: ExportOptions) -> ExportResult:
    """Write a catalog as hats, votable, fits, parquet, moc or reg; see `workflows.export.export`."""
    if options.survey is not None and to in ("moc", "reg"):
        done = set(Catalog.open(source).current()["unit"].to_pylist())
        outlines = (one for one in Survey.open(options.survey).outlines() if one.name in done)
        return ExportResult(out, rows=write_outlines(outlines, to, out, options))
    rows = CatalogRows.of(source, columns=options.columns, where=options.where, memory=options.memory)
    notes = _unplaced(rows)
    if to == "hats":
        with connect(**connecting(options)) as client:
            made = write_hats(rows, out, client, options)
        return ExportResult(made.url, rows=made.rows, notes=(*_left_out(made.left_out), *notes), hats=made)
    if to in ("moc", "reg"):
        count, none = (
            coverage.write_rows_region(rows, out) if to == "reg" else coverage.write_rows_moc(rows, out, options.order)
        )
        return ExportResult(out, rows=count, notes=(*_left_out(none), *notes))
    return ExportResult(out, rows=write_streamed(rows, out, {"votable": "vot"}.get(to, to)), notes=notes)


def write_outlines(outlines: Iterable[Outline], to: str, out: str, options: ExportOptions) -> int:
    """Write outlines on the sky as moc or reg; gives their number."""
    if to == "reg":
        return coverage.write_outlines_region(outlines, out)
    return coverage.write_outlines_moc(outlines, out, options.order)


def _left_out(count: int) -> tuple[str, ...]:
    return (f"{count} rows without a position on the sky are left out",) if count else ()


def _unplaced(rows: CatalogRows) -> tuple[str, ...]:
    count = rows.catalog.unplaced().num_rows
    return (f"{count} objects that no tile owns are in the view `unplaced`, not here",) if count else ()
