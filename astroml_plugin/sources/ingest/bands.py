"""Where one band of an image comes from, and in which unit, with which noise and mask it is stored."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from astroml_plugin.sources.ingest.exposures import Exposure
from astroml_plugin.sources.ingest.looking import looked_at
from astroml_plugin.sources.ingest.masks import MaskMap, mask_map
from astroml_plugin.sources.ingest.options import FitsOptions
from astroml_plugin.sources.ingest.photometry import refuse_by_pixels
from astroml_plugin.sources.ingest.pixels import Pixels
from astroml_plugin.sources.ingest.planes import Plane
from astroml_plugin.sources.ingest.samples import Sample
from astroml_plugin.sources.ingest.sky import Sky
from astroml_plugin.sources.ingest.words import EXPOSURE, STD, VARIANCE, WEIGHT
from astroml_plugin.sources.star_psf.measuring import StarPsf

_TOO_LARGE, _TOO_SMALL = 2.0, 0.5
"""An error plane's typical error over the noise of the image, beyond which the plane is questioned. Noise that adds up
(`Sample.growth`) lowers the noise of single pixels: errors may be larger by that."""

_GROWTH = 2.5
"""Growth where it is not known."""


@dataclass(frozen=True)
class PsfImage:
    """Where the image of a PSF is."""

    url: str
    hdu: int | None = None
    """None: the plane that is a PSF by its name, else the first."""


@dataclass(frozen=True)
class BandPlan:
    """Where one band of one image comes from."""

    image: Pixels | None
    """None: this image does not have the band."""
    variance: Pixels | None = None
    weight: Pixels | None = None
    """Weights: variance = `weight_scale` / weight."""
    std: Pixels | None = None
    mask: Pixels | None = None
    mask_map: MaskMap | None = None
    saturation: float | None = None
    unit: str = ""
    zero_point: float | None = None
    calibration: str = ""
    """How the zero point is known."""
    psf: PsfImage | None = None
    factor: float = 1.0
    """Factor by which pixels are multiplied, a power of ten; `unit` and `zero_point` are those after it."""
    weight_scale: float = 1.0
    """Variance of a scaled pixel of weight 1."""
    sky: Sky = field(default_factory=Sky, compare=False)
    """Sky that is taken off the scaled pixels."""
    stars: StarPsf | None = field(default=None, compare=False)
    """PSF from the stars of the image, where no file brings one and it is asked for."""
    refused: str = ""
    """Why the band cannot be written: stars are too few for the PSF that is asked for."""

    @property
    def has_variance(self) -> bool:
        """Whether variance comes with it, in any form."""
        return bool(self.variance or self.weight or self.std)


def band_plan(exposure: Exposure, number: int, options: FitsOptions) -> tuple[BandPlan, list[str]]:
    """Plan of one band, and what is only guessed about it, one sentence each.

    Args:
        exposure: the image with its planes.
        number: band; the plane of a cube.
        options: of the ingest.
    """
    image, zero = exposure.image, options.zero_point
    plane = number if exposure.channel is None else exposure.channel
    zero_point = zero[number if len(zero) > 1 else 0] if zero else image.calibration.zero_point
    saturation = options.saturation if options.saturation is not None else image.saturation
    factor = 1.0 if image.sample is None else image.sample.factor
    plan = BandPlan(
        image=image.plane(plane),
        saturation=None if saturation is None else saturation * factor,
        unit=image.unit if factor == 1 else f"{1 / factor:.0e} {image.unit}".strip(),
        zero_point=None if zero_point is None else zero_point + 2.5 * float(np.log10(factor)),
        calibration="by hand (zero_point)" if zero else image.calibration.why,
        factor=factor,
        weight_scale=factor**2,
        psf=None if exposure.psf is None else PsfImage(exposure.psf.url, exposure.psf.hdu),
    )
    plan, notes = _with_noise(plan, exposure, plane)
    if zero_point is not None and zero:
        refuse_by_pixels(zero_point, image.sample, "ingest --zero-point")
    notes += [*looked_at(exposure), *([] if zero else _calibration_notes(image))]
    if exposure.mask is not None:
        meaning, guess = mask_map(options.mask_map, exposure.mask)
        plan = replace(plan, mask=exposure.mask.plane(plane), mask_map=meaning)
        notes += [guess] if guess else []
    return plan, notes


def _calibration_notes(image: Plane) -> list[str]:
    known = image.calibration
    if known.zero_point is None:
        why = known.doubt or known.why
        remedy = "fluxes are in the unit of the image (give --zero-point, the AB magnitude of one unit)"
        return [f"no zero point: {why}; {remedy}"]
    return [known.doubt] if known.doubt else []


def _with_noise(plan: BandPlan, exposure: Exposure, number: int) -> tuple[BandPlan, list[str]]:
    """Plan with the plane that gives the variance, and doubts about it."""
    source = exposure.noise
    if source is None:
        return plan, []
    pixels = source.plane(number)
    if source is exposure.variance:
        return replace(plan, variance=pixels), _doubts(source, exposure.image, VARIANCE)
    if source is exposure.std:
        return replace(plan, std=pixels), _doubts(source, exposure.image, STD)
    scale = _exposure_scale(source, exposure.image)
    if scale is not None and (source is exposure.exposure or _is_exposure_time(source, exposure.image)):
        note = (
            f"the variance of {exposure.image.label} is a guess: {source.label} ({source.why}) is no error but an "
            f"exposure or confidence, so variance = noise of the image^2 x median / {source.label}"
        )
        return replace(plan, weight=pixels, weight_scale=scale * plan.factor**2), [note]
    if source is exposure.exposure:
        return plan, [f"{source.label} is left out: the image has no noise to scale it by"]
    return replace(plan, weight=pixels), _doubts(source, exposure.image, WEIGHT)


def _exposure_scale(source: Plane, image: Plane) -> float | None:
    """Variance of an image pixel where the exposure map is 1, from the noise of the image."""
    if source.sample is None or image.sample is None:
        return None
    scale = image.sample.noise**2 * source.sample.typical
    return scale if np.isfinite(scale) and scale > 0 else None


def _is_exposure_time(source: Plane, image: Plane) -> bool:
    """Whether weights are seconds in truth, as AstroDrizzle writes by default: the header says so, or they reach up to
    EXPTIME, far from the noise."""
    time, sample = image.exposure_time, source.sample
    if source.role != WEIGHT or source.why.startswith("by hand") or sample is None or image.sample is None:
        return False
    if any(plane.cards.get("weighting", "").upper() in _SECONDS for plane in (source, image)):
        return True
    if not time:
        return False
    return 0.3 * time <= sample.high <= 1.1 * time and not _agrees(sample.typical**-0.5, image.sample)


_SECONDS = ("EXP", "EXPTIME")
"""Values of FINALWHT and the like where weights are exposure times."""


def _agrees(error: float, image: Sample) -> bool:
    noise = image.fine if image.fine > 0 else image.noise
    growth = max(1.0, image.growth) if image.growth > 0 else _GROWTH
    return not (np.isfinite(error) and noise > 0) or _TOO_SMALL <= error / noise <= _TOO_LARGE * growth


def _doubts(source: Plane, image: Plane, role: str) -> list[str]:
    """A sentence where errors are far from the noise that the image itself shows."""
    if source.sample is None or image.sample is None or not source.sample.typical > 0 or not source.sample.high > 0:
        return []
    value, noise = source.sample.typical, image.sample
    errors = {VARIANCE: value**0.5, STD: value, WEIGHT: value**-0.5}
    if _agrees(errors[role], noise):
        return []
    better = [other for other, error in errors.items() if other != role and _agrees(error, noise)]
    other = better[0] if better else EXPOSURE
    hint = f"--roles {source.extname}={other} reads it otherwise" if better or role == WEIGHT else "check the file"
    return [
        f"{source.label} is taken as {role} ({source.why}), but its typical error is {errors[role]:.3g} where "
        f"{image.label} has noise of {noise.fine if noise.fine > 0 else noise.noise:.3g}: {hint}"
    ]
