"""Plain statistics of stamps: light and colours in rings, noise at the corners, texture, lines, other light.

They tell what a network's own features forget: how the noise is correlated, in which order the bands are, where light
is negative, what else is in the stamp. All begin with sums over pixels; these are one pass of compiled code on a CPU,
and arithmetic of tensors elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.pixels import native, native_statistics

RINGS = (0.0, 0.05, 0.1, 0.16, 0.24, 0.35, 0.5, 0.7, 1.0)
"""Edges of the rings about a stamp's centre, in half sides."""

WIDE_RINGS = (0.0, 0.12, 0.25, 0.45, 0.7, 1.0)
"""Edges of the rings in which near pixels, and bands, are compared."""

CORE_RINGS = (0.0, 0.063, 0.125, 0.22)
"""Edges of the rings in which the light of bands is compared near the centre."""

LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))
"""Steps (y, x) in pixels between which the noise is compared."""

TEXTURE_LAGS = ((0, 1), (1, 0), (2, 2))
"""Steps between which the whole stamp is compared."""

STAMP_VIEWS = ("light", "form", "noise")
"""Names of the views of `StampStatistics`."""

BLOCK = 4
"""Side in pixels of the blocks in which lines and other light are sought."""

LEAST = 1e-3
"""Added before a logarithm, in units of the network's input."""

_FAINT, _WEAK = 0.3, 0.1
"""Light below which a colour is none, near the centre and in rings, in the same units."""

_ROUNDED = 3e-5
"""Part of a mean square below which a variance is lost in float32, in any order of sums."""

_ZONES = (0.12, 0.3, 0.5, 0.7, 0.9, 2.0)
"""Edges of the rings of blocks, in half sides; the last one holds the corners."""

_BEYOND = 0.3
"""Distance from the centre, in half sides, from which on light is not the object's own."""

_POWERS = (1, 2)
"""Powers of the light of blocks beyond: one star has few bright ones, a line many."""

_MULTIPOLES = (1, 2, 4)
"""Orders of the angular moments of blocks."""

_DIRECTIONS, _STRIP, _CLIPPED = 12, 0.125, 6.0
"""Directions of strips, their half width in half sides, and usual sizes of a block beyond which none adds to one."""


def _radius(height: int, width: int, place: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """(height, width) distance from pixel side // 2 in half sides, or that of rows and columns at other places."""
    y, x = place or (torch.arange(side, dtype=torch.float32) - side // 2 for side in (height, width))
    return torch.hypot(y[:, None], x) / (min(height, width) / 2)


def _within(radius: Tensor, edges: Sequence[float]) -> Tensor:
    """(..., rings) 1 in each ring, else 0, of distances (...)."""
    bounds = torch.tensor(edges)
    return ((radius[..., None] >= bounds[:-1]) & (radius[..., None] < bounds[1:])).float()


def _means(rings: Tensor) -> Tensor:
    """(pixels, rings) weights of the means in rings (h, w, rings)."""
    flat = rings.flatten(0, 1)
    return flat / flat.sum(0).clamp_min(1)


def _log(values: Tensor, least: float = LEAST) -> Tensor:
    return (values.clamp_min(0) + least).log()


def _left(power: Tensor, mean: Tensor) -> Tensor:
    """Variances from means of squares and means, not below what rounding leaves of equal values."""
    return torch.maximum(power - mean.square(), _ROUNDED * power)


class RingLight(nn.Module):
    """Mean of images in rings about pixel side // 2, those of `RINGS` and those of `CORE_RINGS`.

    Args:
        height: of the images, pixels.
        width: of the images, pixels.
    """

    rings: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        radius = _radius(height, width)
        both = [_means(_within(radius, edges)) for edges in (RINGS, CORE_RINGS)]
        self.register_buffer("rings", torch.cat(both, dim=1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(n, bands, rings) of images (n, bands, h, w)."""
        found: Tensor = image.flatten(2) @ self.rings
        return found


class PixelSums(nn.Module):
    """Sums over the pixels of stamps, as rows of numbers: what `StampStatistics` is made of.

    In order: each band's means in `RINGS` and `CORE_RINGS`; means of its squares in `WIDE_RINGS`, and of products of
    neighbouring bands; of the mean of all bands: means of its squares and of its squared differences from itself turned
    by half in `RINGS`, of steps (`TEXTURE_LAGS`) in `WIDE_RINGS`; of each band, at the corners, `CORNER` numbers; and
    means of blocks of the mean of all bands.

    Args:
        bands: of the stamps.
        height: of the stamps, pixels.
        width: of the stamps, pixels.
    """

    CORNER = 3 + len(LAGS)
    """Numbers of each band at the corners: mean difference from the level, highest pixel above it, steps, level.
    Of the four corners the two in the middle count, so that one neighbour changes little."""

    light: Tensor
    wide: Tensor
    odd: Tensor
    steps: Tensor

    def __init__(self, bands: int, height: int, width: int) -> None:
        super().__init__()
        self.bands, self.height, self.width = bands, height, width
        self.corner = 8 * max(1, round(min(height, width) / 32))
        self.blocks = height // BLOCK, width // BLOCK
        radius = _radius(height, width)
        rings, wide = _within(radius, RINGS), _within(radius, WIDE_RINGS)
        turned = rings.clone()
        turned[: 1 - height % 2] = 0
        turned[:, : 1 - width % 2] = 0  # the pixel side // 2 is in the middle of the rest
        number = wide.sum((0, 1)).clamp_min(1)
        known = [wide[: height - down, : width - right].sum((0, 1)).clamp_min(1) for down, right in TEXTURE_LAGS]
        self.register_buffer("light", torch.cat([_means(rings), _means(_within(radius, CORE_RINGS))], 1), False)
        self.register_buffer("wide", _means(wide), False)
        self.register_buffer("odd", _means(turned), False)
        self.register_buffer("steps", torch.stack([number / one for one in known]), False)
        self._tables: native_statistics.Tables | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Numbers of each kind, in order."""
        rings, wide = len(RINGS) - 1, len(WIDE_RINGS) - 1
        each = rings + len(CORE_RINGS) - 1
        pairs, steps = (self.bands - 1) * wide, len(TEXTURE_LAGS) * wide
        edge = self.bands * self.CORNER
        return self.bands * each, self.bands * wide, pairs, rings, rings, steps, edge, math.prod(self.blocks)

    def forward(self, image: Tensor) -> Tensor:
        """(n, numbers) of stamps (n, bands, h, w) float32."""
        if native.takes(image) and image.dtype == torch.float32 and len(image):
            return torch.from_numpy(native_statistics.sums(image.numpy(), self.tables()))
        whole, flat = image.mean(1), image.flatten(2)
        parts = [flat @ self.light, flat.square() @ self.wide, (flat[:, :-1] * flat[:, 1:]) @ self.wide]
        parts += [whole.flatten(1).square() @ self.light[:, : len(RINGS) - 1], self._turned(whole) @ self.odd]
        parts += [self._step(whole, *lag) @ self.wide * self.steps[place] for place, lag in enumerate(TEXTURE_LAGS)]
        blocks = functional.avg_pool2d(whole[:, None], BLOCK)
        return torch.cat([part.flatten(1) for part in (*parts, self._corners(image), blocks)], dim=1)

    def tables(self) -> native_statistics.Tables:
        """Weights of pixels for the compiled code."""
        if self._tables is None:
            rings = self.light[:, : len(RINGS) - 1]
            given = zip(native_statistics.RINGS, (self.light, self.wide, rings, self.odd))
            tables = {name: table.cpu().view(self.height, self.width, -1).numpy() for name, table in given}
            self._tables = native_statistics.Tables(tables, self.steps.cpu().numpy(), self.corner, BLOCK)
        return self._tables

    def _turned(self, whole: Tensor) -> Tensor:
        """(n, pixels) squared differences of (n, h, w) from itself turned by half, 0 where there is no partner."""
        above, left = 1 - self.height % 2, 1 - self.width % 2
        centred = whole[:, above:, left:]
        return functional.pad((centred - centred.flip((1, 2))).square(), (left, 0, above, 0)).flatten(1)

    def _step(self, whole: Tensor, down: int, right: int) -> Tensor:
        """(n, pixels) sizes of the steps from each pixel of (n, h, w), 0 where they lead beyond."""
        height, width = self.height - down, self.width - right
        step = (whole[:, down:, right:] - whole[:, :height, :width]).abs()
        return functional.pad(step, (0, right, 0, down)).flatten(1)

    def _corners(self, image: Tensor) -> Tensor:
        """(n, bands, `CORNER`) of images (n, bands, h, w)."""
        side = self.corner
        down, right = self.height - side - 2, self.width - side - 2
        starts = [(y, x) for y in (0, down) for x in (0, right)]
        wide = torch.stack([image[..., y : y + side + 2, x : x + side + 2] for y, x in starts], dim=2)
        corners = wide[..., :side, :side]  # (n, bands, 4, side, side)
        level = corners.mean((3, 4), keepdim=True)
        sizes = [(corners - level).abs().mean((3, 4)), corners.amax((3, 4)) - level[..., 0, 0]]
        for y, x in LAGS:
            sizes.append((wide[..., y : y + side, x : x + side] - corners).abs().mean((3, 4)))
        return torch.stack([_middle(size) for size in (*sizes, level[..., 0, 0])], dim=2)


class StampStatistics(nn.Module):
    """Three views of stamps, `STAMP_VIEWS`, squashed where numbers have no limit.

    - `light`: means in rings, each band; sizes of the bands in rings, and how much the light of two is alike there;
      differences of neighbouring bands near the centre, and light of each band in rings, as parts of that of all.
    - `form`: how unlike itself the light of a ring is, under half a turn and by its spread; of blocks of pixels mean,
      spread and angular moments in zones, how bright they are beyond the object, and the brightest straight strip, of
      blocks that are clipped.
    - `noise`: steps between near pixels in rings; and at the corners of each band.

    Of one band there is no colour, and of its bands the sizes alone.

    Args:
        bands: of the stamps.
        height: of the stamps, pixels.
        width: of the stamps, pixels.
    """

    zones: Tensor
    moments: Tensor
    beyond: Tensor
    strips: Tensor

    def __init__(self, bands: int, height: int, width: int) -> None:
        super().__init__()
        self.sums = PixelSums(bands, height, width)
        places = [
            torch.arange(count, dtype=torch.float32) * BLOCK + (BLOCK - 1) / 2 - side // 2
            for count, side in zip(self.sums.blocks, (height, width))
        ]
        radius = _radius(height, width, (places[0], places[1]))
        angle = torch.atan2(*torch.broadcast_tensors(places[0][:, None], places[1]))
        zones = _within(radius, _ZONES)
        zones = zones[..., zones.sum((0, 1)) > 0]
        turns = [part(order * angle) for order in _MULTIPOLES for part in (torch.cos, torch.sin)]
        moments = torch.stack(turns, dim=2).flatten(0, 1)[:, :, None] * _means(zones)[:, None]
        self.register_buffer("zones", _means(zones), False)
        self.register_buffer("moments", moments.flatten(1), False)
        self.register_buffer("beyond", (radius.flatten() >= _BEYOND).float(), False)
        half = min(height, width) / 2
        self.register_buffer("strips", _strips(places[0] / half, places[1] / half, radius), False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The views of `STAMP_VIEWS` (n, numbers) of stamps (n, bands, h, w) float32."""
        sums, bands = self.sums, self.sums.bands
        parts = sums(image).split(sums.lengths, dim=1)
        power, turned, steps, edge, blocks = parts[3:]
        light = parts[0].unflatten(1, (bands, -1))
        spread = _left(power, light[:, :, : len(RINGS) - 1].mean(1))
        corner = edge.unflatten(1, (bands, -1))
        form = [0.5 * _log(torch.cat([turned, spread], dim=1), 0.1 * LEAST), self._other(blocks)]
        noise = [_log(steps), _log(corner[..., :-1]).flatten(1), corner[..., -1]]
        light = [parts[0], *self._colours(light, parts[1], parts[2])]
        return torch.cat(light, dim=1), torch.cat(form, dim=1), torch.cat(noise, dim=1)

    def _colours(self, light: Tensor, square: Tensor, pairs: Tensor) -> list[Tensor]:
        """(n, numbers) each, of light (n, bands, rings), squares and products of bands."""
        bands = self.sums.bands
        if bands == 1:
            return [0.5 * _log(square, LEAST**2)]
        size = square.unflatten(1, (bands, -1)).clamp_min(0).sqrt()
        alike = pairs.unflatten(1, (bands - 1, -1)) / (size[:, 1:] * size[:, :-1] + _WEAK**2)
        core = light[..., len(RINGS) - 1 :]
        change = (core[:, 1:] - core[:, :-1]) / (core.abs().mean(1, keepdim=True) + _FAINT)
        part = light / (light.abs().mean(1, keepdim=True) + _WEAK)
        return [_log(size).flatten(1), *(item.flatten(1) for item in (alike, change, part))]

    def _other(self, blocks: Tensor) -> Tensor:
        """(n, numbers) of blocks (n, rows x columns)."""
        mean = blocks @ self.zones
        spread = _left(blocks.square() @ self.zones, mean)
        moments = (blocks @ self.moments).unflatten(1, (len(_MULTIPOLES), 2, -1)).square().sum(2).flatten(1)
        far = blocks * self.beyond
        size, share = far.abs(), 1 / self.beyond.sum()
        means = [(size**power).sum(1, keepdim=True) * share for power in _POWERS]
        usual = torch.minimum(size, 2 * means[0]).sum(1, keepdim=True) * share + LEAST  # one star changes it little
        strips = torch.minimum(far, _CLIPPED * usual) @ self.strips
        line = torch.cat([strips.amax(1, keepdim=True), strips.mean(1, keepdim=True)], dim=1)
        bright = torch.cat([far.amax(1, keepdim=True), *(one ** (1 / power) for one, power in zip(means, _POWERS))], 1)
        sizes = [0.5 * _log(spread, 1e-5), 0.5 * _log(moments, 1e-6), _log(bright), _log(usual), _log(line)]
        return torch.cat([mean, *sizes, line / usual], dim=1)


def _strips(y: Tensor, x: Tensor, radius: Tensor) -> Tensor:
    """(blocks, strips) weights of the means in straight strips across blocks at rows y and columns x, half sides."""
    found = []
    for number in range(_DIRECTIONS):
        angle = math.pi * number / _DIRECTIONS
        distance = y[:, None] * math.sin(angle) + x * math.cos(angle)
        for offset in torch.arange(-0.9, 0.95, _STRIP):
            weight = (1 - (distance - offset).abs() / _STRIP).clamp_min(0) * (radius >= _BEYOND)
            if weight.sum() > 0.55 * len(y):
                found.append((weight / weight.sum()).flatten())
    return torch.stack(found, dim=1)


def _middle(values: Tensor) -> Tensor:
    """(n, bands) mean of the two in the middle of (n, bands, 4)."""
    return 0.5 * (values.sum(2) - values.amax(2) - values.amin(2))
