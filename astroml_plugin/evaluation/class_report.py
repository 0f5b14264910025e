"""Report of `evaluate` on class probabilities: scores, reliability, thresholds and what they give, corrected counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64, Bool
from astroml_plugin.evaluation import bootstrap, calibration, class_figures, class_metrics, ranking_metrics
from astroml_plugin.evaluation.ranking_metrics import Ranked
from astroml_plugin.evaluation.thresholds import RARE, ThresholdCurve
from astroml_plugin.sources.labels import label_texts, numbers

PURITIES = (0.5, 0.8, 0.9, 0.95, 0.99)
"""Purities that the table of thresholds asks for."""

COMPLETENESS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Completeness at which the purity is quoted."""

_BINS = 5
_FEWEST = 20


@dataclass(frozen=True)
class Search:
    """A search for one class, which an evaluation reports on."""

    positive: str = ""
    """The class; empty for none."""
    bins: tuple[str, ...] = ()
    """Label columns that its objects are binned by."""
    kind: str = ""
    """Label column with the kinds of the other objects."""


def assess(
    probabilities: F64,
    true: I64,
    classes: Sequence[str],
    *,
    search: Search,
    table: pa.Table,
    prior: F64 | None = None,
    labels: I64 | None = None,
    repeats: int = 500,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything about classes that exclude each other.

    Args:
        probabilities: (n, class), NaN for objects that could not be measured.
        true: (n,) class numbers.
        classes: their names.
        search: the class that is looked for.
        table: labels of the n objects.
        prior: (class,) fractions of the survey for which the probabilities hold: objects then count so that the sample
            has these fractions. None: as they are.
        labels: (n,) numbers of the classes that the objects are called; the most probable ones if not given.
        repeats: bootstrap samples.

    Returns:
        Plain JSON, and file stem -> figure.
    """
    good = np.asarray(np.isfinite(probabilities).all(axis=1))
    p, t, kept = probabilities[good], true[good], table.filter(pa.array(good))
    if not len(p):
        raise InputError(f"none of the {len(good)} objects could be measured: nothing to assess")
    weight = None if prior is None else _survey_weights(t, prior)
    counts = np.bincount(t, minlength=len(classes))
    probable, confidence = p.argmax(1), p.max(1)
    chosen = probable if labels is None else labels[good]
    matrix = class_metrics.confusion(t, chosen, len(classes))
    result: dict[str, Any] = {
        "classes": list(classes),
        "count": len(p),
        "failures": int((~good).sum()),
        "examples": {name: int(count) for name, count in zip(classes, counts)},
        "prior": None if prior is None else {name: float(value) for name, value in zip(classes, prior)},
        "scores": class_metrics.classification(p, t, repeats, weight=weight, labels=chosen),
        "confusion": matrix.tolist(),
        "reliability": calibration.reliability(confidence, probable == t, class_metrics.BINS, weight),
        "per_class": {
            name: _one_class(p[:, number], t == number, chosen == number, repeats)
            for number, name in enumerate(classes)
            if 0 < counts[number] < len(t)
        },
    }
    if (counts > 1).all():
        result["class_fractions"] = halves(t, chosen, classes)
    if search.positive and search.positive in result["per_class"]:
        number = list(classes).index(search.positive)
        result["search"] = _searched(p[:, number], t == number, search, kept, weight, repeats)
    return result, class_figures.figures(result)


def _survey_weights(true: I64, prior: F64) -> F64:
    """(n,) of mean 1: how much each object counts so that classes have the fractions of the survey."""
    share = np.bincount(true, minlength=len(prior)) / len(true)
    weight = np.divide(prior, share, out=np.zeros_like(prior), where=share > 0)[true]
    return np.asarray(weight / weight.mean())


def _one_class(p: F64, positive: Bool, chosen: Bool, repeats: int) -> dict[str, Any]:
    """One class against the rest: figures with 95 % intervals, and the curve that thresholds are chosen from."""
    ranked = Ranked(p, positive)
    cells = 2 * positive.astype(np.int64) + chosen

    def figures(rows: I64, drawn: Ranked) -> dict[str, float]:
        (_, wrong), (missed, both) = np.bincount(cells[rows], minlength=4).reshape(2, 2)
        return {
            "precision": both / (both + wrong) if both + wrong else np.nan,
            "recall": both / (both + missed),
            "f1": 2 * both / (2 * both + wrong + missed),
            "auroc": drawn.auroc(),
            "average_precision": drawn.average_precision(),
        }

    draws = bootstrap.stratified_draws(ranked.strata, repeats)
    samples = (figures(rows, ranked.resampled(rows)) for rows in draws)
    found = bootstrap.intervals(figures(np.arange(len(p)), ranked), samples)
    counts = {"precision": float(chosen.sum()), "recall": float(positive.sum()), "f1": float((chosen | positive).sum())}
    return {
        **found,
        **{name: calibration.widened(found[name], count) for name, count in counts.items()},
        "confusion": class_metrics.confusion(~positive, ~chosen, 2).tolist(),
        "curve": ThresholdCurve.of(p, positive).to_json(),
    }


def halves(true: I64, chosen: I64, classes: Sequence[str]) -> dict[str, Any]:
    """A test of the correction: fractions of one half from its labels and the confusion matrix of the other.

    Returns:
        As `calibration.class_fractions`, with `true`; empty where a half lacks a class.
    """
    order = np.random.default_rng(0).permutation(len(true))
    first, second = order[::2], order[1::2]
    matrix = class_metrics.confusion(true[first], chosen[first], len(classes))
    try:
        found = calibration.class_fractions(np.bincount(chosen[second], minlength=len(classes)), matrix)
    except InputError:
        return {}
    return {**found, "true": (np.bincount(true[second], minlength=len(classes)) / len(second)).tolist()}


def _searched(
    p: F64, positive: Bool, search: Search, table: pa.Table, weight: F64 | None, repeats: int
) -> dict[str, Any]:
    """Figures of the search for one class: ranking, thresholds, bins and kinds."""
    curve, said = ThresholdCurve.of(p, positive), calibration.reliability(p, positive, class_metrics.BINS, weight)
    draws = bootstrap.stratified_draws(Ranked(p, positive).strata, repeats)
    ranked_first = [ranking_metrics.rank_weighted_score(p[rows], positive[rows]) for rows in draws]
    found = {
        "class": search.positive,
        **ranking_metrics.ranking(p, positive, repeats),
        "reliability": said,
        "ece": class_metrics.binary_ece(p, positive, repeats, weight=weight),
        "rank_weighted_score": bootstrap.interval(ranking_metrics.rank_weighted_score(p, positive), ranked_first),
        "thresholds": thresholds(curve),
        "purity_at_completeness": purities(curve),
    }
    if search.bins:
        found["bins"] = {name: _binned(p, positive, table, name) for name in search.bins}
    if search.kind:
        kinds = label_texts(table, search.kind)
        named = sorted({str(kind) for kind in kinds[~positive] if kind is not None})
        found["kinds"] = {
            kind: ranking_metrics.ranking(p[chosen], positive[chosen], repeats)
            for kind in named
            if (chosen := positive | (kinds == kind))[~positive].sum() >= _FEWEST
        }
    return found


def thresholds(curve: ThresholdCurve, fractions: Sequence[float] = RARE) -> list[dict[str, Any]]:
    """The lowest threshold for each of `PURITIES` at the sample's class fraction and at rare ones.

    Where no threshold reaches the purity, the highest purity that there is (`reached` is false).
    """
    rows = []
    for prior in (None, *fractions):
        purity = curve.purity(prior)
        for wanted in PURITIES:
            enough = np.flatnonzero(purity >= wanted)
            index = int(enough[-1]) if len(enough) else int(np.argmax(purity))
            choice = curve.at(float(curve.threshold[index]), prior)
            rows.append({"wanted": wanted, "reached": bool(len(enough)), **vars(choice)})
    return rows


def purities(curve: ThresholdCurve, fractions: Sequence[float] = RARE) -> list[dict[str, Any]]:
    """Threshold and expected purity at each of `COMPLETENESS`, for rare class fractions."""
    rows = []
    for wanted in COMPLETENESS:
        index = int(np.searchsorted(curve.completeness, wanted - 1e-12))
        threshold = float(curve.threshold[min(index, len(curve.threshold) - 1)])
        expected = [curve.at(threshold, prior) for prior in fractions]
        first = expected[0]
        row: dict[str, Any] = {"threshold": threshold}
        for name in ("completeness", "false_positive_rate"):
            row |= {key: getattr(first, key) for key in (name, f"{name}_low", f"{name}_high")}
        for name in ("purity", "purity_low", "purity_high"):
            row[name] = {f"{prior:g}": getattr(point, name) for prior, point in zip(fractions, expected)}
        rows.append(row)
    return rows


def _binned(p: F64, positive: Bool, table: pa.Table, name: str) -> list[dict[str, Any]]:
    """AUROC and rates of positives in bins of equal numbers of a label, each against all negatives."""
    value = numbers(table, [name])[:, 0].astype(np.float64)
    edges = np.unique(np.nanquantile(value[positive], np.linspace(0, 1, _BINS + 1)))
    rows = []
    for number, (low, high) in enumerate(pairwise(edges.tolist())):
        last = number == len(edges) - 2
        inside = positive & (value >= low) & ((value <= high) if last else (value < high))
        if inside.sum() >= _FEWEST:
            chosen = inside | ~positive
            found = ranking_metrics.ranking(p[chosen], positive[chosen], 200)
            rows.append({"low": low, "high": high, **found})
    return rows


def assess_independent(
    probabilities: F64, targets: F64, classes: Sequence[str], repeats: int = 500
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything about classes that do not exclude each other.

    Args:
        probabilities: (n, class), NaN for objects that could not be measured.
        targets: (n, class) 0 to 1, NaN where unknown.
        classes: their names.
        repeats: bootstrap samples.

    Returns:
        Plain JSON, and file stem -> figure.
    """
    good = np.asarray(np.isfinite(probabilities).all(axis=1))
    p, t = probabilities[good], np.asarray(targets, np.float64)[good]
    if not len(p):
        raise InputError(f"none of the {len(good)} objects could be measured: nothing to assess")
    known = ~np.isnan(t)
    per_class, examples = {}, {}
    for number, name in enumerate(classes):
        rows = known[:, number]
        positive, said = t[rows, number] > 0.5, p[rows, number]
        examples[name] = {"with": int(positive.sum()), "without": int((~positive).sum())}
        if positive.any() and not positive.all():
            per_class[name] = {
                **_one_class(said, positive, said >= 0.5, repeats),
                "reliability": calibration.reliability(said, positive, class_metrics.BINS),
            }
    result = {
        "classes": list(classes),
        "multi_label": True,
        "count": len(p),
        "failures": int((~good).sum()),
        "examples": examples,
        "scores": class_metrics.multi_label(p, t, repeats),
        "reliability": calibration.reliability(p[known], t[known] > 0.5, class_metrics.BINS),
        "per_class": per_class,
    }
    return result, class_figures.figures(result)


def compared(
    outputs: Mapping[int, F64], true: I64, seconds: Mapping[int, float], repeats: int = 500
) -> list[dict[str, Any]]:
    """Cost and gain of averaging over symmetries.

    Args:
        outputs: number of symmetries -> probabilities (n, class) of the same objects; one of them 1.
        true: (n,) class numbers.
        seconds: number of symmetries -> time that the forwards of these objects took.
        repeats: bootstrap samples, the same for all.

    Returns:
        One row per number: objects_per_second, cost (time over that without averaging), every figure of
        `class_metrics.classification`, and its gain over no averaging with the 95 % interval of paired samples.
    """
    drawn = [np.arange(len(true)), *bootstrap.draws(len(true), repeats)]
    figures = {
        count: [_plain(class_metrics.classification(p[rows], true[rows], 0)) for rows in drawn]
        for count, p in outputs.items()
    }
    plain, *plain_samples = figures[1]
    table = []
    for count, (whole, *samples) in figures.items():
        row: dict[str, Any] = {"symmetries": count, "objects_per_second": len(true) / seconds[count]}
        row |= {"cost": seconds[count] / seconds[1], **whole}
        table.append(row | bootstrap.gains(whole, samples, plain, plain_samples))
    return table


def _plain(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {name: figure["value"] for name, figure in figures.items()}
