"""Stamps in memory, gathered around objects of a tile or taken as stored, and handed over in batches.

Origins follow the contract: a stamp of side s around (x, y) begins at floor(x + 0.5) - s // 2 in the parent image,
so the object's pixel has index s // 2. Pixels that cannot be used are 0 and not `valid`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.compute.device import sent
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import calibration
from astroml_plugin.cutouts.cells import Made, StampPsfs, cell_numbers
from astroml_plugin.cutouts.device_tile import DeviceTile, Move, marked, moved, usable, without_faults
from astroml_plugin.cutouts.gathering import gather, leaves
from astroml_plugin.pixels import band_index, native, stamp_origin

_PIXEL_FLAGS = (ObjectFlag.EDGE, ObjectFlag.MASKED, ObjectFlag.NONFINITE, ObjectFlag.SATURATED)


@dataclass(frozen=True)
class Cutouts:
    """A batch of stamps on the device."""

    image: Tensor
    """(n, band, h, w), float32 or uint8 as stored, not normalised; unusable pixels are 0."""
    variance: Tensor | None
    """(n, band, h, w) float32, or None."""
    valid: Tensor
    """(n, band, h, w) bool: finite, inside the image, not masked, variance above 0."""
    psf: Tensor | None
    """(n, band, psf_y, psf_x) float32 as stored, or None."""
    jacobian: Tensor
    """(n, 2, 2) float64 on the CPU: arcsec along (+x West, +y North) for one pixel along (x, y); NaN without a WCS."""
    bits: Tensor | None
    """(n, band, h, w) uint8 of `pixel_bits`; None when all pixels can be used."""
    bands: tuple[str, ...]
    """Names of the band axis."""
    pixel_scale: float | None = None
    """Arcsec per pixel of the source, see `scales`; None where unknown."""
    zero_points: Tensor | None = None
    """(n, band) float64 on the CPU: AB magnitude of one unit of the pixels, NaN where unknown; None: all unknown."""
    off_centre: Tensor | None = None
    """(n,) bool: the light lies farther from the centre than the model bears; None where nobody looked."""
    unsized: Tensor | None = None
    """(n,) bool: pictures whose object has no size that could be measured; None where none was asked for."""
    step: Tensor | None = None
    """(n,) float64 on the CPU: side of a pixel in pixels of the source; None where none were resampled."""
    noise_estimated: bool = False
    """Whether `variance` was estimated from the stamps' border, because resampled pixels no longer tell it."""
    shared: StampPsfs | None = None
    """`psf` as the PSFs of a tile's cells; counts only while its copies are `psf`, and is None of stored stamps."""

    def __len__(self) -> int:
        return int(self.image.shape[0])

    @property
    def scales(self) -> Tensor | None:
        """(n,) float64 on the CPU: arcsec per pixel of these stamps; None where unknown."""
        if self.pixel_scale is None:
            return None
        one = torch.ones(len(self), dtype=torch.float64) if self.step is None else self.step
        return one * self.pixel_scale

    @property
    def flags(self) -> Tensor:
        """(n,) int32: `ObjectFlag` bits of these bands and pixels, and of no others."""
        return _no_flags(self.image) if self.bits is None else reduce_bits(self.bits)

    def of_psf(self, make: Callable[..., Made], *settings: Hashable) -> Made:
        """`make(psf, *settings)`, called once for the cells of the tile where those are fewer than the stamps.

        Args:
            make: treats each PSF (band, psf_y, psf_x) of its first argument for itself; returns a tensor, or a tuple of
                them, with one entry for each along the first axis.
            settings: what else it takes.
        """
        assert self.psf is not None
        if self._shared is None:
            return make(self.psf, *settings)
        return self._shared.of_each((make, *settings), lambda psf: make(psf, *settings))

    def with_psf(self, make: Callable[..., Tensor], *settings: Hashable) -> Cutouts:
        """The stamps with `make(psf, *settings)` as their PSFs, made as by `of_psf`; as they are without a PSF."""
        if self.psf is None:
            return self
        shared = self._shared
        if shared is not None:
            shared = shared.changed((make, *settings), lambda psf: make(psf, *settings))
        return replace(self, psf=make(self.psf, *settings) if shared is None else shared.psf, shared=shared)

    @property
    def _shared(self) -> StampPsfs | None:
        return self.shared if self.shared is not None and self.shared.psf is self.psf else None

    def take(self, index: Tensor | slice) -> Cutouts:
        """The stamps of an index (n',) or slice, in its order."""
        changed: dict[str, Any] = {
            field.name: value[index.cpu() if isinstance(index, Tensor) and not value.is_cuda else index]
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        if self._shared is not None:
            changed["shared"] = self._shared.take(index)
            changed["psf"] = changed["shared"].psf
        return replace(self, **changed)

    def to(self, device: str | torch.device) -> Cutouts:
        """The stamps on a torch device; jacobian and zero points stay on the CPU."""
        wanted = torch.device(device)
        if wanted == self.image.device:
            return self
        there: dict[str, Any] = {
            name: sent(value, wanted)
            for name in ("image", "variance", "valid", "psf", "bits", "off_centre", "unsized")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **there)

    @classmethod
    def concatenate(cls, parts: Sequence[Cutouts]) -> Cutouts:
        """Several batches of the same bands, one after another."""
        if len(parts) == 1:
            return parts[0]
        tensors: dict[str, Any] = {
            field.name: torch.cat([getattr(part, field.name) for part in parts])
            for field in fields(cls)
            if field.name != "bits" and isinstance(getattr(parts[0], field.name), Tensor)
        }
        bits = None
        if any(part.bits is not None for part in parts):
            bits = torch.cat([_no_bits(part.image) if part.bits is None else part.bits for part in parts])
        return replace(parts[0], bits=bits, **tensors)

    def select(self, bands: Sequence[str]) -> Cutouts:
        """The named bands, in that order.

        Raises:
            InputError: a band is not there.
        """
        index = band_index(self.bands, bands)
        if index == list(range(len(self.bands))):
            return self
        picked = {
            name: value[:, index]
            for name in ("image", "variance", "valid", "bits", "zero_points")
            if (value := getattr(self, name)) is not None
        }
        return replace(self.with_psf(_bands_of, tuple(index)), bands=tuple(bands), **picked)

    def masked(self, mask: np.ndarray | None, move: Move | None = None) -> Cutouts:
        """The stamps with what a mask says of their pixels: those that cannot be used are 0, not valid and have bits.

        Args:
            mask: (n, band, h, w) uint32 of `MaskBit`; None says nothing.
            move: takes arrays to the device; the default leaves them where they are on a CPU.
        """
        if mask is None or not mask.any():
            return self
        if native.takes(self.image, self.variance, self.bits):
            image, spread, marks = without_faults(self.image, self.variance, mask, self.bits, look=False)
            valid = self.valid if marks is None else marks == 0
            return replace(self, image=image, variance=spread, valid=valid, bits=marks)
        there = moved(mask.view(np.int32), self.image.device, move)
        bits = marked(_no_bits(self.image) if self.bits is None else self.bits.clone(), there)
        valid = bits == 0
        return replace(
            self,
            image=self.image.masked_fill(~valid, 0),
            variance=None if self.variance is None else self.variance.masked_fill(~valid, 0.0),
            valid=valid,
            bits=bits,
        )

    def in_unit(self, zero_point: float) -> Cutouts:
        """The stamps in the unit of this zero point: pixels times 10^(0.4 (new - old)), the variance its square.

        Bands without a zero point cannot be used: their pixels are 0 and not valid.
        """
        old = calibration.known((), len(self.bands)) if self.zero_points is None else self.zero_points
        factor = calibration.factors(old, zero_point)
        if factor is None:
            return self
        factor = factor.expand(len(self), -1)
        image, variance = calibration.scaled(self.image, self.variance, factor)
        usable = factor.isfinite()
        valid = self.valid if bool(usable.all()) else self.valid & usable[..., None, None].to(self.valid.device)
        return replace(
            self, image=image, variance=variance, valid=valid, zero_points=torch.full_like(factor, zero_point)
        )


def around(
    tile: DeviceTile,
    x: np.ndarray,
    y: np.ndarray,
    size: int,
    *,
    origin: tuple[int, int],
    jacobian: np.ndarray,
    padded: bool = False,
) -> Cutouts:
    """Stamps around objects, gathered on the device.

    Args:
        tile: the tile on the device.
        x, y: (n,) float64 positions in the parent image's pixels.
        size: stamp side in pixels.
        origin: parent pixel (x0, y0) of the tile's first pixel.
        jacobian: (n, 2, 2) float64, see `Cutouts.jacobian`.
        padded: stamps may leave the tile; their pixels outside are unusable and flagged EDGE.

    Returns:
        n stamps. Each lies inside the tile, because a unit owns only objects of its inner box and the halo is at
        least half a stamp; but for objects that are owned by their peak, whose centre may lie elsewhere.

    Raises:
        InputError: a stamp would leave the tile and is not `padded`.
    """
    left = stamp_origin(x, size) - origin[0]
    top = stamp_origin(y, size) - origin[1]
    if not padded:
        refuse_leaving(left, top, size, *tile.image.shape[-2:])
    return cut(tile, left, top, (size, size), jacobian)


def refuse_leaving(left: np.ndarray, top: np.ndarray, size: int, height: int, width: int) -> None:
    """Raise InputError where a stamp of `size` pixels has one outside its tile of height x width pixels."""
    if leaves(left, top, (size, size), height, width):
        raise InputError(
            f"a stamp of {size} px leaves its tile of {width} x {height} px: the survey's halo is too small"
        )


def cut(
    tile: DeviceTile, left: np.ndarray, top: np.ndarray, shape: tuple[int, int], jacobian: np.ndarray | None = None
) -> Cutouts:
    """Rectangles of a tile, gathered on the device; pixels outside the tile are 0, not valid and flagged EDGE.

    Args:
        tile: the tile on the device.
        left, top: (n,) int64, first pixel of each in the tile.
        shape: (height, width) in pixels.
        jacobian: (n, 2, 2) float64, see `Cutouts.jacobian`; NaN where it is not given.
    """
    height, width = tile.image.shape[-2:]
    outside = int(ObjectFlag.EDGE)
    image = gather(tile.image, left, top, shape)
    bits = None if tile.bits is None else gather(tile.bits, left, top, shape, outside)
    if bits is None and leaves(left, top, shape, height, width):
        inside = tile.image.new_zeros((1, height, width), dtype=torch.uint8)
        bits = gather(inside, left, top, shape, outside).expand(image.shape)
    centre_x, centre_y = left + shape[1] // 2, top + shape[0] // 2
    unknown = np.full((len(left), 2, 2), np.nan)
    shared = psfs_at(tile, centre_x / width, centre_y / height)
    return Cutouts(
        image=image,
        variance=None if tile.variance is None else gather(tile.variance, left, top, shape),
        valid=_all_valid(image) if bits is None else bits == 0,
        psf=None if shared is None else shared.psf,
        jacobian=torch.from_numpy(unknown if jacobian is None else jacobian),
        bits=bits,
        bands=tile.bands,
        pixel_scale=tile.pixel_scale,
        zero_points=calibration.known(tile.zero_points, len(tile.bands)).expand(len(left), -1),
        shared=shared,
    )


def psfs_at(tile: DeviceTile, across: np.ndarray, up: np.ndarray) -> StampPsfs | None:
    """PSFs of objects at fractions (n,) of a tile along x and y; None where it has none."""
    if tile.psf is None or tile.cells is None:
        return None
    return StampPsfs.at(tile.cells, cell_numbers(tile.psf, across, up))


def _bands_of(psf: Tensor, index: tuple[int, ...]) -> Tensor:
    return psf[:, list(index)]


def _all_valid(image: Tensor) -> Tensor:
    """True for every pixel."""
    return torch.ones(image.shape, dtype=torch.bool, device=image.device)


def _no_bits(image: Tensor) -> Tensor:
    """uint8 zeros, one for each pixel."""
    return torch.zeros(image.shape, dtype=torch.uint8, device=image.device)


def _no_flags(image: Tensor) -> Tensor:
    """(n,) int32 zeros."""
    return torch.zeros(len(image), dtype=torch.int32, device=image.device)


def reduce_bits(bits: Tensor) -> Tensor:
    """(n,) int32: the bits that any pixel of each stamp (n, band, h, w) uint8 has.

    A band that lies outside the image as a whole is missing, which is not EDGE: that tells of a part of a stamp.
    """
    flat = bits.flatten(2)
    flags = torch.zeros(len(flat), dtype=torch.int32, device=bits.device)
    if not bool(flat.any()):
        return flags
    edge = int(ObjectFlag.EDGE)
    for flag in _PIXEL_FLAGS:
        marked = flat & int(flag)
        seen = marked.amax(2)
        if flag == ObjectFlag.EDGE:
            seen = torch.where(marked.amin(2) == edge, torch.zeros_like(seen), seen)
        flags |= seen.amax(1).to(torch.int32)
    return flags


def from_stamps(
    image: np.ndarray,
    variance: np.ndarray | None,
    psf: np.ndarray | None,
    *,
    bands: Sequence[str],
    pixel_scale: float | None = None,
    zero_points: Sequence[float | None] = (),
    device: torch.device | str = "cpu",
    move: Move | None = None,
) -> Cutouts:
    """Stored stamps on the device.

    Args:
        image: (n, band, h, w), float32 or uint8.
        variance: same shape, or None.
        psf: (n, band, psf_y, psf_x), or None.
        bands: names of the band axis.
        pixel_scale: arcsec per pixel, or None.
        zero_points: AB magnitude of one unit, one per band, None where unknown; empty: all unknown.
        device: where to.
        move: takes arrays there; the default leaves them where they are on a CPU.
    """
    pixels, spread, bits = usable(image, variance, None, torch.device(device), move)
    return Cutouts(
        image=pixels,
        variance=spread,
        valid=_all_valid(pixels) if bits is None else bits == 0,
        psf=None if psf is None else moved(psf, torch.device(device), move),
        jacobian=torch.full((len(image), 2, 2), torch.nan, dtype=torch.float64),
        bits=bits,
        bands=tuple(bands),
        pixel_scale=pixel_scale,
        zero_points=calibration.known(zero_points, len(bands)).expand(len(image), -1),
    )


def crop(cutouts: Cutouts, size: int) -> Cutouts:
    """Stamps of side `size` about the same centre: larger ones are cut, smaller ones padded with unusable pixels.

    Padded stamps get the flag EDGE.
    """
    height, width = cutouts.image.shape[-2:]
    if (height, width) == (size, size):
        return cutouts
    changed: dict[str, Any] = {
        name: _centred(value, size)
        for name in ("image", "variance", "valid")
        if (value := getattr(cutouts, name)) is not None
    }
    bits = cutouts.bits
    if min(height, width) < size:
        bits = _no_bits(cutouts.image) if bits is None else bits
    return replace(cutouts, bits=None if bits is None else _centred(bits, size, int(ObjectFlag.EDGE)), **changed)


def _centred(stamps: Tensor, size: int, outside: int = 0) -> Tensor:
    """(n, band, size, size) about the same centre pixel; what lies outside is 0, or `outside`."""
    for axis in (2, 3):
        side = stamps.shape[axis]
        start = side // 2 - size // 2
        before, after = max(0, -start), max(0, start + size - side)
        stamps = stamps.narrow(axis, max(0, start), size - before - after)
        if before or after:
            padding = [0, 0, 0, 0]
            padding[0 if axis == 3 else 2], padding[1 if axis == 3 else 3] = before, after
            stamps = torch.nn.functional.pad(stamps, padding, value=outside)
    return stamps


def batches(cutouts: Cutouts, size: int) -> Iterator[Cutouts]:
    """Consecutive batches of at most `size` stamps; the last one is kept however small."""
    for start in range(0, len(cutouts), size):
        yield cutouts.take(slice(start, start + size))
