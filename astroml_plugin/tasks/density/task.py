"""One number with its whole probability density: a mixture of Gaussians, in the scale in which errors are alike."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin.catalog import Column
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation import density_metrics
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.sources.labels import float_labels
from astroml_plugin.tasks.base import Task, TaskSettings
from astroml_plugin.tasks.density import mixture
from astroml_plugin.tasks.density.settings import DensitySettings
from astroml_plugin.tasks.graph import GivenStamps
from astroml_plugin.tasks.judged import Report

_CONTENTS = (0.683, 0.95)
_WIDENINGS = np.exp(np.linspace(np.log(0.4), np.log(4.0), 93))
_SPARE = 0.05
"""Part of the training range that is added on each side."""


class DensityTask(Task):
    """Median, mode, half-widths of intervals, and the probability of each cell."""

    Settings: ClassVar[type[TaskSettings]] = DensitySettings
    turns: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        """Weight, mean and width of each Gaussian."""
        return 3 * int(self.settings.components)

    @property
    def labels(self) -> tuple[str, ...]:
        """The target's column."""
        return (self.settings.target,)

    def columns(self) -> list[Column]:
        """<target>, _mode, _err, _err95, _low, _high, all float32, and the vector _pdf."""
        name, unit, cells = self.settings.target, self.settings.unit, self.settings.cells
        low, high = self.settings.limits
        scale = {"log1p": f"log(1 + {name})", "log": f"log {name}", "linear": name}[self.settings.scale]
        told = [
            ("", "stat.fit.param", "Median of the probability density"),
            ("_mode", "stat.fit.param", "Middle of the cell of highest density in the scale"),
            ("_err", "stat.error", "Half-width of the central 68.3 % interval"),
            ("_err95", "stat.error", "Half-width of the central 95 % interval"),
            ("_low", "stat.min", "15.85 % of the probability lie below"),
            ("_high", "stat.max", "84.15 % of the probability lie below"),
        ]
        plain = [Column(f"{name}{end}", "float32", unit, ucd, words) for end, ucd, words in told]
        words = f"Probability of {cells} cells of equal width in {scale}, {name} from {low:.6g} to {high:.6g}"
        return [*plain, Column(f"{name}_pdf", f"float32[{cells}]", "", "stat.probability", words)]

    # ---- labels ------------------------------------------------------------------------------------------------

    def fit_to_training(self, table: pa.Table, cutouts: Cutouts) -> Task:
        """Fits normalisation as `Task` does, and learns centre, spread and limits of the target."""
        task = super().fit_to_training(table, cutouts)
        settings, places = self.settings, self._places(table)
        changes: dict[str, Any] = {}
        if not settings.spread:
            changes = {"centre": float(places.mean()), "spread": float(places.std())}
        if settings.limits == (0.0, 0.0):
            low, high = float(places.min()), float(places.max())
            spare = _SPARE * (high - low)
            values = density_metrics.unscaled(np.array([low - spare, high + spare]), settings.scale)
            least = 0.0 if settings.scale == "log1p" and low >= 0 else -np.inf
            changes["limits"] = (max(float(values[0]), least), float(values[1]))
        return task.with_settings(**changes) if changes else task

    def targets(self, table: pa.Table) -> Tensor:
        """(n,) float32 places in the scale, over the training spread."""
        centre, spread = self._standard()
        return torch.from_numpy(((self._places(table) - centre) / spread).astype(np.float32))

    def _places(self, table: pa.Table) -> F64:
        """(n,) labels in the scale."""
        scale, name = self.settings.scale, self.settings.target
        values = float_labels(table, [name])[:, 0].astype(np.float64)
        least = density_metrics.LOWEST[scale]
        if (wrong := int((values <= least).sum())) > 0:
            raise InputError(
                f"label column {name!r} is {least:g} or less for {wrong} of {len(values)} objects, and has no place in "
                f"the scale {scale!r}: remove them, or choose another `scale`"
            )
        return density_metrics.scaled(values, scale)

    def _standard(self) -> tuple[float, float]:
        return self.settings.centre, self.settings.spread or 1.0

    # ---- learning ----------------------------------------------------------------------------------------------

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean of minus the log density at the targets."""
        return mixture.surprise(outputs, targets, self.settings.widening).mean()

    def calibrate(self, outputs: Tensor, targets: Tensor) -> Task:
        """Fits one factor on all widths to the validation split, by likelihood."""
        losses = [float(mixture.surprise(outputs, targets, float(factor)).mean()) for factor in _WIDENINGS]
        return self.with_settings(widening=float(_WIDENINGS[int(np.argmin(losses))]))

    # ---- columns -----------------------------------------------------------------------------------------------

    def edges(self) -> F64:
        """(cells + 1,) edges of the cells in the scale."""
        low, high = density_metrics.scaled(np.array(self.settings.limits), self.settings.scale)
        return np.asarray(np.linspace(low, high, self.settings.cells + 1))

    def _columns_of(self, outputs: Tensor) -> dict[str, Tensor]:
        """Columns as tensors."""
        (centre, spread), name = self._standard(), self.settings.target
        edges = torch.tensor((self.edges() - centre) / spread, dtype=outputs.dtype, device=outputs.device)
        cells = mixture.cell_probabilities(outputs, edges, self.settings.widening)
        middles = (edges[1:] + edges[:-1]) / 2
        ends = [mixture.quantile(cells, edges, 0.5 + sign * part / 2) for part in _CONTENTS for sign in (-1, 1)]
        low, high, lowest, highest = (self._value(place) for place in ends)
        return {
            name: self._value(mixture.quantile(cells, edges, 0.5)),
            f"{name}_mode": self._value(middles[cells.argmax(1)]),
            f"{name}_err": (high - low) / 2,
            f"{name}_err95": (highest - lowest) / 2,
            f"{name}_low": low,
            f"{name}_high": high,
            f"{name}_pdf": cells,
        }

    def _value(self, place: Tensor) -> Tensor:
        """Values of standardised places."""
        centre, spread = self._standard()
        own = place * spread + centre
        scale = self.settings.scale
        return torch.expm1(own) if scale == "log1p" else torch.exp(own) if scale == "log" else own

    def decode(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """All columns."""
        return {name: values.numpy().astype(np.float32) for name, values in self._columns_of(outputs).items()}

    def graph_columns(self, outputs: Tensor, stamps: GivenStamps) -> dict[str, Tensor]:
        """All columns, as of `decode`."""
        return self._columns_of(outputs)

    def explained(self) -> dict[str, str]:
        """The mean of the density, in the scale."""
        name, scale = self.settings.target, self.settings.scale
        return {name: f"Mean of the density of {name}, in the scale {scale}"}

    def explained_value(self, name: str, outputs: Tensor, place: Tensor) -> Tensor:
        """Mean of the Gaussians."""
        weights, means, _ = mixture.parts(outputs, self.settings.widening)
        centre, spread = self._standard()
        return (weights.exp() * means).sum(1) * spread + centre

    # ---- how good ----------------------------------------------------------------------------------------------

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Loss, and point errors and calibration as of `density_metrics`."""
        plain = {"loss": float(self.loss(outputs, targets)), "count": len(targets)}
        if len(targets) < 2:
            return plain
        settings, found = self.settings, self._columns_of(outputs)
        centre, spread = self._standard()
        places = targets.double().numpy() * spread + centre
        truth = density_metrics.unscaled(places, settings.scale)
        error = density_metrics.relative(found[settings.target].double().numpy(), truth, settings.scale)
        cells, edges = found[f"{settings.target}_pdf"].double().numpy(), self.edges()
        below, scores = density_metrics.pit(cells, edges, places), density_metrics.crps(cells, edges, places)
        points = density_metrics.point_statistics(error, settings.outlier)
        return {**plain, **points, **density_metrics.density_statistics(below, scores)}

    def assess(self, measured: Measurements, targets: Tensor, table: pa.Table) -> Report:
        """Errors of the median as of any number, and `densities`: what the whole density is worth, with intervals."""
        found, drawn = super().assess(measured, targets, table)
        settings, own = self.settings, measured.own
        truth = np.asarray(table[settings.target].to_numpy(zero_copy_only=False), np.float64)
        values, cells = (np.asarray(own[name], np.float64) for name in (settings.target, f"{settings.target}_pdf"))
        told = density_metrics.figures_of(values, truth, cells, self.edges(), settings.scale, settings.outlier)
        more = {} if "pit" not in told else {"density": density_metrics.figure(values, truth, told, settings.target)}
        return {**found, "densities": {settings.target: told}}, {**drawn, **more}
