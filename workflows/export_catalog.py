"""A catalog in the files of other programs: the formats, and what is told about each."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from astroml_plugin.catalog import Catalog, coverage
from astroml_plugin.catalog.hats import HatsCollection, HatsOptions, write_hats
from astroml_plugin.catalog.streamed import CatalogRows
from astroml_plugin.catalog.write import write_streamed
from astroml_plugin.compute.cluster import ClusterOptions, connect, connecting
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.results import Result
from astroml_plugin.core.settings import changed, option_of
from astroml_plugin.sources.survey import Survey


@dataclass(frozen=True)
class ExportOptions(HatsOptions, ClusterOptions):
    """Which rows and columns of a catalog are exported, and how; some count for one format only."""

    columns: Sequence[str] | None = None
    """Columns, in this order; default: all."""
    where: str | None = None
    """SQL condition on the rows, as in `query`."""
    annotations: Sequence[str] = ()
    """Annotations whose columns are written too; `--columns` and `--where` may name them."""
    order: int | None = None
    """HEALPix order of the cells of a MOC; default 12 (52 arcsec) for rows, 14 (13 arcsec) for tiles."""
    survey: Place | None = None
    """Survey of the catalog: a MOC or region file is then of its tiles that are done, not of the rows."""
    memory: str = "1GB"
    """Bound of the memory in which rows are read."""


@dataclass(frozen=True, repr=False)
class ExportResult(Result):
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
    of: str = "rows"
    """Word for them: rows or tiles."""
    notes: tuple[str, ...] = ()
    """Sentences about rows that are not in the file."""
    hats: HatsCollection | None = None
    """The HATS collection."""


_ROWS, _TABLES, _HATS = (
    ("hats", "votable", "fits", "parquet", "moc", "reg"),
    ("hats", "votable", "fits", "parquet"),
    ("hats",),
)
_USED = {
    **{"columns": _TABLES, "where": _ROWS, "annotations": _ROWS, "order": ("moc",), "survey": ("moc", "reg")},
    **dict.fromkeys((item.name for kind in (HatsOptions, ClusterOptions) for item in fields(kind)), _HATS),
}
"""Formats of a catalog for which an option counts; `memory` changes nothing that is written."""

_OF_TILES = ("order", "survey", "memory")
"""Options that count where outlines of tiles are written."""


def refuse_useless(kind: str, to: str, options: ExportOptions) -> None:
    """InputError for an option that would do nothing: what was asked for would not be in the file.

    Args:
        kind: of the source: bundle, catalog or survey.
        to: the format.
        options: what was asked for.
    """
    given = [name for name in changed(options) if name != "memory"]
    if kind == "bundle":
        useless = given
    elif kind == "survey":
        useless = [name for name in given if name == "survey" or name not in _OF_TILES or to not in _USED[name]]
    else:
        useless = [name for name in given if to not in _USED[name]]
        useless += [name for name in given if options.survey and name not in (*_OF_TILES, *useless)]
    if useless:
        what = f"for the tiles of {storage.redact(options.survey)}" if options.survey else f"for a {kind} to {to}"
        raise InputError(f"{', '.join(map(option_of, useless))} would do nothing {what}: leave it away")


def write_catalog(source: str, to: str, out: str, options: ExportOptions) -> ExportResult:
    """Write a catalog as hats, votable, fits, parquet, moc or reg; see `workflows.export.export`."""
    if options.survey is not None and to in ("moc", "reg"):
        catalog, survey = Catalog.open(source), Survey.open(options.survey)
        if survey.id != catalog.identity.get("source"):
            raise InputError(
                f"the catalog is not of the survey {storage.redact(options.survey)}: give the one that it was made from"
            )
        return write_survey(survey, to, out, options, set(catalog.current()["unit"].to_pylist()))
    chosen = {name: getattr(options, name) for name in ("columns", "where", "annotations", "memory")}
    rows = CatalogRows.of(source, **chosen)
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


def write_survey(
    survey: Survey, to: str, out: str, options: ExportOptions, only: Container[str] | None = None
) -> ExportResult:
    """Write what the tiles of a survey own as moc or reg.

    Args:
        survey: the survey.
        to: moc or reg.
        out: the file.
        options: the order of the MOC.
        only: names of tiles; None: all.
    """
    outlines = (one for one in survey.outlines() if only is None or one.name in only)
    if to == "reg":
        count = coverage.write_outlines_region(outlines, out)
    else:
        count = coverage.write_outlines_moc(outlines, out, options.order)
    left = sum(only is None or info.name in only for info in survey.iter_tiles()) - count
    notes = (f"{left} tiles without a place on the sky are left out: their images have no WCS there",) if left else ()
    return ExportResult(out, rows=count, notes=notes, of="tiles")


def _left_out(count: int) -> tuple[str, ...]:
    return (f"{count} rows without a position on the sky are left out",) if count else ()


def _unplaced(rows: CatalogRows) -> tuple[str, ...]:
    count = rows.catalog.unplaced().num_rows
    return (f"{count} objects that no tile owns are in the view `unplaced`, not here",) if count else ()
