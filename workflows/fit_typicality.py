"""Let a trained bundle say when objects are unlike what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import texts, with_changes
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.places import place_of_change
from astroml_plugin.training.recalibration import fit_bundle_typicality
from astroml_plugin.training.typicality_fit import TypicalitySettings
from workflows.notebook import shows_progress

__all__ = ["TypicalitySettings", "fit_typicality"]


@shows_progress()
def fit_typicality(
    bundle: Place,
    *,
    data: Place | Sequence[Place],
    out: Place | None = None,
    band: str | None = None,
    options: TypicalitySettings | None = None,
    **changes: Any,
) -> ModelBundle:
    """Learn what is typical of a bundle's training population and write the bundle again; its weights stay as they are.

    `train` does this by itself. It is for bundles that were made before, or for another rate of false flags.

    Args:
        bundle: path, URL or shipped name.
        data: one or several `Stamps`: those that the bundle was trained on, or others of the same population.
        out: where to write it; default in place, but not of a bundle that ships.
        band: the band of the data for a model that takes any.
        options: rate of false flags, stamps at most.
        changes: single fields of the options by name, for example `false_flags=0.001`.

    Raises:
        InputError: a bundle that measures no stamps, too few stamps, or an `out` that holds something else.
    """
    chosen = with_changes(TypicalitySettings, options, changes, "the options of fit-typicality")
    model = ModelBundle.load(bundle)
    return fit_bundle_typicality(model, texts(data), place_of_change(model.url, out), chosen, band)
