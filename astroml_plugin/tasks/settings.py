"""Settings that every task has: those of a recipe and card, and those of one run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_choices
from astroml_plugin.cutouts import Centring, Picture
from astroml_plugin.tasks.choices import RESAMPLE
from astroml_plugin.tasks.input_unit import zero_point_of
from astroml_plugin.tasks.normalisation import Normalisation


@dataclass(frozen=True)
class TaskSettings:
    """Settings of every task: a recipe sets them and a bundle's card keeps them."""

    bands: tuple[str, ...] = ()
    """Bands of the input in order; matched by name. Empty: those of the training data."""
    spare_bands: tuple[str, ...] = ()
    """Bands that the network was trained to do without, on stamps that lack them: objects without another band get no
    values. What is missing is 0 in the network's input."""
    any_band: bool = False
    """A single-band model takes whatever one band it is given."""
    coadd: tuple[str, ...] = ()
    """For a model that takes any one band: where a source has several of these, they are added up to that one band,
    each in units of its noise. `--band` chooses one instead."""
    stamp_size: int = 48
    """Side of the network's input, pixels; 0 takes that of the training data."""
    resize: str = "fit"
    """Stamps of another size: "fit" cuts larger ones about the centre and pads smaller ones (EDGE); "refuse"."""
    pixel_scale: float | None = None
    """Arcsec per pixel of the training data; None where unknown (nothing is resampled or checked then)."""
    pixel_scale_tolerance: float = 0.05
    """Relative difference of pixel scale up to which pixels are taken as they are."""
    sizes: str = "arcsec"
    """Sizes that the answer depends on: "arcsec" (pixels of another scale are resampled to that of the training) or
    "pixels" (those in pixels alone: pixels stay as they are while the PSF is as wide in pixels as in training)."""
    psf_fwhm: tuple[float, float] = (0.0, 0.0)
    """FWHM of the PSF images in pixels (LOWEST, HIGHEST), OUT_OF_DOMAIN outside; zeros: measured when training."""
    resample: str = "auto"
    """Pixels of another scale: "auto" as `sizes` says, "off" as they are."""
    dtype: str = "float32"
    """Pixels of the training data: "float32" or "uint8" (taken from the data when training)."""
    input_unit: str = ""
    """Unit of the network's input, taken from the data when training: "nJy" or "AB ZERO_POINT" (stamps are brought to
    it by their zero points), "any" (a scale does not matter), "picture" (8-bit), "uncalibrated" (no zero point)."""
    any_dtype: bool = False
    """Whether 8-bit and float pixels may stand in for each other."""
    picture: Picture = field(default_factory=Picture)
    """For a model of 8-bit pictures: how calibrated pixels of other bands are shown to it as pictures."""
    psf: str = "none"
    """PSF as second network input: "required", "optional" (NO_PSF where absent) or "none"."""
    psf_dropped: float = 0.1
    """Share of the objects that train without their PSF where it is "optional"."""
    psf_size: int = 25
    """Side of the PSF image that the network sees, pixels; others are cut or padded to it."""
    assumed_psf_fwhm: float = 0.0
    """Arcsec: where an object has no PSF, a round Gaussian of this FWHM stands in (NO_PSF is set); 0 assumes none."""
    normalisation: Normalisation = field(default_factory=Normalisation)
    """From raw pixels to network input."""
    centring: Centring = field(default_factory=Centring)
    """Where the light lies in the stamps; the tolerance is measured on the training split."""
    leave_out: dict[str, Any] = field(default_factory=dict)
    """Label column -> list of values (as text): such objects are neither trained nor tested on."""

    def __post_init__(self) -> None:
        refuse_choices(self, _CHOICES, "task setting")
        zero_point_of(self.input_unit)
        unknown = sorted(set(self.spare_bands) - set(self.bands)) if self.bands else []
        if unknown or (self.bands and set(self.spare_bands) == set(self.bands)):
            raise InputError(
                f"spare_bands {', '.join(unknown or self.spare_bands)} must be some of the bands "
                f"{', '.join(self.bands)}, and not all of them"
            )
        if self.coadd and not (self.any_band and self.normalisation.unit == "noise"):
            raise InputError("coadd adds bands in units of their noise: it needs any_band and a normalisation by noise")
        if not 0 <= self.psf_dropped <= 1:
            raise InputError(f"psf_dropped ({self.psf_dropped}) is a share from 0 to 1")
        if not 0 <= self.psf_fwhm[0] <= self.psf_fwhm[1]:
            raise InputError(f"psf_fwhm {self.psf_fwhm} must be two rising numbers of pixels, or two zeros")
        if 0 != self.stamp_size < 8 or self.psf_size < 3:
            raise InputError(
                f"stamp_size ({self.stamp_size}) must be 8 or more and psf_size ({self.psf_size}) 3 or more"
            )


@dataclass(frozen=True)
class TaskRunOptions:
    """Options of one run for any bundle; a task that takes more options inherits from it."""

    band: str | None = None
    """Band to read, for a model that takes any single one."""
    assumed_psf_fwhm: float = 0.0
    """Arcsec: as the task setting of this name, for one run; 0 leaves what the bundle says."""
    resample: str = "auto"
    """Pixels of another scale than the bundle's: "auto" or "off", as the task setting of this name."""
    recentre: bool | None = None
    """Whether stamps whose light lies off their centre are moved by whole pixels; None leaves what the bundle says."""


_CHOICES = {
    "resize": ("fit", "refuse"),
    "dtype": ("float32", "uint8"),
    "psf": ("required", "optional", "none"),
    "sizes": ("arcsec", "pixels"),
    "resample": RESAMPLE,
}
