"""One door to all methods: attributions of stamps by name of the method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from astroml_plugin.core.typing import I64
from astroml_plugin.explanation import signals
from astroml_plugin.explanation.attribution import Attribution
from astroml_plugin.explanation.baselines import baselines_of
from astroml_plugin.explanation.occlusions import occlusion
from astroml_plugin.explanation.options import MethodOptions
from astroml_plugin.explanation.paths import PathOptions, integrated_gradients, over_draws
from astroml_plugin.explanation.target import Seen, Target, gradients, values

SLOPES = ("gradient", "guided", "deconvnet")
"""Methods whose maps are changes of the number per change of a pixel."""


def attributed(target: Target, seen: Seen, how: MethodOptions, object_id: I64 | None = None) -> Attribution:
    """Attributions of n stamps; 0, with a number that is NaN, for those that a catalog has no number for.

    Args:
        target: what is explained.
        seen: the stamps.
        how: the method.
        object_id: (n,) int64, which noise draws follow; default 0 … n - 1.

    Raises:
        InputError: the method cannot be used for this network, or captum is missing for it.
    """
    found = _attributed(target, seen, how, np.arange(len(seen)) if object_id is None else object_id)
    if seen.failed is None:
        return found
    maps = found.maps.masked_fill(seen.failed[:, None, None, None], 0.0)
    value, reference, error = (
        one.masked_fill(seen.failed, torch.nan) for one in (found.value, found.reference, found.error)
    )
    return Attribution(maps, value, reference, error, found.forwards)


def _attributed(target: Target, seen: Seen, how: MethodOptions, object_id: I64) -> Attribution:
    if how.method in ("guided", "deconvnet"):
        made = signals.guided_backpropagation if how.method == "guided" else signals.deconvnet
        value, maps = made(target, seen)
        return Attribution.unchecked(maps, value, 1)
    if how.method == "gradient":
        found = [gradients(target, part.image, *part.given()) for part in signals.split(seen)]
        return Attribution.unchecked(torch.cat([slope for _, slope in found]), torch.cat([v for v, _ in found]), 1)
    begins = baselines_of(target, seen, how, object_id)
    if how.method == "occlusion":
        return _occluded(target, seen, begins, how)
    path = PathOptions(how.tolerance, how.forwards)
    parts = [integrated_gradients(target, seen, begin, path) for begin in begins]
    return parts[0] if len(parts) == 1 else over_draws(parts)


def _occluded(target: Target, seen: Seen, begins: list[torch.Tensor], how: MethodOptions) -> Attribution:
    maps = [occlusion(target, seen, begin, how.window, how.stride) for begin in begins]
    value = values(target, seen.image, *seen.given())
    return Attribution.unchecked(torch.stack([one for one, _ in maps]).mean(0), value, sum(looks for _, looks in maps))


def shares(found: Attribution, method: str, change: torch.Tensor) -> Attribution:
    """Attributions as parts of the number's difference: of slopes, slope times the change from the baseline."""
    return replace(found, maps=found.maps * change) if method in SLOPES else found
