"""Loss of segmentation, from maps (n, layer, h, w) of the network and layers of truth of the same shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from astroml_plugin.tasks.segmentation.layer_maps import (
    CENTRE,
    FOREGROUND,
    NEAR,
    OFFSET_X,
    OFFSET_Y,
    SHARE,
    STAR,
)
from astroml_plugin.tasks.symmetries import transform

_PARTS = ("foreground", "centre", "near", "offset", "star", "share")
_WEIGHTS = (10.0, 10.0, 10.0, 0.3, 0.3, 0.3)
"""Weight of each part of the loss: with these, all parts are about equal."""

_BATCH = 16
"""Stamps whose parts are computed at once."""


def segmentation_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Weighted sum of the parts of the loss."""
    return torch.stack([weight * part for weight, part in zip(_WEIGHTS, _parts(outputs, targets))]).sum()


def segmentation_metrics(outputs: Tensor, targets: Tensor) -> dict[str, Any]:
    """Loss and its parts, and intersection over union of the foreground at 0.5."""
    with torch.no_grad():
        batches = zip(outputs.split(_BATCH), targets.split(_BATCH))
        parts = [torch.stack(_parts(*batch)) for batch in batches]
        counts = torch.tensor([float(len(part)) for part in outputs.split(_BATCH)])
        mean = (torch.stack(parts) * counts[:, None]).sum(0) / counts.sum()
        light, truth = outputs[:, FOREGROUND] > 0, targets[:, FOREGROUND] > 0.5
    return {
        "loss": float((mean * torch.tensor(_WEIGHTS)).sum()),
        **{f"{name}_loss": float(value) for name, value in zip(_PARTS, mean)},
        "foreground_iou": float((light & truth).sum() / (light | truth).sum().clamp_min(1)),
    }


def transformed_layers(layers: Tensor, symmetry: tuple[int, int, int]) -> Tensor:
    """Layers of stamps that went through a symmetry: offsets change their direction with it."""
    moved = transform(layers, symmetry)
    swap, flip_x, flip_y = symmetry
    if not any(symmetry):
        return moved
    moved = moved.clone()
    if swap:
        moved[:, [OFFSET_X, OFFSET_Y]] = moved[:, [OFFSET_Y, OFFSET_X]]
    for layer, flipped in ((OFFSET_X, flip_x), (OFFSET_Y, flip_y)):
        if flipped:
            moved[:, layer] = -moved[:, layer]
    return moved


def _parts(outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Cross entropies of foreground, centre and near, distance of offsets, cross entropies of star and share."""
    maps, truth = outputs.float(), targets.float()
    entropies = [_entropy(maps[:, layer], truth[:, layer]) for layer in (FOREGROUND, CENTRE, NEAR)]
    known, offsets = truth[:, OFFSET_X].isfinite(), slice(OFFSET_X, OFFSET_Y + 1)
    offset = functional.smooth_l1_loss(
        maps[:, offsets].movedim(1, -1)[known], truth[:, offsets].movedim(1, -1)[known], reduction="sum"
    ) / known.sum().clamp_min(1)
    rest = [_entropy(maps[:, layer], truth[:, layer]) for layer in (STAR, SHARE)]
    return (*entropies, offset, *rest)


def _entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean cross entropy where the truth is known; 0 where it is known nowhere."""
    known = truth.isfinite()
    if bool(known.all()):
        return functional.binary_cross_entropy_with_logits(logits, truth)
    total = functional.binary_cross_entropy_with_logits(logits[known], truth[known], reduction="sum")
    return total / known.sum().clamp_min(1)
