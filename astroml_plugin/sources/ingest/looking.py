"""Sentences on the planes of an image that their pixels or their place on the sky contradict."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from astroml_plugin.sky.wcs import Wcs, separation
from astroml_plugin.sources.ingest.exposures import Exposure
from astroml_plugin.sources.ingest.planes import Plane

_ASIDE = 1.0
"""Pixels by which errors and masks may lie beside their image before that is said."""


def looked_at(exposure: Exposure) -> list[str]:
    """Sentences on the planes of an image: empty ones, those of one value, and those of another place on the sky."""
    image, noise, mask = exposure.image, exposure.noise, exposure.mask
    notes = [_empty(image, "nothing can be found in it")]
    if noise is not None and noise.sample is not None and not noise.sample.high > 0:
        notes.append(
            f"{noise.label} ({noise.role}) has no value above 0 in the rows that were looked at: pixels without errors "
            "are BAD (leave it out with --roles, if it is no error)"
        )
    if mask is not None and mask.sample is not None and mask.sample.one_value and mask.sample.high != 0:
        notes.append(_empty(mask, "all pixels are masked alike"))
    if exposure.psf is not None and exposure.psf.sample is not None:
        sample = exposure.psf.sample
        if not sample.high > 0 or sample.one_value:
            notes.append(_empty(exposure.psf, "it is no PSF (--psf gives another)"))
    others = [plane for plane in (noise, mask) if plane is not None]
    return [note for note in (*notes, *(_aside(plane, image) for plane in others)) if note]


def no_psf(values: np.ndarray) -> str:
    """A sentence where a plane of a PSF image (band, y, x) cannot be a PSF; "" for others."""
    finite = np.where(np.isfinite(values), values, 0)
    lost = [plane for plane in finite if not plane.max() > 0 or not plane.min() < plane.max()]
    return (
        f"the PSF has no peak (it is {lost[0].flat[0]:g} everywhere, or nowhere above 0): give another" if lost else ""
    )


def _empty(plane: Plane, so: str) -> str:
    sample = plane.sample
    if sample is None or not sample.one_value:
        return ""
    told = f"is {sample.low:g} everywhere" if np.isfinite(sample.low) else "has no finite pixel"
    return f"{plane.label} ({plane.role}) {told} in the rows that were looked at: {so}"


def _aside(plane: Plane, image: Plane) -> str:
    """A sentence where a plane's own WCS is not that of its image."""
    if not plane.header or not image.header or plane.shape != image.shape:
        return ""
    pixels = apart(plane.header, image.header, image.shape)
    if not pixels > _ASIDE:
        return ""
    return (
        f"{plane.label} ({plane.role}) lies {pixels:.3g} pixels away from {image.label} by its WCS: it is taken pixel "
        "by pixel, as if it had that of the image (check that they belong together)"
    )


@lru_cache(maxsize=256)
def apart(first: str, other: str, shape: tuple[int, int]) -> float:
    """Pixels by which two WCS differ at most over an array of a shape (height, width); NaN where one has no sky there.

    Args:
        first: world-coordinate cards.
        other: the same of the other.
        shape: of both arrays.
    """
    if first == other:
        return 0.0
    height, width = shape
    x, y = np.array([0, width - 1, 0, width - 1, width / 2]), np.array([0, 0, height - 1, height - 1, height / 2])
    one, two = Wcs(first), Wcs(other)
    distances = separation(*one.to_sky(x, y), *two.to_sky(x, y))
    known = distances[np.isfinite(distances)]
    return float(known.max()) * 3600 / one.pixel_scale if known.size else float("nan")
