"""Stamps brought to pixels of another size, on their device: flux, noise, mask, PSF and WCS stay consistent.

A Lanczos kernel (`LOBES` on each side) is wide enough to keep a well-sampled PSF, and as the PSF image goes through the
same kernel as the object, what little it changes is known to the network.

Resampled noise is correlated: a pixel's own scatter no longer tells the noise of an object. `variance` is therefore
that of white noise with the same power on the scale of objects: the noise of the area that a pixel covers. Sums over
apertures, S/N and errors hold with it as before; with the scatter of single pixels, errors of ellipticities would hold
for 37 % instead of 68 % of galaxies whose pixels are halved. Stamps without a variance get one from their border, since
the noise can no longer be read off their pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts.device_tile import DeviceTile
from astroml_plugin.cutouts.stamps import Cutouts, around, cut, psfs_at, refuse_leaving
from astroml_plugin.pixels import stamp_origin

LOBES = 3
"""Lobes of the kernel on each side: pixels, of the coarser of the two grids."""

_BITS = (ObjectFlag.EDGE, ObjectFlag.MASKED, ObjectFlag.NONFINITE, ObjectFlag.SATURATED)
_BORDER, _SIGMA = 4, 1.482602218505602  # pixels; Gaussian sigma over the median absolute deviation
_NOTHING = 1e-6  # weight below which a pixel counts as not read


def reach(step: float) -> int:
    """Pixels of the source that the kernel reads beside the place of a pixel."""
    return math.ceil(LOBES * max(1.0, step))


def steps_taken(stamps: Cutouts) -> Tensor:
    """(n,) `Cutouts.step`, 1 where none were resampled."""
    return torch.ones(len(stamps), dtype=torch.float64) if stamps.step is None else stamps.step


def merged(parts: Sequence[Cutouts], places: Sequence[np.ndarray]) -> Cutouts:
    """Stamps of one size that were made in groups, in the order of their places."""
    if len(parts) == 1:
        return parts[0]
    if any(part.noise_estimated for part in parts):
        parts = [with_noise(part) for part in parts]
    joined = Cutouts.concatenate([replace(part, step=steps_taken(part)) for part in parts])
    return joined.take(torch.from_numpy(np.argsort(np.concatenate(places), kind="stable")).to(joined.image.device))


def source_side(size: int, step: float) -> int:
    """Side in pixels of the source that stamps of `size` pixels, each of `step` pixels of the source, are made of.

    As of a stamp about the object's pixel, whose halo is half of it; the kernel included.
    """
    return size if step == 1 else 2 * (math.ceil((size // 2 + 1) * step) + reach(step) + 1)


def resampled_side(side: int, step: float) -> int:
    """Side of the stamps that stored ones of `side` pixels give."""
    return side if step == 1 else max(1, math.floor(side / step + 1e-6))


def resampled(stamps: Cutouts, step: float) -> Cutouts:
    """Stored stamps with pixels of `step` pixels of their own; the centre pixel stays where it is.

    At the rim, where the kernel leaves the stamp, the pixels that are there tell.

    Args:
        stamps: n stamps in float32.
        step: side of a new pixel in pixels of the source.
    """
    height, width = (int(side) for side in stamps.image.shape[-2:])
    rows = _about_centre(height, resampled_side(height, step), step, stamps.image.device)
    columns = _about_centre(width, resampled_side(width, step), step, stamps.image.device)
    return _through(stamps, rows, columns, step)


def around_resampled(
    tile: DeviceTile,
    x: np.ndarray,
    y: np.ndarray,
    size: int,
    step: float,
    *,
    origin: tuple[int, int],
    jacobian: np.ndarray,
    padded: bool = False,
) -> Cutouts:
    """`cutouts.around` with pixels of `step` pixels of the tile, on one grid over the whole parent image.

    The object's pixel of that grid has index size // 2, so that a stamp of an object does not depend on the tile.

    Args:
        tile, x, y, origin, jacobian, padded: as there; x, y in the parent image's own pixels.
        size: side of the stamps in new pixels.
        step: side of a new pixel in pixels of the parent image.
    """
    if step == 1:
        return around(tile, x, y, size, origin=origin, jacobian=jacobian, padded=padded)
    side, places = source_side(size, step), [np.asarray(place, np.float64) for place in (x, y)]
    height, width = (int(length) for length in tile.image.shape[-2:])
    centre_x, centre_y = (stamp_origin(place, size) + size // 2 - start for place, start in zip(places, origin))
    if not padded:
        refuse_leaving(centre_x - side // 2, centre_y - side // 2, side, height, width)
    (columns, left), (rows, top) = (_on_grid(place, size, step, tile.image.device) for place in places)
    found = cut(tile, left - origin[0], top - origin[1], (side, side), jacobian)
    shared = psfs_at(tile, centre_x / width, centre_y / height)
    if shared is not None:
        found = replace(found, psf=shared.psf, shared=shared)
    return _through(found, rows[:, None], columns[:, None], step)


def _on_grid(place: np.ndarray, size: int, step: float, device: torch.device) -> tuple[Tensor, np.ndarray]:
    """Weights (n, size, side) along an axis, and the first pixels (n,) of the parent image that they read."""
    first = (np.floor((place + 0.5) / step) - size // 2 + 0.5) * step - 0.5  # centres of the first new pixels
    left = np.floor(first).astype(np.int64) - reach(step)
    places = torch.from_numpy((first - left)[:, None] + np.arange(size) * step)
    return _weights(places.to(device), source_side(size, step), step), left


def _through(stamps: Cutouts, rows: Tensor, columns: Tensor, step: float) -> Cutouts:
    """Stamps through a matrix (…, new, old) along y and one along x."""
    across = columns.transpose(-1, -2)
    image = (rows @ stamps.image.to(torch.float32) @ across) * step**2
    flat = stamps.image.flatten(2)
    constant = flat.amin(2) == flat.amax(2)  # a band that was never observed stays recognisable
    if bool(constant.any()):
        image = torch.where(constant[..., None, None], flat[..., :1, None] * step**2, image)
    bits, valid = stamps.bits, None
    if bits is not None:
        marks = marks_through(bits, rows, across)
        bits, valid = marks, marks == 0
        image = image.masked_fill(~valid, 0.0)
    stamps = with_noise(stamps)
    assert stamps.variance is not None
    mean_y, mean_x = (plane.abs() for plane in (rows, columns))
    mean_y, mean_x = (plane / plane.sum(-1, keepdim=True) for plane in (mean_y, mean_x))
    variance = (mean_y @ stamps.variance @ mean_x.transpose(-1, -2)) * step**2
    variance = variance if valid is None else variance.masked_fill(~valid, 0.0)
    return replace(
        stamps.with_psf(resampled_psf, step),
        image=image,
        variance=variance,
        valid=torch.ones(image.shape, dtype=torch.bool, device=image.device) if valid is None else valid,
        jacobian=stamps.jacobian * step,
        bits=bits,
        step=torch.full((len(stamps),), step, dtype=torch.float64),
    )


def marks_through(bits: Tensor, rows: Tensor, across: Tensor) -> Tensor:
    """Bits uint8 of pixels made from others (…, old, old) by matrices (…, new, old) along y and (…, old, new) along x.

    A pixel has the bits of all pixels that it reads.
    """
    read_y, read_x = ((plane.abs() > _NOTHING).to(torch.float32) for plane in (rows, across))
    shape = (*bits.shape[:-2], rows.shape[-2], across.shape[-1])
    marks = torch.zeros(shape, dtype=torch.uint8, device=bits.device)
    for flag in _BITS:
        marked = (bits & int(flag)) != 0
        if bool(marked.any()):
            marks |= ((read_y @ marked.to(torch.float32) @ read_x) > 0.5).to(torch.uint8) * int(flag)
    return marks


def with_noise(stamps: Cutouts) -> Cutouts:
    """Stamps with a variance: where there is none, from the median absolute deviation of each stamp's border."""
    if stamps.variance is not None:
        return stamps
    known = stamps.image.to(torch.float32)
    known = known if stamps.bits is None else known.masked_fill(~stamps.valid, torch.nan)
    sides = (known[..., :_BORDER, :], known[..., -_BORDER:, :], known[..., :_BORDER], known[..., -_BORDER:])
    edge = torch.cat([part.flatten(2) for part in sides], dim=2)
    level = edge.nanmedian(2, keepdim=True).values
    noise = (_SIGMA * (edge - level).abs().nanmedian(2).values).nan_to_num()
    variance = noise.square()[..., None, None].expand(stamps.image.shape)
    return replace(stamps, variance=variance, noise_estimated=True)


def resampled_psf(psf: Tensor, step: float) -> Tensor:
    """PSF images (…, py, px) with pixels of `step` pixels of their own, odd sides about the centre pixel."""
    planes = []
    for side in psf.shape[-2:]:
        new = 2 * math.floor((int(side) // 2) / step) + 1
        planes.append(_about_centre(int(side), new, step, psf.device))
    return (planes[0] @ torch.nan_to_num(psf.to(torch.float32)) @ planes[1].T) * step**2


def _about_centre(old: int, new: int, step: float, device: torch.device) -> Tensor:
    """(new, old) weights that keep the centre pixel, side // 2, where it is."""
    places = (torch.arange(new, dtype=torch.float64, device=device) - new // 2) * step + old // 2
    return _weights(places, old, step)


def _weights(places: Tensor, side: int, step: float) -> Tensor:
    """(…, k, side) float32 of unit sum: Lanczos weights of the pixels 0 … side - 1 at places (…, k)."""
    offset = (places[..., None] - torch.arange(side, dtype=torch.float64, device=places.device)) / max(1.0, step)
    weights = torch.where(offset.abs() < LOBES, torch.sinc(offset) * torch.sinc(offset / LOBES), 0.0)
    return (weights / weights.sum(-1, keepdim=True)).to(torch.float32)
