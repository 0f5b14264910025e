"""The next commands: what to look at when a long verb has ended."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable
from typing import Any

Words = tuple[str, ...]
Next = Callable[[argparse.Namespace, Any], Words | tuple[Words, ...]]


def what_next(options: argparse.Namespace, result: Any) -> list[str]:
    """Commands that go on from here, the first one to look at first; none where there is none."""
    found = NEXT.get(options.verb, _nothing)(options, result)
    several = [one for one in found if isinstance(one, tuple)]
    commands = several or [tuple(str(word) for word in found)]
    return [shlex.join(["astroml-plugin", *map(_short, words)]) for words in commands if words]


def _short(word: str) -> str:
    """A path below the working folder as people type it."""
    here = os.getcwd() + os.sep
    return word.removeprefix(here) if word.startswith(here) and word != here else word


def _nothing(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    return ()


def _ingest(options: argparse.Namespace, result: Any) -> tuple[Words, ...]:
    look = ("report", result.source)
    if result.kind == "stamps":
        return look, ("info", result.source)
    return look, _find(result.source)


def _find(survey: str) -> Words:
    """The command that finds the objects of a survey, or the one that it needs before."""
    from astroml_plugin.core.errors import AstromlError
    from astroml_plugin.reporting.survey.finding import find_objects
    from astroml_plugin.sources.survey import Survey

    try:
        halo = Survey.open(survey).halo
    except (AstromlError, OSError):
        halo = None
    return find_objects(survey, halo)


def _simulate(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    if result.source.endswith("survey.zarr"):
        return _find(result.source)
    return "info", result.source


def _train(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    return "evaluate", "TEST.zarr", "--bundle", result.bundle, "--out", "report"


def _search(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    if result.bundle:
        return "evaluate", "TEST.zarr", "--bundle", result.bundle, "--out", "report"
    return ()


def _evaluate(options: argparse.Namespace, result: Any) -> tuple[Words, ...]:
    measure = "infer", "SURVEY.zarr", "--bundle", str(options.bundle), "--objects", "TABLE", "--out", "catalog"
    return (("report", result.out), measure) if options.no_report else ((*measure, "--report"),)


def _calibrate_response(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    return "infer", "SURVEY.zarr", "--bundle", result["bundle"], "--objects", "TABLE", "--out", "catalog"


def _infer(options: argparse.Namespace, result: Any) -> Words | tuple[Words, ...]:
    from astroml_plugin.catalog import Catalog

    if not hasattr(result, "catalog"):
        return ()  # nothing was written
    if result.units_failed:
        sql = "SELECT reason, count(*) AS units FROM failures GROUP BY reason"
        return "query", result.catalog, sql
    if result.rows + result.units_skipped == 0 and result.unplaced:
        return "query", result.catalog, "SELECT reason, count(*) AS objects FROM unplaced GROUP BY reason"
    names = Catalog.open(result.catalog).schema.names
    scores = [name for name in names if name.endswith("anomaly_score") or name.endswith("p_lens")]
    further = ("rank", result.catalog, "--score", scores[0]) if scores else ("query", result.catalog)
    return further if options.report else (("report", result.catalog), further)


def _class_statistics(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    found = [one.sql for one in result.selections if one.sql]
    return ("query", result.catalog, f"SELECT * FROM catalog WHERE {found[0]}") if found else ()  # noqa: S608


def _rank(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    return "label", str(options.catalog)


def _annotate(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    join = f"SELECT * FROM catalog JOIN {result.name} USING (object_id, tile) LIMIT 20"  # noqa: S608
    return "query", result.catalog, join


def _label(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    return ("rank", str(options.catalog), "--learn") if result["scored"] else ()


def _verify(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    damaged = result.damages and not all(one.mended for one in result.damages)
    return ("verify", str(options.catalog), "--repair") if damaged and not options.repair else ()


def _explain(options: argparse.Namespace, result: Any) -> tuple[Words, ...]:
    join = f"SELECT * FROM catalog JOIN {result.name} USING (object_id, tile) ORDER BY rank LIMIT 20"  # noqa: S608
    return ("report", result.catalog), ("query", result.catalog, join)


def _show(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    if result.objects is None:
        return _find(str(options.path))
    return "report", str(options.path)


def _export(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    if result.description:
        return "evaluate", "TEST.zarr", "--bundle", str(options.source), "--out", "report"
    return ("show" if result.of == "tiles" else "report"), str(options.source)


def _learning_curve(options: argparse.Namespace, result: Any) -> tuple[str, ...]:
    return "train", str(options.recipe), "--data", *map(str, options.data), "--out", "bundle"


NEXT: dict[str, Next] = {
    "ingest": _ingest,
    "simulate": _simulate,
    "generate": lambda options, result: ("info", result.source),
    "cutouts": lambda options, result: ("info", result.out) if result.kind == "stamps" else (),
    "compare": lambda options, result: ("report", result.out),
    "train": _train,
    "search": _search,
    "evaluate": _evaluate,
    "calibrate-response": lambda options, result: (
        "infer",
        "SURVEY.zarr",
        "--bundle",
        result["bundle"],
        "--out",
        "catalog",
    ),
    "infer": _infer,
    "class-statistics": _class_statistics,
    "rank": _rank,
    "annotate": _annotate,
    "cluster": lambda options, result: ("report", result.catalog),
    "label": _label,
    "explain": _explain,
    "dream": lambda options, result: ("explain", "CATALOG", "--bundle", str(options.bundle)),
    "show": _show,
    "export": _export,
    "shear": lambda options, result: ("report", str(options.catalog)),
    "learning-curve": _learning_curve,
    "verify": _verify,
    "compact": lambda options, result: ("verify", str(options.catalog)),
}
"""Verb -> words of the command that goes on from its result."""
