"""Calibration, confusion, and purity and completeness, of the class probabilities of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from astroml_plugin.evaluation.thresholds import RARE, ThresholdCurve
from astroml_plugin.reporting.charts import Axis, Bars, Chart, Grid, Line, Points, Series
from astroml_plugin.reporting.evaluation.subject import EvaluationSubject
from astroml_plugin.reporting.figures import cell
from astroml_plugin.reporting.pages import Block, Missing, Section, Table
from astroml_plugin.reporting.words import label, many, number

CONFUSION, CALIBRATION, BUDGET, CURVES = (
    "Confusion",
    "Calibration",
    "Purity and completeness at a budget",
    "Each class against the rest",
)
_SIDE = 30
_CURVES = 8
_POINTS = 160
_BUDGETS = (10, 100, 1000, 10_000, 100_000)


def confusion(subject: EvaluationSubject) -> Section | Missing | None:
    """Which classes are taken for which."""
    found = subject.catalog
    if "confusion" not in found:
        return None if "per_class" not in found else Missing(CONFUSION, "the classes do not exclude each other")
    counts, names = np.array(found["confusion"], float), [str(name) for name in found["classes"]]
    order = np.argsort(-counts.sum(1), kind="stable")[:_SIDE]
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown = share[np.ix_(order, order)]
    words = [[f"{100 * value:.0f} %" for value in row] for row in shown.tolist()] if len(order) <= 14 else ()
    ticks = [label(names[k], 20) for k in order]
    figure = Chart(
        "Part of each true class that is given each label",
        Axis("label", ticks=ticks),
        Axis("true class", ticks=ticks),
        [Grid(shown, words, "part of the true class", (0.0, 1.0))],
        max(320, 110 + 26 * len(ticks)),
        half=False,
    )
    wrong = counts - np.diag(np.diag(counts))
    worst = [divmod(int(place), len(names)) for place in np.argsort(-wrong, axis=None)[:12] if wrong.flat[place] > 0]
    rows = [[names[a], names[b], f"{int(counts[a, b]):,}", f"{100 * share[a, b]:.1f} %"] for a, b in worst]
    text = f"Rows are true classes, columns are labels; every row sums to 1. {many(int(counts.sum()), 'object')}."
    if len(names) > len(order):
        text += f" The {len(order)} most frequent of {len(names):,} classes are drawn."
    head = ("true class", "taken for", "objects", "part of the class")
    return Section(CONFUSION, text, [figure, Table(head, rows, "Most frequent confusions")])


def calibration(subject: EvaluationSubject) -> Section | Missing | None:
    """Whether probabilities can be taken at their word."""
    found = subject.catalog
    if "reliability" not in found:
        return None if "per_class" not in found else Missing(CALIBRATION, "the evaluation has no reliability")
    said = "probability of each class" if found.get("multi_label") else "probability of the most probable class"
    blocks: list[Block] = [*_reliability(found["reliability"], said)]
    search = found.get("search")
    if isinstance(search, Mapping) and "reliability" in search:
        blocks += _reliability(search["reliability"], f"probability of {search['class']}")
    ece = found.get("scores", {}).get("ece")
    text = (
        "Of the objects that are given a probability p, the part p should be right: points on the line. "
        "Error bars are 95 % "
        "intervals. Points below the line: the model is too sure."
    )
    if ece is not None:
        text += f" Expected calibration error: {cell(ece)}."
    return Section(
        CALIBRATION, text, blocks, "An interval that does not hold the line is a miscalibrated bin: see `recalibrate`."
    )


def _reliability(bins: Mapping[str, Any], said: str) -> list[Block]:
    x, y, low, high = (np.array(bins[name], float) for name in ("said", "found", "found_low", "found_high"))
    edges = [np.array(bins[name], float) for name in ("low", "high")]
    perfect = Line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "as it should be", dashed=True, colour="#5d6d7e")
    points = Points(x, y, "found", low, high, size=8)
    ends = (-0.02, 1.02)
    diagram = Chart(
        f"Reliability: {said}", Axis(said, limits=ends), Axis("part that is", limits=ends), [perfect, points], 380
    )
    width = float(np.median(edges[1] - edges[0])) if len(x) else 0.1
    bars = Bars((edges[0] + edges[1]) / 2, np.maximum(np.array(bins["count"], float), 0.5), width=width)
    return [
        diagram,
        Chart(
            "Objects by what was said", Axis(said, limits=ends), Axis("objects", log=True), [bars], 380, legend=False
        ),
    ]


def _curves(subject: EvaluationSubject) -> dict[str, ThresholdCurve]:
    """Class -> curve: the class that is searched for, else the first classes."""
    found = subject.catalog.get("per_class")
    if not isinstance(found, Mapping):
        return {}
    search = subject.catalog.get("search")
    names = [search["class"]] if isinstance(search, Mapping) and search.get("class") in found else list(found)[:_CURVES]
    return {name: ThresholdCurve.from_json(found[name]["curve"]) for name in names}


def budget(subject: EvaluationSubject) -> Section | Missing | None:
    """Purity and completeness of a look at the most probable objects of a million."""
    curves = _curves(subject)
    if not curves:
        return None
    charts: list[Block] = []
    rows: list[list[str]] = []
    searched = "search" in subject.catalog
    for name, curve in curves.items():
        share = curve.positives / (curve.positives + curve.negatives)
        priors = (share, *RARE) if searched else (share,)
        lines: list[Series] = []
        for prior in priors:
            looked, complete, pure = _at_budgets(curve, prior)
            told = f"fraction {prior:.3g}" + (" (this sample)" if prior == share else "")
            lines.append(Line(looked, pure, f"purity, {told}"))
            lines.append(Line(looked, complete, f"completeness, {told}", dashed=True))
            rows += [[name, f"{prior:.3g}", *row] for row in _rows(looked, complete, pure)]
        charts.append(
            Chart(
                f"{name}: purity and completeness",
                Axis("objects looked at, of a million", log=True),
                Axis("part", limits=(0, 1.02)),
                lines,
                360,
                half=not searched,
            )
        )
    text = (
        "Take the most probable objects first. Purity is the part of those looked at that are of the class, "
        "completeness the part "
        "of the class that is among them. Both are expected for a survey in which the class has the fraction "
        "that is said; "
        "rates below one in the number of negatives of this sample cannot be known from it and count as one."
    )
    head = ("class", "fraction", "looked at of 10⁶", "completeness", "purity")
    return Section(BUDGET, text, [*charts, Table(head, rows, "At budgets", folded=len(rows) > 16)])


def _at_budgets(curve: ThresholdCurve, prior: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    complete, rate = curve.completeness, curve.false_positive_rate
    looked = 1e6 * (prior * complete + (1 - prior) * rate)
    pure = curve.purity(prior)
    chosen = np.unique(np.linspace(0, len(looked) - 1, min(_POINTS, len(looked))).astype(int))
    return looked[chosen], complete[chosen], pure[chosen]


def _rows(looked: np.ndarray, complete: np.ndarray, pure: np.ndarray) -> list[list[str]]:
    found = []
    for wanted in _BUDGETS:
        if looked[0] <= wanted <= looked[-1]:
            place = int(np.searchsorted(looked, wanted, "right")) - 1
            found.append([f"{wanted:,}", number(float(complete[place])), number(float(pure[place]))])
    return found


def each(subject: EvaluationSubject) -> Section | Missing | None:
    """Figures of each class against the rest, and their curves."""
    per_class = subject.catalog.get("per_class")
    if not isinstance(per_class, Mapping) or not per_class:
        return None
    names = ("precision", "recall", "f1", "auroc", "average_precision")
    rows = [[str(name), *(cell(found.get(key)) for key in names)] for name, found in list(per_class.items())[:200]]
    curves = _curves(subject)
    precision: list[Series] = []
    rates: list[Series] = []
    for name, curve in curves.items():
        chosen = np.unique(np.linspace(0, len(curve.threshold) - 1, min(_POINTS, len(curve.threshold))).astype(int))
        passed = np.maximum(curve.true_positives + curve.false_positives, 1)
        precision.append(Line(curve.completeness[chosen], (curve.true_positives / passed)[chosen], name))
        rates.append(Line(curve.false_positive_rate[chosen], curve.completeness[chosen], name, step=True))
    text = "Precision (purity) and recall (completeness) in this sample, in brackets 95 % intervals."
    if len(curves) < len(per_class):
        text += f" Curves of {many(len(curves), 'class', 'classes')} of {len(per_class):,}."
    ends = (0.0, 1.02)
    blocks: list[Block] = [
        Chart("Precision against recall", Axis("recall", limits=ends), Axis("precision", limits=ends), precision, 360),
        Chart(
            "Recall against false-positive rate",
            Axis("false-positive rate", log=True),
            Axis("recall", limits=ends),
            rates,
            360,
        ),
        Table(("class", *(name.replace("_", " ") for name in names)), rows, "Classes", len(per_class) - len(rows)),
    ]
    return Section(CURVES, text, blocks)
