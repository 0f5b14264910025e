"""Let a trained bundle keep what its training looked like, so that reports can say what has moved since."""

from __future__ import annotations

from collections.abc import Sequence

from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import texts
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.places import place_of_change
from astroml_plugin.training.recalibration import fit_bundle_reference
from workflows.notebook import shows_progress

__all__ = ["fit_reference"]


@shows_progress()
def fit_reference(
    bundle: Place,
    *,
    data: Place | Sequence[Place],
    out: Place | None = None,
    band: str | None = None,
) -> ModelBundle:
    """Keep quantiles of a bundle's training images and answers in its card; its weights stay as they are.

    `train` does this by itself. It is for bundles that were made before. The identity of the bundle changes, so a
    catalog that it measured cannot be extended with the new one.

    Args:
        bundle: path, URL or shipped name.
        data: one or several `Stamps`: those that the bundle was trained on, or others of the same population.
        out: where to write it; default in place, but not of a bundle that ships.
        band: the band of the data for a model that takes any.

    Raises:
        InputError: too few stamps, or an `out` that holds something else.
    """
    model = ModelBundle.load(bundle)
    return fit_bundle_reference(model, texts(data), place_of_change(model.url, out), band)
