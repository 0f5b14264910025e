"""Scalar scores that methods are compared by, on the same objects, for tasks of any kind; their table and picture."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import I64, Columns
from astroml_plugin.evaluation.bootstrap import row_intervals
from astroml_plugin.evaluation.figures import blank_figure
from astroml_plugin.evaluation.value_metrics import residual_statistics


@dataclass(frozen=True)
class Score:
    """A scalar score, and how it is read."""

    name: str
    """Key of the score in JSON files and tables."""
    rising: bool = False
    """Whether higher is better: perfect is 1 then, else 0."""
    bounded: bool = False
    """Whether it lies between 0 and 1."""

    def error(self, value: Any) -> Any:
        """From score to error, and from error to score."""
        return 1 - value if self.rising else value


Scorer = Callable[[I64], float]
"""A score of some rows of a method's predictions."""


@dataclass(frozen=True)
class Comparison:
    """One method's line in the table of a comparison."""

    figures: dict[str, Any]
    """Name -> value, low, high, and plain JSON of other kinds; enters `compare.json`."""
    shown: tuple[str, ...]
    """Figures in the columns of the table, in order."""
    drawn: tuple[str, ...]
    """Figures in the panels of the picture."""
    form: str = ".3f"
    """Format of numbers in the table."""


RESIDUALS = ("rmse", "nmad", "outlier_fraction")
"""Scores of a column with a truth, the main one first."""


def value_scores(columns: Iterable[str]) -> tuple[Score, ...]:
    """Scores of tasks that measure numbers; of several columns each score has the column's name behind it."""
    return tuple(Score(label, bounded=kind == "outlier_fraction") for label, (kind, _) in _labelled(columns).items())


def value_scorer(score: str, columns: Columns, truth: Columns) -> Scorer:
    """A score of `value_scores` as a function of rows."""
    kind, name = _labelled(truth)[score]
    difference = np.asarray(columns[name], np.float64) - np.asarray(truth[name], np.float64)
    return lambda rows: residual_statistics(difference[rows])[kind]


def _labelled(columns: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Score -> its kind and its column."""
    names = list(columns)
    return {kind if len(names) == 1 else f"{kind}_{name}": (kind, name) for kind in RESIDUALS for name in names}


def scored(scores: Sequence[Score], scorer: Callable[[str], Scorer], count: int, repeats: int) -> Comparison:
    """Every score of `count` objects with its 95 % interval from bootstrap samples.

    Args:
        scores: those there are.
        scorer: gives the function of each.
        count: objects.
        repeats: bootstrap samples.
    """
    functions = {score.name: scorer(score.name) for score in scores}
    figures = row_intervals(lambda rows: {name: function(rows) for name, function in functions.items()}, count, repeats)
    return Comparison(figures, tuple(functions), tuple(functions)[:3], ".4g")


def chosen_score(scores: Sequence[Score], name: str | None) -> Score:
    """A score by name; the main one, the first, for None.

    Raises:
        InputError: there is none of that name.
    """
    for score in scores:
        if name in (None, score.name):
            return score
    raise InputError(f"no metric {name!r} for a learning curve: there are {', '.join(score.name for score in scores)}")


# ---- table and picture -------------------------------------------------------------------------------------------


def markdown(table: Sequence[dict[str, Any]], names: Sequence[str], form: str) -> str:
    """A Markdown table of records, one per method: the named figures with 95 % intervals, in a format, and times."""
    heads = ["method", *(name.replace("_", " ") for name in names), "training s", "objects/s"]
    lines = [heads, ["---", *("---:" for _ in heads[1:])]]
    for record in table:
        spent = record["train_seconds"]
        timing = ["" if spent is None else f"{spent:.1f}", f"{record['objects_per_second']:,.0f}"]
        lines.append([record["method"], *(_cell(record[name], form) for name in names), *timing])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths)] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def _cell(value: dict[str, float], form: str) -> str:
    shown = f"{value['value']:{form}}"
    return f"{shown} ({value['low']:{form}}-{value['high']:{form}})" if "low" in value else shown


def figure(table: Sequence[dict[str, Any]], names: Sequence[str], networks: Container[str]) -> Any:
    """Methods against the named figures, with their intervals; the best method on top, networks in red."""
    drawing, (panels,) = blank_figure(11, 1.4 + 0.28 * len(table), ncols=len(names), sharey=True)
    places = np.arange(len(table))[::-1]
    colours = ["#c0392b" if record["method"] in networks else "#1b4f72" for record in table]
    for panel, name in zip(panels, names):
        values = np.array([[record[name][key] for key in ("low", "value", "high")] for record in table])
        for place, (low, value, high), colour in zip(places, values, colours):
            panel.plot([low, high], [place, place], color=colour, linewidth=1.5)
            panel.plot(value, place, "o", color=colour, markersize=5)
        panel.set(xlabel=name.replace("_", " "))
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(places, [record["method"] for record in table])
    drawing.suptitle("95 % intervals of the same objects; networks in red", fontsize=9)
    return drawing
