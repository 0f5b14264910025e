"""Objects per forward: what a network keeps in memory, and what the device has."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from astroml_plugin.compute.device import AHEAD, PLAIN_BATCH

LARGEST_BATCH = 2048
"""Beyond it no network of stamps gets faster."""

_STAMP_BYTES = 32
"""Per pixel of a batch: image, variance, what is valid, and the steps of normalisation."""

_USUAL_PIXELS = 3 * 64**2
"""Numbers of a stamp of usual size, in three bands."""

_SAFETY = 2
"""Workspaces of convolutions, and what the allocator cannot use."""


_NO_MEMORY = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "CUDA out of memory",
)
"""Words of errors of cuBLAS, cuDNN, pinned memory and driver that torch does not raise as `OutOfMemoryError`."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had too little memory for what it was asked: less may do."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def stamps_per_forward(network: nn.Module, shapes: Sequence[tuple[int, ...]], device: torch.device | str) -> int:
    """A batch that fits the device, foreseen from what the network keeps in memory.

    Args:
        network: in eval mode.
        shapes: of the inputs of one object.
        device: on a CPU `PLAIN_BATCH`, and of small stamps up to four times as many, with no more pixels than that: a
            batch costs some hundred small steps. On CUDA half of the memory that is free now may be used.
    """
    device = torch.device(device)
    if device.type != "cuda":
        fits = PLAIN_BATCH * _USUAL_PIXELS // max(1, sum(int(np.prod(shape)) for shape in shapes))
        return int(min(4 * PLAIN_BATCH, max(PLAIN_BATCH, 1 << max(0, fits.bit_length() - 1))))
    return fitting_batch(network, shapes, torch.cuda.mem_get_info(device)[0] // 2)


def fitting_batch(network: nn.Module, shapes: Sequence[tuple[int, ...]], budget: int) -> int:
    """The largest power of two of objects, up to `LARGEST_BATCH`, that `budget` bytes hold; at least 1."""
    try:
        activations = activation_bytes(network, shapes)
    except (RuntimeError, NotImplementedError):  # a layer that must see numbers
        return PLAIN_BATCH
    stamps = sum(int(np.prod(shape)) for shape in shapes) * _STAMP_BYTES * (2 * AHEAD + 1)
    fits = int(min(LARGEST_BATCH, max(1, budget // (_SAFETY * activations + stamps))))
    return 1 << (fits.bit_length() - 1)


def activation_bytes(network: nn.Module, shapes: Sequence[tuple[int, ...]]) -> int:
    """Bytes per object of what is in memory at once, at the most, while the network runs in float32.

    Inputs count, weights do not. The network runs on tensors without data: nothing is computed, nothing is allocated.
    """
    rows = 8
    light = copy.deepcopy(network).to("meta").eval()
    with torch.inference_mode(), _Peak() as peak:
        light(*(torch.empty((rows, *shape), device="meta") for shape in shapes))
    return int(-(-peak.highest // rows))


class _Peak(TorchDispatchMode):
    """Follows the bytes of all tensors that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.highest = 0
        self._users: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else (result,):
            if isinstance(item, Tensor):
                self._follow(item)
        return result

    def _follow(self, item: Tensor) -> None:
        storage = item.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._users:
            self._users[key] = 0
            self.now += size
            self.highest = max(self.highest, self.now)
        self._users[key] += 1
        weakref.finalize(item, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self.now -= size
