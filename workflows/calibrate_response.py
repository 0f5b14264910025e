"""Give a trained ellipticity bundle its shear response, and take out what follows the PSF's ellipticity."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from astroml_plugin.core.places import Place
from astroml_plugin.core.results import Result
from astroml_plugin.core.settings import texts, with_changes
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.places import place_of_change
from astroml_plugin.training.recalibration import ResponseOptions, fit_bundle_response
from workflows.notebook import shows_progress

__all__ = ["CalibrateResponseResult", "ResponseOptions", "calibrate_response"]


@dataclass(frozen=True, repr=False)
class CalibrateResponseResult(Result):
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


@shows_progress("images")
def calibrate_response(
    bundle: Place,
    *,
    data: Place | Sequence[Place],
    out: Place | None = None,
    options: ResponseOptions | None = None,
    progress: Callable[[int], None] | None = None,
    **changes: Any,
) -> CalibrateResponseResult:
    """Fit the outputs r11, r12, r21, r22 of a bundle and write it again.

    Args:
        bundle: path, URL or shipped name of an ellipticity bundle.
        data: one or several `Stamps`: of `simulate --pairs shear` with a seed that nothing else used, or of any
            galaxies with PSF and white noise of known variance, no truth needed, such as a survey's own.
        out: where to write it; default in place, but not of a bundle that ships.
        options: method, PSF pairs, draws of noise, seed, band.
        progress: told how many images are done.
        changes: single fields of the options by name, for example `method="images"`.

    Raises:
        InputError: an unknown option, another kind of bundle, data that were trained on, that hold no pairs, too few
            images, or an `out` that holds something else.
    """
    started = time.perf_counter()
    chosen = with_changes(ResponseOptions, options, changes, "the options of calibrate-response")
    model = ModelBundle.load(bundle)
    written, report = fit_bundle_response(model, texts(data), place_of_change(model.url, out), chosen, progress)
    return CalibrateResponseResult(written, report, time.perf_counter() - started)
