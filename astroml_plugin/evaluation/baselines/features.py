"""Kinds of input of classical methods: named columns from the pixels of stamps."""

from __future__ import annotations

from collections.abc import Callable

from astroml_plugin.core.typing import Array
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation.baselines.challenge_features import edge_features, gabor_features
from astroml_plugin.evaluation.baselines.feature_table import Features, cleaned, in_parts, stretched
from astroml_plugin.evaluation.baselines.moment_features import moment_features
from astroml_plugin.evaluation.baselines.shape_features import shape_features


def pixel_features(cutouts: Cutouts, side: int = 32) -> Features:
    """Stretched pixels, binned to at most `side` x `side` per band: what a principal component analysis is fed.

    Args:
        cutouts: n stamps, raw pixels.
        side: stamps of twice the side or more are averaged in whole pixels.
    """
    return in_parts(cutouts, lambda part: _pixel_part(part, side))


def _pixel_part(cutouts: Cutouts, side: int) -> dict[str, Array]:
    pixels, noise = cleaned(cutouts)
    count, bands, height, width = pixels.shape
    step = max(1, min(height, width) // side)
    top, left = (height % step) // 2, (width % step) // 2
    cut = pixels[:, :, top : top + height // step * step, left : left + width // step * step]
    binned = cut.reshape(count, bands, height // step, step, width // step, step).mean((3, 5))
    flat = binned.reshape(count * bands, *binned.shape[2:])
    values = stretched(flat, noise.reshape(-1) / step).reshape(count, -1)
    return {f"pixel_{number}": values[:, number] for number in range(values.shape[1])}


def simple_features(cutouts: Cutouts) -> Features:
    """Columns of `shape_features` that anyone would look at first: fluxes, colour of the centre less that around it,
    asymmetry. A search that these solve is too easy to tell classifiers apart."""
    whole = shape_features(cutouts)
    chosen = [number for number, name in enumerate(whole.names) if name.startswith(_SIMPLE)]
    return Features(tuple(whole.names[number] for number in chosen), whole.values[:, chosen])


_SIMPLE = ("flux_", "colour_gradient_", "asymmetry")

INPUTS: dict[str, Callable[[Cutouts], Features]] = {
    "features": shape_features,
    "simple": simple_features,
    "moments": moment_features,
    "pixels": pixel_features,
    "gabor": gabor_features,
    "edges": edge_features,
}
"""By the name that methods of `classical` and `regressors` ask for."""
