"""Dense layers on the pixels, from a perceptron to a deep MLP: what convolutions are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from astroml_plugin.networks.layers import PSF_GAIN, activation_of, check_fraction


class MLP(nn.Module):
    """Stamps (and optionally their PSFs) to one row of numbers each, through dense layers on the flattened pixels.

    Args:
        bands: channels of the image.
        outputs: numbers per object.
        psf: whether a PSF (n, bands, py, px) is the second input; its pixels are appended.
        size: side of the image, pixels.
        psf_size: side of the PSF, pixels.
        hidden: units of the dense layers; none is a perceptron (softmax regression).
        binning: pixels are first averaged over squares of this side; those left over at the edge go.
        activation: relu, leaky_relu, elu, gelu, silu, tanh or sigmoid.
        dropout: fraction of the units of each dense layer dropped while training.
        batch_norm: normalise over the batch after each dense layer.

    Raises:
        ValueError: an unknown activation, a dropout that is no fraction, a layer without units, or a binning that
            leaves no pixel.
    """

    def __init__(
        self,
        bands: int,
        outputs: int,
        *,
        psf: bool = False,
        size: int = 48,
        psf_size: int = 25,
        hidden: Sequence[int] = (256, 64),
        binning: int = 1,
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        act = activation_of(activation)
        check_fraction("dropout", dropout)
        if not 1 <= binning <= size or min(hidden, default=1) < 1:
            raise ValueError(
                f"binning ({binning}) must be from 1 to the stamp's side ({size}) and hidden layers ({list(hidden)}) "
                f"must have units"
            )
        self.size, self.binning, self.psf = size, binning, psf
        before = bands * ((size // binning) ** 2 + (psf_size**2 if psf else 0))
        layers: list[nn.Module] = []
        for units in hidden:
            layers.append(nn.Linear(before, units, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(units))
            layers += [act(), nn.Dropout(dropout)]
            before = units
        self.layers = nn.Sequential(*layers, nn.Linear(before, outputs))

    def forward(self, image: Tensor, psf: Tensor | None = None) -> Tensor:
        """(n, outputs) from image (n, bands, size, size) and, where taken, psf (n, bands, py, px) of unit sum."""
        if image.shape[-2:] != (self.size, self.size):
            raise ValueError(f"this network reads stamps of {self.size} px, not {tuple(image.shape[-2:])}")
        found = nn.functional.avg_pool2d(image, self.binning).flatten(1)
        if self.psf:
            if psf is None:
                raise ValueError("this network takes the PSF as its second input")
            found = torch.cat([found, (psf * PSF_GAIN).flatten(1)], dim=1)
        output: Tensor = self.layers(found)
        return output
