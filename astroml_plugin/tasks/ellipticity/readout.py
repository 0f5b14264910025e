"""Linear readouts of a network's last features: least squares, and how they enter the last layers.

A network of an `IntervalTask` ends in linear layers, one per member or one for all; "features" are what these layers
are given, averaged over the orientations that the network gives, with a last one that is 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.intervals import IntervalTask

_RIDGE = 1e-6  # of the mean square of the features
_RIDGES = tuple(10.0**power for power in range(-6, 1))  # to choose from, where what is fitted is noisy


class NormalEquations:
    """Normal equations of a linear fit of k numbers to f features, summed over any number of objects."""

    def __init__(self) -> None:
        self.objects = 0
        self.normal: np.ndarray | float = 0.0
        self.cross: np.ndarray | float = 0.0

    def add(self, features: np.ndarray, wanted: np.ndarray, noise: np.ndarray | float = 0.0) -> None:
        """Objects with features (n, f), the last of them 1, and estimates (n, k).

        Args:
            noise: (f, k), expected contribution of the noise to the sum of features times `wanted`, subtracted.
        """
        self.objects += len(features)
        self.normal = self.normal + features.T @ features
        self.cross = self.cross + features.T @ wanted - noise

    def __add__(self, other: NormalEquations) -> NormalEquations:
        """Sums over the objects of both."""
        both = NormalEquations()
        both.objects = self.objects + other.objects
        both.normal, both.cross = self.normal + other.normal, self.cross + other.cross
        return both

    def solve(self, ridge: float = _RIDGE) -> np.ndarray:
        """(f, k) weights of the least squares."""
        return ridge_solution(np.asarray(self.normal) / self.objects, np.asarray(self.cross) / self.objects, ridge)

    def loss(self, weights: np.ndarray) -> float:
        """Mean square that weights (f, k) leave, but for a constant."""
        square = np.einsum("fk,fg,gk->", weights, np.asarray(self.normal), weights)
        return float(square - 2 * (weights * self.cross).sum()) / self.objects


def ridge_solution(normal: np.ndarray, cross: np.ndarray, ridge: float = _RIDGE, free: bool = True) -> np.ndarray:
    """Least squares with a ridge in units of the mean square; `free`: but for the last weight, the constant's."""
    added = ridge * np.trace(normal) / len(normal) * np.eye(len(normal))
    if free:
        added[-1, -1] = 0.0
    return np.linalg.solve(normal + added, cross)


def best_ridge(parts: list[NormalEquations]) -> float:
    """The ridge under which each part is best described by the fit to the others."""

    def loss(ridge: float) -> float:
        left = [sum((other for other in parts if other is not part), NormalEquations()) for part in parts]
        return sum(part.loss(rest.solve(ridge)) for part, rest in zip(parts, left))

    return min(_RIDGES, key=loss)


class FeatureSpread:
    """Mean and covariance of the features of one layer, orientations counted one by one."""

    def __init__(self) -> None:
        self.count = 0
        self.total: np.ndarray | float = 0.0
        self.square: np.ndarray | float = 0.0

    def add(self, features: np.ndarray) -> None:
        """(n, f) more."""
        self.count += len(features)
        self.total = self.total + features.sum(0)
        self.square = self.square + features.T @ features

    @property
    def mean(self) -> np.ndarray:
        """(f,)"""
        return np.asarray(self.total) / self.count

    @property
    def covariance(self) -> np.ndarray:
        """(f, f)"""
        return np.asarray(self.square) / self.count - np.outer(self.mean, self.mean)


def last_layers(task: IntervalTask, network: nn.Module) -> list[nn.Linear]:
    """The linear layers that give the outputs: one per member, or one for all."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    for size, count in ((task.per_member, task.settings.members), (task.outputs, 1)):
        layers = [layer for layer in linear if layer.out_features == size]
        if len(layers) == count:
            return layers
    raise InputError("the response needs a network that ends in linear layers, one for each member or one for all")


@contextmanager
def listening(layers: list[nn.Linear]) -> Iterator[dict[int, Tensor]]:
    """Inputs that each layer was given last, by number."""
    heard: dict[int, Tensor] = {}

    def listen(number: int) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            heard[number] = inputs[0].detach()

        return hook

    handles = [layer.register_forward_pre_hook(listen(number)) for number, layer in enumerate(layers)]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def features_of(heard: dict[int, Tensor], count: int, signs: Tensor | None = None) -> Tensor:
    """(n, f + 1) of `count` objects on the CPU, averaged over the orientations the network gives, the last of them 1.

    Args:
        heard: inputs of each last layer, (orientations x n, f).
        count: n.
        signs: (orientations,) factors in the average; default 1.
    """
    layers = [item.float().cpu().reshape(-1, count, item.shape[-1]) for item in heard.values()]
    if signs is not None:
        layers = [layer * signs[: len(layer), None, None] for layer in layers]
    constant = 1.0 if signs is None else float(signs[: len(layers[0])].mean())
    return torch.cat([*(layer.mean(0) for layer in layers), torch.full((count, 1), constant)], dim=1)


def add_to_means(
    task: IntervalTask, heads: list[nn.Linear], weights: list[np.ndarray], constants: list[np.ndarray]
) -> None:
    """Add readouts (f, 2) and constants (2,) of each layer to the means of every member; members are averaged."""
    with torch.no_grad():
        for head, readout, constant in zip(heads, weights, constants):
            for member in range(head.out_features // task.per_member):
                rows = slice(member * task.per_member, member * task.per_member + 2)
                head.weight[rows] += len(heads) * torch.from_numpy(readout.T).to(head.weight)
                head.bias[rows] += len(heads) * torch.from_numpy(constant).to(head.bias)


def write_response(task: IntervalTask, heads: list[nn.Linear], weights: np.ndarray) -> None:
    """Put the readout (f, 4) of R11, R12, R21, R22 into the response rows of every member; members are averaged."""
    values = torch.from_numpy(weights).float()
    start = 0
    with torch.no_grad():
        for head in heads:
            stop = start + head.in_features
            for member in range(head.out_features // task.per_member):
                last = (member + 1) * task.per_member
                head.weight[last - task.extra : last] = len(heads) * values[start:stop].T.to(head.weight)
                head.bias[last - task.extra : last] = values[-1].to(head.bias)
            start = stop
