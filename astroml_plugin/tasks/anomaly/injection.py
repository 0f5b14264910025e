"""Foreign light painted into unlabelled stamps, so that a network can learn what does not belong there.

Stamps of the batch lend each other their central objects: close by, as two galaxies in interaction lie, or far away, as
neighbours do by chance. The far ones are ordinary, so that what is learned is closeness and not the signs of painting.
Curved and straight strokes of light are painted too. As in CutPaste (Li et al. 2021, CVPR, 9659) and outlier exposure
(Hendrycks et al. 2019, ICLR), but with an astronomer's idea of what is odd.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_choices

UNDECIDED = 0.5
"""Target of stamps that teach nothing."""


@dataclass(frozen=True)
class Injection:
    """Kinds of light painted into the stamps of a batch, and how often each occurs."""

    pairs: float = 0.35
    """Fraction of the stamps that get a second galaxy close by; these are anomalies."""
    strokes: float = 0.15
    """Fraction that gets a curved or straight stroke of light over the object; these are anomalies."""
    neighbours: float = 0.3
    """Fraction that gets a second galaxy far away; these are ordinary."""
    separation: tuple[float, float] = (0.5, 3.0)
    """Least and largest separation of a pair, in half-light radii of the first galaxy."""
    far: float = 4.5
    """Least separation of a neighbour far away, in half-light radii of the first galaxy."""
    faintest: float = 0.2
    """Least flux of the second galaxy of a pair over that of the first; the largest is 1."""
    adding: str = "auto"
    """How light comes together: "sum", "max" for pictures that were stretched, "auto" by whether pixels are 8-bit."""

    def __post_init__(self) -> None:
        refuse_choices(self, {"adding": ("auto", "sum", "max")}, "injection")
        shares = (self.pairs, self.strokes, self.neighbours)
        if min(shares) < 0 or sum(shares) > 1:
            raise InputError(f"injection pairs, strokes and neighbours are parts that add up to 1 at most: {shares}")
        if not 0 < self.separation[0] < self.separation[1] < self.far or not 0 < self.faintest < 1:
            raise InputError("injection separation must rise to below far, and faintest lie between 0 and 1")

    def apply(self, image: Tensor, weight: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Stamps (n, b, h, w) in units of the noise with light painted in, and (n,) targets.

        Targets are 1 where that is an anomaly, 0 where not, `UNDECIDED` where it is too faint to tell.

        Args:
            image: of ordinary stamps; not changed.
            weight: the same, 0 where invalid.
            generator: on the CPU.
        """
        count = len(image)
        radius = _sizes(image)
        choice = torch.rand(count, generator=generator).to(image.device)
        limits = torch.tensor([self.pairs, self.pairs + self.neighbours, self.pairs + self.neighbours + self.strokes])
        pair, far, stroke = (
            (choice < high) & (choice >= low)
            for low, high in ((0.0, limits[0]), (limits[0], limits[1]), (limits[1], limits[2]))
        )
        painted, target = image.clone(), stroke.to(image.dtype)
        for rows, near in ((pair.nonzero().flatten(), True), (far.nonzero().flatten(), False)):
            if len(rows) > 1:
                galaxy, ratio = self._galaxies(image[rows], radius[rows], near, generator)
                painted[rows] = self._together(image[rows], galaxy)
                target[rows] = torch.where(ratio >= self.faintest, 1.0, UNDECIDED) if near else 0.0
        rows = stroke.nonzero().flatten()
        painted[rows] = self._together(image[rows], _strokes(image[rows], radius[rows], generator))
        return painted, target

    def _together(self, image: Tensor, added: Tensor) -> Tensor:
        return torch.maximum(image, added) if self.adding == "max" else image + added

    def _galaxies(self, image: Tensor, radius: Tensor, near: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Central objects of other stamps, moved and dimmed, (n, b, h, w), and their flux in that of the host (n,)."""
        count, side = len(image), image.shape[-1]
        order = torch.randperm(count, generator=generator).to(image.device)
        galaxies = _lifted(image, 2.5 * radius)
        lent, flux = galaxies[order], galaxies.sum((1, 2, 3)).clamp_min(1e-3)
        draw = torch.rand(count, 4, generator=generator).to(image.device)
        wanted = 0.25 + 0.75 * draw[:, 0] if near else 0.03 ** draw[:, 0]
        ratio = torch.minimum(wanted, flux[order] / flux)  # its noise is lent too, and must not be amplified
        factor = ratio * flux / flux[order]
        low, high = (reach * radius for reach in self.separation)
        if not near:
            low = torch.maximum(self.far * radius, 2.5 * radius[order] + 2 * radius)
            high = torch.maximum(low + 4, torch.full_like(low, 0.5 * side))
        away, angle = low + (high - low) * draw[:, 1], 2 * math.pi * draw[:, 2]
        moved = _shifted(lent * factor[:, None, None, None], away * angle.cos(), away * angle.sin())
        return torch.where((draw[:, 3] < 0.5)[:, None, None, None], moved, moved.transpose(2, 3)), ratio


def _sizes(image: Tensor) -> Tensor:
    """(n,) half-light radii in pixels, about, from the area that the light of the middle would fill evenly."""
    side = image.shape[-1]
    cut = side // 4
    light = image[:, :, cut : side - cut, cut : side - cut].mean(1) * math.sqrt(image.shape[1])
    light = torch.where(light > 2, light, 0.0)
    total, square = light.sum((1, 2)), light.square().sum((1, 2)).clamp_min(1e-6)
    return (0.7 * (total.square() / square / math.pi).sqrt()).clamp(1.5, side / 8)


def _lifted(image: Tensor, reach: Tensor) -> Tensor:
    """Central objects (n, b, h, w) within `reach` pixels (n,); pixels that are mostly noise are dimmed."""
    side = image.shape[-1]
    axis = torch.arange(side, dtype=image.dtype, device=image.device) - side // 2
    radius = torch.hypot(axis[:, None], axis)
    mask = torch.sigmoid((reach[:, None, None] - radius) / (0.15 * reach[:, None, None]).clamp_min(0.7))
    smooth = functional.avg_pool2d(image, 3, 1, 1).mean(1, keepdim=True).clamp_min(0) * math.sqrt(image.shape[1])
    shrunk = smooth.square() / (smooth.square() + 1)
    return image * shrunk * mask[:, None]


def _shifted(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Images (n, b, h, w) shifted by whole pixels (n,); pixels from beyond the border are 0."""
    side = image.shape[-1]
    rows = torch.arange(side, device=image.device)
    dy, dx = y.round().long(), x.round().long()
    from_y, from_x = rows[None] - dy[:, None], rows[None] - dx[:, None]
    inside = ((from_y >= 0) & (from_y < side))[:, None, :, None] & ((from_x >= 0) & (from_x < side))[:, None, None, :]
    taken = image.gather(2, from_y.clamp(0, side - 1)[:, None, :, None].expand_as(image))
    taken = taken.gather(3, from_x.clamp(0, side - 1)[:, None, None, :].expand_as(image))
    return taken * inside


def _strokes(image: Tensor, radius: Tensor, generator: torch.Generator) -> Tensor:
    """Arcs, rings and straight lines (n, b, h, w) of any width, length and colour over the objects."""
    count, bands, side = len(image), image.shape[1], image.shape[-1]
    draw = torch.rand(count, 9 + bands, generator=generator).to(image.device)
    axis = torch.arange(side, dtype=image.dtype, device=image.device) - side // 2
    y, x = axis[None, :, None], axis[None, None, :]
    straight = draw[:, 0] < 0.35
    curve = radius * (1.2 + 2.8 * draw[:, 1])
    off = curve * 0.4 * (draw[:, 2] - 0.5)
    angle = 2 * math.pi * draw[:, 3]
    squeeze = (0.5 + 0.5 * draw[:, 4])[:, None, None]
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = cosine * x + sine * y, (cosine * y - sine * x)
    distance = torch.hypot(along - off[:, None, None], across / squeeze)
    azimuth = torch.atan2(across / squeeze, along - off[:, None, None]).abs()
    width = (1.0 + 2.0 * draw[:, 5] ** 2)[:, None, None]
    length = (math.pi * (0.12 + 0.95 * draw[:, 6]))[:, None, None]
    arc = torch.exp(-0.5 * ((distance - curve[:, None, None]) / width).square()) * torch.sigmoid((length - azimuth) * 8)
    line = torch.exp(-0.5 * ((across - (off * 4)[:, None, None]) / width).square())
    shape = torch.where(straight[:, None, None], line, arc)
    bright = functional.avg_pool2d(image, 5, 1, 2)[:, :, side // 2, side // 2].clamp_min(1.0)
    relative = torch.exp(math.log(0.03) + draw[:, 7] * math.log(0.5 / 0.03))
    peak = torch.where(straight[:, None], 2 * 10 ** draw[:, 7:8], (bright * relative[:, None]).clamp(1.5, 60))
    best = draw[:, 9:] == draw[:, 9:].amax(1, keepdim=True)
    few = best.float() + (~best & (draw[:, 9:] > 0.7)).float()  # a satellite passes while one band is exposed, or two
    colour = torch.where((straight & (draw[:, 8] < 0.7))[:, None], few, 0.3 + draw[:, 9:])
    return shape[:, None] * (peak * colour)[:, :, None, None]
