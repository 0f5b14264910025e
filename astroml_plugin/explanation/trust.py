"""How far attributions can be trusted: figures of judged objects, with intervals, and what they say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from astroml_plugin.core.typing import F64

SCHEMA = pa.schema(
    [
        ("object_id", pa.int64()),
        ("tile", pa.large_string()),
        ("deletion", pa.float64()),
        ("insertion", pa.float64()),
        ("difference", pa.float64()),
        ("last_layer", pa.float64()),
        ("all_layers", pa.float64()),
    ]
)
"""Rows of judged objects: `checks.Gains`, and correlations of maps after weights were drawn anew."""
_INDEPENDENT = 0.5
"""Correlation with the maps of a network without what was learned above which maps hardly depend on it."""


@dataclass(frozen=True)
class Score:
    """A mean over objects, with its interval of 95 % by bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def bootstrapped(numbers: F64, seed: int = 0, repeats: int = 1000) -> Score:
    """Mean of numbers (n,) and its interval of 95 %, from `repeats` draws of the objects."""
    rng = np.random.default_rng(seed)
    drawn = numbers[rng.integers(0, len(numbers), (repeats, len(numbers)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Score(float(numbers.mean()), float(low), float(high))


@dataclass(frozen=True)
class Trust:
    """Figures by which a sample of explained objects speaks for all of them."""

    objects: int
    """Objects that were judged."""
    deletion: Score
    """How much sooner the number falls when pixels are taken away in order of attribution than in random order, as a
    part of the mean difference from the baseline; 0: chance."""
    insertion: Score
    """How much sooner it rises when they are given to the baseline in that order."""
    last_layer: Score
    """Rank correlation of maps with those of the network whose last layer was drawn anew."""
    all_layers: Score
    """Rank correlation with those of the network all of whose layers were drawn anew."""

    @property
    def by_chance(self) -> bool:
        """Whether pixels in order of attribution are not shown to matter more than others."""
        return self.deletion.low <= 0

    @property
    def independent(self) -> bool:
        """Whether maps stay nearly the same without what the network has learned."""
        return self.all_layers.value > _INDEPENDENT

    def sentences(self) -> tuple[str, ...]:
        """The figures in words."""
        order = (
            f"Of {self.objects} objects, pixels taken away in order of attribution change the number sooner than in "
            f"random order by {self.deletion} of the whole difference, given to the baseline by {self.insertion}; 0 is "
            "chance."
        )
        drawn = (
            f"Maps of a network whose last layer is drawn anew correlate with these by {self.last_layer}, with all "
            f"layers drawn anew by {self.all_layers}."
        )
        return order, drawn

    def warnings(self) -> tuple[str, ...]:
        """Sentences about attributions that cannot be relied on; empty where they can."""
        found = []
        if self.by_chance:
            worse = "worse than" if self.deletion.high < 0 else "no better than"
            found.append(
                f"Pixels with much attribution are {worse} pixels by chance when they are taken away "
                f"({self.deletion}): do not rely on these maps, or judge another --method or --number."
            )
        if self.independent:
            found.append(
                f"The maps hardly depend on what the network has learned (correlation {self.all_layers} after all "
                "weights were drawn anew): they show the image more than the network."
            )
        return tuple(found)


def trust_of(judged: pa.Table) -> Trust | None:
    """Figures of judged objects (`SCHEMA`); None where there are fewer than two."""
    known = judged.drop_null()
    if known.num_rows < 2:
        return None
    columns = {name: np.asarray(known[name], np.float64) for name in SCHEMA.names[2:]}
    size = max(float(columns["difference"].mean()), 1e-12)
    return Trust(
        known.num_rows,
        bootstrapped(columns["deletion"] / size),
        bootstrapped(columns["insertion"] / size),
        bootstrapped(columns["last_layer"]),
        bootstrapped(columns["all_layers"]),
    )
