"""Answers of a network's layers, pooled over the stamp while it runs, without a second run and without changing it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from astroml_plugin.core.tracing import is_traced

LARGEST_MAP = 300
"""Pixels of a layer's map that is pooled, at most: larger ones cost time, and say what plain statistics say."""

MOST_MAPS, MOST_ROWS = 2, 1
"""Layers with maps that are listened to, at most; where there are none, layers with a row of numbers per object."""

_NARROW = 4
"""A layer with fewer channels or numbers tells too little."""


class Taps:
    """Pooled answers of some layers of a network, kept while it runs; several threads may run the network at once.

    A layer that is called several times for one answer, as where it is averaged over symmetries, counts once: its first
    call.

    Args:
        network: with the layers.
        layers: name as `named_modules` has it -> answers per object, see `pooled`.
        whole: keep maps as they are, not pooled.

    Raises:
        ValueError: the network has no such layer.
    """

    def __init__(self, network: nn.Module, layers: Mapping[str, int], *, whole: bool = False) -> None:
        modules = dict(network.named_modules())
        unknown = [name for name in layers if name not in modules]
        if unknown:
            raise ValueError(f"there is no layer {unknown[0]}")
        self.names = tuple(layers)
        self._followed: dict[str, Tensor] = {}
        self._own = threading.local()
        for name, turns in layers.items():
            modules[name].register_forward_hook(self._hook(name, 0 if whole else turns))

    def begin(self) -> None:
        """Forget what was kept: a new answer begins."""
        self._kept(fresh=True)

    def taken(self) -> list[Tensor]:
        """(n, numbers) of each layer, in the order of the names."""
        kept = self._kept()
        return [kept[name] for name in self.names]

    def _kept(self, *, fresh: bool = False) -> dict[str, Tensor]:
        if is_traced():  # by one thread alone, which torch could not follow into its own store
            if fresh:
                self._followed = {}
            return self._followed
        if fresh or not hasattr(self._own, "kept"):
            self._own.kept = {}
        found: dict[str, Tensor] = self._own.kept
        return found

    def _hook(self, name: str, turns: int) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            kept = self._kept()
            if name not in kept:
                kept[name] = pooled(output, turns) if turns else output.float() + 0.0

        return keep


def pooled(output: Tensor, turns: int = 1) -> Tensor:
    """(n, numbers) of a layer's answer: of a map (n, channels, h, w) mean and root mean square of each channel; of a
    sequence (n, tokens, numbers) the mean; of rows (n, numbers) themselves.

    Args:
        output: of the layer.
        turns: as many answers for each object, those to all objects one after the other: their mean counts.
    """
    values = output.float()
    if values.ndim == 4:
        values = torch.cat([values.mean((2, 3)), (values.square().mean((2, 3)) + 1e-12).sqrt()], dim=1)
    elif values.ndim == 3:
        values = values.mean(1)
    if turns > 1:
        values = values.unflatten(0, (turns, -1)).mean(0)
    elif output.ndim == 2:
        values = values + 0.0  # a copy: the next layer may write over it
    return values


def chosen_layers(network: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    """Layers worth listening to, with their answers per object.

    Of each size of maps the last layer, of the largest ones first: deeper ones, and the rows before the answer, added
    nothing. Of networks without maps the last rows. The last linear layers are left out: they are fitted anew without
    the rest of the network.

    Args:
        network: in eval mode.
        inputs: of two objects or more.
    """
    several, whole = _answers(network, inputs)
    single, _ = _answers(network, [item[:1] for item in inputs])
    count = len(inputs[0])
    maps: dict[tuple[int, ...], str] = {}
    rows: dict[str, Tensor] = {}
    turns: dict[str, int] = {}
    for name, output in several.items():
        each, one = len(output) // count, single.get(name)
        if one is None or not each or len(one) != each or len(output) != each * count:
            continue
        if each > 1 and not torch.allclose(output[::count], one, atol=1e-3):
            continue  # answers to one object after the other
        turns[name] = each
        if output.ndim == 2:
            rows[name] = output
        elif output.ndim == 3 or output.shape[2] * output.shape[3] <= LARGEST_MAP:
            maps[tuple(output.shape[2:]) if output.ndim == 4 else (-1, int(output.shape[1]))] = name
    kept = [name for size, name in maps.items() if size != (1, 1)][:MOST_MAPS]
    if kept:
        return {name: turns[name] for name in kept}
    distinct: list[str] = []
    for name in reversed(rows):
        if not any(_equal(rows[name], other) for other in (whole, *(rows[one] for one in distinct))):
            distinct.insert(0, name)
    return {name: turns[name] for name in distinct[-MOST_ROWS:]}


def chosen_maps(network: nn.Module, inputs: Sequence[Tensor], stride: int) -> dict[str, int]:
    """Layers of a network that gives maps, with the side of their pixels in a cell of `stride` input pixels.

    Of each size of maps, from a quarter of the input's resolution down to that of the cells, the last one.

    Args:
        network: in eval mode.
        inputs: windows whose sides are multiples of `stride`.
        stride: side of a cell, input pixels.
    """
    found, _ = _answers(network, inputs)
    side = int(inputs[0].shape[-1])
    maps = {}
    for name, output in found.items():
        pixels = side // int(output.shape[-1]) if output.ndim == 4 else 0
        if len(output) == len(inputs[0]) and 4 <= pixels <= stride and stride % pixels == 0:
            maps[pixels] = name
    return {name: stride // pixels for pixels, name in maps.items()}


def _answers(network: nn.Module, inputs: Sequence[Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Each layer's answer in its first call, in the order of the last calls, and the network's."""
    found: dict[str, Tensor] = {}

    def seen(name: str) -> Any:
        def note(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor) and 2 <= output.ndim <= 4 and output.is_floating_point():
                width = int(output.shape[2] if output.ndim == 3 else output.shape[1])
                if width >= _NARROW:
                    found[name] = found.pop(name) if name in found else output.clone()

        return note

    handles = [
        module.register_forward_hook(seen(name))
        for name, module in network.named_modules()
        if name and not _is_linear(module)
    ]
    try:
        with torch.inference_mode():
            answer = network(*(item.clone() for item in inputs))
    finally:
        for handle in handles:
            handle.remove()
    return found, answer


def _is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer or a chain that ends with one."""
    if isinstance(module, nn.Sequential) and len(module):
        return _is_linear(module[-1])
    return isinstance(module, nn.Linear)


def _equal(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and torch.equal(one, two)
