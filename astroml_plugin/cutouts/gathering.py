"""Rectangles of planes, gathered into one array on the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.compute.device import sent


def gather(plane: Tensor, left: np.ndarray, top: np.ndarray, shape: tuple[int, int], outside: float = 0) -> Tensor:
    """(n, band, *shape) rectangles of a (band, y, x) plane, `outside` beyond it.

    On a GPU through a strided view, one kernel and no index per pixel; on a CPU plain copies are ten times faster.
    """
    if plane.is_cuda:
        return _unfolded(plane, left, top, shape, outside)
    source = plane.numpy()
    stamps = np.empty((len(left), len(source), *shape), source.dtype)
    for stamp, y, x in zip(stamps, top.tolist(), left.tolist()):
        part = source[:, max(0, y) : max(0, y + shape[0]), max(0, x) : max(0, x + shape[1])]
        if part.shape == stamp.shape:
            stamp[...] = part
        else:
            stamp[...] = outside
            from_y, from_x = max(0, -y), max(0, -x)
            stamp[:, from_y : from_y + part.shape[1], from_x : from_x + part.shape[2]] = part
    return torch.from_numpy(stamps)


def _unfolded(plane: Tensor, left: np.ndarray, top: np.ndarray, shape: tuple[int, int], outside: float) -> Tensor:
    """`gather` of a strided view; a plane that is too small is padded first."""
    height, width = plane.shape[-2:]
    if leaves(left, top, shape, height, width):
        before_x, before_y = max(0, -int(left.min())), max(0, -int(top.min()))
        after_x, after_y = max(0, int(left.max()) + shape[1] - width), max(0, int(top.max()) + shape[0] - height)
        plane = torch.nn.functional.pad(plane, (before_x, after_x, before_y, after_y), value=outside)
        left, top = left + before_x, top + before_y
    windows = plane.unfold(1, shape[0], 1).unfold(2, shape[1], 1)
    row, column = sent(torch.from_numpy(np.stack([top, left])), plane.device)
    return windows[:, row, column].transpose(0, 1).contiguous()


def leaves(left: np.ndarray, top: np.ndarray, shape: tuple[int, int], height: int, width: int) -> bool:
    """Whether any rectangle has a pixel outside."""
    if not len(left):
        return False
    right, bottom = left.max() + shape[1], top.max() + shape[0]
    return bool(left.min() < 0 or top.min() < 0 or right > width or bottom > height)
