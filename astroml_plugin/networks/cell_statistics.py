"""Plain statistics of cells of windows as arithmetic of tensors: light, and noise about them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.networks.stamp_statistics import LAGS, LEAST

_KNOWN = 0.2
"""Part of a cell's pixels that must differ from their neighbours to tell of noise."""

_NOTHING = 1e3
"""Stands for the noise where none is told."""


class CellLight(nn.Module):
    """Light of images in cells: mean, highest and lowest pixel of a cell, and the mean about it.

    Args:
        stride: side of a cell, pixels.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, image: Tensor) -> Tensor:
        """(n, 4 x bands, h / stride, w / stride) of images (n, bands, h, w)."""
        mean = functional.avg_pool2d(image, self.stride)
        high = functional.max_pool2d(image, self.stride)
        low = -functional.max_pool2d(-image, self.stride)
        about = functional.avg_pool2d(mean, 3, 1, 1, count_include_pad=False)
        return torch.cat([mean, high, low, about], dim=1)


class CellNoise(nn.Module):
    """Noise about cells of images: steps between near pixels where they are smallest, within two cells.

    Args:
        stride: side of a cell, pixels.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, image: Tensor) -> Tensor:
        """(n, numbers x bands, h / stride, w / stride) of images (n, bands, h, w)."""
        sizes = []
        for down, right in LAGS:
            height, width = image.shape[-2] - down, image.shape[-1] - right
            step = (image[..., down:, right:] - image[..., :height, :width]).abs()
            step = functional.pad(step, (0, right, 0, down))
            known = functional.avg_pool2d((step > 0).to(step.dtype), self.stride)  # none beyond an image's border
            cells = functional.avg_pool2d(step, self.stride) / known.clamp_min(LEAST)
            cells = torch.where(known > _KNOWN, cells, _NOTHING)
            sizes.append((-functional.max_pool2d(-cells, 5, 1, 2) + LEAST).log())
        return torch.cat(sizes, dim=1)
