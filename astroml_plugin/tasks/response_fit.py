"""How the shear response of a network is to be fitted, after its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

KINDS = ("pairs", "images", "leakage")
"""From simulated sets of sheared stamps; from stamps of any galaxies; what follows the PSF's ellipticity, taken out."""


@dataclass(frozen=True)
class ResponseFit:
    """One fit."""

    kind: str
    """One of `KINDS`."""
    labels: pa.Table = field(default_factory=lambda: pa.table({}))
    """Label columns of the stamps, in their order; "images" needs none."""
    draws: int = 1
    """Draws of noise per image, for "images"."""
    seed: int = 0
    """Seed of that noise."""
    progress: Callable[[int], None] | None = None
    """Told how many images are done."""
