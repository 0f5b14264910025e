"""Random changes of training stamps beyond the symmetries of the square: angle, shifts, brightness, colours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from astroml_plugin.core.errors import InputError


@dataclass(frozen=True)
class Warp:
    """Random changes of training stamps. Pixels are interpolated (bilinear), so that noise becomes smoother."""

    turn: bool = False
    """Rotate by any angle instead of quarter turns only; for tasks whose labels a rotation does not change."""
    shift: float = 0.0
    """Largest shift along each axis, pixels."""
    gain: float = 0.0
    """Standard deviation of the logarithm of a common factor on the pixels."""
    colour: float = 0.0
    """Standard deviation of the logarithm of a factor on the pixels of each band."""

    def __post_init__(self) -> None:
        if min(self.shift, self.gain, self.colour) < 0:
            raise InputError(
                f"warp shift ({self.shift}), gain ({self.gain}) and colour ({self.colour}) must be 0 or more"
            )

    def __bool__(self) -> bool:
        return self.turn or max(self.shift, self.gain, self.colour) > 0

    def apply(self, inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Network inputs (image, PSF if any, …), changed: image and PSF rotate together, the image alone is shifted.

        Args:
            inputs: normalised, with a background of 0; those with four axes are images.
            generator: on the CPU.
        """
        image, *others = inputs
        count = len(image)
        angle = torch.rand(count, generator=generator) * (2 * math.pi if self.turn else 0.0)
        shift = (torch.rand(count, 2, generator=generator) * 2 - 1) * self.shift
        changed = turned(image, angle, shift) if self.turn or self.shift else image
        if self.gain:
            factor = torch.exp(torch.randn(count, generator=generator) * self.gain)
            changed = changed * factor.to(image)[:, None, None, None]
        if self.colour:
            factor = torch.exp(torch.randn(image.shape[:2], generator=generator) * self.colour)
            changed = changed * factor.to(image)[:, :, None, None]
        still = torch.zeros(count, 2)
        return changed, *(
            turned(item, angle, still) if self.turn and item is not None and item.ndim == 4 else item for item in others
        )


def turned(image: Tensor, angle: Tensor, shift: Tensor, size: Tensor | None = None) -> Tensor:
    """Images (n, band, h, w) rotated by angles (n,) rad about pixel size // 2, then shifted by (n, 2) pixels.

    With `size` (n,) what they show becomes so many times as large.
    """
    height, width = image.shape[-2:]
    half = torch.tensor([width / 2, height / 2])
    centre = torch.tensor([(width // 2 + 0.5) / half[0] - 1, (height // 2 + 0.5) / half[1] - 1])
    cosine, sine = angle.cos(), angle.sin()
    rotation = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], -2)
    rotation = rotation if size is None else rotation / size[:, None, None]
    scaled = rotation * (half[None, :] / half[:, None])[None]
    offset = centre - torch.einsum("nij,nj->ni", scaled, centre + shift / half)
    matrix = torch.cat([scaled, offset[..., None]], -1).to(image)
    grid = functional.affine_grid(matrix, list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, align_corners=False)
