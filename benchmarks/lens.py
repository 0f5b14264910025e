"""What the shipped `lens` can do, against classical methods on the same pixels. Fresh seeds, one run.

python -m benchmarks --only lens           # writes the section of RESULTS.md (two cores: under an hour)
python -m benchmarks.lens --quick          # prints it, from a fiftieth of the stamps

Negatives are simulated, scored and forgotten, so that a hundred thousand of them need no disk; what remains of a draw
(scores, features, truth) is kept below ASTROML_BENCH.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from astroml_plugin.cutouts import from_stamps
from astroml_plugin.evaluation import class_metrics, ranking_metrics
from astroml_plugin.evaluation.baselines import classical, features
from astroml_plugin.simulation import LensSet
from astroml_plugin.simulation.lenses import HARD, easy_features
from astroml_plugin.tasks.base import Task
from astroml_plugin.training import measure_labelled as evaluation
from astroml_plugin.training.bundle import ModelBundle
from benchmarks.harness import Section, kept_arrays
from tests.pages import table

SEEDS = (950, 951, 952, 953, 954)
"""One draw of negatives each. Of 900 and above: never trained or tuned on."""
POSITIVES = 960
BASELINES = 450
"""What the classical methods learn from; not one of the seeds that are quoted."""
METHODS = ("random_forest", "gradient_boosting", "gabor_svm", "edges_logistic", "simple_forest")
EASY = "three_numbers"
"""A random forest on total flux, centre-to-annulus colour and asymmetry: how easy the set is."""
THETA_E = (0.7, 1.0, 1.4, 2.0)
ARC_SNR = (20.0, 50.0, 100.0, 200.0, 1e9)
FRACTIONS = (1e-3, 1e-4)
"""Lenses among galaxies, at which purity is quoted."""
TARGETS = {"auroc": 0.98, "tpr0": 0.25, "tpr10": 0.50}
"""What issue 4 asks for."""
_PARTS = ("features", "gabor", "edges", "simple")
_VERSION = 1
_KEPT = ("kind", "theta_e", "arc_snr", "source_mag", "magnification")


@dataclass(frozen=True)
class Scale:
    """How much is simulated."""

    negatives: int = 20_000
    """Of a draw."""
    positives: int = 10_000
    learned: int = 12_288
    """Stamps for the classical methods, one sixth of them for their calibration."""
    draws: int = 5
    block: int = 500
    processes: int = 2


QUICK = Scale(negatives=400, positives=400, learned=1_200, draws=2, block=100)


@dataclass(frozen=True)
class Sample:
    """What is kept of simulated stamps."""

    scores: dict[str, np.ndarray]
    """Method -> (n,). Of the network ln(p_lens / p_other), which ranks like p_lens and does not saturate."""
    probability: np.ndarray
    """(n,) p_lens of the network."""
    labels: dict[str, np.ndarray]
    """Label column -> (n,)."""


Judges = dict[str, Callable[[dict[str, np.ndarray]], np.ndarray]]
"""Method -> a function from features (n, columns) by kind to scores (n,)."""


def run(scale: Scale | None = None) -> Section:
    """All figures; the section says what they were measured on."""
    scale = scale or Scale()
    bundle = bundle_url()
    model = ModelBundle.load(bundle)
    with ProcessPoolExecutor(scale.processes, mp_context=get_context("spawn")) as pool:
        judges = _classical(_joined(_blocks(_set(BASELINES, scale.learned, 0.5, scale), bundle, pool)))
        positives = _sample(_set(POSITIVES, scale.positives, 1.0, scale), bundle, pool, judges)
        sets = [_set(seed, scale.negatives, 0.0, scale) for seed in SEEDS[: scale.draws]]
        draws = [_sample(one, bundle, pool, judges) for one in sets]
    found = {name: (values, [draw.scores[name] for draw in draws]) for name, values in positives.scores.items()}
    parts = [_challenge(found), _hard(found, draws), _kinds(found, draws), _bins(found, positives)]
    parts += [_calibration(positives, draws, found)]
    hard = float(np.mean(np.isin(draws[0].labels["kind"], HARD)))
    head = (
        f"Bundle `{model.name}` ({model.sha256[:12]}) on the preset `lenses`: {scale.positives:,} lenses (seed "
        f"{POSITIVES}) and {scale.draws} independent draws of {scale.negatives:,} negatives (seeds {SEEDS[0]} to "
        f"{SEEDS[scale.draws - 1]}), {hard:.0%} of them hard. Nothing was trained or tuned on these seeds. Classical "
        f"methods learned from {scale.learned:,} other stamps and see the same pixels. TPR0 and TPR10: mean ± scatter "
        "of one draw; the other figures: all draws together, with 95 % bootstrap intervals."
    )
    text = "\n\n".join([head, *(part for part, _ in parts)])
    data: dict[str, Any] = {"scale": vars(scale), "targets": TARGETS, "bundle": model.sha256}
    for _, more in parts:
        data |= more
    return Section("Strong lenses", text, data)


def bundle_url() -> str:
    """The bundle to measure: ASTROML_BENCH_BUNDLE, else the shipped `lens`."""
    return os.environ.get("ASTROML_BENCH_BUNDLE", "lens")


# ---- simulate, score, forget -------------------------------------------------------------------------------------


def _set(seed: int, count: int, fraction: float, scale: Scale) -> LensSet:
    return LensSet(count, seed=seed, block=min(scale.block, count), lens_fraction=fraction, variance=False)


def _blocks(stamps: LensSet, bundle: str, pool: Executor) -> Iterator[dict[str, np.ndarray]]:
    """The blocks of a set, simulated and scored in several processes, in order."""
    return pool.map(_block, [stamps] * stamps.blocks, range(stamps.blocks), [bundle] * stamps.blocks)


def _sample(stamps: LensSet, bundle: str, pool: Executor, judges: Judges) -> Sample:
    """Scores and truth of a set, block by block; kept for the next run."""
    model = ModelBundle.load(bundle)
    text = f"{_VERSION} {classical.VERSION} {sorted(judges)} {model.sha256} {stamps}"
    values = kept_arrays(
        f"lens-{stamps.seed}-{hashlib.sha256(text.encode()).hexdigest()[:16]}",
        lambda: _joined(_judged(block, judges) for block in _blocks(stamps, bundle, pool)),
    )
    named = {
        kind: {name.partition(" ")[2]: value for name, value in values.items() if name.startswith(kind)}
        for kind in ("score", "label")
    }
    return Sample(named["score"], values["probability"], named["label"])


def _judged(block: dict[str, np.ndarray], judges: Judges) -> dict[str, np.ndarray]:
    """The block with scores instead of features."""
    inputs = {name.partition(" ")[2]: value for name, value in block.items() if name.startswith("input")}
    kept = {name: value for name, value in block.items() if not name.startswith("input")}
    return kept | {f"score {name}": judge(inputs) for name, judge in judges.items()}


def _block(stamps: LensSet, index: int, bundle: str) -> dict[str, np.ndarray]:
    """One block simulated and scored."""
    torch.set_num_threads(1)
    task, network = _model(bundle)
    made = stamps.make(index)
    camera = stamps.camera
    unit = (camera.zero_point,) * len(camera.bands)
    cutouts = from_stamps(made.image, None, None, bands=camera.bands, pixel_scale=camera.pixel_scale, zero_points=unit)
    found = evaluation.columns(task, network, cutouts)
    lens, other = (np.maximum(found[f"p_{name}"].astype(np.float64), 1e-300) for name in ("lens", "other"))
    values = {"score network": np.log(lens / other), "probability": lens}
    values |= {f"input {kind}": features.INPUTS[kind](cutouts).values for kind in _PARTS}
    values[f"input {EASY}"] = easy_features(made.image, stamps.camera.pixel_scale)
    return values | {f"label {name}": _plain(made.table[name]) for name in ("class", *_KEPT)}


@lru_cache(maxsize=1)
def _model(bundle: str) -> tuple[Task, nn.Module]:
    model = ModelBundle.load(bundle)
    return model.task(), model.network(fused=True)


def _plain(column: pa.ChunkedArray) -> np.ndarray:
    values = column.to_numpy()
    return values.astype(str) if values.dtype == object else values


def _joined(blocks: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    parts = list(blocks)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# ---- classical methods -------------------------------------------------------------------------------------------


def _classical(learned: dict[str, np.ndarray]) -> Judges:
    """Methods fitted to stamps of another seed."""
    inputs = {name.partition(" ")[2]: value for name, value in learned.items() if name.startswith("input")}
    target = (learned["label class"] == "lens").astype(np.int64)
    held = np.arange(len(target)) % 6 == 0
    train, validation = ({kind: value[part] for kind, value in inputs.items()} for part in (~held, held))
    judges: Judges = {}
    for name in METHODS:
        fitted = classical.Classifier(name, train, target[~held], validation, target[held], classes=2)
        judges[name] = _judge(fitted)
    judges[EASY] = _three_numbers(inputs[EASY], target)
    return judges


def _judge(fitted: classical.Classifier) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    return lambda inputs: fitted.probabilities(inputs)[:, 1]


def _three_numbers(values: np.ndarray, target: np.ndarray) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(300, min_samples_leaf=3, random_state=0).fit(values, target)
    return lambda inputs: forest.predict_proba(inputs[EASY])[:, 1]


# ---- figures -----------------------------------------------------------------------------------------------------

Found = dict[str, tuple[np.ndarray, list[np.ndarray]]]
"""Method -> scores of the positives, scores of each draw of negatives."""


def _challenge(found: Found) -> tuple[str, dict[str, Any]]:
    """The table of the strong-lens challenge, with all negatives."""
    rows, data = [["asked for", ">= 0.98", ">= 0.25", ">= 0.50", "", "", ""]], {}
    for name, (positives, draws) in found.items():
        data[name] = _figures(positives, draws)
        rows.append([name, *_cells(data[name])])
    head = ["method", "AUROC", "TPR0", "TPR10", "TPR at FPR 1e-3", "TPR at FPR 1e-4", "negatives"]
    return "### As in the strong-lens challenge\n\n" + table(head, rows), {"challenge": data}


def _hard(found: Found, draws: list[Sample]) -> tuple[str, dict[str, Any]]:
    """The same with hard negatives alone."""
    chosen = [np.isin(draw.labels["kind"], HARD) for draw in draws]
    least = min(int(mask.sum()) for mask in chosen)
    rows, data = [], {}
    for name, (positives, values) in found.items():
        data[name] = _figures(positives, [value[mask][:least] for value, mask in zip(values, chosen)])
        rows.append([name, *_cells(data[name])])
    head = ["hard negatives alone", "AUROC", "TPR0", "TPR10", "TPR at FPR 1e-3", "TPR at FPR 1e-4", "negatives"]
    return f"### Hard negatives alone ({', '.join(HARD)})\n\n" + table(head, rows), {"hard": data}


def _figures(positives: np.ndarray, draws: list[np.ndarray]) -> dict[str, Any]:
    score = np.concatenate([positives, *draws])
    truth = np.arange(len(score)) < len(positives)
    return {
        "ranking": ranking_metrics.ranking(score, truth, repeats=200),
        "draws": ranking_metrics.tpr_draws(draws, positives),
    }


def _cells(figures: dict[str, Any]) -> list[str]:
    ranking, draws = figures["ranking"], figures["draws"]
    first = [_interval(ranking["auroc"], 4)]
    middle = [f"{draws[name]['mean']:.3f} ± {draws[name]['scatter']:.3f}" for name in ("tpr0", "tpr10")]
    last = [_interval(ranking[name], 3) for name in ("tpr_fpr_1e-3", "tpr_fpr_1e-4")]
    return [*first, *middle, *last, f"{len(draws['tpr0']['draws'])} x {draws['negatives']:,}"]


def _interval(figure: dict[str, float], digits: int) -> str:
    return f"{figure['value']:.{digits}f} ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"


def _kinds(found: Found, draws: list[Sample]) -> tuple[str, dict[str, Any]]:
    """Against each kind of negative, and who the highest negatives are."""
    kinds = np.concatenate([draw.labels["kind"] for draw in draws])
    tops = {name: _first(np.concatenate(values), 20 * len(draws)) for name, (_, values) in found.items()}
    rows, data = [], {}
    for kind in sorted(set(kinds.tolist()), key=lambda one: (one not in HARD, one)):
        cells, mask = [], kinds == kind
        for name, (positives, values) in found.items():
            negative = np.concatenate(values)[mask]
            score = np.concatenate([positives, negative])
            area = ranking_metrics.auroc(score, np.arange(len(score)) < len(positives))
            data[f"{kind}/{name}"] = area
            cells.append(f"{area:.3f}")
        data[f"{kind}/share"], data[f"{kind}/top"] = float(mask.mean()), float(np.mean(kinds[tops["network"]] == kind))
        hard = " (hard)" if kind in HARD else ""
        rows.append([kind + hard, f"{mask.mean():.0%}", *cells, f"{data[f'{kind}/top']:.0%}"])
    head = ["AUROC against", "share", *found, "of the network's 20 highest per draw"]
    return "### Kinds of negatives\n\n" + table(head, rows), {"kinds": data}


def _first(values: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-values, kind="stable")[:count]


def _bins(found: Found, positives: Sample) -> tuple[str, dict[str, Any]]:
    """Lenses of some Einstein radii and arc S/N against all negatives."""
    texts, data = [], {}
    for name, edges in (("theta_e", THETA_E), ("arc_snr", ARC_SNR)):
        rows = []
        for low, high in pairwise(edges):
            mask = (positives.labels[name] >= low) & (positives.labels[name] < high)
            if mask.sum() < 20:
                continue
            label = f"{low:g}-{high:g}" if high < 1e9 else f"{low:g} and more"
            cells = []
            for method in ("network", "random_forest"):
                values, draws = found[method]
                figures = _figures(values[mask], draws)
                data[f"{name} {label}/{method}"] = figures
                cells += _cells(figures)[:3]
            rows.append([label, f"{mask.sum():,}", *cells])
        arms = [f"{what} {method}" for method in ("network", "random forest") for what in ("AUROC", "TPR0", "TPR10")]
        texts.append(table([name, "lenses", *arms], rows))
    return "### Einstein radius (arcsec) and S/N of the arcs\n\n" + "\n\n".join(texts), {"bins": data}


def _calibration(positives: Sample, draws: list[Sample], found: Found) -> tuple[str, dict[str, Any]]:
    """How far probabilities can be taken at their word, and the purity of a survey's candidates."""
    count = min(len(positives.probability), len(draws[0].probability))
    p = np.concatenate([positives.probability[:count], draws[0].probability[:count]])
    truth = np.repeat([1, 0], count)
    classes = class_metrics.classification(np.stack([1 - p, p], axis=1), truth, repeats=200)
    names = ("accuracy", "ece", "brier", "nll")
    first = table(["half lenses, half others", *names], [["network", *(_interval(classes[name], 4) for name in names)]])
    values, negatives = found["network"][0], np.concatenate(found["network"][1])
    rows, purity = [], {}
    for completeness in (0.25, 0.5, 0.75):
        threshold = np.quantile(values, 1 - completeness)
        rate = float(np.mean(negatives >= threshold))
        for fraction in FRACTIONS:
            purity[f"{completeness}/{fraction}"] = (
                fraction * completeness / (fraction * completeness + (1 - fraction) * rate)
            )
        cells = [f"{purity[f'{completeness}/{fraction}']:.1%}" for fraction in FRACTIONS]
        rows.append([f"{completeness:.0%}", f"{rate:.2e}", *cells])
    second = table(["lenses found", "FPR", *(f"purity at {fraction:g} lenses" for fraction in FRACTIONS)], rows)
    note = "Purity is that among such negatives, more than half of them hard; a survey's galaxies are mostly plainer."
    return f"### Calibration and purity\n\n{first}\n\n{second}\n\n{note}", {"calibration": classes, "purity": purity}


def main() -> None:
    """Print the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the stamps")
    options = parser.parse_args()
    print(run(QUICK if options.quick else Scale()).text)


if __name__ == "__main__":
    main()
