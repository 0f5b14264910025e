"""Scalar scores that methods are compared by, on the same objects, for tasks of any kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import I64, Columns
from astroml_plugin.evaluation.bootstrap import row_intervals
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
