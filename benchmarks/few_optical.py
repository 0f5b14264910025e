"""Accuracy against the number of labels with and without pretraining: spirals of Galaxy Zoo 2, stars and galaxies.

python -m benchmarks --only few_optical     # finished trainings are not repeated
"""

from __future__ import annotations

from benchmarks.few_labels import section
from benchmarks.harness import Section

TITLE = "Labels saved by pretraining: pictures of Galaxy Zoo 2, stars and galaxies by field"


def run() -> Section:
    """Spirals, and stars and galaxies."""
    return section(TITLE, ("gz2", "stargalaxy"))
