"""Plain statistics of stamps as arithmetic of tensors: light in rings, noise at the corners, the shape of a PSF.

They tell what a network's own features forget: how the noise is correlated, in which order the bands are, where light
is negative.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

RINGS = (0.0, 0.05, 0.1, 0.16, 0.24, 0.35, 0.5, 0.7, 1.0)
"""Edges of the rings about a stamp's centre, in half sides."""

WIDE_RINGS = (0.0, 0.12, 0.25, 0.45, 0.7, 1.0)
"""Edges of the rings in which near pixels are compared."""

CORE_RINGS = (0.0, 0.063, 0.125, 0.22)
"""Edges of the rings in which colours are taken."""

LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))
"""Steps (y, x) in pixels between which the noise is compared."""

TEXTURE_LAGS = ((0, 1), (1, 0), (2, 2))
"""Steps between which the whole stamp is compared."""

_KNOWN = 0.2
"""Part of a cell's pixels that must differ from their neighbours to tell of noise."""

_NOTHING = 1e3
"""Stands for the noise where none is told."""

_LEAST = 1e-3
"""Added before a logarithm, in units of the network's input."""

_FAINT = 0.3
"""Light below which a colour is none, in the same units."""


def _rings(height: int, width: int, edges: Sequence[float]) -> Tensor:
    """(height, width, rings) 1 in each ring about pixel side // 2, else 0."""
    y, x = (torch.arange(side, dtype=torch.float32) - side // 2 for side in (height, width))
    radius = torch.hypot(y[:, None], x)[..., None] / (min(height, width) / 2)
    bounds = torch.tensor(edges)
    return ((radius >= bounds[:-1]) & (radius < bounds[1:])).float()


def _mean_in(rings: Tensor) -> Tensor:
    """(pixels, rings) weights of the means in rings (h, w, rings)."""
    flat = rings.flatten(0, 1)
    return flat / flat.sum(0).clamp_min(1)


class RingLight(nn.Module):
    """Mean of images in rings about pixel side // 2, those of `RINGS` and those of `CORE_RINGS`.

    Args:
        height: of the images, pixels.
        width: of the images, pixels.
    """

    rings: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        both = [_mean_in(_rings(height, width, edges)) for edges in (RINGS, CORE_RINGS)]
        self.register_buffer("rings", torch.cat(both, dim=1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(n, bands, rings) of images (n, bands, h, w)."""
        found: Tensor = image.flatten(2) @ self.rings
        return found


def core_colour(light: Tensor) -> Tensor:
    """Differences of neighbouring bands near the centre, as parts of the light there.

    Args:
        light: (n, bands, rings) of `RingLight`.

    Returns:
        (n, (bands - 1) x core rings).
    """
    core = light[..., 1 - len(CORE_RINGS) :]
    total = core.abs().mean(1, keepdim=True) + _FAINT
    return ((core[:, 1:] - core[:, :-1]) / total).flatten(1)


class RingShape(nn.Module):
    """How unlike itself light is in rings: under half a turn, by its highest pixels, by its spread. All bands together.

    Args:
        height: of the images, pixels.
        width: of the images, pixels.
    """

    rings: Tensor
    odd_rings: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        rings = _rings(height, width, RINGS)
        self.above, self.left = 1 - height % 2, 1 - width % 2
        self.register_buffer("rings", _mean_in(rings), persistent=False)
        self.register_buffer("odd_rings", _mean_in(rings[self.above :, self.left :]), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(n, 3 x rings) of images (n, h, w)."""
        flat = image.flatten(1)
        square = flat.square()
        mean, power, fourth = flat @ self.rings, square @ self.rings, square.square() @ self.rings
        centred = image[:, self.above :, self.left :]
        turned = (centred - centred.flip((1, 2))).flatten(1).square() @ self.odd_rings
        spread = (power - mean.square()).clamp_min(0)
        sizes = torch.cat([turned, spread], dim=1) + 0.1 * _LEAST
        return torch.cat([0.5 * sizes.log(), 0.25 * (fourth + _LEAST**2).log()], dim=1)


class RingTexture(nn.Module):
    """Mean steps between near pixels in rings: sharpness, interpolation, stripes. All bands together.

    Args:
        height: of the images, pixels.
        width: of the images, pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        rings = _rings(height, width, WIDE_RINGS)
        for place, (down, right) in enumerate(TEXTURE_LAGS):
            weights = _mean_in(rings[: height - down, : width - right])
            self.register_buffer(f"rings{place}", weights, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(n, lags x rings) of images (n, h, w)."""
        sizes = []
        for place, (down, right) in enumerate(TEXTURE_LAGS):
            height, width = int(image.shape[1]) - down, int(image.shape[2]) - right
            step = (image[:, down:, right:] - image[:, :height, :width]).abs()
            sizes.append(step.flatten(1) @ getattr(self, f"rings{place}"))
        return (torch.cat(sizes, dim=1) + _LEAST).log()


class CornerNoise(nn.Module):
    """Noise of images at their corners: its size, its steps between near pixels, its level and its highest pixel.

    Of the four corners the two in the middle count, so that one neighbour changes little.
    """

    def forward(self, image: Tensor) -> Tensor:
        """(n, bands x numbers) of images (n, bands, h, w)."""
        side = max(4, min(int(image.shape[-2]), int(image.shape[-1])) // 4)
        upper, lower = image[..., :side, :], image[..., -side:, :]
        corners = torch.stack(
            [upper[..., :side], upper[..., -side:], lower[..., :side], lower[..., -side:]], dim=2
        )  # (n, bands, 4, side, side)
        level = corners.mean((3, 4), keepdim=True)
        sizes = [(corners - level).abs().mean((3, 4)), corners.amax((3, 4)) - level[..., 0, 0]]
        for down, right in LAGS:
            step = corners[..., down:, right:] - corners[..., : side - down, : side - right]
            sizes.append(step.abs().mean((3, 4)))
        logs = [_middle(size + _LEAST).log() for size in sizes]
        return torch.cat([*logs, _middle(level[..., 0, 0])], dim=1)


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
            cells = functional.avg_pool2d(step, self.stride) / known.clamp_min(_LEAST)
            cells = torch.where(known > _KNOWN, cells, _NOTHING)
            sizes.append((-functional.max_pool2d(-cells, 5, 1, 2) + _LEAST).log())
        return torch.cat(sizes, dim=1)


def _middle(values: Tensor) -> Tensor:
    """(n, bands) mean of the two in the middle of (n, bands, 4)."""
    return 0.5 * (values.sum(2) - values.amax(2) - values.amin(2))
