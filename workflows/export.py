"""A bundle, a catalog or a survey in the files of other programs."""

from __future__ import annotations

from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.settings import with_changes
from astroml_plugin.sources.survey import Survey
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.onnx_file import onnx_file
from workflows.export_catalog import (
    ExportOptions,
    ExportResult,
    refuse_useless,
    write_catalog,
    write_survey,
)
from workflows.export_names import named_format, refuse_other_ending
from workflows.notebook import shows_progress

__all__ = ["FORMATS", "ExportOptions", "ExportResult", "export", "show"]

FORMATS = {
    "bundle": ("onnx",),
    "catalog": ("hats", "votable", "fits", "parquet", "moc", "reg"),
    "survey": ("moc", "reg"),
}
"""Kind of input -> formats that it is exported to."""


@shows_progress()
def export(
    source: Place,
    *,
    to: str | None = None,
    out: Place | None = None,
    variance: bool = True,
    options: ExportOptions | None = None,
    **changes: Any,
) -> ExportResult:
    """Write a bundle as ONNX; a catalog as HATS, VOTable, FITS, Parquet, MOC or regions; a survey as MOC or regions.

    A bundle's file takes raw pixels and is written only if ONNX Runtime gives what we measure, to 3e-5. Catalogs of any
    size are written in bounded memory. HATS that was killed goes on when it is asked for again.

    Args:
        source: path, URL or shipped name of a bundle; path or URL of a catalog or survey.
        to: onnx; hats, votable, fits, parquet, moc or reg; default as the name of `out` ends, of a bundle onnx.
        out: file, URL or (HATS) folder to write; of a bundle, default its name with .onnx, in the current folder.
        variance: of a bundle: a variance as second input, where it reads one; without it the noise is the border's.
        options: which rows and columns of a catalog, and how.
        changes: single fields of the options by name, for example `where="flags = 0"`.

    Raises:
        InputError: no such format, a missing extra, nothing that can be exported; says what to do.
    """
    source, chosen = text_of(source), with_changes(ExportOptions, options, changes, "the options of export")
    kind = _kind(source)
    to = to or named_format(kind, out)
    if to not in FORMATS[kind]:
        if kind == "bundle" and to in FORMATS["catalog"]:
            _refuse_nothing(source, to)
        raise InputError(f"a {kind} is exported to {', '.join(FORMATS[kind])}, not to {to!r}")
    if out is not None:
        refuse_other_ending(to, out)
    refuse_useless(kind, to, chosen)
    if kind != "bundle" and not variance:
        raise InputError(f"--no-variance would do nothing for a {kind}: leave it away")
    if kind == "bundle":
        return _bundle(source, to, out, variance)
    if out is None:
        raise InputError(f"where shall the {to} of the {kind} go? Give --out")
    if kind == "survey":
        return write_survey(Survey.open(source), to, text_of(out), chosen)
    return write_catalog(source, to, text_of(out), chosen)


def _kind(source: str) -> str:
    for kind, name in (("catalog", "schema.json"), ("survey", "zarr.json")):
        if storage.path_of(source) == source and storage.exists(storage.join(storage.absolute(source), name)):
            return kind
    return "bundle"


def _refuse_nothing(source: str, to: str) -> None:
    """InputError where there is no bundle either."""
    try:
        ModelBundle.load(source)
    except InputError as error:
        raise InputError(
            f"there is no catalog or survey at {storage.redact(source)}, of which {to} is written: give the --out "
            f"folder of an infer run, or of ingest"
        ) from error


def _bundle(source: str, to: str, out: Place | None, variance: bool) -> ExportResult:
    model = ModelBundle.load(source)
    url = storage.absolute(out or f"{model.name}.{to}")
    made = onnx_file(model, variance=variance)
    made.write(url)
    return ExportResult(url, len(made.content), made.description.to_json(), made.differences)


def show(result: ExportResult) -> str:
    """The outcome for a terminal: where it is, and what is in it or not."""
    if result.description:
        return _show_bundle(result)
    lines = [f"{result.rows} {result.of} written to {result.out}", *result.notes]
    if result.hats is not None:
        lines[0] += f", {result.hats.partitions} partitions"
        if result.hats.joined is not None:
            joined = result.hats.joined
            lines.append(
                f"{joined.matched} rows have their id in the primary catalogue, {joined.strangers} have not; "
                f"{joined.without} of its rows get nulls; load it by {result.hats.properties}"
            )
    return "\n".join(lines)


def _show_bundle(result: ExportResult) -> str:
    told = result.description
    inputs, outputs = (
        ", ".join(f"{port['name']} {_shape(port)}" for port in told[key]) for key in ("inputs", "outputs")
    )
    gap = max(result.differences.values())
    lines = [f"exported {told['name']} to {result.out}, {result.bytes / 1e6:.1f} MB; ONNX Runtime agrees to {gap:.1g}"]
    lines += [f"in: {inputs}", f"out: {outputs}"]
    return "\n".join(lines)


def _shape(port: dict[str, Any]) -> str:
    return f"({', '.join(map(str, port['shape']))})"
