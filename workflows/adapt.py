"""Adapt a classifier to a survey that nobody labelled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import texts, with_changes
from astroml_plugin.cutting.labels import labelled
from astroml_plugin.training.adaptation import AdaptSettings, adapt_bundle
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.run import Progress
from workflows.evaluate import stamps_for
from workflows.notebook import shows_progress

__all__ = ["AdaptSettings", "adapt"]


@shows_progress()
def adapt(
    bundle: Place,
    *,
    data: Place | Sequence[Place],
    unlabelled: Place | Sequence[Place],
    out: Place,
    objects: Place | Any = None,
    device: str | None = None,
    options: AdaptSettings | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> ModelBundle:
    """Let a classifier go on learning from stamps or tiles of a survey without labels, and write it as a new bundle.

    It learns its own answers there, averaged over turned stamps, and true labels of others in every second step. What
    is typical for the new bundle is what the unlabelled stamps show. Measure it on objects whose class is known.

    Args:
        bundle: path, URL or shipped name of a bundle of classes that exclude each other.
        data: one or several `Stamps` with its labels: those that it was trained on, or others of their kind.
        unlabelled: one or several `Stamps` of the survey, or a `Survey` with `objects`. They may have other sizes,
            pixel scales, dtypes and PSFs than the labelled ones: whatever the bundle can measure.
        out: folder or URL of the new bundle.
        objects: of a `Survey`: table of the positions of its objects; of a catalog, what `query` writes.
        device: torch device; default CUDA where there is one.
        options: epochs, rate, stamps per step, band.
        progress: told after every epoch.
        changes: single fields of the options by name, for example `epochs=2`.

    Raises:
        InputError: a bundle of another task, too few stamps, labels that do not fit, or an `out` that holds something
            else.
    """
    chosen = with_changes(AdaptSettings, options, changes, "the options of adapt")
    model = ModelBundle.load(bundle)
    labelling = {} if objects is None else {"labels": objects}
    with labelled(texts(unlabelled), labelling, partial(stamps_for, model, chosen.band), "objects") as sources:
        url = storage.absolute(out)
        return adapt_bundle(model, texts(data), sources.urls, url, chosen, device=device, progress=progress)
