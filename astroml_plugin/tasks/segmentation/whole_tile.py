"""Segmentation of one tile at once, without the engine: for benchmarks, figures and a first look."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from astroml_plugin.core.typing import F32
from astroml_plugin.cutouts import Cutouts, to_device
from astroml_plugin.pixels import Tile, pixel_bits
from astroml_plugin.tasks.detection import Field
from astroml_plugin.tasks.segmentation.task import SegmentTask


def maps_of(task: SegmentTask, network: nn.Module, tile: Tile, pixel_scale: float | None = None) -> F32:
    """Maps (channels, h, w) of a whole tile of the task's bands.

    Sides are padded to whole strides with unusable pixels; a tile of 4096 pixels needs some 3 GB.
    """
    placed = to_device(tile, task.bands, pixel_scale=pixel_scale)
    valid = torch.ones_like(placed.image, dtype=torch.bool) if placed.bits is None else placed.bits == 0
    height, width = placed.image.shape[1:]
    beyond = (0, -width % task.stride, 0, -height % task.stride)
    image, usable = (functional.pad(item, beyond)[None] for item in (placed.image, valid))
    variance = None if placed.variance is None else functional.pad(placed.variance, beyond)[None]
    nowhere = torch.full((1, 2, 2), torch.nan, dtype=torch.float64)
    window = Cutouts(image, variance, usable, None, nowhere, None, task.bands, pixel_scale)
    with torch.inference_mode():
        inputs, _ = task.prepare(window)
        maps: F32 = network(*inputs)[0, :, :height, :width].float().numpy()
    return maps


def field_of(tile: Tile, bands: Sequence[str] = ("r",), zero_points: Sequence[float | None] = ()) -> Field:
    """Field for `SegmentTask.detect`: unusable pixels are 0 in image and variance."""
    bits = pixel_bits(tile.image, tile.variance, tile.mask)
    bad = bits != 0
    variance = None if tile.variance is None else np.where(bad, 0, tile.variance)
    seen = bits if bad.any() else None
    return Field(np.where(bad, 0, tile.image), variance, seen, tile.psf, tuple(bands), (0, 0), tuple(zero_points))
