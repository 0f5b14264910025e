"""Calibrated pixels shown as the colour pictures that people have classified, on their device.

Galaxy Zoo showed its volunteers SDSS pictures: i, r and g as red, green and blue under the asinh stretch of Lupton et
al. (2004, PASP 116, 133), which keeps colours, each picture as wide as a fixed number of radii of its galaxy (Lintott
et al. 2008; Willett et al. 2013: 424 pixels of 0.02 times the Petrosian radius that holds 90 % of the light). A network
that was trained on such pictures can take the pixels of a survey when they are shown to it in the same way: flux per
area, size of the object, stretch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.tracing import constant
from astroml_plugin.cutouts.centring import light_centre
from astroml_plugin.cutouts.resampling import marks_through
from astroml_plugin.cutouts.stamps import Cutouts, crop

_MOST = 255.0
_WIDTHS = (63, 127)  # pixels of the source: most objects are small, and windows that hold their pictures are cheaper
_DARK = 1e-4  # mean flux that shows as black: a small part of a grey level
_SLOPE_AT = 0.1  # part of the stretch at which its slope is that of the linear one
_PETROSIAN, _HELD = 0.2, 0.9  # ratio of brightness that sets the Petrosian radius, and the part of the light
_SIGMA = 1.482602218505602  # Gaussian sigma over the median absolute deviation
_BORDER = 3  # pixels
_ALIKE = 4.0  # sigmas by which a pixel may be brighter than the one opposite to it, or it counts as a neighbour's
_LEAST_SNR = 5.0  # of the light within the radius
_LEAST_RADIUS = 0.7  # pixels
_HALF = 0.5  # of the weight of a pixel that must be of valid ones
_MOST_OFF = 1.5  # pixels by which the middle of a picture follows the light


@dataclass(frozen=True)
class Picture:
    """How calibrated pixels are shown as 8-bit colour pictures. Stored in the bundle."""

    bands: tuple[str, ...] = ()
    """Bands that are shown as the bundle's red, green and blue, in this order; empty: only pictures are taken."""
    weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Factors on their fluxes."""
    zero_point: float = 22.5
    """AB magnitude of one unit of the stretch: 22.5 are nanomaggies."""
    pixel_scale: float = 0.396
    """Arcsec: side of the area whose flux is stretched."""
    stretch: float = 0.5
    """Mean weighted flux of the three bands where the linear part ends."""
    softening: float = 10.0
    """Q of Lupton et al.: how soon the stretch becomes logarithmic."""
    radius: float = 10.0
    """Pixels of the picture in the Petrosian radius that holds 90 % of the light, as `sizes` measures it."""

    def __post_init__(self) -> None:
        if self.bands and (len(self.bands) != 3 or len(self.weights) != 3):
            raise InputError(
                f"a picture shows three bands with a weight each, not {len(self.bands)} with {len(self.weights)}"
            )
        if min(*self.weights, self.pixel_scale, self.stretch, self.softening, self.radius) <= 0:
            raise InputError("weights, pixel_scale, stretch, softening and radius of a picture must be above 0")

    @property
    def slope(self) -> float:
        """Grey levels per unit of the inverse hyperbolic sine."""
        return _SLOPE_AT * _MOST / math.asinh(_SLOPE_AT * self.softening)

    def stretched(self, light: Tensor) -> Tensor:
        """Grey levels 0 to 255 (n, 3, h, w) float32, whole numbers, of weighted fluxes: colours stay as they are."""
        mean = light.mean(1, keepdim=True).clamp_min_(_DARK)
        scaled = mean * (self.softening / self.stretch)
        factor = scaled.square().add_(1.0).sqrt_().add_(scaled).log_().mul_(self.slope).div_(mean)  # asinh, vectorised
        grey = (light * factor.masked_fill_(mean <= _DARK, 0.0)).clamp_min_(0.0)
        highest = grey.amax(1, keepdim=True)
        return torch.where(highest > _MOST, grey * (_MOST / highest), grey).floor_()

    def linear(self, grey: Tensor) -> Tensor:
        """Mean weighted flux (n, h, w) of grey levels (n, 3, h, w) below 255: the stretch undone."""
        return torch.sinh(grey.mean(1) / self.slope) * (self.stretch / self.softening)


@dataclass(frozen=True)
class Size:
    """Sizes of n objects."""

    radius: Tensor
    """(n,) float32 pixels: the Petrosian radius that holds 90 % of the light."""
    known: Tensor
    """(n,) bool: false where there is too little light to tell it, or it does not end within the stamp."""

    def take(self, rows: Tensor) -> Size:
        """The sizes of an index."""
        return Size(self.radius[rows], self.known[rows])


def shown(stamps: Cutouts, picture: Picture, size: int, names: tuple[str, ...]) -> Cutouts:
    """Pictures (n, 3, size, size) uint8 of calibrated stamps, each scaled to the size of the object at its centre.

    Args:
        stamps: n stamps with the picture's bands and zero points, large enough for what the pictures are to show; what
            they lack is 0 and flagged EDGE.
        picture: how.
        size: side in pixels.
        names: of the picture's three bands.

    Returns:
        The pictures about the same objects, `Cutouts.unsized` where no size was found.

    Raises:
        InputError: the stamps have no pixel scale.
    """
    scales = stamps.scales
    if scales is None:
        raise InputError("the arcsec per pixel must be known: pictures show flux per area")
    factors = torch.tensor(picture.weights, dtype=torch.float64) * (picture.pixel_scale / scales[:, None]).square()
    side = min(int(length) for length in stamps.image.shape[-2:])
    stamps = replace(stamps, variance=None, psf=None, shared=None)
    rows = torch.arange(len(stamps), device=stamps.image.device)
    parts, places = [], []
    for width in [*(width for width in _WIDTHS if width < side), side - 1 + side % 2]:
        window = crop(stamps, width).select(picture.bands).take(rows).in_unit(picture.zero_point)
        light = window.image.float() * factors[rows.cpu()].to(rows.device, torch.float32)[..., None, None]
        light = (light - _level(light, window.valid)[..., None, None]).masked_fill_(~window.valid, 0.0)
        found = sizes(light.mean(1), window.valid.all(1))
        fits = found.known & (found.radius * (size / picture.radius) < width) | (width >= side - 1)
        taken = fits.nonzero().flatten()
        if len(taken):
            grey = picture.stretched(light if len(taken) == len(rows) else light[taken])
            window = window if len(taken) == len(rows) else window.take(taken)
            parts.append(_scaled(window, grey, found.take(taken), picture.radius, size, names))
            places.append(rows[taken])
        rows = rows[~fits]
        if not len(rows):
            break
    return Cutouts.concatenate(parts).take(torch.cat(places).argsort()) if len(parts) > 1 else parts[0]


def _scaled(stamps: Cutouts, grey: Tensor, found: Size, radius: float, size: int, names: tuple[str, ...]) -> Cutouts:
    """Pictures of grey levels (n, 3, h, h) about the light's centres, with the radii of the objects at `radius`."""
    side, step, offset = int(grey.shape[-1]), found.radius / radius, light_centre(stamps).offset
    middle = torch.where((offset.abs() <= _MOST_OFF).all(1, keepdim=True), offset, 0.0)
    columns, rows = (triangles(step, middle[:, axis] + side // 2, size, side) for axis in (0, 1))
    across = columns.transpose(1, 2)
    reach = torch.stack([_inside(step, middle[:, axis] + side // 2, size, side) for axis in (0, 1)])
    inside = (reach[1][:, :, None] & reach[0][:, None, :])[:, None]
    image = rows[:, None] @ grey @ across[:, None]
    bits, valid = None, torch.ones(image.shape, dtype=torch.bool, device=image.device)
    if stamps.bits is not None:
        share = rows[:, None] @ stamps.valid.float() @ across[:, None]
        image, valid = image / share.clamp_min(_HALF), share > _HALF
        bits = marks_through(stamps.bits, rows[:, None], across[:, None])
    if not bool(inside.all()):
        bits = torch.zeros(image.shape, dtype=torch.uint8, device=image.device) if bits is None else bits
        bits, valid = bits | (~inside).to(torch.uint8) * int(ObjectFlag.EDGE), valid & inside
    pixels = image.round_().clamp_(0.0, _MOST).to(torch.uint8)
    return replace(
        stamps,
        image=pixels if bits is None else pixels.masked_fill_(~valid, 0),
        variance=None,
        valid=valid,
        psf=None,
        shared=None,
        jacobian=stamps.jacobian * step.double().cpu()[:, None, None],
        bits=bits,
        bands=names,
        pixel_scale=None,
        zero_points=None,
        step=None,
        unsized=~found.known,
    )


def sizes(light: Tensor, valid: Tensor | None = None) -> Size:
    """Sizes of the objects at the centre pixels, side // 2, of planes (n, side, side) of odd side without sky.

    A pixel much brighter than the one opposite to it counts as that one: it is a neighbour's.

    Args:
        light: 0 where not valid.
        valid: (n, side, side) bool; None: all are.
    """
    side = int(light.shape[-1])
    noise = _spread(light)
    opposite = light.flip((1, 2))
    both = torch.minimum(light, opposite + (_ALIKE * noise)[:, None, None])
    if valid is not None:
        both = torch.where(valid, both, opposite)
    ring, area = _rings(side, light.device)
    count = len(area)
    sums = torch.zeros(len(light), count, device=light.device).index_add_(1, ring, both.flatten(1))
    grown, covered = sums.cumsum(1), area.cumsum(0)
    ratio = (sums / area) / (grown / covered).clamp_min(1e-30)
    ratio = torch.where(grown > 0, ratio, 1.0)
    low = ratio[:, 1:] < _PETROSIAN
    place = torch.where(low.any(1), low.to(torch.uint8).argmax(1) + 1, count - 1)
    above, below = _at(ratio, place - 1), _at(ratio, place)
    petrosian = place - 1 + ((above - _PETROSIAN) / (above - below).clamp_min(1e-6)).clamp(0, 1)
    last = torch.minimum((2 * petrosian).round().long(), torch.full_like(place, count - 1))
    total = _at(grown, last)
    reached = grown >= _HELD * total[:, None]
    number = torch.where(reached.any(1), reached.to(torch.uint8).argmax(1), count - 1)
    before = torch.where(number > 0, _at(grown, (number - 1).clamp_min(0)), 0.0)
    part = ((_HELD * total - before) / (_at(grown, number) - before).clamp_min(1e-30)).clamp(0, 1)
    radius = (number - 0.5 + part).clamp_min(_LEAST_RADIUS)
    held = covered.gather(0, number)
    known = low.any(1) & (_HELD * total > _LEAST_SNR * noise * held.sqrt())
    return Size(radius, known)


def triangles(step: Tensor, middle: Tensor, size: int, side: int) -> Tensor:
    """Weights (n, size, side) that show pixels 0 … side - 1 as `size` of `step` (n,) pixels each, about `middle` (n,).

    Between the pixels they are linear; where pixels become larger, a triangle twice as wide as the new one: what image
    programs call antialiased bilinear. Of unit sum, 0 where nothing is read.
    """
    axis = torch.arange(size, device=step.device) - size // 2
    place = middle[:, None] + axis * step[:, None]
    offset = (place[..., None] - torch.arange(side, device=step.device)).abs() / step.clamp_min(1.0)[:, None, None]
    weights = (1.0 - offset).clamp_min_(0.0)
    return weights / weights.sum(2, keepdim=True).clamp_min(1e-6)


def _inside(step: Tensor, middle: Tensor, size: int, side: int) -> Tensor:
    """(n, size) bool: new pixels whose middle is one of the old pixels."""
    place = middle[:, None] + (torch.arange(size, device=step.device) - size // 2) * step[:, None]
    return (place >= -0.5) & (place <= side - 0.5)


def _level(light: Tensor, valid: Tensor) -> Tensor:
    """(n, band) median of the border, 0 where none of it is valid."""
    return _border(light.masked_fill(~valid, torch.nan)).nanmedian(-1).values.nan_to_num()


def _spread(light: Tensor) -> Tensor:
    """(n,) Gaussian width of the border of planes (n, side, side)."""
    edge = _border(light)
    return (edge - edge.median(-1, keepdim=True).values).abs().median(-1).values * _SIGMA


def _border(planes: Tensor) -> Tensor:
    """(…, k) the outermost pixels of planes (…, h, w)."""
    inner = planes[..., _BORDER:-_BORDER, :]
    parts = (planes[..., :_BORDER, :], planes[..., -_BORDER:, :], inner[..., :_BORDER], inner[..., -_BORDER:])
    return torch.cat([part.flatten(-2) for part in parts], -1)


@constant
def _rings(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(side²,) number of the ring of each pixel about side // 2, and (rings,) their pixels; the corners are one."""
    axis = torch.arange(side, device=device) - side // 2
    number = torch.hypot(axis[:, None].float(), axis.float()).round().long().clamp_max(side // 2 + 1).flatten()
    return number, torch.bincount(number).float()


def _at(values: Tensor, place: Tensor) -> Tensor:
    return values.gather(1, place[:, None])[:, 0]
