"""Simulated training sets of the bundles that ship."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.simulation.lenses import LensCamera
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


def with_noise(one: TrainingSet, factors: Sequence[float]) -> tuple[TrainingSet, ...]:
    """A set of `lenses` or `anomalies` as shorter or longer exposures show it, the seeds one after the other.

    Args:
        one: the set; its camera is the preset's.
        factors: on the noise.
    """
    found = []
    for number, factor in enumerate(factors):
        usual = LensCamera()
        camera = {
            "depth": [round(depth - 2.5 * math.log10(factor), 4) for depth in usual.depth],
            "gain": [round(gain / factor**2, 4) for gain in usual.gain],
        }
        changes = {**one.options.get("changes", {}), "camera": camera}
        seed = one.seed + number
        name = f"{one.preset}-{seed}-{one.count}-noise-{factor}"
        found.append(replace(one, name=name, seed=seed, options={**one.options, "changes": changes}))
    return tuple(found)
