"""The verbs that make models and judge them."""

from __future__ import annotations

import argparse

from workflows.progress import Reporter
from workflows.verbs.arguments import Verb, call
from workflows.verbs.options import DONE, complain, finish
from workflows.verbs.pages import add_no_report, page_line


def _train(options: argparse.Namespace) -> int:
    with Reporter() as report:
        result = call(options, progress=report)
    for note in result.notes:
        complain(f"note: {note}", DONE)
    line = f"trained {result.bundle} in {result.epochs} epochs, {result.seconds:.0f} s"
    return finish(options, result, "\n".join(filter(None, (line, result.convergence))))


def _search(options: argparse.Namespace) -> int:
    with Reporter() as report:
        result = call(options, log="ray", progress=report.search)
    counts = ", ".join(f"{count} {name}" for name, count in result.statuses.items() if count)
    what = result.bundle or f"no bundle yet (left open), recipe {result.study}/best.toml"
    own = "" if result.baseline is None else f" (the recipe's own values: {result.baseline:.5g})"
    line = f"searched {result.trials} trials ({counts}); best is trial {result.best}, {result.value:.5g}{own}: {what}"
    return finish(options, result, f"{line}, {result.seconds:.0f} s{page_line(options, result.study)}")


def _evaluate(options: argparse.Namespace) -> int:
    from workflows.evaluate import show

    result = call(options)
    for note in result.notes:
        complain(f"note: {note}", DONE)
    return finish(options, result, show(result) + page_line(options, result.out))


def _calibrate_response(options: argparse.Namespace) -> int:
    with Reporter() as report:
        result = call(options, progress=report.images)
    used = result.report.get("images") or sum(result.report["pairs"])
    line = f"response of {result.bundle.name} fitted on {used} {result.report['from']}: {result.bundle.url}"
    line += f", {result.seconds:.0f} s; the mean response of such galaxies is known to {result.precision:.2%}"
    return finish(options, {"bundle": result.bundle.url, **result.report}, line)


def _fit_typicality(options: argparse.Namespace) -> int:
    bundle = call(options)
    told = bundle.card.training["typicality"]
    line = f"bundle {bundle.name} knows what is typical, in {len(told['views'])} views: {bundle.url}"
    return finish(options, {"bundle": bundle.url, **told}, line)


def _adapt(options: argparse.Namespace) -> int:
    with Reporter() as report:
        bundle = call(options, progress=report)
    told = bundle.card.training["adapted"]
    line = f"bundle {bundle.name} is {told['name']} adapted to {told['objects']} stamps: {bundle.url}"
    before, after = told["loss_before"], bundle.card.metrics["validation"]["loss"]
    line += (
        f"\nloss on labelled stamps of the validation side {before:.4g} before, {after:.4g} now: a little more is usual"
    )
    return finish(options, {"bundle": bundle.url, **told}, line)


def _fit_reference(options: argparse.Namespace) -> int:
    bundle = call(options)
    told = {name: len(bundle.card.training["reference"][name]) for name in ("inputs", "outputs")}
    line = f"bundle {bundle.called} keeps {told['inputs']} inputs and {told['outputs']} outputs: {bundle.url}"
    return finish(options, {"bundle": bundle.url, **told}, line)


def _compare(options: argparse.Namespace) -> int:
    with Reporter() as report:
        result = call(options, progress=report)
    line = f"compared {len(result.table)} methods on {result.objects} objects into {result.out}"
    line += f", {result.left_out}" if result.left_out else ""
    return finish(options, result, f"{result.text}{line}{page_line(options, result.out)}")


def _learning_curve(options: argparse.Namespace) -> int:
    with Reporter() as report:
        result = call(options, progress=report)
    return finish(options, result, "\n".join(result.answers.values()))


def _dream(options: argparse.Namespace) -> int:
    from workflows.dream import show

    with Reporter() as report:
        result = call(options, progress=report)
    return finish(options, result, show(result))


def _export(options: argparse.Namespace) -> int:
    from workflows.export import show

    result = call(options)
    return finish(options, result, show(result))


_LABELS = {"format": "--labels-format"}
_LABELLING = "astroml_plugin.cutting.labels:LabelTable"

VERBS = {
    "train": Verb(
        _train,
        "workflows.train:train",
        "Train a recipe on stamps with labels, or on a survey and a table.",
        "ellipticity --data sky/stamps.zarr --out bundles/shapes",
        more=(_LABELLING,),
        flags={"from_bundle": "--from", **_LABELS},
        changed={"labels": {"nargs": "+"}},
    ),
    "search": Verb(
        _search,
        "workflows.search:search",
        "Search hyperparameters with Ray Tune; run again to resume.",
        "ellipticity --data sky/stamps.zarr --out study --trials 50",
        more=("astroml_plugin.search.settings:SearchSettings",),
        flags={"objectives": "--objective"},
        changed={
            "objectives": {"action": "append", "type": str, "metavar": "NAME[:min|:max]"},
            "warm_start": {"action": "append", "nargs": None, "metavar": "STUDY"},
        },
        hidden={"space": "the table [search.space] of the recipe"},
        add=add_no_report,
    ),
    "evaluate": Verb(
        _evaluate,
        "workflows.evaluate:evaluate",
        "Measure how good a bundle is on labelled stamps.",
        "test.zarr --bundle bundles/shapes --out report",
        more=(_LABELLING,),
        flags=_LABELS,
        changed={"labels": {"nargs": "+"}},
        add=add_no_report,
    ),
    "calibrate-response": Verb(
        _calibrate_response,
        "workflows.calibrate_response:calibrate_response",
        "Fit the shear response of an ellipticity bundle to your galaxies, no truth needed.",
        "ellipticity --data stamps.zarr --out my-shapes",
        flags={"method": "--from"},
        changed={"out": {"required": True, "help": "folder of the new bundle"}},
    ),
    "adapt": Verb(
        _adapt,
        "workflows.adapt:adapt",
        "Adapt a classifier to a survey that nobody labelled.",
        "objects --data detections.zarr --unlabelled night.zarr --out objects-night",
    ),
    "fit-typicality": Verb(
        _fit_typicality,
        "workflows.fit_typicality:fit_typicality",
        "Let a bundle say which objects are unlike its training set.",
        "my-bundle --data training.zarr",
    ),
    "fit-reference": Verb(
        _fit_reference,
        "workflows.fit_reference:fit_reference",
        "Let a bundle keep what its training looked like, for the section Drift of a report.",
        "my-bundle --data training.zarr",
    ),
    "compare": Verb(
        _compare,
        "workflows.compare:compare",
        "Networks and classical methods on the same folds.",
        "classify --data galaxies.zarr --out comparison --folds 5",
        changed={"bundle": {"action": "append", "nargs": None}},
        add=add_no_report,
    ),
    "learning-curve": Verb(
        _learning_curve,
        "workflows.learning_curve:learning_curve",
        "How many labels does a target need?",
        "classify --data galaxies.zarr --out curve --target 0.9",
    ),
    "dream": Verb(
        _dream,
        "workflows.dream:dream",
        "Pictures of what a network would like to see: its numbers, its filters, and its feature maps.",
        "lens --data sky/stamps.zarr --out dreams",
    ),
    "export": Verb(
        _export,
        "workflows.export:export",
        "A bundle as ONNX; a catalog as HATS, VOTable, FITS, Parquet, MOC or regions; a survey's tiles.",
        "lens --to onnx --out lens.onnx",
    ),
}
