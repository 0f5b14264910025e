"""The eight symmetries of a square stamp, drawn at random in training, and PSFs left out at random."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SYMMETRIES = tuple((swap, flip_x, flip_y) for swap in (0, 1) for flip_x in (0, 1) for flip_y in (0, 1))
"""The eight symmetries of a square stamp: transpose x and y or not, then mirror x or not, then mirror y or not."""


def transform(image: Tensor, symmetry: tuple[int, int, int]) -> Tensor:
    """Images (..., h, w) through one of `SYMMETRIES` about their centre pixel, size // 2 (swapping needs squares).

    Along an even side the first pixel has no partner and stays where it is.
    """
    swap, flip_x, flip_y = symmetry
    if swap:
        image = image.transpose(-1, -2)
    axes = [axis for axis, flipped in ((-1, flip_x), (-2, flip_y)) if flipped]
    if not axes:
        return image
    even = [axis for axis in axes if image.shape[axis] % 2 == 0]
    flipped = image.flip(axes)
    return flipped.roll([1] * len(even), even) if even else flipped


def random_symmetries(
    inputs: tuple[Tensor, ...],
    targets: Tensor,
    transform_targets: Callable[[Tensor, tuple[int, int, int]], Tensor],
    generator: torch.Generator,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Copies of network inputs and targets, each object through a symmetry drawn at random.

    Args:
        inputs: those with four axes are images.
        targets: (n, ...).
        transform_targets: gives the targets of stamps that went through a symmetry.
        generator: on the CPU.
    """
    drawn = torch.randint(len(SYMMETRIES), (len(targets),), generator=generator)
    moved = tuple(item.clone() for item in inputs)
    learned = targets.clone()
    for number, symmetry in enumerate(SYMMETRIES):
        rows = torch.nonzero(drawn == number).flatten().to(targets.device)
        for item, source in zip(moved, inputs):
            if source.ndim == 4:
                item[rows] = transform(source[rows], symmetry)
        learned[rows] = transform_targets(targets[rows], symmetry)
    return moved, learned


def drop_psf(inputs: tuple[Tensor, ...], share: float, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Inputs (image, PSF, …) without the PSF of a share of the objects, for a model that can do without."""
    image, psf, *rest = inputs
    keep = torch.rand(len(psf), generator=generator).to(psf.device) >= share
    return (image, psf * keep[:, None, None, None], *rest)
