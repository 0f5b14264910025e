"""How good a task is: hooks that `evaluate`, `compare` and `learning-curve` ask, with an answer for every task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from astroml_plugin.catalog import Column
from astroml_plugin.core.typing import Columns
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation import value_report
from astroml_plugin.evaluation.comparison import Comparison, Score, Scorer, scored, value_scorer, value_scores
from astroml_plugin.evaluation.measurements import Measurements

Report = tuple[dict[str, Any], dict[str, Any]]
"""Plain JSON, and file stem -> matplotlib figure."""

Outputs = Callable[[Any], tuple[Tensor, Tensor, float]]
"""Task -> network outputs as that task has them averaged, targets, and seconds that it took, on the same stamps."""


class Judged(ABC):
    """Hooks by which a task tells its own quality; a science overrides those that it knows better."""

    @abstractmethod
    def columns(self) -> list[Column]:
        """The catalog's columns of this task, in order."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss over a batch, a scalar, from network outputs (n, ...) and targets (n, ...)."""

    def calibrated(self, outputs: Tensor) -> Tensor:
        """Outputs (n, outputs) as sure as they are right, where `calibrate` makes them so; here as they are."""
        return outputs

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Plain JSON figures of merit from outputs (n, ...) and targets (n, ...) and, if given, all label columns."""
        return {"loss": float(self.loss(outputs, targets))}

    def figures(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """File stem -> matplotlib figure that shows how good the model is; none here."""
        return {}

    # ---- catalog columns against the truth ---------------------------------------------------------------------

    def truth(self, table: pa.Table) -> Columns:
        """True values (n,) of catalog columns, from the labels of n objects; here of label columns with their names."""
        names = {column.name for column in self.columns() if column.type in ("float32", "float64")}
        return {name: np.asarray(table[name].to_numpy(), np.float64) for name in table.column_names if name in names}

    def assess(self, measured: Measurements, targets: Tensor, table: pa.Table) -> Report:
        """Report of `evaluate` on catalog columns; here errors with intervals of those that have a truth, and their
        residuals.
        """
        truth = self.truth(table)
        return value_report.assess(measured, truth) if truth else ({}, {})

    def assesses(self, table: pa.Table) -> bool:
        """Whether `assess` has something to say of objects with these labels, so that measuring them is worth it."""
        return type(self).assess is not Judged.assess or bool(self.truth(table))

    def perturbations(self) -> Mapping[str, Callable[[Cutouts], Cutouts]]:
        """Name -> an error of PSF model, background or noise whose effect `evaluate` reports; none here."""
        return {}

    def baselines(self) -> Mapping[str, Callable[[Cutouts], dict[str, np.ndarray]]]:
        """Name -> another method that measures columns of the same stamps, NaN where it fails; none here."""
        return {}

    def default_baselines(self, *, has_psf: bool, has_variance: bool) -> Mapping[str, str | None]:
        """Names of `baselines` that `evaluate` runs unasked on such a source, and the package that each needs; none."""
        return {}

    def run_report(self, options: Any, outputs: Outputs) -> Report:
        """Cost and gain of the options of a run, on the stamps that are evaluated; nothing here.

        Args:
            options: `RunOptions`.
            outputs: runs the network as a task wants it.
        """
        return {}, {}

    # ---- beside other methods ----------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that exclude each other, which classical classifiers can learn as well; none here."""
        return ()

    @property
    def logarithmic_columns(self) -> tuple[str, ...]:
        """Columns with a truth whose logarithm is learned; none here."""
        return ()

    def scores(self, table: pa.Table) -> tuple[Score, ...]:
        """Scalar scores that methods are judged by on objects with these labels, the main one first; empty where there
        is no truth.
        """
        return value_scores(self.truth(table))

    def scorer(self, score: str, columns: Columns, truth: Columns) -> Scorer:
        """A score as a function of rows, from catalog columns (n,) and their `truth` (n,)."""
        return value_scorer(score, columns, truth)

    def comparison(self, columns: Columns, truth: Columns, repeats: int = 500) -> Comparison:
        """One method's line in the table of `compare`, from catalog columns (n,) and their `truth` (n,)."""
        count = len(next(iter(truth.values())))
        return scored(value_scores(truth), lambda name: self.scorer(name, columns, truth), count, repeats)
