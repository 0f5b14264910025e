"""Any numbers measured from stamps, with errors: half-light radius, Sersic index, magnitude, redshift, mass, …"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin.catalog import Column
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_unknown
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation import figures
from astroml_plugin.sources.labels import float_labels
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.graph import GivenStamps
from astroml_plugin.tasks.intervals import Intervals, IntervalSettings, IntervalTask


@dataclass(frozen=True)
class RegressSettings(IntervalSettings):
    """Settings of the regression task."""

    targets: tuple[str, ...] = ()
    """Label columns to measure; the catalog's columns have their names."""
    logarithmic: tuple[str, ...] = ()
    """Targets whose logarithm is learned: positive values that span a wide range."""
    units: dict[str, str] = field(default_factory=dict)
    """Target -> VOUnit."""
    centres: tuple[float, ...] = ()
    """Mean of each target (or its logarithm); empty: measured on the training split."""
    spreads: tuple[float, ...] = ()
    """Standard deviation of each target (or its logarithm); empty: measured on the training split."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown(self.logarithmic, self.targets, "logarithmic")
        refuse_unknown(self.units, self.targets, "units")


class RegressTask(IntervalTask):
    """Posterior means of the targets and half-widths of their 68.3 % and 95 % intervals.

    The network learns targets of mean 0 and standard deviation 1. Metrics are in the targets' own scale (that of the
    logarithm where it is learned).
    """

    Settings: ClassVar[type[IntervalSettings]] = RegressSettings

    def __init__(self, settings: RegressSettings | None = None) -> None:
        super().__init__(settings)
        if not self.settings.targets:
            raise InputError(
                'a regression needs targets: set targets = ["label column", …] in [settings] of the recipe'
            )

    @property
    def values(self) -> int:
        """Number of targets."""
        return len(self.settings.targets)

    @property
    def labels(self) -> tuple[str, ...]:
        """The targets' columns."""
        return tuple(self.settings.targets)

    @property
    def logarithmic_columns(self) -> tuple[str, ...]:
        """Targets whose logarithm is learned."""
        return tuple(self.settings.logarithmic)

    def columns(self) -> list[Column]:
        """Per target the value and the half-widths of its intervals; all float32."""
        found = []
        for name in self.labels:
            unit = self.settings.units.get(name, "")
            found += [
                Column(name, "float32", unit, "stat.fit.param", f"{name}, posterior mean"),
                Column(f"{name}_err", "float32", unit, "stat.error", f"Half-width of the 68.3 % interval of {name}"),
                Column(f"{name}_err95", "float32", unit, "stat.error", f"Half-width of the 95 % interval of {name}"),
            ]
        return found

    def fit_to_training(self, table: pa.Table, cutouts: Cutouts) -> Task:
        """Fits normalisation as `Task` does, and learns the centre and spread of each target."""
        task = super().fit_to_training(table, cutouts)
        if self.settings.centres and self.settings.spreads:
            return task
        values = self._learned(table)
        centres, spreads = (tuple(float(item) for item in found) for found in (values.mean(0), values.std(0)))
        return task.with_settings(centres=centres, spreads=spreads)

    def targets(self, table: pa.Table) -> Tensor:
        """Standardised targets, (n, k) float32."""
        centres, spreads = self._standard()
        return torch.from_numpy(((self._learned(table) - centres) / spreads).astype(np.float32))

    def decode(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """Values and half-widths of n objects; that of a logarithm times the value is that of the value."""
        found, _ = self.in_own_scale(self.intervals(outputs), torch.zeros(len(outputs), self.values))
        columns: dict[str, np.ndarray] = {}
        for place, name in enumerate(self.labels):
            mean, narrow, wide = (item[:, place].numpy() for item in (found.mean, found.narrow, found.wide))
            if name in self.settings.logarithmic:
                mean = np.exp(mean)
                narrow, wide = narrow * mean, wide * mean
            columns |= {name: mean, f"{name}_err": narrow, f"{name}_err95": wide}
        return {name: values.astype(np.float32) for name, values in columns.items()}

    def graph_columns(self, outputs: Tensor, stamps: GivenStamps) -> dict[str, Tensor]:
        """Values and half-widths, as of `decode`."""
        found, _ = self.in_own_scale(self.intervals(outputs), torch.zeros(1, self.values))
        columns: dict[str, Tensor] = {}
        for place, name in enumerate(self.labels):
            mean, narrow, wide = (item[:, place] for item in (found.mean, found.narrow, found.wide))
            if name in self.settings.logarithmic:
                mean = mean.exp()
                narrow, wide = narrow * mean, wide * mean
            columns |= {name: mean, f"{name}_err": narrow, f"{name}_err95": wide}
        return columns

    def explained(self) -> dict[str, str]:
        """The targets, as they are learned: those in `logarithmic` as logarithms."""
        logarithmic = self.settings.logarithmic
        return {name: f"Posterior mean of {'log ' * (name in logarithmic)}{name}" for name in self.labels}

    def explained_value(self, name: str, outputs: Tensor, place: Tensor) -> Tensor:
        """A target's posterior mean."""
        found, _ = self.in_own_scale(self.intervals(outputs), torch.zeros(1, self.values, device=outputs.device))
        return found.mean[:, self.labels.index(name)]

    def in_own_scale(self, intervals: Intervals, targets: Tensor) -> tuple[Intervals, Tensor]:
        """Intervals and targets (n, k) in the scale of the target columns, or of their logarithms."""
        centres, spreads = (torch.from_numpy(item).to(targets) for item in self._standard())
        scaled = Intervals(intervals.mean * spreads + centres, intervals.narrow * spreads, intervals.wide * spreads)
        return scaled, targets * spreads + centres

    def figures(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """True against measured values."""
        intervals, truth = self.in_own_scale(self.intervals(outputs), targets)
        names = [f"log {name}" if name in self.settings.logarithmic else name for name in self.labels]
        return {"regression": figures.true_against_measured(truth.numpy(), intervals.mean.numpy(), names)}

    def _learned(self, table: pa.Table) -> np.ndarray:
        """(n, k) float64: the labels, or their logarithms."""
        values = float_labels(table, self.labels).astype(np.float64)
        for place, name in enumerate(self.labels):
            if name in self.settings.logarithmic:
                low = int((values[:, place] <= 0).sum())
                if low:
                    raise InputError(
                        f"label column {name!r} is 0 or less for {low} of {len(values)} objects and has no logarithm: "
                        f"remove them or take it out of `logarithmic`"
                    )
                values[:, place] = np.log(values[:, place])
        return values

    def _standard(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres and spreads, (k,) each."""
        centres = np.array(self.settings.centres or [0.0] * self.values)
        return centres, np.array(self.settings.spreads or [1.0] * self.values)
