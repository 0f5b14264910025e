"""Layers of truth that a detecting network learns, made from a simulated scene or from a label map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from astroml_plugin.core.errors import InputError

LAYERS = ("foreground", "centre", "near", "offset_x", "offset_y", "star", "share")
"""foreground: 1 where the light of all objects exceeds one sigma of the noise. centre: Gaussians of `CENTRE_SIGMA` at
the centres of all objects, the larger where two meet. near: 1 within `NEAR` of a centre. offset_x, offset_y: from the
pixel to the centre of the object that gives it most light, pixels. star: 1 where that object is a point source.
share: its part of the pixel's light. NaN where it is not known; offsets, star and share mean something near objects
only.
"""

CENTRE_SIGMA = 1.3
"""σ in pixels: narrow enough for pairs one PSF width apart, wide enough to be learned from noisy centres."""

NEAR = 2.5
"""Radius in pixels within which a detection counts as the object."""

_FARTHEST = 60.0
"""Largest offset that is learned, pixels."""


@dataclass(frozen=True)
class Scene:
    """Owner of each pixel's light, and the n objects of the scene."""

    owner: NDArray[np.int32]
    """(h, w) number of the object that gives most of the light; -1 for none."""
    foreground: NDArray[np.bool_]
    """(h, w) whether the light of all objects exceeds one sigma."""
    share: NDArray[np.float32] | None
    """(h, w) part of the light that the owner gives; None where it is not known."""
    x: NDArray[np.float64]
    """(n,) centres along x, pixels of this image."""
    y: NDArray[np.float64]
    """(n,) centres along y, pixels of this image."""
    star: NDArray[np.float32]
    """(n,) 1 for point sources, 0 for galaxies, NaN where it is not known."""


def truth_layers(scene: Scene) -> NDArray[np.float16]:
    """`LAYERS` of a scene, (layer, h, w) float16."""
    height, width = scene.owner.shape
    layers = np.full((len(LAYERS), height, width), np.nan, np.float32)
    foreground, centre, near, offset_x, offset_y, star, share = layers
    foreground[:] = scene.foreground
    centre[:], near[:] = 0, 0
    rows, columns = np.nonzero(scene.foreground & (scene.owner >= 0))
    owner = scene.owner[rows, columns]
    offset_x[rows, columns] = np.clip(scene.x[owner] - columns, -_FARTHEST, _FARTHEST)
    offset_y[rows, columns] = np.clip(scene.y[owner] - rows, -_FARTHEST, _FARTHEST)
    star[rows, columns] = scene.star[owner]
    if scene.share is not None:
        share[rows, columns] = scene.share[rows, columns]
    for x, y, kind in zip(scene.x.tolist(), scene.y.tolist(), scene.star.tolist()):
        _paint(layers, x, y, kind)
    return layers.astype(np.float16)


_HALF = 5
"""Half-side in pixels of the square that one object is painted into."""


def _paint(layers: NDArray[np.float32], x: float, y: float, kind: float) -> None:
    """Paint one object in place: its centre, and its offset and class where no light is seen."""
    height, width = layers.shape[1:]
    column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    x0, x1 = max(column - _HALF, 0), min(column + _HALF + 1, width)
    y0, y1 = max(row - _HALF, 0), min(row + _HALF + 1, height)
    if x0 >= x1 or y0 >= y1:
        return
    part = layers[:, y0:y1, x0:x1]
    across, up = x - np.arange(x0, x1, dtype=np.float32), (y - np.arange(y0, y1, dtype=np.float32))[:, None]
    square = across**2 + up**2
    np.maximum(part[1], np.exp(-0.5 * square / CENTRE_SIGMA**2), out=part[1])
    close = square <= NEAR**2
    part[2][close] = 1
    dark = close & (part[0] == 0)
    nearer = dark & ~(part[3] ** 2 + part[4] ** 2 <= square)  # NaN: nobody was here before
    part[3][nearer] = np.broadcast_to(across, square.shape)[nearer]
    part[4][nearer] = np.broadcast_to(up, square.shape)[nearer]
    part[5][nearer] = kind


def layers_of_labels(
    labels: NDArray[np.integer], image: NDArray[np.floating] | None = None, star: NDArray[np.float32] | None = None
) -> NDArray[np.float16]:
    """`LAYERS` from a label map of any origin: other programs' segmentation, people's outlines.

    Args:
        labels: (h, w) whole numbers, 0 background; every other number is one object.
        image: (h, w) background-subtracted; centres are weighted with its positive part. None: plain centroids.
        star: (largest label + 1,) 1 point source, 0 not, NaN unknown, by label; None: all unknown.

    Returns:
        (layer, h, w) float16; `share` is unknown.

    Raises:
        InputError: labels that are no whole numbers, negative, or of another shape than the image.
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise InputError(
            f"a label map is (h, w) of whole numbers, 0 for background, not {labels.dtype} of shape {labels.shape}"
        )
    if image is not None and image.shape != labels.shape:
        raise InputError(f"the label map has shape {labels.shape} and the image {image.shape}: they must agree")
    rows, columns = np.nonzero(labels)
    numbers, owner = np.unique(labels[rows, columns], return_inverse=True)
    weight = np.ones(len(rows)) if image is None else np.clip(np.nan_to_num(image[rows, columns]), 1e-6, None)
    total = np.bincount(owner, weight, len(numbers))
    x = np.bincount(owner, weight * columns, len(numbers)) / np.maximum(total, 1e-12)
    y = np.bincount(owner, weight * rows, len(numbers)) / np.maximum(total, 1e-12)
    owners = np.full(labels.shape, -1, np.int32)
    owners[rows, columns] = owner
    kinds = np.full(len(numbers), np.nan, np.float32) if star is None else star[numbers]
    return truth_layers(Scene(owners, labels > 0, None, x, y, kinds))
