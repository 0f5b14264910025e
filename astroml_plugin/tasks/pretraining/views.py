"""Two views of each stamp: as it is, and as another night, telescope or place on the sky would show the same object."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.augmentation import turned
from astroml_plugin.tasks.normalisation import border_width

_PASS = 0.5
"""Variance in squared pixels that one pass of (1, 2, 1) / 4 adds to a PSF."""


@dataclass(frozen=True)
class Views:
    """How unlike the second view is. What changes here is what the network learns to overlook."""

    turn: bool = True
    """Any angle, and mirrored or not."""
    size: float = 0.15
    """Standard deviation of the logarithm of how much larger or smaller the object is."""
    shift: float = 0.04
    """Largest shift along each axis, as a fraction of the side."""
    gain: float = 0.3
    """Standard deviation of the logarithm of a common factor on the pixels."""
    colour: float = 0.1
    """Standard deviation of the logarithm of a factor on the pixels of each band."""
    blur: float = 1.0
    """Sigma in pixels of the widest Gaussian that the PSF is widened by."""
    noise: float = 1.0
    """Largest sky noise that is added, in units of the stamp's own."""
    drop_band: float = 0.2
    """Probability that a band is left out (0); one band at least stays."""

    def __post_init__(self) -> None:
        if min(self.size, self.shift, self.gain, self.colour, self.blur, self.noise) < 0:
            raise InputError(
                f"views size ({self.size}), shift ({self.shift}), gain ({self.gain}), colour ({self.colour}), blur "
                f"({self.blur}) and noise ({self.noise}) must be 0 or more"
            )
        if not 0 <= self.drop_band < 1:
            raise InputError(f"views drop_band ({self.drop_band}) is a probability from 0 to below 1")

    def second(self, image: Tensor, border: int, generator: torch.Generator) -> Tensor:
        """Other views (n, band, h, w) of normalised stamps, whose background is 0.

        Args:
            image: of the stamps; not changed.
            border: width in pixels of the border that the noise is measured on.
            generator: on the CPU.
        """
        count = len(image)
        level = border_width(image, None, border) if self.noise else None
        image = self._moved(image, generator)
        image = image * self._factors(count, image.shape[1], generator).to(image)[..., None, None]
        if self.blur:
            part = torch.rand(count, generator=generator).to(image)[:, None, None, None]
            image = torch.lerp(image, _widened(image, self.blur), part)
        if level is not None:
            amount = torch.rand(count, generator=generator).to(image)[:, None] * self.noise * level
            image = torch.addcmul(image, _noise(image, generator), amount[..., None, None])
        kept = self._kept(count, image.shape[1], generator)
        return image if kept is None else image * kept.to(image)[..., None, None]

    def _moved(self, image: Tensor, generator: torch.Generator) -> Tensor:
        count, side = len(image), image.shape[-1]
        if not (self.turn or self.shift or self.size):
            return image
        if self.turn:
            mirrored = torch.rand(count, generator=generator) < 0.5
            image = torch.where(mirrored.to(image.device)[:, None, None, None], image.flip(-1), image)
        angle = torch.rand(count, generator=generator) * (2 * math.pi if self.turn else 0.0)
        shift = (torch.rand(count, 2, generator=generator) * 2 - 1) * self.shift * side
        size = torch.exp(torch.randn(count, generator=generator) * self.size)
        return turned(image, angle, shift, size)

    def _factors(self, count: int, bands: int, generator: torch.Generator) -> Tensor:
        """(n, band) brightness and colours."""
        common = torch.randn(count, 1, generator=generator) * self.gain
        return torch.exp(common + torch.randn(count, bands, generator=generator) * self.colour)

    def _kept(self, count: int, bands: int, generator: torch.Generator) -> Tensor | None:
        """(n, band) 1, and 0 for bands that are left out; None where none is."""
        if bands == 1 or not self.drop_band:
            return None
        draw = torch.rand(count, bands, generator=generator)
        return (draw >= torch.minimum(torch.full((count, 1), self.drop_band), draw.amax(1, keepdim=True))).float()


def _widened(image: Tensor, sigma: float) -> Tensor:
    """Images whose PSF is wider by a Gaussian of about `sigma` pixels; 0 beyond the stamp."""
    for _ in range(max(1, round(sigma**2 / _PASS))):
        for axis in (-1, -2):
            side = image.shape[axis]
            wider = image * 0.5
            wider.narrow(axis, 1, side - 1).add_(image.narrow(axis, 0, side - 1), alpha=0.25)
            wider.narrow(axis, 0, side - 1).add_(image.narrow(axis, 1, side - 1), alpha=0.25)
            image = wider
    return image


def _noise(image: Tensor, generator: torch.Generator) -> Tensor:
    """Unit noise (n, band, h, w): each stamp's begins elsewhere in one long row, which is drawn much faster."""
    count, pixels = len(image), image[0].numel()
    row = torch.randn((2 + count // 8) * pixels, generator=generator)
    start = torch.randint(len(row) - pixels + 1, (count,), generator=generator)
    return row.unfold(0, pixels, 1)[start].reshape(image.shape).to(image.device)
