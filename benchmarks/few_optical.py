"""Accuracy against the number of labels with and without pretraining: spirals of Galaxy Zoo 2.

python -m benchmarks --only few_optical     # finished trainings are not repeated
"""

from __future__ import annotations

from benchmarks.few_labels import section
from benchmarks.harness import Section

TITLE = "Labels saved by pretraining: pictures of Galaxy Zoo 2"
DRAWS = 3


def run() -> Section:
    """Spirals or not."""
    return section(TITLE, ("gz2",), DRAWS)
