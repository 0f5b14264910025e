"""Bands of a stamp that lack light near the object: chip gaps, whether they hold NaN, are masked or hold one value."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.tracing import constant
from astroml_plugin.cutouts import Cutouts, is_complete
from astroml_plugin.pixels import native

_SIGMA = 1 / 8  # of the stamp's side: Gaussian weight about the object of which a share is lost
_BORNE = 0.95  # share of the weight beside another band's below which a stamp is flagged
_NEEDED = 0.85  # share below which the band is missing
_WINDOW = 3  # pixels: side of the smallest area of one value that counts as filled
_ELSEWHERE = 0.01  # part of the other pixels that may have the value of a filled area
_NOISY = 0.1  # part of the border that must have other values: images without noise have flat borders
_PAIRS = 0.02  # part of neighbours near the centre that must be equal before every pixel is looked at
_ROWS = 4  # every fourth row is asked for that


def gap_bits(stamps: Cutouts, needed: Tensor | None = None) -> Tensor:
    """(n,) int32: OUT_OF_DOMAIN where a needed band has lost over 5 % of its weight near the object.

    Counted beside the band that has most, since a stamp at the edge of an image has its own flag; and in filled areas,
    which no other flag tells of.

    Args:
        stamps: n stamps as a model reads them.
        needed: (band,) bool; None: all.
    """
    shares = _shares(stamps)
    if shares is None:
        return torch.zeros(len(stamps), dtype=torch.int32, device=stamps.image.device)
    seen, filled = shares
    thin = (_beside(seen) < _BORNE) | (filled > 1 - _BORNE)
    return _of(thin, needed).to(torch.int32) * int(ObjectFlag.OUT_OF_DOMAIN)


def lost_bands(stamps: Cutouts) -> Tensor:
    """(n, band) bool: bands that have lost over 15 % of their weight near the object beside the band that has most."""
    shares = _shares(stamps)
    if shares is None:
        return torch.zeros(stamps.image.shape[:2], dtype=torch.bool, device=stamps.image.device)
    return _beside(shares[0]) < _NEEDED


def lost_by_mask(valid: Tensor) -> Tensor:
    """(n, band) bool: bands of `lost_bands`, of their unusable pixels alone, from valid (n, band, h, w) bool."""
    weight = _weight(int(valid.shape[2]), int(valid.shape[3]), valid.device)
    return _beside(valid.flatten(2).float() @ weight) < _NEEDED


def _of(bands: Tensor, needed: Tensor | None) -> Tensor:
    return (bands if needed is None else bands[:, needed]).any(1)


def _beside(seen: Tensor) -> Tensor:
    """(n, band) shares relative to the best band's; 1 where no band has any."""
    best = seen.amax(1, keepdim=True)
    return torch.where(best > 0, seen / best.clamp_min(1e-6), 1.0)


def _shares(stamps: Cutouts) -> tuple[Tensor, Tensor] | None:
    """(n, band) share of the central weight in usable pixels, and in filled areas; None where nothing is lost."""
    valid = stamps.valid
    complete = is_complete(valid)
    suspects = _suspects(stamps.image)
    if complete and not len(suspects):
        return None
    weight = _weight(int(valid.shape[2]), int(valid.shape[3]), valid.device)
    seen = torch.ones(valid.shape[:2], device=valid.device) if complete else _seen(valid, weight)
    filled = torch.zeros_like(seen)
    if len(suspects):
        filled[suspects] = _filled(stamps.image[suspects], valid[suspects]).flatten(2).float() @ weight
    return seen - filled, filled


def _seen(valid: Tensor, weight: Tensor) -> Tensor:
    """(n, band) sums of a weight (h * w,) over valid pixels."""
    if native.takes(valid, weight):
        return torch.from_numpy(native.seen(valid.numpy(), weight.numpy()))
    return valid.flatten(2).float() @ weight


def _suspects(image: Tensor) -> Tensor:
    """(k,) numbers of stamps with equal neighbours near the centre of some band; none in 8-bit pictures."""
    if image.dtype == torch.uint8:
        return torch.zeros(0, dtype=torch.int64, device=image.device)
    height, width = int(image.shape[2]), int(image.shape[3])
    left, right = width // 4, width - width // 4
    if native.takes(image) and right - left > 1:
        asked = range(height // 4, height - height // 4, _ROWS)
        number = native.equal_neighbours(image.numpy(), (asked.start, asked.stop, asked.step), (left, right))
        share = torch.from_numpy(number).to(torch.float32) / (len(asked) * (right - 1 - left))
        return (share > _PAIRS).any(1).nonzero().flatten()
    rows = image[..., height // 4 : height - height // 4 : _ROWS, :]
    equal = rows[..., left : right - 1] == rows[..., left + 1 : right]
    return (equal.flatten(2).float().mean(2) > _PAIRS).any(1).nonzero().flatten()


def _filled(image: Tensor, valid: Tensor) -> Tensor:
    """(n, band, h, w) bool: usable pixels in areas of one value that occurs nowhere else, in images with noise."""
    if min(image.shape[2:]) < 2 * _WINDOW:
        return torch.zeros_like(valid)
    pixels = image.to(torch.float32)
    low, high = (-functional.max_pool2d(-pixels, _WINDOW, 1), functional.max_pool2d(pixels, _WINDOW, 1))
    flat = functional.pad((low == high).float(), (_WINDOW - 1,) * 4)
    area = (functional.max_pool2d(flat, _WINDOW, 1) > 0) & valid
    value = pixels.flatten(2).gather(2, area.flatten(2).float().argmax(2, keepdim=True))[..., None]
    same = (pixels == value) & valid
    filled = area & same
    others = (valid & ~filled).flatten(2).sum(2)
    rare = (same & ~filled).flatten(2).sum(2) <= _ELSEWHERE * others
    edge = torch.ones(image.shape[2:], dtype=torch.bool, device=image.device)
    edge[1:-1, 1:-1] = False
    noisy = (valid & ~filled)[..., edge].float().mean(2) >= _NOISY
    return filled & (rare & noisy)[..., None, None]


@constant
def _weight(height: int, width: int, device: torch.device) -> Tensor:
    """(height * width,) a Gaussian about pixel size // 2 of unit sum."""
    y, x = (
        torch.exp(-0.5 * ((torch.arange(side, dtype=torch.float32, device=device) - side // 2) / (_SIGMA * side)) ** 2)
        for side in (height, width)
    )
    weight = (y[:, None] * x).flatten()
    return weight / weight.sum()
