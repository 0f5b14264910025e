"""A look at some rows of a plane: its level, noise and kind of values, without reading it whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from astropy.io import fits

from astroml_plugin.core.errors import CorruptError
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.ingest.opening import FitsFile
from astroml_plugin.sources.ingest.pixels import Pixels, read_box
from astroml_plugin.sources.quality import fine_noise

_STRIPS = 4
_STRIPS_OF_TILES = 2
_ROWS = 6
"""Rows that are read together, at each of `_STRIPS` heights."""

_PER_MAD = 1.4826
"""Standard deviation of Gaussian noise over its median absolute deviation."""

_FEW_SUMS = 32

_SMALL = 257
"""Pixels across up to which a plane is read whole, to see whether it is symmetric."""

_EQUAL = 1e-6
"""Share of the range by which symmetric values may differ."""

_SANE = (1e-9, 1e9)
"""Noise of pixels of which squares and sums keep their precision in float32."""


@dataclass(frozen=True)
class Sample:
    """Numbers about the pixels of one plane, from some of its rows."""

    finite: float
    """Share of pixels that are finite."""
    median: float
    """Median of the finite pixels: the sky level of an image. NaN where none is finite."""
    noise: float
    """Standard deviation by the median absolute deviation."""
    typical: float
    """Median size of the pixels that are not 0."""
    low: float
    """Smallest finite pixel."""
    high: float
    """Largest finite pixel."""
    negative: float
    """Share of the finite pixels that are below 0, and not all of one value, as marks of missing pixels are."""
    whole: bool
    """Whether all finite pixels are whole numbers."""
    zeros: float
    """Share of the finite pixels that are exactly 0."""
    symmetric: bool = False
    """Whether a small plane is the same turned by 180 degrees, as kernels and correlation functions are."""
    fine: float = np.nan
    """Noise by the differences of neighbours, so that light that fills the image is none of it; NaN of too few."""
    growth: float = np.nan
    """Noise of sums of `_ROWS` x `_ROWS` pixels over that of as much white noise by `fine`; NaN of too few."""

    @property
    def one_value(self) -> bool:
        """Whether all pixels are of one value, or none is finite."""
        return not self.low < self.high

    @property
    def factor(self) -> float:
        """Power of ten that brings the pixels where float32 holds their variance; 1 where they are there already."""
        scale = self.noise if self.noise > 0 else self.typical
        if not np.isfinite(scale) or scale <= 0 or _SANE[0] <= scale <= _SANE[1]:
            return 1.0
        return float(10.0 ** -np.round(np.log10(scale)))


def look(file: FitsFile, array: Callable[[int], Pixels], shape: tuple[int, int], planes: int | None) -> Sample | None:
    """Sample of a 2-D array, or of some planes of a cube; None where its pixels cannot be decoded.

    Args:
        file: the open file.
        array: the 2-D array, or a plane of the cube by its number.
        shape: (height, width).
        planes: planes of the cube; None for a 2-D array.
    """
    height, width = shape
    pixels = array(0)
    hdu = file.hdus[pixels.hdu]
    strips = min(_STRIPS, height)
    if isinstance(hdu, fits.CompImageHDU):  # whole tiles are decoded, one by one where it is HCOMPRESS
        strips = 1 if str(hdu.compression_type).startswith("HCOMPRESS") else min(_STRIPS_OF_TILES, height)
    found = []
    try:
        for number in range(strips):
            place = (number + 0.5) / strips
            start = max(0, min(int(place * height), height - _ROWS))
            box = Box(0, start, width, min(start + _ROWS, height))
            found.append(read_box(file, array(int(place * (planes or 1))), box).astype(np.float64))
        small = height % 2 == width % 2 == 1 and 3 <= min(height, width) <= max(height, width) <= _SMALL
        whole = (
            read_box(file, pixels, Box(0, 0, width, height)).astype(np.float64) if small and planes is None else None
        )
    except CorruptError:  # said again, with its place, when the tile is read
        return None
    seen = [np.where(np.isfinite(part) & (part != 0), part, np.nan) for part in found]  # 0: padding, as a rule
    fine = fine_noise(np.concatenate(seen, axis=0))
    sample = replace(summarise(np.concatenate(found, axis=0)), fine=fine, growth=_growth(seen, fine))
    return sample if whole is None else replace(sample, symmetric=_is_symmetric(whole))


def _growth(strips: list[np.ndarray], fine: float) -> float:
    """Noise of sums of squares of pixels over that of as much white noise, by the differences of neighbouring sums.

    Args:
        strips: (y, x) rows that lie together, NaN where unusable.
        fine: noise of a pixel.
    """
    differences = []
    for strip in strips:
        across = strip.shape[1] // _ROWS
        if len(strip) == _ROWS and across > 1 and fine > 0:
            sums = strip[:, : across * _ROWS].reshape(_ROWS, across, _ROWS).sum((0, 2))
            differences.append(np.abs(np.diff(sums)))
    size = np.concatenate(differences) if differences else np.zeros(0)
    size = size[np.isfinite(size)]
    return float(np.median(size)) / (0.9538725524 * _ROWS * fine) if size.size >= _FEW_SUMS else float("nan")


def _is_symmetric(values: np.ndarray) -> bool:
    spread = np.ptp(values)
    return bool(spread > 0 and np.abs(values - values[::-1, ::-1]).max() < _EQUAL * spread)


def summarise(values: np.ndarray) -> Sample:
    """Sample of float64 values of any shape."""
    good = values[np.isfinite(values)]
    finite = good.size / values.size
    if not good.size:
        return Sample(0.0, *(np.nan,) * 5, 0.0, False, 0.0)
    median = float(np.median(good))
    noise = _PER_MAD * float(np.median(np.abs(good - median)))
    sizes = np.abs(good[good != 0])
    below = good[good < 0]
    negative = below.size / good.size if below.size and below.min() < below.max() else 0.0
    return Sample(
        finite=finite,
        median=median,
        noise=noise,
        typical=float(np.median(sizes)) if sizes.size else 0.0,
        low=float(good.min()),
        high=float(good.max()),
        negative=negative,
        whole=bool((good == np.round(good)).all()),
        zeros=1 - sizes.size / good.size,
    )
