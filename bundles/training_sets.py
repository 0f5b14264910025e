"""Simulated training sets of the bundles that ship."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from astroml_plugin.core import storage
from workflows.simulate import simulate
from workflows.train import Progress


@dataclass(frozen=True)
class TrainingSet:
    """One simulation of stamps."""

    name: str
    """Name of its folder in the scratch directory."""
    preset: str
    """Named simulation."""
    count: int
    """Stamps."""
    seed: int
    """Below 500: results are quoted for seeds of 900 and above."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further options of `simulate`, such as snr, changes and pairs."""

    def made(self, scratch: str, scale: float = 1.0, least: int = 64, progress: Progress | None = None) -> str:
        """Stamps, made below `scratch` where they are missing: `count` times `scale`, but `least` or more."""
        made = simulate(
            out=storage.join(scratch, self.name),
            preset=self.preset,
            count=max(least, int(self.count * scale)),
            seed=self.seed,
            progress=progress,
            **self.options,
        )
        return made.source
