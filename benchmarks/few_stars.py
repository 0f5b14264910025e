"""Accuracy against the number of labels with and without pretraining: stars and galaxies by field.

python -m benchmarks --only few_stars     # finished trainings are not repeated
"""

from __future__ import annotations

from benchmarks.few_labels import section
from benchmarks.harness import Section

TITLE = "Labels saved by pretraining: stars and galaxies by field"
DRAWS = 3


def run() -> Section:
    """Stars or galaxies."""
    return section(TITLE, ("stargalaxy",), DRAWS)
