"""Stamps as they are stored: the very pixels of a tile, with variance, mask and the PSF of the right cell."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from astroml_plugin.core.flags import MaskBit
from astroml_plugin.core.typing import I64
from astroml_plugin.cutouts.cells import CellPsfs, cell_numbers
from astroml_plugin.cutouts.gathering import gather
from astroml_plugin.cutouts.stamps import reduce_bits
from astroml_plugin.pixels import Tile, pixel_bits, stamp_origin


@dataclass(frozen=True)
class RawStamps:
    """Pixels of n stamps on the CPU, unchanged."""

    image: np.ndarray
    """(n, band, size, size) float32; NaN beyond the tile."""
    variance: np.ndarray | None
    """(n, band, size, size) float32, in units²; None where the tile has none."""
    mask: np.ndarray
    """(n, band, size, size) uint32 of `MaskBit`; NO_DATA beyond the tile."""
    psf: np.ndarray | None
    """(n, band, psf_y, psf_x) float32."""

    def __len__(self) -> int:
        return len(self.image)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(values.nbytes for one in fields(self) if (values := getattr(self, one.name)) is not None)

    def part(self, chosen: slice) -> RawStamps:
        """Some of the stamps."""
        arrays = {one.name: getattr(self, one.name) for one in fields(self)}
        values: dict[str, Any] = {name: None if array is None else array[chosen] for name, array in arrays.items()}
        return RawStamps(**values)

    def in_unit(self, factor: np.ndarray) -> RawStamps:
        """Pixels times a factor for each band (band,), their variance times its square."""
        wide = factor[:, None, None]
        image = (self.image * wide).astype(np.float32)
        variance = None if self.variance is None else (self.variance * np.square(wide)).astype(np.float32)
        return RawStamps(image, variance, self.mask, self.psf)

    @property
    def flags(self) -> np.ndarray:
        """(n,) int32: what a measurement of all these pixels says of them, EDGE, MASKED, NONFINITE, SATURATED."""
        bits = torch.from_numpy(pixel_bits(self.image, self.variance, self.mask))
        return reduce_bits(bits).numpy()

    @classmethod
    def concatenate(cls, parts: list[RawStamps]) -> RawStamps:
        """Several, one after another."""
        if len(parts) == 1:
            return parts[0]
        lists = {one.name: [getattr(part, one.name) for part in parts] for one in fields(cls)}
        values: dict[str, Any] = {name: None if one[0] is None else np.concatenate(one) for name, one in lists.items()}
        return cls(**values)


def raw_stamps(tile: Tile, x: np.ndarray, y: np.ndarray, size: int, origin: tuple[int, int]) -> RawStamps:
    """Stamps around objects of a tile; where they lie, and which PSF is theirs, is as `around` says.

    Args:
        tile: its pixels.
        x, y: (n,) float64 positions in the parent image's pixels.
        size: stamp side in pixels.
        origin: parent pixel (x0, y0) of the tile's first pixel.
    """
    left, top = stamp_origin(x, size) - origin[0], stamp_origin(y, size) - origin[1]
    height, width = tile.image.shape[-2:]
    mask = np.zeros(tile.image.shape, np.uint32) if tile.mask is None else tile.mask
    psf = None
    if tile.psf is not None:
        across, up = (left + size // 2) / width, (top + size // 2) / height
        cells = torch.from_numpy(tile.psf)
        psf = CellPsfs.of_tile(cells).psf[cell_numbers(cells, across, up)].numpy()
    return RawStamps(
        image=_cut(tile.image, left, top, size, np.nan),
        variance=None if tile.variance is None else _cut(tile.variance, left, top, size, np.nan),
        mask=_cut(mask.view(np.int32), left, top, size, int(MaskBit.NO_DATA)).view(np.uint32),
        psf=psf,
    )


def _cut(plane: np.ndarray, left: I64, top: I64, size: int, outside: float) -> np.ndarray:
    values: np.ndarray = gather(torch.from_numpy(plane), left, top, (size, size), outside).numpy()
    return values
