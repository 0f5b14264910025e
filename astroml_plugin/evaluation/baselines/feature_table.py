"""Tables of features: columns by name, a few stamps measured at a time, background and noise from the border."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from astroml_plugin.core.typing import Array
from astroml_plugin.cutouts import Cutouts, from_stamps

_CHUNK = 128
"""Stamps measured together: what they need stays in the processor's cache."""


@dataclass(frozen=True)
class Features:
    """A table of measurements."""

    names: tuple[str, ...]
    """Names of the columns."""
    values: Array
    """(n, columns) float32; NaN where it cannot be measured."""


def in_parts(cutouts: Cutouts, measure: Callable[[Cutouts], dict[str, Array]]) -> Features:
    """The table of a few stamps at a time; what is not finite becomes NaN."""
    if len(cutouts) == 0:
        blank = np.zeros((1, *cutouts.image.shape[1:]), np.float32)
        found = in_parts(from_stamps(blank, None, None, bands=cutouts.bands), measure)
        return Features(found.names, found.values[:0])
    parts = [measure(cutouts.take(slice(start, start + _CHUNK))) for start in range(0, len(cutouts), _CHUNK)]
    names = tuple(parts[0])
    values = np.concatenate([np.stack([part[name] for name in names], axis=1) for part in parts]).astype(np.float32)
    return Features(names, np.where(np.isfinite(values), values, np.float32(np.nan)))


def cleaned(cutouts: Cutouts) -> tuple[Array, Array]:
    """Pixels (n, band, h, w) float32 less their background, and the noise of each band (n, band), from the border."""
    pixels = cutouts.image.to(torch.float32).numpy()
    height, width = pixels.shape[-2:]
    edge = max(2, min(height, width) // 16)
    frame = np.ones((height, width), bool)
    frame[edge:-edge, edge:-edge] = False
    valid = cutouts.valid.numpy()
    if valid.all():
        low, middle, high = _quantiles(pixels[:, :, frame])
        return pixels - middle[:, :, None, None], (high - low) / 2
    low, middle, high = _valid_quantiles(pixels[:, :, frame], valid[:, :, frame])
    return np.where(valid, pixels - middle[:, :, None, None], np.float32(0)), (high - low) / 2


_QUANTILES = (0.1587, 0.5, 0.8413)


def _quantiles(border: Array) -> tuple[Array, Array, Array]:
    """16, 50 and 84 % along the last axis."""
    places = [int(part * border.shape[-1]) for part in _QUANTILES]
    found = np.partition(border, places, axis=-1)
    return found[..., places[0]], found[..., places[1]], found[..., places[2]]


def _valid_quantiles(border: Array, valid: Array) -> tuple[Array, Array, Array]:
    """16, 50 and 84 % of the valid pixels along the last axis; 0 where there are none."""
    ranked = np.sort(np.where(valid, border, np.inf), axis=-1)
    count = valid.sum(-1)
    places = [(part * count).astype(int)[..., None] for part in _QUANTILES]
    found = [np.take_along_axis(ranked, np.minimum(place, ranked.shape[-1] - 1), -1)[..., 0] for place in places]
    low, middle, high = (np.where(count > 0, values, np.float32(0)) for values in found)
    return low, middle, high


def stretched(plane: Array, noise: Array) -> Array:
    """arcsinh of the signal-to-noise of each pixel."""
    scale = np.where(noise > 0, noise, np.maximum(np.abs(plane).max((1, 2)), 1e-12) / 100)
    return np.arcsinh(plane / scale[:, None, None]).astype(np.float32)
