"""The verb that measures a whole survey."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from workflows.progress import Reporter
from workflows.verbs.options import (
    DONE,
    SOME_FAILED,
    Verb,
    add_cluster,
    add_run_options,
    batch,
    chosen,
    finish,
    gigabytes,
    quiet,
    run_options,
    shard,
    toml,
)


def _infer(options: argparse.Namespace) -> int:
    if options.print_config:
        print((Path(__file__).parents[1] / "infer.toml").read_text(), end="")
        return DONE
    from workflows.infer import dry_run, infer

    source, out, settings = _settings(options)
    if options.dry_run:
        planned = dry_run(source, **settings)
        line = (
            f"{planned.units} units, {planned.bytes / 1e9:.2f} GB to read,"
            f" about {planned.memory / 1e9:.2f} GB of memory "
            f"per worker; nothing was written"
        )
        if planned.detecting:
            line += f"; how many objects there are is known when {planned.detecting} has found them"
        return finish(options, planned, line)
    with quiet(), Reporter() as report:
        result = infer(source, out=out, progress=report, **settings)
    if result.unplaced:
        warn = f"warning: {result.unplaced} objects are on no tile or have no usable position; see the view `unplaced`"
        print(warn, file=sys.stderr)
    if result.units_failed:
        print(_why_failed(result.catalog), file=sys.stderr)
    rate = result.rows / result.seconds if result.seconds else 0.0
    line = (
        f"{result.rows} rows in {result.units_done} units ({result.units_skipped} done before, {result.units_failed} "
        f"failed) at {result.catalog} in {result.seconds:.1f} s, {rate:,.0f} objects/s"
    )
    return finish(options, result, line, SOME_FAILED if result.units_failed else DONE)


def _settings(options: argparse.Namespace) -> tuple[str, str, dict[str, Any]]:
    """Source, output and keywords of `infer`: what the command line says over what the file of --config says."""
    from astroml_plugin.core.settings import from_mapping, with_changes
    from astroml_plugin.inference.options import InferConfig, ObjectTable, run_choices

    config = from_mapping(InferConfig, options.config or {}, "the file of --config")
    source, bundle, out = options.source or config.source, options.bundle or config.bundle, options.out or config.out
    for name, value in (("SOURCE", source), ("--bundle", bundle), ("--out", out)):
        if not value:
            options.refuse(f"{name} is required, here or in the file of --config")
    given = config.objects if isinstance(config.objects, ObjectTable) else ObjectTable(table=config.objects)
    read = chosen(options, "columns", "frame", "pixel_origin", objects="table", objects_format="format")
    changes = chosen(options, "band", "precision", assume_psf_fwhm="assumed_psf_fwhm", labels="label_maps")
    changes |= chosen(options, "scheduler", "workers", "threads", "device", "batch", "compiling", "memory", "shard")
    changes |= chosen(options, "unit_timeout", "pixel_scale_tolerance")
    changes |= {"options": {**config.measure.options, **run_options(options)}}
    measure, execution = run_choices(config.measure, config.execution, changes)
    objects = with_changes(ObjectTable, given, read, "[objects]")
    return source, out, {"bundle": bundle, "objects": objects, "measure": measure, "execution": execution}


def _why_failed(catalog: str) -> str:
    """One failed unit's reason, and where the others are."""
    from astroml_plugin.catalog import Catalog

    first = Catalog.open(catalog).failures().slice(0, 1).to_pylist()
    example = f", for example {first[0]['unit']}: {' '.join(first[0]['reason'].split())}" if first else ""
    return f"warning: units failed{example}; see the view `failures`, the same command tries them again"


def _add_infer(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("source", nargs="?", metavar="SOURCE", help="a Survey or Stamps")
    verb.add_argument("--bundle", action="append", metavar="BUNDLE", help="path, URL or name; repeatable")
    verb.add_argument("--out", metavar="CATALOG", help="folder of the catalog")
    verb.add_argument("--config", type=toml, metavar="TOML", help="a file with any of these options")
    verb.add_argument("--print-config", action="store_true", help="print such a file, with all options and defaults")
    verb.add_argument("--objects", metavar="TABLE", help="what to measure in a Survey, unless a bundle finds it")
    verb.add_argument("--objects-format", choices=["parquet", "csv", "fits", "votable", "sextractor"])
    verb.add_argument("--columns", metavar="K=COLUMN,…", help="as object_id=NUMBER,ra=ALPHA_J2000 (#row: row number)")
    verb.add_argument(
        "--frame", choices=["icrs", "galactic", "pixel"], help="of the positions (default: by column names)"
    )
    verb.add_argument("--pixel-origin", type=int, choices=[0, 1], help="of pixel positions (0; *_IMAGE names imply 1)")
    verb.add_argument("--band", help="band for bundles that take any single one")
    verb.add_argument(
        "--pixel-scale-tolerance", type=float, metavar="F", help="accept this relative difference of scale"
    )
    verb.add_argument(
        "--assume-psf-fwhm",
        type=float,
        metavar="ARCSEC",
        help="a Gaussian PSF for objects that have none (flag NO_PSF)",
    )
    add_run_options(verb)
    verb.add_argument(
        "--batch", type=batch, metavar="N", help="stamps per forward (auto: 128 on a CPU, on CUDA what memory holds)"
    )
    verb.add_argument("--device", help="torch device (default: CUDA where there is one)")
    verb.add_argument("--precision", choices=["float32", "auto"], help="auto: half precision on CUDA; changes rows")
    verb.add_argument(
        "--compile",
        dest="compiling",
        choices=["auto", "always", "never"],
        help="networks by torch.compile (auto: in long runs on CUDA)",
    )
    verb.add_argument(
        "--no-labels", dest="labels", action="store_false", default=None, help="no label maps of objects that are found"
    )
    verb.add_argument("--shard", type=shard, metavar="I/N", help="every N-th unit, for array jobs")
    verb.add_argument(
        "--memory",
        type=gigabytes,
        metavar="GB",
        help="pixels that a worker holds at once (default: half of what is free)",
    )
    verb.add_argument("--unit-timeout", type=float, metavar="S", help="a unit hangs after so long (3600; 0: never)")
    verb.add_argument("--dry-run", action="store_true", help="print units, bytes and memory, write nothing")
    add_cluster(verb)
    verb.set_defaults(refuse=verb.error)


VERBS: dict[str, Verb] = {
    "infer": (
        _infer,
        "Measure every object and write the catalog; run again to resume.",
        "survey.zarr --bundle bundles/shapes --objects objects.parquet --out catalog",
        _add_infer,
    ),
}
