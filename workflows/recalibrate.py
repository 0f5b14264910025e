"""Fit the errors of a bundle anew on labelled stamps: that they hold for another population than it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import texts
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.places import place_of_change
from astroml_plugin.training.recalibration import recalibrate_bundle
from workflows.notebook import shows_progress


@shows_progress()
def recalibrate(
    bundle: Place, *, data: Place | Sequence[Place], out: Place | None = None, band: str | None = None
) -> ModelBundle:
    """Set what a task learns from validation outputs (widths of intervals, temperature) on other labelled stamps.

    Args:
        bundle: path or URL.
        data: one or several `Stamps` with the labels of the task, none of them trained on.
        out: where to write it; default in place, but not of a bundle that ships.
        band: the band of the data for a model that takes any.

    Raises:
        InputError: data that were trained on, or without the labels, or an `out` that holds something else.
    """
    model = ModelBundle.load(bundle)
    return recalibrate_bundle(model, texts(data), place_of_change(model.url, out), band)
