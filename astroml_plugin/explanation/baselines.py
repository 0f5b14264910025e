"""Baselines: stamps without the object, from which a path to the stamp begins."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.hashing import mixed
from astroml_plugin.explanation.options import MethodOptions
from astroml_plugin.explanation.target import Seen, Target

_BORDER = 4
_SIGMA_OF_MAD = 1.4826


def blank_sky(target: Target, seen: Seen) -> Tensor:
    """(n, channel, h, w) the network's first input for blank sky; unusable pixels stay as they are."""
    return torch.where(seen.usable, target.task.blank(seen.image), seen.image)


def baselines_of(target: Target, seen: Seen, how: MethodOptions, object_id: np.ndarray) -> list[Tensor]:
    """Baselines (n, channel, h, w) from which a method begins: blank sky, or so many draws of noise."""
    if how.baseline == "blank":
        return [blank_sky(target, seen)]
    return [noise_draw(target, seen, object_id, how.seed + number) for number in range(how.draws)]


def noise_draw(target: Target, seen: Seen, object_id: np.ndarray, seed: int) -> Tensor:
    """Blank sky with noise as in each stamp's border, (n, channel, h, w); the same for an object in every run.

    Args:
        target: what is explained.
        seen: n stamps.
        object_id: (n,) int64.
        seed: another one gives another draw.
    """
    blank = target.task.blank(seen.image)
    width = noise_width(seen, blank)
    drawn = torch.empty_like(seen.image)
    for row, generator in enumerate(generators(object_id, seed)):
        drawn[row] = torch.randn(seen.image.shape[1:], generator=generator)
    return torch.where(seen.usable, blank + drawn * width[..., None, None], seen.image)


def generators(object_id: np.ndarray, seed: int) -> Iterator[torch.Generator]:
    """A generator for each of some objects (n,) int64, the same for an object in every run."""
    for key in mixed(object_id, seed):
        yield torch.Generator().manual_seed(int(key >> np.uint64(1)))


def noise_width(seen: Seen, blank: Tensor) -> Tensor:
    """(n, channel) Gaussian width of the border of each stamp, less blank sky; 0 for channels that are all blank."""
    light = seen.image - blank
    inner = light[..., _BORDER:-_BORDER, :]
    sides = (light[..., :_BORDER, :], light[..., -_BORDER:, :], inner[..., :_BORDER], inner[..., -_BORDER:])
    edge = torch.cat([side.flatten(2) for side in sides], 2)
    middle = edge.median(2, keepdim=True).values
    return (edge - middle).abs().median(2).values * _SIGMA_OF_MAD
