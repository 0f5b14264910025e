"""Where an object is in its stamp: the light that stands out around its place."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from torch import Tensor

from astroml_plugin.core.typing import F32, I64, Bool

THRESHOLD = 2.5
"""Height above the sky, in its noise after smoothing, above which light belongs to something."""
_SMOOTHING = 1.0
_NEAR = 4
"""Pixels from its place within which an object's light is looked for."""
_BORDER = 4
_SIGMA_OF_MAD = 1.4826


def outlines(image: Tensor, usable: Tensor, at: Tensor) -> Bool:
    """(n, h, w) pixels of the object at each stamp's place: connected light above the threshold.

    Where nothing stands out near the place, the pixels within `_NEAR` of it are taken.

    Args:
        image: (n, channel, h, w), as the network gets it.
        usable: the same shape, bool.
        at: (n, 2) int64, pixel x, y.
    """
    light = _significance(image.float().cpu().numpy(), usable.cpu().numpy())
    places: I64 = at.cpu().numpy()
    return np.stack([_outline(one, x, y) for one, (x, y) in zip(light, places, strict=True)])


def _significance(image: F32, usable: Bool) -> F32:
    """(n, h, w) sum of the channels, each in the noise of its border, smoothed, in the noise of the sum's border."""
    weight = np.where(usable, 1.0, 0.0)
    level, width = _border(image)
    scaled = np.where(width > 0, (image - level) / np.where(width > 0, width, 1.0), 0.0) * weight
    smooth = ndimage.gaussian_filter(scaled.sum(1), (0, _SMOOTHING, _SMOOTHING), mode="nearest")
    level, width = _border(smooth[:, None])
    found: F32 = ((smooth - level[:, 0]) / np.maximum(width[:, 0], 1e-6)).astype(np.float32)
    return found


def _border(image: F32) -> tuple[F32, F32]:
    """(n, channel, 1, 1) median of each border, and its Gaussian width."""
    inner = image[..., _BORDER:-_BORDER, :]
    sides = (image[..., :_BORDER, :], image[..., -_BORDER:, :], inner[..., :_BORDER], inner[..., -_BORDER:])
    edge = np.concatenate([side.reshape(*image.shape[:2], -1) for side in sides], 2)
    level = np.median(edge, 2, keepdims=True)
    width = np.median(np.abs(edge - level), 2, keepdims=True) * _SIGMA_OF_MAD
    return level[..., None], width[..., None]


def _outline(light: F32, x: int, y: int) -> Bool:
    labels, _ = ndimage.label(light > THRESHOLD)
    rows, columns = np.indices(light.shape)
    distance = np.hypot(rows - y, columns - x)
    near = np.where((labels > 0) & (distance <= _NEAR), distance, np.inf)
    nearest = np.unravel_index(int(near.argmin()), near.shape)
    if not np.isfinite(near[nearest]):
        found: Bool = distance <= _NEAR
        return found
    mine: Bool = ndimage.binary_fill_holes(labels == labels[nearest])
    return mine
