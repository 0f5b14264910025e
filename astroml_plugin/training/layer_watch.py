"""Gradients and dead units of a network's layers, looked at once per epoch: how well a training reaches every layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from astroml_plugin.networks.layers import ACTIVATIONS

_STEP = 1e-3
"""Half the distance over which a slope is taken."""
_DEAD = 0.01
"""Largest slope of a unit that passes nothing back."""


_ACTIVATIONS: tuple[type[nn.Module], ...] = tuple(ACTIVATIONS.values())


class LayerWatch:
    """Looks at one step of a training.

    Args:
        network: whose layers; nothing of its work is changed.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._dead: dict[str, float] = {}
        self._gradients: dict[str, float] = {}

    @contextmanager
    def forward(self) -> Iterator[None]:
        """While it is open, activations of a forward pass are looked at."""
        handles = [
            module.register_forward_pre_hook(self._hook(name))
            for name, module in self._network.named_modules()
            if isinstance(module, _ACTIVATIONS)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Any:
        def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            if given[0].ndim < 2:
                return
            with torch.no_grad():
                values = given[0].detach().float()
                slope = (module.forward(values + _STEP) - module.forward(values - _STEP)).abs_().div_(2 * _STEP)
                reach = slope.transpose(0, 1).flatten(1).amax(1)
            self._dead[name] = float((reach < _DEAD).float().mean())

        return look

    def look_back(self) -> None:
        """Look at the gradients of the weights, after the backward pass."""
        for name, module in self._network.named_modules():
            parts = [
                one.grad.detach()
                for one in module.parameters(recurse=False)
                if one.ndim > 1 and one.grad is not None and one.numel()
            ]
            if parts:
                squares = sum(float(part.float().square().sum()) for part in parts)
                self._gradients[name] = (squares / sum(part.numel() for part in parts)) ** 0.5

    def record(self) -> dict[str, dict[str, float]]:
        """Numbers of the step, empty where none was looked at.

        `gradients`: layer -> root mean square of the gradient of its weights, before it is clipped. `dead_units`:
        activation -> share of its units (channels) whose slope was below 0.01 for all objects and places of the batch.
        """
        return {"gradients": _short(self._gradients), "dead_units": _short(self._dead)}


def _short(values: dict[str, float]) -> dict[str, float]:
    """Numbers of four digits: a log holds many."""
    return {name: float(f"{value:.4g}") for name, value in values.items()}
