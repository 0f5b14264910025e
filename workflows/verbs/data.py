"""The verbs to begin with: a demonstration, and pixels brought or made."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from workflows.progress import Reporter
from workflows.verbs.arguments import Verb, call, settings
from workflows.verbs.options import DONE, SOME_FAILED, WRONG_INPUT, complain, complain_of, finish
from workflows.verbs.pages import add_no_report, page_line

if TYPE_CHECKING:
    from workflows.info import Descriptions


def _demo(options: argparse.Namespace) -> int:
    with Reporter() as report:
        result = call(options, progress=report)
    pages = "".join(page_line(options, catalog) for catalog in result.catalogs[:_PAGES])
    return finish(options, result, f"{result.summary}\n{pages}" if pages else result.summary)


def _ingest(options: argparse.Namespace) -> int:
    if options.dry_run:
        return _dry_run(options)
    with Reporter() as report:
        result = call(options, progress=report)
    what = "stamps" if result.kind == "stamps" else "tiles"
    line = (
        f"ingested {result.units_done} units ({result.units_skipped} there already), {result.rows} {what}, "
        f"{result.bytes / 1e6:.1f} MB into {result.source} in {result.seconds:.1f} s"
    )
    if result.left_out:
        left = ", ".join(result.left_out)
        complain(f"warning: arrays that do not belong to the stamps were left out: {left} (see --npz-map)", DONE)
    for warning in result.warnings:
        complain(f"warning: {warning}", DONE)
    for note in result.notes:
        complain(note, DONE)
    complain_of(result.failed)
    if result.failed and not result.units_done + result.units_skipped:
        return WRONG_INPUT
    return finish(options, result, line, SOME_FAILED if result.failed else DONE)


def _dry_run(options: argparse.Namespace) -> int:
    from workflows.ingest import dry_run

    given = {name: value for name, value in settings(options).items() if name != "out"}
    return _show(options, dry_run(**given))


def _info(options: argparse.Namespace) -> int:
    return _show(options, call(options))


def _bundles(options: argparse.Namespace) -> int:
    return _show(options, call(options))


def _show(options: argparse.Namespace, found: Descriptions) -> int:
    return finish(options, [asdict(one) for one in found], repr(found))


def _add_modes(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--dry-run", action="store_true", help="print what each plane is taken for, write nothing")


def _simulate(options: argparse.Namespace) -> int:
    with Reporter() as report:
        result = call(options, progress=report)
    complain_of(result.failures.items())
    line = f"simulated {result.rows} objects in {result.units_done} units at {result.source} in {result.seconds:.1f} s"
    return finish(options, result, line, SOME_FAILED if result.units_failed else DONE)


def _generate(options: argparse.Namespace) -> int:
    with Reporter() as report:
        result = call(options, progress=report)
    line = f"drew {result.rows} galaxies that nobody saw into {result.source} in {result.seconds:.1f} s"
    return finish(options, result, line)


def _cutouts(options: argparse.Namespace) -> int:
    with Reporter() as report:
        result = call(options, progress=report)
    for warning in result.warnings:
        complain(f"warning: {warning}", DONE)
    if result.unplaced:
        complain(f"warning: {result.unplaced} objects are on no tile: they are listed in {result.unplaced_at}", DONE)
    complain_of(result.failed)
    if result.kind == "view":
        line = (
            f"{result.rows} stamps of {result.size} x {result.size} px on {result.tiles} tiles are seen by {result.out}"
        )
        return finish(options, result, f"{line}; none is written")
    rate = result.rows / result.seconds if result.seconds else 0.0
    line = (
        f"cut {result.rows} stamps of {result.size} x {result.size} px ({result.rows_skipped} there already) from "
        f"{result.tiles} tiles into {result.out} in {result.seconds:.1f} s, {rate:,.0f} stamps/s"
    )
    return finish(options, result, line, SOME_FAILED if result.failed else DONE)


_PAGES = 6
"""Catalogs of a demonstration that get a page."""

_IN_CHANGES = "single settings of it stand in the file of --settings"

VERBS = {
    "demo": Verb(
        _demo,
        "workflows.demo.run:demo",
        "The main job on a small sky, start to end.",
        "--out demo-output",
        hidden={"size": "tests make the sky smaller"},
        add=add_no_report,
    ),
    "ingest": Verb(
        _ingest,
        "workflows.ingest:ingest",
        "FITS images into a Survey, or stamps into Stamps.",
        "g.fits r.fits i.fits --out survey.zarr --bands g,r,i",
        add=_add_modes,
    ),
    "info": Verb(
        _info,
        "workflows.info:info",
        "Show what a file, survey, stamps, bundle or catalog is.",
        "image.fits",
    ),
    "bundles": Verb(
        _bundles,
        "workflows.bundles:bundles",
        "Models at hand: what each measures, needs and gives, and when not to trust it.",
        "my-bundles",
    ),
    "simulate": Verb(
        _simulate,
        "workflows.simulate:simulate",
        "A seedable sky with truth (needs the extra sim).",
        "--out sky --kind survey --count 4 --seed 7",
        flags={"changes": "--settings"},
        hidden={"population": _IN_CHANGES, "camera": _IN_CHANGES},
    ),
    "cutouts": Verb(
        _cutouts,
        "workflows.cutouts:cutouts",
        "Stamps with PSF, variance, mask, ids and labels, cut from a survey.",
        "survey.zarr --objects objects.parquet --out stamps.zarr --size 64",
        flags={"table": "--objects", "format": "--objects-format"},
        hidden={"extend": "a second table goes into the same store as it is"},
    ),
    "generate": Verb(
        _generate,
        "workflows.generate:generate",
        "Draw galaxies that were never seen from a generator.",
        "bundles/galaxies --count 1000 --out drawn --noise 2.5",
    ),
}
