"""Regression with honest errors: what `ellipticity` and `regress` share.

A network gives, per value, the posterior mean, a Gaussian width, and the half-widths of the central 68.3 % and 95 %
intervals relative to it (one Gaussian width cannot meet both contents, since posteriors are not Gaussian). Several
members (an ensemble, or several orientations of the stamp) are averaged; their scatter is added to the half-widths, so
that inputs unlike the training set widen them. The validation split then sets the half-widths' scale as a function of
their size, so that the contents hold for good and for poor objects alike.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_choices
from astroml_plugin.evaluation.value_metrics import value_figures
from astroml_plugin.tasks.base import Task, TaskSettings
from astroml_plugin.tasks.graph import interpolated

LEVELS = (0.683, 0.95)
"""Probability content of the two intervals."""

_WIDE_SCATTER = 1.96  # of the 95 % half-width, in units of the members' standard deviation
_PER_KNOT = 400  # objects of the validation split for each knot of the error scale
_MOST_KNOTS = 8
SNR_EDGES = (10.0, 20.0, 50.0, 100.0, 200.0)


@dataclass(frozen=True)
class ErrorScale:
    """Factors on the half-widths against the logarithm of the half-width; linear between the knots, then constant."""

    knots: tuple[float, ...] = (0.0,)
    """Natural logarithms of the unscaled 68.3 % half-width, rising."""
    narrow: tuple[float, ...] = (1.0,)
    """Factor on the 68.3 % half-width at each knot."""
    wide: tuple[float, ...] = (1.0,)
    """Factor on the 95 % half-width at each knot."""

    def __post_init__(self) -> None:
        if not len(self.knots) == len(self.narrow) == len(self.wide) or not self.knots:
            raise InputError("error_scale needs as many factors narrow and wide as it has knots, one or more")


@dataclass(frozen=True)
class IntervalSettings(TaskSettings):
    """Settings of tasks that measure values with intervals."""

    point_loss: str = "likelihood"
    """Loss by which the mean is learned: "likelihood" (Gaussian, with its width), "squared", "absolute" or "huber"."""
    members: int = 1
    """Members of the ensemble; the network's argument `heads` should say the same."""
    error_scale: ErrorScale = field(default_factory=ErrorScale)
    """Fitted on the validation split."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_choices(self, {"point_loss": ("likelihood", "squared", "absolute", "huber")}, "task setting")
        if self.members < 1:
            raise InputError(f"members ({self.members}) must be 1 or more")


@dataclass(frozen=True)
class Intervals:
    """Measurements of n objects, k values each, with their intervals."""

    mean: Tensor
    """(n, k)"""
    narrow: Tensor
    """(n, k) half-widths of the 68.3 % interval."""
    wide: Tensor
    """(n, k) half-widths of the 95 % interval."""


class IntervalTask(Task):
    """Values with intervals. Network outputs per object and member: means (k), log widths (k), log ratios to them of
    the 68.3 % (k) and the 95 % half-widths (k), then `extra` numbers of the task's own.
    """

    Settings: ClassVar[type[TaskSettings]] = IntervalSettings
    extra: ClassVar[int] = 0

    @property
    @abstractmethod
    def values(self) -> int:
        """How many values are measured."""

    @property
    def outputs(self) -> int:
        """Numbers of all members."""
        return int(self.settings.members * self.per_member)

    @property
    def per_member(self) -> int:
        """Numbers of one member."""
        return 4 * self.values + self.extra

    def members(self, outputs: Tensor) -> Tensor:
        """Outputs (n, …) as (n, m, `per_member`), m the members times the orientations that the network gives."""
        return outputs.reshape(outputs.shape[0], -1, self.per_member)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the members: point loss, likelihood of the width, pinball loss of both half-widths' logarithms."""
        members = self.members(outputs)
        mean, log_width, ratios = self._parts(members)
        offset = targets[:, None] - mean
        point, seen = self._point_loss(offset)
        likelihood = (0.5 * (seen * torch.exp(-log_width)) ** 2 + log_width).mean()
        size = offset.detach().abs().clamp_min(1e-4).log()  # a quantile's logarithm is the quantile of the logarithms
        pinball = torch.zeros_like(likelihood)
        for level, ratio in zip(LEVELS, ratios):
            excess = size - (log_width.detach() + ratio)
            pinball = pinball + torch.maximum(level * excess, (level - 1) * excess).mean()
        return point + likelihood + pinball

    def _point_loss(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of the mean beside the likelihood, and the offset as the likelihood sees it."""
        kind = self.settings.point_loss
        if kind == "likelihood":
            return torch.zeros((), device=offset.device), offset
        if kind == "squared":
            return offset.square().mean(), offset.detach()
        if kind == "absolute":
            return offset.abs().mean(), offset.detach()
        return torch.nn.functional.huber_loss(offset, torch.zeros_like(offset), delta=0.1), offset.detach()

    def _parts(self, members: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Means, log widths and log ratios, (n, m, k) each, from (n, m, `per_member`)."""
        k = self.values
        log_width = members[..., k : 2 * k].clamp(-8.0, 3.0) - 1.5
        narrow = members[..., 2 * k : 3 * k].clamp(-3.0, 3.0)
        wide = members[..., 3 * k : 4 * k].clamp(-3.0, 3.0) + 0.7
        return members[..., :k], log_width, (narrow, wide)

    def _combined(self, outputs: Tensor) -> Intervals:
        """Average of the members, their scatter added in quadrature; not yet scaled."""
        mean, log_width, ratios = self._parts(self.members(outputs))
        narrow, wide = (torch.exp((log_width + ratio).mean(1)) for ratio in ratios)
        if mean.shape[1] == 1:
            return Intervals(mean[:, 0], narrow, wide)
        variance = mean.var(1)
        wider = (wide.square() + _WIDE_SCATTER**2 * variance).sqrt()
        return Intervals(mean.mean(1), (narrow.square() + variance).sqrt(), wider)

    def intervals(self, outputs: Tensor) -> Intervals:
        """Means and half-widths (n, k) of n objects, scaled as the validation split asked for."""
        raw, scale = self._combined(outputs), self.settings.error_scale
        size = raw.narrow.log()
        narrow, wide = (
            width * interpolated(size, scale.knots, factors)
            for width, factors in ((raw.narrow, scale.narrow), (raw.wide, scale.wide))
        )
        return Intervals(raw.mean, narrow, torch.maximum(narrow, wide))

    def calibrate(self, outputs: Tensor, targets: Tensor) -> Task:
        """Scales both half-widths so that 68.3 % and 95 % of the validation split lie inside, for wide and for narrow
        ones alike.
        """
        raw = self._combined(outputs)
        size = raw.narrow.flatten()
        groups = np.array_split(
            np.argsort(size.numpy(), kind="stable"), min(_MOST_KNOTS, max(1, len(targets) // _PER_KNOT))
        )
        offset = (targets - raw.mean).abs().flatten()
        factors = [
            [float(torch.quantile(offset[rows] / width.flatten()[rows], level)) for rows in groups]
            for width, level in ((raw.narrow, LEVELS[0]), (raw.wide, LEVELS[1]))
        ]
        knots = tuple(float(size[rows].log().median()) for rows in groups)
        return self.with_settings(error_scale=ErrorScale(knots, *map(tuple, factors)))

    def in_own_scale(self, intervals: Intervals, targets: Tensor) -> tuple[Intervals, Tensor]:
        """Intervals and targets (n, k) in the scale that metrics are given in; what is learned has it here."""
        return intervals, targets

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Figures of `value_metrics`, lists over the values; also per S/N bin if `snr` is a label."""
        intervals, truth = self.in_own_scale(self.intervals(outputs), targets)
        mean, narrow, wide, truth_ = (
            item.double().numpy() for item in (intervals.mean, intervals.narrow, intervals.wide, truth)
        )
        result: dict[str, Any] = {"loss": float(self.loss(outputs, targets))}
        result |= value_figures(mean, truth_, (narrow, wide))
        if table is not None and "snr" in table.column_names:
            snr = np.asarray(table["snr"].to_numpy(), np.float64)
            bins = {
                f"{low:g}-{high:g}": value_figures(mean[rows], truth_[rows], (narrow[rows], wide[rows]))
                for low, high in pairwise(SNR_EDGES)
                if (rows := (snr >= low) & (snr < high)).sum() > 1
            }
            result["snr_bins"] = bins
        return result
