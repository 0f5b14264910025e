"""A small convolutional network whose stem is strided: no layer ever works at full resolution.

A stem at full resolution is the usual waste (10-50 times slower on CPUs for the same accuracy on survey stamps).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from astroml_plugin.networks.layers import PSF_FEATURES, activation_of, check_choice, convolution, psf_branch, with_psf

_POOLINGS = ("mean", "max", "grid")


class StridedCNN(nn.Module):
    """Stamps (and optionally their PSFs) to one row of numbers each.

    Args:
        bands: channels of the image.
        outputs: numbers per object.
        psf: whether a PSF (n, bands, py, px) is the second input.
        widths: channels of the stages; each stage halves the resolution.
        depth: further convolutions per stage at its resolution (none in the stem).
        hidden: units of the dense layer.
        activation: relu, leaky_relu, elu, gelu, silu, tanh or sigmoid.
        pooling: "mean" and "max" take one number per channel, "grid" keeps the means of a coarse grid of cells and
            with them where in the stamp something is. All accept any stamp size.
        grid: cells per side for "grid".
        dropout: fraction of dense units dropped while training.
        batch_norm: normalise over the batch after each convolution.

    Raises:
        ValueError: an unknown activation or pooling.
    """

    def __init__(
        self,
        bands: int,
        outputs: int,
        *,
        psf: bool = False,
        widths: Sequence[int] = (16, 32, 64),
        depth: int = 1,
        hidden: int = 128,
        activation: str = "relu",
        pooling: str = "mean",
        grid: int = 3,
        dropout: float = 0.0,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        act = activation_of(activation)
        check_choice("pooling", pooling, _POOLINGS)
        layers: list[nn.Module] = convolution(bands, widths[0], 5, 2, act, batch_norm)
        for before, after in pairwise(widths):
            layers += convolution(before, after, 3, 2, act, batch_norm)
            for _ in range(depth):
                layers += convolution(after, after, 3, 1, act, batch_norm)
        self.features = nn.Sequential(*layers)
        cells = grid if pooling == "grid" else 1
        self.pool = nn.AdaptiveMaxPool2d(1) if pooling == "max" else nn.AdaptiveAvgPool2d(cells)
        self.psf_features = psf_branch(bands, act, batch_norm) if psf else None
        flat = widths[-1] * cells**2 + (PSF_FEATURES if psf else 0)
        self.head = nn.Sequential(
            nn.Linear(flat, hidden),
            act(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden // 2),
            act(),
            nn.Linear(hidden // 2, outputs),
        )

    def forward(self, image: Tensor, psf: Tensor | None = None) -> Tensor:
        """(n, outputs) from image (n, bands, h, w) and, where taken, psf (n, bands, py, px) of unit sum."""
        found = self.pool(self.features(image)).flatten(1)
        output: Tensor = self.head(with_psf(found, self.psf_features, psf))
        return output
