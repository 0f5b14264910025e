"""Measurements of the same objects that evaluations compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Measurements:
    """Catalog columns of the same n objects, measured in several ways; each column name -> (n,)."""

    own: Mapping[str, np.ndarray]
    """By the task, as in the catalog."""
    perturbed: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """By the task on stamps with an error: see `Task.perturbations`."""
    baselines: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """By other methods: see `Task.baselines`."""
