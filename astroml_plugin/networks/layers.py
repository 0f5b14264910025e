"""Layers and checks that the networks share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.core.tracing import is_traced

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
PSF_GAIN = 100.0  # a PSF of unit sum has pixels of 0.01-0.1: bring them to order 1
PSF_FEATURES = 32


def fast_asinh(values: Tensor) -> Tensor:
    """asinh to float32 rounding, from operations that torch vectorises on a CPU (its own is seven times slower)."""
    if values.requires_grad:
        return torch.asinh(values)
    size = values.abs()
    if is_traced():  # in words that every runtime knows
        return ((size * size + 1).sqrt() + size).log() * values.sign()
    return torch.addcmul(torch.ones_like(size), size, size).sqrt_().add_(size).log_().copysign_(values)


def lower_median(values: Tensor) -> Tensor:
    """Median (the lower of two) over the last axis without the NaN; 0 where there is nothing else.

    On a CPU by a partition: torch's own takes twice as long. In a graph by a sort, which every runtime knows.
    """
    if is_traced():
        return _sorted_median(values)
    plain = values.device.type == "cpu" and not values.requires_grad
    if plain and values.shape[-1] and not bool(values.isnan().any()):
        middle = (values.shape[-1] - 1) // 2
        return torch.from_numpy(np.partition(values.numpy(), middle, axis=-1)[..., middle].copy())
    return torch.nanmedian(values, dim=-1).values.nan_to_num()


def _sorted_median(values: Tensor) -> Tensor:
    known = ~values.isnan()
    most = (values.shape[-1] - 1) // 2 + 1
    ranked = torch.where(known, values, torch.inf).topk(most, dim=-1, largest=False).values
    place = ((known.sum(-1, keepdim=True) - 1) // 2).clamp_min(0)
    return torch.where(known.any(-1), ranked.gather(-1, place)[..., 0], 0.0)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse an argument that is none of a few words.

    Raises:
        ValueError: names them.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def activation_of(name: str) -> type[nn.Module]:
    """The activation of that name.

    Raises:
        ValueError: there is none.
    """
    check_choice("activation", name, tuple(ACTIVATIONS))
    return ACTIVATIONS[name]


def check_fraction(name: str, value: float) -> None:
    """Refuse a fraction that is not from 0 to below 1.

    Raises:
        ValueError: says so.
    """
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be a fraction from 0 to below 1, not {value}")


class PointConvolution(nn.Conv2d):
    """A strided 1 x 1 convolution that leaves out what it skips beforehand: the same function.

    Of a few channels in channels_last, the gradient of torch's own (2.13, CPU) writes beyond its memory.
    """

    def __init__(self, before: int, after: int, stride: int | tuple[int, int], bias: bool = False) -> None:
        super().__init__(before, after, 1, stride, bias=bias)

    def forward(self, image: Tensor) -> Tensor:
        """(n, after, h / stride, w / stride)."""
        down, across = self.stride
        return functional.conv2d(image[..., ::down, ::across], self.weight, self.bias)


class Residual(nn.Module):
    """Layers and a way around them, added and activated (He et al. 2016).

    Args:
        body: the layers.
        around: what brings the input to the same shape; empty where it has it already.
        act: the activation.
    """

    def __init__(self, body: Sequence[nn.Module], around: Sequence[nn.Module], act: type[nn.Module]) -> None:
        super().__init__()
        self.body, self.around, self.act = nn.Sequential(*body), nn.Sequential(*around), act()

    def forward(self, image: Tensor) -> Tensor:
        """(n, after, ...) from (n, before, ...)."""
        output: Tensor = self.act(self.body(image) + self.around(image))
        return output


def convolution(
    before: int, after: int, size: int, stride: int, act: type[nn.Module], batch_norm: bool
) -> list[nn.Module]:
    """One convolution with its normalisation and activation."""
    plain = size > 1 or stride == 1
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, size, stride, size // 2, bias=not batch_norm)
        if plain
        else PointConvolution(before, after, stride, bias=not batch_norm)
    ]
    if batch_norm:
        layers.append(nn.BatchNorm2d(after))
    return [*layers, act()]


def psf_branch(bands: int, act: type[nn.Module], batch_norm: bool) -> nn.Sequential:
    """PSF (n, bands, py, px) to `PSF_FEATURES` numbers."""
    return nn.Sequential(
        *convolution(bands, 8, 5, 2, act, batch_norm),
        *convolution(8, 16, 3, 2, act, batch_norm),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(1),
        nn.Linear(256, PSF_FEATURES),
        act(),
    )


def with_psf(found: Tensor, branch: nn.Module | None, psf: Tensor | None) -> Tensor:
    """Features of the image (n, f), followed by those of the PSF where the network has a branch for it.

    Raises:
        ValueError: it has one and there is no PSF.
    """
    if branch is None:
        return found
    if psf is None:
        raise ValueError("this network takes the PSF as its second input")
    return torch.cat([found, branch(psf * PSF_GAIN)], dim=1)
