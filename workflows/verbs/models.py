"""The verbs that make models and judge them."""

from __future__ import annotations

import argparse

from workflows.progress import Reporter
from workflows.verbs.options import Verb, add_run_options, chosen, counts, finish, names, quiet, run_options


def _train(options: argparse.Namespace) -> int:
    from astroml_plugin.training.run import TrainExecution
    from workflows.train import train

    settings = chosen(options, "epochs", "seed", "response")
    execution = TrainExecution(**chosen(options, "device", "processes"))
    with quiet(), Reporter() as report:
        result = train(
            options.recipe, data=options.data, out=options.out, execution=execution, progress=report, **settings
        )
    return finish(options, result, f"trained {result.bundle} in {result.epochs} epochs, {result.seconds:.0f} s")


def _add_train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe", metavar="RECIPE", help="a shipped recipe or a TOML file")
    verb.add_argument("--data", required=True, nargs="+", metavar="SOURCE", help="Stamps with labels")
    verb.add_argument("--out", required=True, metavar="BUNDLE", help="folder of the trained bundle")
    verb.add_argument("--epochs", type=int, metavar="N", help="instead of the recipe's")
    verb.add_argument("--seed", type=int, metavar="S", help="instead of the recipe's")
    verb.add_argument("--device", help="torch device (default: CUDA where there is one)")
    verb.add_argument("--processes", type=int, metavar="N", help="processes here that train together (one per GPU)")
    verb.add_argument("--response", metavar="SOURCE", help="sheared pairs of simulate --pairs shear: fits r11 ... r22")


def _search(options: argparse.Namespace) -> int:
    from astroml_plugin.search.session import SearchExecution
    from workflows.search import SETTINGS, search

    execution = SearchExecution(**chosen(options, "ray_address", "device", "retrain", "leave_open", "retry_failed"))
    where = {"data": options.data, "out": options.out, "execution": execution}
    with quiet("ray"), Reporter() as report:
        result = search(options.recipe, **where, progress=report.search, **chosen(options, *SETTINGS))
    counts = ", ".join(f"{count} {name}" for name, count in result.statuses.items() if count)
    what = result.bundle or f"no bundle yet (left open), recipe {result.study}/best.toml"
    own = "" if result.baseline is None else f" (the recipe's own values: {result.baseline:.5g})"
    line = f"searched {result.trials} trials ({counts}); best is trial {result.best}, {result.value:.5g}{own}: {what}"
    return finish(options, result, f"{line}, {result.seconds:.0f} s")


def _add_search(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe", metavar="RECIPE", help="a shipped recipe or a TOML file, with [search.space]")
    verb.add_argument("--data", required=True, nargs="+", metavar="SOURCE", help="Stamps with labels")
    verb.add_argument("--out", required=True, metavar="DIR", help="folder or URL of the study")
    verb.add_argument("--algorithm", metavar="NAME", help="asha (default), random, grid, tpe, tpe-asha or pbt")
    verb.add_argument(
        "--trials", type=int, metavar="N", help="configurations (32 without another budget); pbt: members (8)"
    )
    verb.add_argument("--hours", type=float, metavar="H", help="wall time to search, earlier calls included")
    verb.add_argument("--total-epochs", type=int, metavar="N", help="epochs over all trials")
    verb.add_argument("--epochs", type=int, metavar="N", help="of one trial, at most (the recipe's)")
    verb.add_argument(
        "--objective",
        dest="objectives",
        action="append",
        metavar="NAME[:min|:max]",
        help="(validation_loss)",
    )
    verb.add_argument("--seed", type=int, metavar="S", help="of the configurations (0)")
    verb.add_argument("--grace", type=int, metavar="N", help="epochs before asha stops a trial (the warm-up)")
    verb.add_argument("--reduction", type=float, metavar="R", help="asha: one trial of R goes on at each rung (3)")
    verb.add_argument("--interval", type=int, metavar="N", help="pbt: epochs between exchanges (1)")
    verb.add_argument("--retries", type=int, metavar="N", help="further attempts of a trial whose process fails (2)")
    verb.add_argument("--cpus", type=float, metavar="N", help="cores of each process of a trial (1)")
    verb.add_argument("--gpus", type=float, metavar="N", help="GPUs of each process of a trial, also fractions (0)")
    verb.add_argument("--processes", type=int, metavar="N", help="processes that train one trial together (1)")
    verb.add_argument("--concurrent", type=int, metavar="N", help="trials at once, at most (as many as fit)")
    verb.add_argument("--ray-address", metavar="ADDRESS", help="of a running Ray cluster, or auto (else a local one)")
    verb.add_argument(
        "--no-baseline",
        dest="baseline",
        action="store_false",
        default=None,
        help="do not try the recipe's own values first",
    )
    verb.add_argument("--device", help="torch device of trials (CUDA where they have one)")
    for name, what in (
        ("--retrain", "train the winner once more instead of keeping its weights"),
        ("--leave-open", "do not measure on test, so that a larger budget can follow"),
        ("--retry-failed", "try trials again that failed in an earlier call"),
    ):
        verb.add_argument(name, action="store_true", default=None, help=what)


def _evaluate(options: argparse.Namespace) -> int:
    from workflows.evaluate import evaluate, show

    settings = chosen(options, "band", "device", "baselines", "robustness") | {"options": run_options(options)}
    with quiet():
        result = evaluate(options.source, bundle=options.bundle, out=options.out, **settings)
    return finish(options, result, show(result))


def _add_evaluate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("source", metavar="SOURCE", help="Stamps with labels")
    verb.add_argument("--bundle", required=True, metavar="BUNDLE")
    verb.add_argument("--out", required=True, metavar="DIR", help="metrics.json and figures go there")
    verb.add_argument("--band", help="band for bundles that take any single one")
    verb.add_argument(
        "--baselines", type=names, metavar="A,B,…", help="other methods on the same pixels, as hsm,moments"
    )
    verb.add_argument(
        "--no-robustness", dest="robustness", action="store_false", default=None, help="no errors of PSF and background"
    )
    add_run_options(verb)
    verb.add_argument("--device", help="torch device (default: CUDA where there is one)")


def _calibrate_response(options: argparse.Namespace) -> int:
    from workflows.calibrate_response import calibrate_response

    settings = chosen(options, "out", "band", "method", "psf_pairs", "draws", "seed")
    with quiet():
        result = calibrate_response(options.bundle, data=options.data, **settings)
    used = result.report.get("images") or sum(result.report["pairs"])
    line = f"response of {result.bundle.name} fitted on {used} {result.report['from']}: {result.bundle.url}"
    line += f", {result.seconds:.0f} s; the mean response of such galaxies is known to {result.precision:.2%}"
    return finish(options, {"bundle": result.bundle.url, **result.report}, line)


def _add_calibrate_response(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("bundle", metavar="BUNDLE", help="of ellipticities")
    verb.add_argument(
        "--data", required=True, nargs="+", metavar="SOURCE", help="Stamps: sheared pairs, or any galaxies"
    )
    verb.add_argument("--out", required=True, metavar="BUNDLE", help="folder of the new bundle")
    verb.add_argument(
        "--from",
        dest="method",
        choices=["images", "pairs"],
        help="counterfactuals of the stamps themselves, no truth needed; or simulate --pairs shear (what the data are)",
    )
    verb.add_argument("--psf-pairs", nargs="+", metavar="SOURCE", help="simulate --pairs psf: mends PSF leakage first")
    verb.add_argument("--band", metavar="NAME", help="of the data, for a bundle that takes any")
    verb.add_argument("--draws", type=int, metavar="N", help="of noise per image (1)")
    verb.add_argument("--seed", type=int, metavar="S", help="of that noise (0)")


def _compare(options: argparse.Namespace) -> int:
    from workflows.compare import compare

    settings = chosen(options, "folds", "methods", "test", "bundle", "device")
    with quiet(), Reporter() as report:
        result = compare(options.recipe, data=options.data, out=options.out, progress=report, **settings)
    line = f"compared {len(result.table)} methods on {result.objects} objects into {result.out}"
    return finish(options, result, f"{result.text}{line}")


def _add_labelled(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe", metavar="RECIPE", help="a shipped recipe or a TOML file")
    verb.add_argument("--data", required=True, nargs="+", metavar="SOURCE", help="Stamps with labels")
    verb.add_argument("--out", required=True, metavar="DIR", help="where table, figure and predictions go")
    verb.add_argument("--test", nargs="+", metavar="SOURCE", help="judge on these instead of a test side of the data")
    verb.add_argument("--device", help="torch device of networks (default: CUDA where there is one)")


def _add_compare(verb: argparse.ArgumentParser) -> None:
    _add_labelled(verb)
    verb.add_argument("--folds", type=int, metavar="K", help="cross-validation (5); 0: the recipe's own split")
    verb.add_argument("--methods", type=names, metavar="A,B,…", help="network and, for classes, classical ones (all)")
    verb.add_argument("--bundle", action="append", metavar="BUNDLE", help="judge a finished bundle as well; repeatable")


def _learning_curve(options: argparse.Namespace) -> int:
    from workflows.learning_curve import learning_curve

    settings = chosen(options, "sizes", "methods", "metric", "target", "seeds", "test", "device")
    with quiet(), Reporter() as report:
        result = learning_curve(options.recipe, data=options.data, out=options.out, progress=report, **settings)
    return finish(options, result, "\n".join(result.answers.values()))


def _add_learning_curve(verb: argparse.ArgumentParser) -> None:
    _add_labelled(verb)
    verb.add_argument("--sizes", type=counts, metavar="N,M,…", help="training objects (six, each twice the one before)")
    verb.add_argument("--methods", type=names, metavar="A,B,…", help="network (and random_forest,svm_both for classes)")
    verb.add_argument(
        "--metric",
        help="accuracy (default), balanced_accuracy, macro_f1, ece, brier, nll, auroc; rmse, nmad",
    )
    verb.add_argument("--target", type=float, metavar="X", help="value of the metric to reach (half of the best error)")
    verb.add_argument("--seeds", type=int, metavar="N", help="subsets of each size (3)")


VERBS: dict[str, Verb] = {
    "train": (
        _train,
        "Train a recipe on stamps with labels.",
        "ellipticity --data sky/stamps.zarr --out bundles/shapes",
        _add_train,
    ),
    "search": (
        _search,
        "Search hyperparameters with Ray Tune; run again to resume.",
        "ellipticity --data sky/stamps.zarr --out study --trials 50",
        _add_search,
    ),
    "evaluate": (
        _evaluate,
        "Measure how good a bundle is on labelled stamps.",
        "test.zarr --bundle bundles/shapes --out report",
        _add_evaluate,
    ),
    "calibrate-response": (
        _calibrate_response,
        "Fit the shear response of an ellipticity bundle to your galaxies, no truth needed.",
        "ellipticity --data stamps.zarr --out my-shapes",
        _add_calibrate_response,
    ),
    "compare": (
        _compare,
        "Networks and classical methods on the same folds.",
        "classify --data galaxies.zarr --out comparison --folds 5",
        _add_compare,
    ),
    "learning-curve": (
        _learning_curve,
        "How many labels does a target need?",
        "classify --data galaxies.zarr --out curve --target 0.9",
        _add_learning_curve,
    ),
}
