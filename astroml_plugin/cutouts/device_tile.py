"""Pixels of a tile on the device; what is wrong with each of them.

Pixels that cannot be used are 0 there, and their bits say why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.compute.device import sent
from astroml_plugin.core.flags import MaskBit, ObjectFlag
from astroml_plugin.cutouts import calibration
from astroml_plugin.cutouts.cells import CellPsfs
from astroml_plugin.pixels import native
from astroml_plugin.pixels.faults import BAD, pixel_bits
from astroml_plugin.pixels.tile import SparseTile, Tile, band_index

Move = Callable[[np.ndarray], Tensor]
"""Takes an array to a device as it is."""


@dataclass(frozen=True)
class DeviceTile:
    """A tile on the device, ready to be cut."""

    image: Tensor
    """(band, y, x) float32; unusable pixels are 0."""
    variance: Tensor | None
    """(band, y, x) float32; unusable pixels are 0."""
    bits: Tensor | None
    """(band, y, x) uint8: EDGE, MASKED, NONFINITE, SATURATED of each pixel; None when all pixels can be used."""
    psf: Tensor | None
    """(band, cell_y, cell_x, psf_y, psf_x) float32."""
    bands: tuple[str, ...]
    """Names of the band axis."""
    pixel_scale: float | None = None
    """Arcsec per pixel."""
    zero_points: tuple[float | None, ...] = ()
    """AB magnitude of one unit of the pixels, one per band, None where unknown; empty: all unknown."""

    @cached_property
    def cells(self) -> CellPsfs | None:
        """The PSFs of its cells, and what has been made of them for its stamps; None without PSFs."""
        return None if self.psf is None else CellPsfs.of_tile(self.psf)

    def select(self, bands: Sequence[str]) -> DeviceTile:
        """The named bands, in that order.

        Raises:
            InputError: a band is not there.
        """
        index = band_index(self.bands, bands)
        if index == list(range(len(self.bands))):
            return self
        planes = {
            name: value[index]
            for name in ("image", "variance", "bits", "psf")
            if (value := getattr(self, name)) is not None
        }
        zero_points = tuple(self.zero_points[place] for place in index) if self.zero_points else ()
        return replace(self, bands=tuple(bands), zero_points=zero_points, **planes)

    def in_unit(self, zero_point: float) -> DeviceTile:
        """The tile in the unit of this zero point, as `Cutouts.in_unit`; bands without one count as not observed."""
        factor = calibration.factors(calibration.known(self.zero_points, len(self.bands)), zero_point)
        if factor is None:
            return self
        image, variance = calibration.scaled(self.image, self.variance, factor)
        bits, unknown = self.bits, factor.isnan().nonzero().flatten().tolist()
        if unknown:
            bits = torch.zeros(image.shape, dtype=torch.uint8, device=image.device) if bits is None else bits.clone()
            bits[unknown] = int(ObjectFlag.EDGE)
        known = tuple(None if place in unknown else zero_point for place in range(len(self.bands)))
        return replace(self, image=image, variance=variance, bits=bits, zero_points=known)


def device_bits(image: Tensor, variance: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """`pixel_bits` where the pixels are; None when all can be used.

    Args:
        image: any shape, number.
        variance: same shape, or None.
        mask: same shape, `MaskBit` as int32, or None.
    """
    bits = torch.zeros(image.shape, dtype=torch.uint8, device=image.device)
    if image.is_floating_point():
        bits |= (~image.isfinite()).to(torch.uint8) * int(ObjectFlag.NONFINITE)
    if variance is not None:
        bits |= (~((variance > 0) & (variance < torch.inf))).to(torch.uint8) * int(ObjectFlag.MASKED)
    if mask is not None:
        marked(bits, mask)
    return bits if bool(bits.any()) else None


def marked(bits: Tensor, mask: Tensor) -> Tensor:
    """Bits of `ObjectFlag` (uint8), changed in place by a mask of the same shape (`MaskBit` as int32)."""
    bits |= ((mask & _signed(BAD)) != 0).to(torch.uint8) * int(ObjectFlag.MASKED)
    bits |= ((mask & _signed(MaskBit.SATURATED)) != 0).to(torch.uint8) * int(ObjectFlag.SATURATED)
    return bits.masked_fill_((mask & _signed(MaskBit.NO_DATA)) != 0, int(ObjectFlag.EDGE))


def _signed(bits: int) -> int:
    """32 bits as the int32 that has them."""
    return int(np.uint32(bits).view(np.int32))


def is_complete(valid: Tensor) -> bool:
    """Whether all pixels (n, band, h, w) bool can be used: NumPy's `all` is faster than torch's on a CPU."""
    return bool(valid.numpy().all() if valid.device.type == "cpu" else valid.all())


def to_device(
    tile: Tile | SparseTile,
    bands: Sequence[str],
    device: torch.device | str = "cpu",
    pixel_scale: float | None = None,
    zero_points: Sequence[float | None] = (),
    move: Move | None = None,
) -> DeviceTile:
    """Move a tile to the device once; its unusable pixels become 0 there.

    Args:
        tile: pixels; of a sparse tile, what lies outside its parts is 0 and must not be cut.
        bands: names of the band axis.
        device: where to.
        pixel_scale: arcsec per pixel, or None.
        zero_points: AB magnitude of one unit, one per band, None where unknown; empty: all unknown.
        move: takes arrays there; the default leaves them where they are on a CPU.
    """
    if isinstance(tile, SparseTile):
        image, variance, bits = _pasted(tile, torch.device(device), move)
    else:
        image, variance, bits = usable(tile.image, tile.variance, tile.mask, torch.device(device), move)
    psf = None if tile.psf is None else moved(tile.psf, torch.device(device), move)
    return DeviceTile(image, variance, bits, psf, tuple(bands), pixel_scale, tuple(zero_points))


def _pasted(tile: SparseTile, device: torch.device, move: Move | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """`usable` of every part, each in its place; memory that no part needs is never touched."""

    def blank(dtype: torch.dtype) -> Tensor:
        return torch.zeros(tile.shape, dtype=dtype, device=device)

    image, variance, bits = blank(torch.float32), None, None
    for box, part in tile.parts:
        here = (slice(None), slice(box.y0, box.y1), slice(box.x0, box.x1))
        pixels, spread, marked = usable(part.image, part.variance, part.mask, device, move)
        image[here] = pixels
        if spread is not None:
            variance = blank(torch.float32) if variance is None else variance
            variance[here] = spread
        if marked is not None:
            bits = blank(torch.uint8) if bits is None else bits
            bits[here] = marked
    return image, variance, bits


def usable(
    image: np.ndarray, variance: np.ndarray | None, mask: np.ndarray | None, device: torch.device, move: Move | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Image and variance on the device, 0 where they cannot be used, and the bits that say why (None: all can)."""
    pixels = moved(image, device, move)
    spread = None if variance is None else moved(variance, device, move)
    if native.takes(pixels, spread):
        return without_faults(pixels, spread, mask)
    if device.type == "cpu" and move is None:
        marked = pixel_bits(image, variance, mask)
        bits = torch.from_numpy(marked) if marked.any() else None
    else:
        bits = device_bits(pixels, spread, None if mask is None else moved(mask.view(np.int32), device, move))
    if bits is None:
        return pixels, spread, None
    unusable = bits != 0
    return pixels.masked_fill(unusable, 0), None if spread is None else spread.masked_fill(unusable, 0.0), bits


def without_faults(
    image: Tensor, variance: Tensor | None, mask: np.ndarray | None, before: Tensor | None = None, *, look: bool = True
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """`usable` by compiled code; arguments as of `native.faults`."""
    known, bits = (None if item is None else item.numpy() for item in (variance, before))
    found = native.faults(image.numpy(), known, mask, bits, look=look)
    if found is None:
        return image, variance, before
    pixels, spread, marks = found
    return torch.from_numpy(pixels), None if spread is None else torch.from_numpy(spread), torch.from_numpy(marks)


def moved(array: np.ndarray, device: torch.device, move: Move | None) -> Tensor:
    """An array on the device, by `move` where one is given."""
    if move is not None:
        return move(array)
    tensor = torch.from_numpy(np.ascontiguousarray(array) if array.flags.writeable else array.copy())
    return sent(tensor, device)
