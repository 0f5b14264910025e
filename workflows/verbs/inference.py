"""The verb that measures a whole survey."""

from __future__ import annotations

import argparse
import sys

from workflows.progress import Reporter
from workflows.verbs.arguments import Verb, call, settings
from workflows.verbs.options import DONE, SOME_FAILED, finish
from workflows.verbs.pages import page_line
from workflows.verbs.readers import batch, shard


def _infer(options: argparse.Namespace) -> int:
    if options.dry_run:
        return _dry_run(options)
    with Reporter() as report:
        result = call(options, progress=report)
    for sentence in result.changed_tables:
        print(f"warning: {sentence}", file=sys.stderr)
    for sentence in result.notes:
        print(f"note: {sentence}", file=sys.stderr)
    if result.unplaced:
        warn = f"warning: {result.unplaced} objects are on no tile or have no usable position; see the view `unplaced`"
        print(warn, file=sys.stderr)
    if result.damaged:
        warn = (
            f"warning: {result.damaged} files of units done before were damaged: they are in {result.catalog}/damaged"
        )
        print(f"{warn}, and their units were done again", file=sys.stderr)
    if result.warning:
        print(f"warning: {result.warning}", file=sys.stderr)
    if result.units_failed:
        print(_why_failed(result.catalog), file=sys.stderr)
    rate = result.rows / result.seconds if result.seconds else 0.0
    line = (
        f"{result.rows} rows in {result.units_done} units ({result.units_skipped} done before, {result.units_failed} "
        f"failed) at {result.catalog} in {result.seconds:.1f} s, {rate:,.0f} objects/s"
    )
    if options.report:
        line += page_line(options, result.catalog)
    return finish(options, result, line, SOME_FAILED if result.units_failed else DONE)


def _dry_run(options: argparse.Namespace) -> int:
    from workflows.infer import dry_run

    planned = dry_run(**{name: value for name, value in settings(options).items() if name != "out"})
    line = (
        f"{planned.units} units, {planned.bytes / 1e9:.2f} GB to read,"
        f" about {planned.memory / 1e9:.2f} GB of memory "
        f"per worker; nothing was written"
    )
    for sentence in planned.notes:
        print(f"note: {sentence}", file=sys.stderr)
    if planned.detecting:
        line += f"; how many objects there are is known when {planned.detecting} has found them"
    return finish(options, planned, line)


def _why_failed(catalog: str) -> str:
    """One failed unit's reason, and where the others are."""
    from astroml_plugin.catalog import Catalog

    first = Catalog.open(catalog).failures().slice(0, 1).to_pylist()
    example = f", for example {first[0]['unit']}: {' '.join(first[0]['reason'].split())}" if first else ""
    return f"warning: units failed{example}; see the view `failures`, the same command tries them again"


def _add_modes(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--dry-run", action="store_true", help="print units, bytes and memory, write nothing")
    verb.add_argument("--report", action="store_true", help="leave a page about the catalog in it (report.html)")


VERBS = {
    "infer": Verb(
        _infer,
        "workflows.infer:infer",
        "Measure every object and write the catalog; run again to resume.",
        "survey.zarr --bundle bundles/shapes --objects objects.parquet --out catalog",
        flags={
            "table": "--objects",
            "format": "--objects-format",
            "assumed_psf_fwhm": "--assume-psf-fwhm",
            "compiling": "--compile",
            "label_maps": "--no-labels",
        },
        changed={
            "bundle": {"action": "append", "nargs": None},
            "batch": {"type": batch, "metavar": "N"},
            "memory": {"help": "GB of pixels that a worker holds at once"},
            "shard": {"type": shard, "metavar": "I/N", "help": "do every N-th unit; auto in an array job"},
        },
        add=_add_modes,
    ),
}
