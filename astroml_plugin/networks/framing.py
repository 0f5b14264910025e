"""A galaxy in its own frame: centred, upright, of unit size and flux; and back onto pixels, at any shape.

The frame is that of the elliptical Gaussian which fits the light best (adaptive moments, Bernstein & Jarvis 2002). What
is drawn from it has the flux, size and ellipticity asked for by construction, not because a network learned them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

REACH, BEND = 16.0, 3.5
"""Half-width of the frame's grid in units of the size, and how much finer it is in the middle (a sinh of the place)."""
SOFTENING = 1e-3
"""Surface brightness (flux per unit area of the frame) at which its scale turns from linear to logarithmic."""
_STEPS, _START = 40, 2.0
_LEAST = 0.5  # pixels of a size that is believed; the most is a quarter of the stamp


class Shape(NamedTuple):
    """Shapes of n galaxies on pixels; sizes in pixels, positions from the pixel size // 2."""

    flux: Tensor
    """(n,) sum of the pixels, all bands."""
    size: Tensor
    """(n,) standard deviation of the Gaussian that fits best, sqrt(ab)."""
    e: Tensor
    """(n, 2) (a-b)/(a+b) times cos 2 phi, sin 2 phi; phi from +x towards +y."""
    centre: Tensor
    """(n, 2) x, y."""


def shape_of(light: Tensor) -> Shape:
    """Shapes from images (n, h, w) without background; a galaxy that fits no Gaussian has size 0.

    Raises:
        ValueError: images that are not square.
    """
    count, height, width = light.shape
    if height != width:
        raise ValueError(f"shapes are measured on square images, not {height} x {width}")
    axis = torch.arange(width, dtype=light.dtype, device=light.device) - width // 2
    centre = light.new_zeros(count, 2)
    matrix = light.new_tensor([_START**2, 0.0, _START**2]).expand(count, 3).clone()
    good = torch.ones(count, dtype=torch.bool, device=light.device)
    for _ in range(_STEPS):
        found, shift = _weighted(light, axis, centre, matrix)
        determinant = 4 * (found[:, 0] * found[:, 2] - found[:, 1].square())
        good &= (determinant > _LEAST**4) & (determinant < (width / 4) ** 4) & (shift.abs().amax(1) < width / 4)
        matrix = torch.where(good[:, None], 2 * found, matrix)
        centre = torch.where(good[:, None], (centre + 2 * shift).clamp(-width / 4, width / 4), centre)
    size = (matrix[:, 0] * matrix[:, 2] - matrix[:, 1].square()).clamp_min(1e-12) ** 0.25
    e = torch.stack([matrix[:, 0] - matrix[:, 2], 2 * matrix[:, 1]], dim=1)
    e = e / (matrix[:, 0] + matrix[:, 2] + 2 * size.square())[:, None]
    return Shape(light.sum((1, 2)), torch.where(good, size, 0.0), e, centre)


def _weighted(light: Tensor, axis: Tensor, centre: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Moments (n, 3: xx, xy, yy) and offsets (n, 2) under Gaussians of covariance `matrix` about `centre`."""
    dx, dy = axis - centre[:, :1], axis - centre[:, 1:]
    xx, xy, yy = matrix.T[:, :, None]
    determinant = (xx * yy - xy.square()).clamp_min(1e-12)
    along = torch.exp(-0.5 * yy / determinant * dx.square())
    across = torch.exp(-0.5 * xx / determinant * dy.square())
    weight = torch.exp((xy / determinant)[..., None] * dy[:, :, None] * dx[:, None, :])
    seen = light * weight * across[:, :, None] * along[:, None, :]
    total = seen.sum((1, 2)).clamp_min(1e-12)
    columns, rows = seen.sum(1), seen.sum(2)
    shift = torch.stack([(columns * dx).sum(1), (rows * dy).sum(1)], dim=1) / total[:, None]
    mixed = torch.einsum("ny,nyx,nx->n", dy, seen, dx)
    found = torch.stack([(columns * dx.square()).sum(1), mixed, (rows * dy.square()).sum(1)], dim=1)
    return found / total[:, None], shift


def frame(size: Tensor, e: Tensor) -> Tensor:
    """(n, 2, 2) from the frame to pixels: the long axis of the galaxy is the frame's x."""
    length = e.norm(dim=1).clamp(0.0, 0.95)
    angle = 0.5 * torch.atan2(e[:, 1], e[:, 0])
    ratio = ((1 - length) / (1 + length)).sqrt()
    cosine, sine = angle.cos(), angle.sin()
    columns = [
        torch.stack([cosine, sine], dim=1) / ratio[:, None],
        torch.stack([-sine, cosine], dim=1) * ratio[:, None],
    ]
    return torch.stack(columns, dim=2) * size[:, None, None]


def places(side: int, device: torch.device | None = None) -> Tensor:
    """(side,) places of the frame's grid along an axis, in units of the size."""
    return REACH * torch.sinh(BEND * torch.linspace(-1, 1, side, device=device)) / math.sinh(BEND)


def framed(image: Tensor, shape: Shape, side: int) -> tuple[Tensor, Tensor]:
    """Images (n, b, s, s) as logarithmic surface brightness in the galaxies' frames.

    Returns:
        (n, b, side, side), about 1 in the middle; and (n, 1, side, side) 1 within the stamp.
    """
    matrix = frame(shape.size, shape.e)
    grid = places(side, image.device)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    where = torch.einsum("nij,yxj->nyxi", matrix, torch.stack([x, y], dim=2)) + shape.centre[:, None, None, :]
    fine = _doubled(image)
    step = image.shape[-1] // 2
    index = 2 * (where + step)  # of the doubled image
    normal = (2 * index + 1) / fine.shape[-1] - 1
    light = functional.grid_sample(fine, normal, mode="bicubic", padding_mode="zeros", align_corners=False)
    inside = ((index >= 0) & (index <= 2 * image.shape[-1] - 2)).all(3)[:, None].to(image.dtype)
    scale = shape.size.square() / shape.flux.clamp_min(1e-12)
    return compressed(light * scale[:, None, None, None]) * inside, inside


def unframed(brightness: Tensor, shape: Shape, side: int) -> Tensor:
    """Images (n, b, side, side) of the flux, size, ellipticity and centre asked for, from what `framed` gives."""
    inverse = torch.linalg.inv(frame(shape.size, shape.e))
    axis = torch.arange(side, dtype=brightness.dtype, device=brightness.device) - side // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    offset = torch.stack([x, y], dim=2) - shape.centre[:, None, None, :]
    where = torch.einsum("nij,nyxj->nyxi", inverse, offset)
    place = torch.asinh(where * (math.sinh(BEND) / REACH)) / BEND
    seen = functional.grid_sample(brightness, place, mode="bicubic", padding_mode="border", align_corners=True)
    light = expanded(seen)
    return light * (shape.flux / light.sum((1, 2, 3)).clamp_min(1e-12))[:, None, None, None]


_CENTRE = math.asinh(1 / (2 * math.pi) / SOFTENING)


def compressed(light: Tensor) -> Tensor:
    """Surface brightness on its logarithmic scale: 1 in the middle of a Gaussian."""
    return torch.asinh(light / SOFTENING) / _CENTRE


def expanded(brightness: Tensor) -> Tensor:
    """Pixel values from what `compressed` gave."""
    return SOFTENING * torch.sinh(_CENTRE * brightness.clamp(-1.0, 2.0))


def _doubled(image: Tensor) -> Tensor:
    """Images (n, b, s, s) at twice the pixels per side, band-limited: their pixel i is pixel 2 i of the result."""
    side = image.shape[-1]
    before, after = side - side // 2, side // 2  # frequency 0 goes from place s // 2 to s
    transform = torch.fft.fftshift(torch.fft.fft2(image), dim=(-2, -1))
    wide = functional.pad(transform, (before, after, before, after))
    output: Tensor = 4 * torch.fft.ifft2(torch.fft.ifftshift(wide, dim=(-2, -1))).real
    return output
