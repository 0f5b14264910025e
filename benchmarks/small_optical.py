"""The default recipe on a few hundred labels: spirals of Galaxy Zoo 2, stars and galaxies of fields never seen.

python -m benchmarks --only small_optical     # finished trainings are not repeated
"""

from __future__ import annotations

from benchmarks.harness import Section
from benchmarks.small_data import section

TITLE = "Few labels: pictures of Galaxy Zoo 2, stars and galaxies by field"


def run() -> Section:
    """Spirals, and stars and galaxies."""
    return section(TITLE, ("gz2", "stargalaxy"))
