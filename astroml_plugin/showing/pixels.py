"""Pixels of a view, binned to the size of a picture: one tile after the other, of a tile only the chunks needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astroml_plugin.core.errors import AstromlError, CorruptError
from astroml_plugin.core.typing import F32, Bool
from astroml_plugin.pixels import pixel_bits
from astroml_plugin.showing.view import View
from astroml_plugin.sources.survey import Survey

MOST = 1400
"""Pixels of a picture along its longer side, about."""


@dataclass(frozen=True)
class Pixels:
    """Binned pixels of a view."""

    image: F32
    """(band, y, x) means of blocks of pixels, NaN where none can be used."""
    bad: Bool
    """(band, y, x) whether a pixel of the block cannot be used."""
    bands: tuple[str, ...]
    factor: int
    """Pixels of the survey along one side of a block."""
    problems: tuple[str, ...] = ()
    """Sentences on tiles that cannot be read."""


def read_view(survey: Survey, view: View, bands: Sequence[str], most: int = MOST) -> Pixels:
    """Read the pixels of a view.

    Args:
        survey: the survey.
        view: the view.
        bands: names of the bands.
        most: size of the picture's longer side in pixels.
    """
    box = view.box
    factor = max(1, -(-max(box.width, box.height) // most))
    shape = (len(bands), -(-box.height // factor), -(-box.width // factor))
    total, count, all_of = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    places = [survey.bands.index(band) for band in bands]
    problems = []
    for info in view.tiles:
        x0, x1 = max(box.x0, info.inner.x0), min(box.x1, info.inner.x1)
        y0, y1 = max(box.y0, info.inner.y0), min(box.y1, info.inner.y1)
        part = (slice(y0 - info.outer.y0, y1 - info.outer.y0), slice(x0 - info.outer.x0, x1 - info.outer.x0))
        try:
            image = _part(survey, "image", info.index, part)[places]
            mask = _part(survey, "mask", info.index, part)[places].astype(np.uint32) if info.has_mask else None
        except AstromlError as error:
            problems.append(str(error))
            continue
        except Exception as error:  # noqa: BLE001 - a codec or a store raises whatever it likes; the rest is shown
            problems.append(str(CorruptError(f"tile {info.name} cannot be read ({type(error).__name__})")))
            continue
        usable = pixel_bits(image, None, mask) == 0
        where = (slice(None), *_slots(y0 - box.y0, y1 - box.y0, x0 - box.x0, x1 - box.x0, factor))
        starts = (y0 - box.y0) % factor, (x0 - box.x0) % factor
        total[where] += _blocks(np.where(usable, image, 0.0), factor, starts)
        count[where] += _blocks(usable.astype(float), factor, starts)
        all_of[where] += _blocks(np.ones(image.shape), factor, starts)
    mean = np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)
    return Pixels(mean.astype(np.float32), count < np.maximum(all_of, 1), tuple(bands), factor, tuple(problems))


def _part(survey: Survey, name: str, index: int, part: tuple[slice, slice]) -> np.ndarray:
    """(band, y, x) of a box of a tile's array."""
    return np.asarray(survey.array(name)[index, :, part[0], part[1]])


def _slots(y0: int, y1: int, x0: int, x1: int, factor: int) -> tuple[slice, slice]:
    """Blocks that a box of pixels touches."""
    return slice(y0 // factor, -(-y1 // factor)), slice(x0 // factor, -(-x1 // factor))


def _blocks(values: np.ndarray, factor: int, starts: tuple[int, int]) -> np.ndarray:
    """Sums over blocks of (band, y, x); the first block begins `starts` pixels before the first value."""
    if factor == 1:
        return values
    height, width = values.shape[1] + starts[0], values.shape[2] + starts[1]
    ends = (-height % factor, -width % factor)
    padded = np.pad(values, ((0, 0), (starts[0], ends[0]), (starts[1], ends[1])))
    shape = (len(values), padded.shape[1] // factor, factor, padded.shape[2] // factor, factor)
    summed: np.ndarray = padded.reshape(shape).sum((2, 4))
    return summed
