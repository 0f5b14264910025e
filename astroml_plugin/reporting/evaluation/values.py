"""Residuals and pulls of numbers, shapes by signal-to-noise, and rankings of anomalies, of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from astroml_plugin.reporting.charts import Axis, Bars, Chart, Line, Points, Series
from astroml_plugin.reporting.evaluation.subject import EvaluationSubject
from astroml_plugin.reporting.figures import cell, intervals, is_figure
from astroml_plugin.reporting.pages import Block, Missing, Section, Table
from astroml_plugin.reporting.words import label

RESIDUALS, SHAPES, RANKINGS, ROBUST = "Residuals and pulls", "Ellipticities", "Rankings", "With errors of the input"
_COLUMNS = 12
_STATISTICS = (("rmse", "RMSE per component"), ("slope", "slope of (e − true)"), ("offset", "offset at true e = 0"))
_COVERED = (("coverage_683", "68.3 % interval", 0.683), ("coverage_95", "95 % interval", 0.95))


def residuals(subject: EvaluationSubject) -> Section | Missing | None:
    """Errors of columns that have a truth, in bins of the truth, and their pulls."""
    columns = subject.catalog.get("columns")
    if not isinstance(columns, Mapping) or not columns:
        return None
    charts: list[Block] = []
    for name, found in list(columns.items())[:_COLUMNS]:
        charts += _of_column(str(name), found)
    figures = sorted({key for found in columns.values() for key, value in found.items() if is_figure(value)})
    rows = [
        [str(name), cell(found.get("count")), cell(found.get("failures")), *(cell(found.get(key)) for key in figures)]
        for name, found in columns.items()
    ]
    text = (
        "Measured minus true. The band holds the central 68.3 % of the objects in each bin of the true "
        "value. A pull is the "
        "residual over the error that the catalog states: honest errors follow the unit Gaussian."
    )
    if not charts:
        text += " This evaluation was made by an older version, which kept no residuals: evaluate again to see them."
    head = ("column", "objects", "failures", *(key.replace("_", " ") for key in figures))
    table = Table(head, rows, "Figures of merit, with 95 % intervals")
    return Section(
        RESIDUALS, text, [*charts, table], "pull_half_width is 1 and coverage_683 is 0.683 where errors are honest."
    )


def _of_column(name: str, found: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    bins = found.get("residual_bins")
    if isinstance(bins, Mapping) and bins.get("truth"):
        x, middle, low, high = (np.array(bins[key], float) for key in ("truth", "median", "low", "high"))
        zero = Line(x[[0, -1]], np.zeros(2), colour="#5d6d7e", dashed=True, width=1)
        line = Line(x, middle, "median, central 68.3 %", low, high)
        blocks.append(
            Chart(
                f"{name}: residuals",
                Axis(f"true {name}"),
                Axis("measured − true"),
                [zero, line, Points(x, middle)],
                legend=False,
            )
        )
    pulls = found.get("pulls")
    if isinstance(pulls, Mapping) and pulls.get("edges"):
        edges, density = np.array(pulls["edges"], float), np.array(pulls["density"], float)
        middle, width = (edges[1:] + edges[:-1]) / 2, float(edges[1] - edges[0])
        gauss = Line(middle, np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi), "unit Gaussian", colour="#b03a2e")
        bars = Bars(middle, density, "found", width=width)
        blocks.append(Chart(f"{name}: pulls", Axis("(measured − true) / error"), Axis("density"), [bars, gauss]))
    return blocks


def shapes(subject: EvaluationSubject) -> Section | Missing | None:
    """Accuracy of ellipticities by signal-to-noise and size, beside other methods; honest errors; shear biases."""
    found = subject.catalog
    if "all" not in found:
        return None
    blocks: list[Block] = []
    for bins, text in (("snr_bins", "signal to noise"), ("size_bins", "half-light radius [arcsec]")):
        if found.get(bins):
            blocks += _accuracy(found, bins, text)
    if found.get("snr_bins"):
        blocks.append(_coverage(found["snr_bins"]))
    drawn = found.get("residuals")
    if isinstance(drawn, Mapping):
        blocks += [block for name, values in drawn.items() for block in _of_column(str(name), values)]
    rows = [
        [key.replace("_", " "), cell(value)] for key, value in found["all"].items() if not key.endswith("_interval")
    ]
    blocks.append(Table(("figure", "component 1, component 2"), rows, "All objects"))
    shear = found.get("shear")
    if isinstance(shear, Mapping) and shear:
        cells = [[name, *(f"{cell(value)} ± {cell(error)}" for value, error in pair)] for name, pair in shear.items()]
        blocks.append(
            Table(
                ("bias", "component 1", "component 2"),
                cells,
                "Shear: multiplicative (m), additive (c), PSF leakage (alpha)",
            )
        )
    return Section(
        SHAPES, "Measured minus true ellipticity. Error bars are central 68 % intervals of bootstrap samples.", blocks
    )


def _accuracy(found: Mapping[str, Any], bins: str, text: str) -> list[Block]:
    names = list(found[bins])
    charts: list[Block] = []
    for statistic, what in _STATISTICS:
        series: list[Series] = []
        methods = {"network": found[bins]}
        methods |= {str(m): one.get("successes", {}).get(bins, {}) for m, one in found.get("baselines", {}).items()}
        for place, (method, values) in enumerate(methods.items()):
            x = np.arange(len(names), dtype=np.float64) + 0.07 * (place - (len(methods) - 1) / 2)
            series.append(Points(x, *_means(values, names, statistic, method), size=8))
        zero = (
            []
            if statistic == "rmse"
            else [Line(np.array([-0.4, len(names) - 0.6]), np.zeros(2), colour="#5d6d7e", width=1)]
        )
        charts.append(Chart(f"{what} by {text}", Axis(text, ticks=names), Axis(what), [*zero, *series]))
    return charts


def _means(values: Mapping[str, Any], names: list[str], statistic: str, method: str) -> tuple[Any, str, Any, Any]:
    """Means over both components per bin, the name, and the ends of their intervals."""
    rows = []
    for name in names:
        one = values.get(name, {})
        if statistic not in one or f"{statistic}_interval" not in one:
            rows.append([np.nan] * 3)
            continue
        value, ends = np.array(one[statistic], float), np.array(one[f"{statistic}_interval"], float)
        middle = float(np.sqrt((value**2).mean()) if statistic == "rmse" else value.mean())
        half = float(np.sqrt(((ends[:, 1] - ends[:, 0]) ** 2).sum()) / (2 * len(value)))
        rows.append([middle, middle - half, middle + half])
    array = np.array(rows, float).reshape(-1, 3)
    return array[:, 0], method, array[:, 1], array[:, 2]


def _coverage(bins: Mapping[str, Any]) -> Chart:
    names = list(bins)
    series: list[Series] = []
    ends = np.array([-0.4, len(names) - 0.6])
    for name, text, wanted in _COVERED:
        series.append(Points(np.arange(len(names), dtype=float), *_means(bins, names, name, text), size=8))
        series.append(Line(ends, np.full(2, wanted), colour="#5d6d7e", dashed=True, width=1))
    return Chart(
        "Part of the objects inside the stated intervals",
        Axis("signal to noise", ticks=names),
        Axis("part", limits=(0.4, 1.02)),
        series,
    )


def rankings(subject: EvaluationSubject) -> Section | Missing | None:
    """How well anomalies are ranked, beside other searches."""
    found = subject.catalog.get("rankings")
    if not isinstance(found, Mapping) or not found:
        return None
    blocks: list[Block] = []
    figures = [key for key, value in next(iter(found.values())).items() if is_figure(value)]
    for figure in figures[:3]:
        named = {str(name): one[figure] for name, one in found.items() if is_figure(one.get(figure))}
        blocks.append(intervals(figure.replace("_", " "), figure.replace("_", " "), named))
    rows = [[str(name), *(cell(one.get(key)) for key in figures)] for name, one in found.items()]
    blocks.append(Table(("ranking", *figures), rows, "Rankings, ours first"))
    kinds = subject.catalog.get("by_kind")
    if isinstance(kinds, Mapping) and kinds:
        cells = [[str(kind), *(cell(one.get(key)) for key in figures)] for kind, one in kinds.items()]
        blocks.append(Table(("kind", *figures), cells, "The score on each kind of anomaly"))
    anomalies, objects = subject.catalog.get("anomalies"), subject.catalog.get("objects")
    return Section(RANKINGS, f"{cell(anomalies)} anomalies among {cell(objects)} objects; 95 % intervals.", blocks)


def robustness(subject: EvaluationSubject) -> Section | Missing | None:
    """Effect of errors of PSF model, background and noise."""
    found = subject.catalog.get("perturbed")
    if not isinstance(found, Mapping) or not found:
        return None
    rows = []
    for name, one in found.items():
        for key, value in one.items():
            if key == "shear" and isinstance(value, Mapping):
                rows += [[label(name, 60), f"{key} {part}", _pairs(pair)] for part, pair in value.items()]
            elif isinstance(value, Mapping):
                told = ", ".join(f"{figure.replace('_', ' ')} {cell(v)}" for figure, v in value.items() if is_figure(v))
                rows.append([label(name, 60), str(key), told])
            else:
                rows.append([label(name, 60), key.replace("_", " "), _pairs(value)])
    text = "The same objects measured again with one error of the input; docs/evaluate.md says what the figures mean."
    return Section(ROBUST, text, [Table(("error", "figure", "value"), rows, "Effects", folded=len(rows) > 20)])


def _pairs(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "; ".join(f"{cell(one[0])} ± {cell(one[1])}" for one in value)
    return cell(value)
