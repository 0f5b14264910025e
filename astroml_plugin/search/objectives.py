"""Objectives: numbers of a trial's epochs that are to be small or large."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from astroml_plugin.core.errors import InputError

SPEED = "inference_objects_per_second"
"""Objects per second of the network's forward pass, measured once in each trial."""

_LARGE = ("accuracy", "auroc", "f1", "recall", "precision", "purity", "completeness", "per_second", "tpr", "r2", "iou")


@dataclass(frozen=True)
class Objective:
    """One number of an epoch's record."""

    name: str
    """Name in the log of a training: validation_loss, validation_accuracy, …"""
    large: bool = False
    """Whether more is better."""

    @classmethod
    def parse(cls, text: str) -> Objective:
        """From NAME, NAME:min or NAME:max; without a direction what the name suggests."""
        name, _, direction = text.partition(":") if isinstance(text, str) else ("", "", "")
        if direction not in ("", "min", "max") or not name:
            raise InputError(f"objective {text!r} must be NAME, NAME:min or NAME:max, for example validation_loss:min")
        name = SPEED if name == "objects_per_second" else name
        return cls(name, direction == "max" or (not direction and name.endswith(_LARGE)))

    def __str__(self) -> str:
        return f"{self.name}:{'max' if self.large else 'min'}"

    def cost(self, value: float) -> float:
        """The value, signed so that small is good."""
        return -value if self.large else value


def number(value: Any) -> float:
    """A value of a record as a number; NaN where it is none."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan


def finite(value: Any) -> float:
    """A time of a record in seconds; 0 where it is none."""
    given = number(value)
    return given if 0 <= given < math.inf else 0.0


def kept(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The record of the epoch whose weights are kept: the first of the lowest validation loss."""
    usable = [record for record in history if math.isfinite(number(record.get("validation_loss")))]
    return min(usable, key=lambda record: record["validation_loss"], default=None)


def pareto(costs: Sequence[Sequence[float]]) -> list[bool]:
    """Which points no other beats: as good in everything and better in something; costs (n, k), small is good."""
    return [
        not any(all(b <= a for a, b in zip(own, other)) and tuple(other) != tuple(own) for other in costs)
        for own in costs
    ]
