"""Objects of an image with their sizes and shapes, found block by block so that no image is held whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import sep

from astroml_plugin.core.typing import F64, Bool
from astroml_plugin.pixels.moments import best_gaussians
from astroml_plugin.sky.wcs import Box

Read = Callable[[Box], tuple[np.ndarray, Bool]]
"""Pixels of a box of an image as (values without the sky, usable), both (y, x)."""

BLOCK = 1536
"""Side in pixels of the blocks that are looked at."""

_MARGIN = 64
_MESH = 64
_THRESHOLD, _LEAST_AREA = 2.5, 5
_PIXELS = 1_000_000
"""Pixels of objects in one block, at most: more, and the threshold is raised."""

_HALF = 14
"""Half-side of the stamps whose moments are measured."""

_CORE = 5
"""Pixels about an object that must all be usable."""

BRIGHT = 20.0
"""Least S/N of an object whose shape is measured."""

_MOST = 4000
"""Objects of a block whose shapes are measured, the brightest."""

_FARTHEST = 1.0
"""Pixels between the centre of an object's outline and of the Gaussian that fits it, at most: beyond is another."""


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects of an image, (n,) each."""

    x: F64
    y: F64
    """Position in the image's pixels."""
    flux: F64
    area: F64
    """Pixels of the outline."""
    snr: F64
    """Light over its noise of the sky, within the outline."""
    width: F64
    """Logarithm of sigma in pixels of the Gaussian that fits it; NaN where it is not measured."""
    e1: F64
    e2: F64
    """Distortion (a² - b²) / (a² + b²) of that Gaussian."""
    whole: F64
    """1 where every pixel about it is usable and within the image, and it is no part of a merged one."""
    spike: F64
    """Part of the light of its 3 x 3 pixels that the brightest has."""
    peak: F64
    """Light of the brightest pixel."""

    def __len__(self) -> int:
        return len(self.x)


def find_objects(read: Read, shape: tuple[int, int]) -> Objects:
    """Objects of an image (height, width)."""
    parts = [_objects(read, core, shape) for core in blocks(shape)]
    return Objects(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Objects)))


def blocks(shape: tuple[int, int]) -> Iterator[Box]:
    """Boxes that an image is made of."""
    for y in range(0, shape[0], BLOCK):
        for x in range(0, shape[1], BLOCK):
            yield Box(x, y, min(x + BLOCK, shape[1]), min(y + BLOCK, shape[0]))


def wider(core: Box, margin: int, shape: tuple[int, int]) -> Box:
    """A box with a margin, as far as the image goes."""
    return Box(core.x0 - margin, core.y0 - margin, core.x1 + margin, core.y1 + margin).clipped(*shape)


def _objects(read: Read, core: Box, shape: tuple[int, int]) -> Objects:
    box = wider(core, _MARGIN, shape)
    values, usable = read(box)
    usable = usable & np.isfinite(values)
    nothing = Objects(*(np.zeros(0) for _ in fields(Objects)))
    if usable.mean() < 0.02:
        return nothing
    middle = float(np.median(values[usable][::7]))
    light = np.where(usable, np.clip(values - middle, -1e15, 1e15), 0).astype(np.float32)
    sky = sep.Background(light, mask=~usable, bw=_MESH, bh=_MESH)
    noise = float(sky.globalrms)
    if not noise > 0:
        return nothing
    light -= sky.back()
    found = _extracted(light, ~usable, noise)
    x, y = found["x"] + box.x0, found["y"] + box.y0
    found = found[(x >= core.x0 - 0.5) & (x < core.x1 - 0.5) & (y >= core.y0 - 0.5) & (y < core.y1 - 0.5)]
    snr = found["flux"] / (noise * np.sqrt(np.maximum(found["npix"], 1)))
    measured = _measured(light, usable, found, snr)
    plain = (found["x"] + box.x0, found["y"] + box.y0, found["flux"], found["npix"], snr)
    return Objects(*(np.asarray(part, np.float64) for part in (*plain, *measured)))


def _extracted(light: np.ndarray, mask: Bool, noise: float) -> np.ndarray:
    """Objects by `sep`; where there is too much light for it, of a higher threshold."""
    sep.set_extract_pixstack(_PIXELS)
    threshold, contrast = _THRESHOLD, 0.005
    for _ in range(12):
        try:
            return np.asarray(
                sep.extract(light, threshold, err=noise, mask=mask, minarea=_LEAST_AREA, deblend_cont=contrast)
            )
        except Exception as error:  # noqa: BLE001 - sep raises nothing narrower
            if "deblending" in str(error):
                contrast = 1.0
            threshold *= 2
    return np.asarray(sep.extract(np.zeros((8, 8), np.float32), 1.0, err=1.0))


def _measured(light: np.ndarray, usable: Bool, found: np.ndarray, snr: F64) -> tuple[F64, ...]:
    """Width, e1, e2, whole, spike and peak of objects; NaN of those that are too faint or lie at the border."""
    count = len(found)
    width, e1, e2, spike, peak = (np.full(count, np.nan) for _ in range(5))
    whole = np.zeros(count)
    column, row = np.rint(found["x"]).astype(int), np.rint(found["y"]).astype(int)
    height, across = light.shape
    inside = (column >= _HALF) & (row >= _HALF) & (column < across - _HALF) & (row < height - _HALF)
    chosen = np.flatnonzero(inside & (snr >= BRIGHT))
    chosen = chosen[np.argsort(-snr[chosen], kind="stable")[:_MOST]]
    if not len(chosen):
        return width, e1, e2, whole, spike, peak
    along = np.arange(-_HALF, _HALF + 1)
    place = np.s_[row[chosen][:, None, None] + along[:, None], column[chosen][:, None, None] + along]
    stamps = light[place]
    matrix, _, centre = best_gaussians(stamps, start=1.5)
    xx, xy, yy = matrix.T
    with np.errstate(invalid="ignore", divide="ignore"):
        width[chosen] = 0.25 * np.log(xx * yy - xy**2)
        e1[chosen], e2[chosen] = (xx - yy) / (xx + yy), 2 * xy / (xx + yy)
        inner = np.maximum(stamps[:, _HALF - 1 : _HALF + 2, _HALF - 1 : _HALF + 2], 0)
        peak[chosen] = inner.max((1, 2))
        spike[chosen] = peak[chosen] / inner.sum((1, 2))
    near = np.hypot(along[:, None], along) <= _CORE
    offset = np.hypot(centre[:, 0] - (found["x"] - column)[chosen], centre[:, 1] - (found["y"] - row)[chosen])
    whole[chosen] = usable[place][:, near].all(1) & ((found["flag"][chosen] & 14) == 0) & (offset < _FARTHEST)
    return width, e1, e2, whole, spike, peak
