"""Source Extractor's method (Bertin & Arnouts 1996) by `sep` (Barbary 2016), to compare detections with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from astroml_plugin.core.registry import optional
from astroml_plugin.core.typing import F32, F64, I32, Bool


@dataclass(frozen=True)
class ExtractorSettings:
    """Settings, by Source Extractor's own names; defaults are its own, but the background is taken as 0."""

    filter_fwhm: float = 0.0
    """Pixels; a Gaussian detection filter. 0: the default 3 x 3 pyramid."""
    threshold: float = 1.5
    """Threshold of detection, in sigma of the unfiltered noise."""
    minimum_area: int = 5
    """Pixels above the threshold."""
    deblend_levels: int = 32
    """Thresholds of the deblending."""
    deblend_contrast: float = 0.005
    """Least fraction of the flux of a branch that becomes an object."""


@dataclass(frozen=True)
class Extracted:
    """Detections of Source Extractor."""

    x: F64
    """(n,) barycentre, pixels."""
    y: F64
    labels: I32
    """(h, w) 0 background, else number plus 1."""
    iso: F64
    """(n,) flux above the threshold within the outline."""
    auto: F64
    """(n,) flux in a Kron ellipse (2.5, 3.5), neighbours' pixels masked; the isophotal one where none can be made."""
    aperture: F64
    """(n,) flux in the round aperture, neighbours' pixels masked."""


def extract(
    image: F32,
    variance: F32,
    unusable: Bool | None = None,
    settings: ExtractorSettings | None = None,
    aperture: float = 5.0,
    fluxes: bool = True,
) -> Extracted:
    """Detect and measure in one image without background.

    Args:
        image, variance: (h, w).
        unusable: (h, w) pixels to leave out.
        settings: of the detection.
        aperture: radius in pixels.
        fluxes: whether automatic and aperture fluxes are measured; else they are the isophotal ones.

    Raises:
        InputError: `sep` is not installed.
    """
    sep = optional("sep", 'Source Extractor needs sep, which is not installed: pip install "astroml-plugin[classical]"')
    settings = settings or ExtractorSettings()
    data = np.ascontiguousarray(image, np.float32)
    noise = np.sqrt(np.where(variance > 0, variance, np.nanmedian(variance[variance > 0]))).astype(np.float32)
    options: dict[str, Any] = {
        **{"err": noise, "mask": unusable, "minarea": settings.minimum_area},
        **{"deblend_nthresh": settings.deblend_levels, "deblend_cont": settings.deblend_contrast},
        **{"segmentation_map": True, "filter_type": "conv"},
    }
    if settings.filter_fwhm > 0:
        options["filter_kernel"] = gaussian(settings.filter_fwhm)
    found, labels = sep.extract(data, settings.threshold, **options)
    x, y = (np.asarray(found[name], np.float64) for name in ("x", "y"))
    iso = np.asarray(found["flux"], np.float64)
    labels = np.asarray(labels, np.int32)
    if not fluxes or not len(x):
        return Extracted(x, y, labels, iso, iso, iso)
    numbers = np.arange(1, len(x) + 1, dtype=np.int32)
    masked = {"err": noise, "mask": unusable, "segmap": labels, "seg_id": numbers}
    round_flux = sep.sum_circle(data, x, y, aperture, **masked)[0]
    return Extracted(x, y, labels, iso, _auto(sep, data, found, masked, iso), np.asarray(round_flux, np.float64))


def _auto(sep: Any, data: F32, found: Any, masked: dict[str, Any], iso: F64) -> F64:
    theta = np.clip(found["theta"], -np.pi / 2, np.pi / 2)
    shape = (found["x"], found["y"], np.maximum(found["a"], 0.3), np.maximum(found["b"], 0.3), theta)
    given = {name: masked[name] for name in ("mask", "segmap", "seg_id")}
    radius, _ = sep.kron_radius(data, *shape, 6.0, **given)
    good = np.isfinite(radius) & (radius > 0)
    radius = np.where(good, np.clip(2.5 * radius, 3.5, None), 3.5)
    flux = sep.sum_ellipse(data, *shape, radius, **masked)[0]
    return np.where(np.isfinite(flux), flux, iso)


def gaussian(fwhm: float) -> F32:
    """A Gaussian filter of unit sum, odd side of about three FWHM."""
    half = max(1, int(np.ceil(1.4 * fwhm)))
    axis = np.arange(-half, half + 1)
    profile = np.exp(-0.5 * (axis / (fwhm / 2.3548)) ** 2)
    kernel = profile[:, None] * profile
    values: F32 = (kernel / kernel.sum()).astype(np.float32)
    return values
