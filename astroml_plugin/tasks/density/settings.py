"""Settings of the density task."""

from __future__ import annotations

from dataclasses import dataclass

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_choices
from astroml_plugin.evaluation.density_metrics import SCALES
from astroml_plugin.tasks.base import TaskSettings


@dataclass(frozen=True)
class DensitySettings(TaskSettings):
    """Settings of the density task."""

    stamp_size: int = 0
    """Side of the input as in `TaskSettings`; 0: that of the training stamps."""
    target: str = "redshift"
    """Label column to measure; the catalog's columns begin with its name."""
    scale: str = "log1p"
    """Scale of errors, and of the cells: "log1p" (errors over 1 + value, as of redshifts), "log" (relative errors) or
    "linear"."""
    unit: str = ""
    """VOUnit of the target."""
    components: int = 5
    """Gaussians of the density, in the scale."""
    cells: int = 100
    """Cells of equal width in the scale that the catalog has probabilities of."""
    limits: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest value that can be; (0, 0): those of the training split, and a twentieth more on each side."""
    outlier: float = 0.15
    """Error in the scale, as value - truth over 1 + truth, beyond which an evaluation counts an outlier."""
    centre: float = 0.0
    """Mean of the target in the scale (measured on the training split)."""
    spread: float = 0.0
    """Standard deviation of the target in the scale; 0: measured on the training split."""
    widening: float = 1.0
    """Factor on the widths of the Gaussians; fitted on the validation split."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_choices(self, {"scale": SCALES}, "density")
        if not self.target or not 1 <= self.components <= 50 or not 4 <= self.cells <= 1000:
            raise InputError(
                f"density needs a target ({self.target!r}), 1 to 50 components ({self.components}) and 4 to 1000 cells "
                f"({self.cells})"
            )
        low, high = self.limits
        if self.limits != (0.0, 0.0) and not low < high:
            raise InputError(f"density limits ({low:g}, {high:g}) must rise")
        if low < (0 if self.scale == "log" else -1) or (self.scale == "log" and low == 0 != high):
            raise InputError(f"density limits from {low:g} have no place in the scale {self.scale!r}")
        if self.outlier <= 0 or self.widening <= 0 or self.spread < 0:
            raise InputError("density needs an outlier and a widening above 0")
