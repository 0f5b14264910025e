"""Guided backpropagation and the deconvnet: gradients that pass the activations of a network only where positive.

Springenberg et al. 2015 (ICLR workshop); Zeiler & Fergus 2014 (ECCV). Both were stated for rectifiers. Here every kind
of activation is treated alike: guided backpropagation drops what of the usual gradient is negative below an activation,
the deconvnet hands on the positive part of what came from above, as if the activation were not there. For rectifiers
these are the maps of captum, which knows no others and stops at layers that no gradient reaches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from astroml_plugin.core.errors import InputError
from astroml_plugin.explanation.target import BATCH, Seen, Target, gradients
from astroml_plugin.networks.layers import ACTIVATIONS

_KINDS = (*ACTIVATIONS.values(), nn.Hardswish, nn.Mish, nn.Softplus, nn.PReLU, nn.SELU, nn.CELU, nn.ReLU6)

Passed = tuple[Tensor | None, ...]


def guided_backpropagation(target: Target, seen: Seen) -> tuple[Tensor, Tensor]:
    """(n,) the number, and maps (n, channel, h, w)."""
    return _rectified(target, seen, lambda below, above: below)


def deconvnet(target: Target, seen: Seen) -> tuple[Tensor, Tensor]:
    """(n,) the number, and maps (n, channel, h, w)."""
    return _rectified(target, seen, lambda below, above: above)


def _rectified(target: Target, seen: Seen, passed: Callable[[Passed, Passed], Passed]) -> tuple[Tensor, Tensor]:
    """The number and its gradient, with the positive part of what `passed` chooses at every activation."""

    def hook(layer: nn.Module, below: Passed, above: Passed) -> Passed | None:
        return None if below[0] is None else tuple(None if one is None else one.relu() for one in passed(below, above))

    own = Target(target.task, copy.deepcopy(target.network), target.number)  # others use the network meanwhile
    layers = [module for module in own.network.modules() if isinstance(module, _KINDS)]
    if not layers:
        raise InputError(
            f"network {type(target.network).__name__} has no layers of activation that could be changed: explain it "
            "by another --method, such as integrated-gradients"
        )
    for layer in layers:
        layer.register_full_backward_hook(hook)
    found = [gradients(own, part.image, *part.given()) for part in split(seen)]
    return torch.cat([value for value, _ in found]), torch.cat([slope for _, slope in found])


def split(seen: Seen, batch: int = BATCH) -> list[Seen]:
    """The stamps in batches."""
    return [seen.take(slice(start, start + batch)) for start in range(0, len(seen), batch)]
