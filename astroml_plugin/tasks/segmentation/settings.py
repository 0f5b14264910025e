"""Settings of segmentation."""

from __future__ import annotations

from dataclasses import dataclass, field

from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.normalisation import Normalisation
from astroml_plugin.tasks.settings import TaskSettings


@dataclass(frozen=True)
class SegmentSettings(TaskSettings):
    """Settings of segmentation."""

    any_band: bool = True
    """Any one band, or several together: weighted with their inverse variance, in the units of the images."""
    stamp_size: int = 256
    """Side of the pieces of sky to train on, pixels; inference works on windows."""
    normalisation: Normalisation = field(
        default_factory=lambda: Normalisation(background="none", unit="noise", stretch="asinh", softening=4.0)
    )
    """Only its softening is used: pixels are divided by the noise of each, and no background is taken off."""
    assumed_noise: float = 0.0
    """Standard deviation of the noise of a pixel where there is no variance, in the image's units (NO_VARIANCE);
    0 estimates it in each window."""
    window: int = 1024
    """Side of the network's input, pixels."""
    overlap: int = 64
    """Pixels at each side of a window that are thrown away."""
    stride: int = 8
    """Windows begin at multiples of it."""
    largest: int = 64
    """Half-extent in pixels up to which objects are promised whole."""
    foreground: float = 0.5
    """Probability above which a pixel is light."""
    near: float = 0.5
    """Probability of a centre within `truth.NEAR` above which a peak is an object."""
    centre: float = 0.05
    """Height of the map of centres above which a peak is looked at."""
    companion: float = 4.5
    """S/N of light beside an object, unlike that on its other side, above which it is another object; 0: no such look.
    """
    lopsided: float = 0.1
    """Part of an object's light that may be unlike on its two sides."""
    aperture: float = 5.0
    """Radius in pixels of the aperture of `flux_aper`."""
    sizes: str = "pixels"
    """Sizes as in `TaskSettings`: fields are never resampled, positions and outlines are those of their own pixels."""
    psf_fwhm: tuple[float, float] = (2.6, 5.35)
    """FWHM as in `TaskSettings`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.window, self.overlap, self.largest) < 0 or self.stride < 1:
            raise InputError("window, overlap, largest of segmentation are 0 or more, stride 1 or more")
        if self.window % self.stride or self.overlap % self.stride or self.window <= 2 * self.overlap:
            raise InputError(
                f"window ({self.window}) and overlap ({self.overlap}) must be multiples of stride ({self.stride}), "
                f"and a window wider than two overlaps"
            )
