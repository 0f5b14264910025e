"""Activation maximisation, "inceptionism": stamps that a network would like to see.

A stamp is changed, step by step, so that a number grows: a class, a score, one filter of a layer (Erhan et al. 2009;
Mordvintsev et al. 2015). The change of each step is smoothed over several scales, and pixels stay within the range that
real stamps have; without both, noise that nobody could see would win.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_unknown
from astroml_plugin.explanation.options import DreamOptions
from astroml_plugin.explanation.target import Seen, Target, gradients, values


@dataclass(frozen=True)
class Dream:
    """Stamps that were changed."""

    image: Tensor
    """(n, channel, h, w) as the network gets them."""
    before: Tensor
    """(n,) the number at the start."""
    after: Tensor
    """(n,) and at the end."""


class Filter(nn.Module):
    """Mean answer of one channel of a layer, in place of a number of the task.

    Args:
        target: of the bundle.
        layer: name of a layer, as `layers` lists them.
        channel: number of the channel; None: each stamp has its own, which stands in `Seen.place`.

    Raises:
        InputError: no such layer or channel.
    """

    def __init__(self, target: Target, layer: str, channel: int | None) -> None:
        super().__init__()
        known = layers(target.network)
        refuse_unknown([layer], known, "the layers of this network")
        if channel is not None and not 0 <= channel < known[layer]:
            raise InputError(f"layer {layer} has {known[layer]} channels, there is no {channel}")
        self.task, self.network = target.task, target.network
        self.number = layer if channel is None else f"{layer}[{channel}]"
        self.layer, self.channel = layer, channel

    def forward(self, image: Tensor, place: Tensor, *others: Tensor) -> Tensor:
        """(n,) from what a `Target` takes; `place` is read where the channel is None."""
        (found,) = heard(self.network, [self.layer], image, *others).values()
        means = found.flatten(2).mean(2)
        return means[:, self.channel] if self.channel is not None else means.gather(1, place[:, None])[:, 0]


def layers(network: nn.Module) -> dict[str, int]:
    """Name of each convolution of a network -> its channels, from the first one on."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return {name: layer.out_channels for name, layer in network.named_modules() if isinstance(layer, kinds)}


def heard(network: nn.Module, names: list[str], *inputs: Tensor) -> dict[str, Tensor]:
    """Answers of some layers to the inputs of a network, by name; the first one of a layer that answers often."""
    answers: dict[str, Tensor] = {}

    def listen(name: str) -> Callable[..., None]:
        def keep(layer: nn.Module, given: Any, answer: Tensor) -> None:
            answers.setdefault(name, answer)

        return keep

    handles = [network.get_submodule(name).register_forward_hook(listen(name)) for name in names]
    try:
        network(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return answers


def feature_maps(target: Target, seen: Seen, names: list[str] | None = None) -> dict[str, Tensor]:
    """Answers (n, channel, h, w) of convolutions to stamps, by name; default: all convolutions.

    Raises:
        InputError: there is no such layer.
    """
    known = layers(target.network)
    refuse_unknown(names or (), known, "the layers of this network")
    with torch.no_grad():
        return heard(target.network, names or list(known), seen.image, *seen.others)


def dream(target: Target | Filter, seen: Seen, how: DreamOptions | None = None, real: Tensor | None = None) -> Dream:
    """Change stamps so that the number grows.

    Args:
        target: the number, or a filter.
        seen: n stamps to begin with, such as noise, blank sky or real objects.
        how: steps and smoothing.
        real: (m, channel, h, w) stamps whose range the pixels keep to; default: those to begin with.
    """
    how = how or DreamOptions()
    blank = target.task.blank(seen.image)
    known = seen.image if real is None else real
    low, high = (edge(known.transpose(0, 1).flatten(1), 1)[None, :, None, None] for edge in (torch.amin, torch.amax))
    span = (high - low).clamp_min(1e-6)
    generator = torch.Generator().manual_seed(how.seed)
    image, before = seen.image, values(target, seen.image, *seen.given())  # type: ignore[arg-type]
    for _ in range(how.steps):
        down, right = (int(move) for move in torch.randint(-how.jitter, how.jitter + 1, (2,), generator=generator))
        moved = image.roll((down, right), (2, 3)).contiguous(memory_format=torch.channels_last)
        _, slope = gradients(target, moved, *seen.given())  # type: ignore[arg-type]
        slope = _smoothed(slope.roll((-down, -right), (2, 3)), how.scales) * seen.usable
        size = slope.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        image = image + how.rate * span * slope / size
        image = blank + (1 - how.decay) * (image - blank)
        image = torch.minimum(torch.maximum(image, low), high)
    return Dream(image, before, values(target, image, *seen.given()))  # type: ignore[arg-type]


def _smoothed(image: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Mean of images (n, c, h, w) smoothed by Gaussians."""
    return torch.stack([_blurred(image, width) for width in widths]).mean(0)


def _blurred(image: Tensor, width: float) -> Tensor:
    if width <= 0:
        return image
    reach = min(int(3 * width + 0.5), min(image.shape[2:]) - 1)
    axis = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (axis / width) ** 2)
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, -1)
    padded = functional.pad(image, (reach,) * 4, mode="reflect")
    across = functional.conv2d(padded, kernel[:, :, None], groups=image.shape[1])
    return functional.conv2d(across, kernel[..., None], groups=image.shape[1])
