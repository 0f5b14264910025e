"""Stamps of single galaxies whose light is known: without noise, or with the truth as a sharper eye sees it."""

from __future__ import annotations

from dataclasses import dataclass

from astroml_plugin.core.errors import InputError
from astroml_plugin.simulation.postage import StampSet
from astroml_plugin.simulation.profiles import Psf

SHARP = "sharp_"
"""Layer `sharp_<band>` of the truth of pixels: the galaxy alone under `LightSet.sharp_fwhm`."""


@dataclass(frozen=True)
class LightSet(StampSet):
    """Simulated stamps whose noise can be left out, and whose truth of every pixel is kept."""

    noise: bool = True
    """Whether noise is added; without it, `variance` still says what the camera would add."""
    sharp_fwhm: float = 0.0
    """Arcsec: FWHM of the round Moffat PSF (beta 3) of the truth of pixels, one layer per band; 0 keeps none.

    Layers are float16: relative errors of 5e-4, light below 6e-8 counts is lost.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sharp_fwhm and self.sharp_fwhm < 2 * self.camera.pixel_scale - 1e-9:
            raise InputError(
                f"a sharp PSF of {self.sharp_fwhm} arcsec cannot be drawn on pixels of {self.camera.pixel_scale}: "
                f"two pixels are the least"
            )

    @property
    def noisy(self) -> bool:
        """See `StampSet`."""
        return self.noise

    @property
    def layers(self) -> tuple[str, ...]:
        """See `StampSet`."""
        return tuple(f"{SHARP}{band}" for band in self.camera.bands) if self.sharp_fwhm else ()

    @property
    def true_psf(self) -> Psf | None:
        """See `StampSet`."""
        return Psf("moffat", self.sharp_fwhm, 0.0, 0.0) if self.sharp_fwhm else None
