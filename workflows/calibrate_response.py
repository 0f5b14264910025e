"""Give a trained ellipticity bundle its shear response, and take out what follows the PSF's ellipticity."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.recalibration import ResponseOptions, fit_bundle_response


@dataclass(frozen=True)
class CalibrateResponseResult:
    """Outcome of a calibration of the response."""

    bundle: ModelBundle
    """The bundle as written."""
    report: dict[str, Any]
    """How many pairs or images, mean response and error, what was taken out for the PSF's ellipticity (`leakage`)."""
    seconds: float
    """Wall time."""

    @property
    def precision(self) -> float:
        """Standard error of the mean response, relative: no shear calibrated by it is better known."""
        mean, error = (np.reshape(self.report[name], (2, 2)) for name in ("mean", "error"))
        return float(np.hypot(error[0, 0], error[1, 1]) / abs(np.trace(mean)))


def calibrate_response(
    bundle: str | Path,
    *,
    data: str | Sequence[str],
    out: str | Path | None = None,
    band: str | None = None,
    method: str | None = None,
    psf_pairs: str | Sequence[str] = (),
    draws: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> CalibrateResponseResult:
    """Fit the outputs r11, r12, r21, r22 of a bundle and write it again.

    Args:
        bundle: path, URL or shipped name of an ellipticity bundle.
        data: one or several `Stamps`: of `simulate --pairs shear` with a seed that nothing else used, or of any
            galaxies with PSF and white noise of known variance, no truth needed, such as a survey's own.
        out: where to write it; default in place.
        band: the band of the data for a model that takes any.
        method: "pairs" or "images"; default pairs where the data have branches, else images.
        psf_pairs: `Stamps` of `simulate --pairs psf`: first take out of the ellipticities what follows the PSF's.
        draws: of noise per image, for the method "images": more of them make its response less noisy, and slower.
        seed: of that noise.
        progress: told how many images are done.

    Raises:
        InputError: another kind of bundle, data that were trained on, that hold no pairs, too few images, or an `out`
            that holds something else.
    """
    started = time.perf_counter()
    pairs = [psf_pairs] if isinstance(psf_pairs, str) else list(psf_pairs)
    options = ResponseOptions(method, pairs, draws, seed, band)
    model = ModelBundle.load(bundle)
    sources = [data] if isinstance(data, str) else list(data)
    written, report = fit_bundle_response(model, sources, str(out or model.url), options, progress)
    return CalibrateResponseResult(written, report, time.perf_counter() - started)
