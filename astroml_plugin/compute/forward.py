"""A network called batch by batch: compiled or not, in float32 or half precision. Needs torch and NumPy only."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from astroml_plugin.compute.exact import exact_float32
from astroml_plugin.compute.memory import is_out_of_memory
from astroml_plugin.compute.precision import COMPILED, TORCH
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.private import private_folder
from astroml_plugin.core.tracing import calling

COMPILE_AFTER = 100
"""Whole batches after which compiling, a matter of a minute, begins to pay on CUDA."""

SIZES = 6
"""Numbers of rows that batches of compiled networks are padded to: the whole batch and halvings of it."""

_MOST_SHAPES = 8
"""Shapes that a network is compiled for: torch runs it eager, in silence, beyond as many (its `recompile_limit`)."""

FOLDED_GAP, COMPILED_GAP, HALF_GAP = 1e-4, 1e-3, 0.1
"""Largest `difference` from the network as it was trained that a faster form of it may have: folded (float32 rounding
in another order), compiled (other kernels too), half precision."""


def difference(wanted: Tensor, found: Tensor) -> float:
    """Largest difference of two answers (n, outputs, …) as a part of each output's largest size; NaN equals NaN."""
    if wanted.shape != found.shape or not torch.equal(wanted.isnan(), found.isnan()):
        return float("inf")
    if not wanted.numel():
        return 0.0
    wanted, found = wanted.double().nan_to_num(), found.double().nan_to_num()
    size = wanted.abs().amax([axis for axis in range(wanted.ndim) if axis != 1], keepdim=True)
    floor = 1e-3 * float(size.max()) or 1.0
    return float(((wanted - found).abs() / size.clamp_min(floor)).max())


class Forward:
    """A network in eval mode on its device, called batch by batch.

    A compiled network must always be called by one and the same thread. It sees few numbers of rows (`SIZES`): batches
    are padded with zeros. In float32, where compiling changes answers by rounding only, "auto" leaves a batch as it is
    that would grow by more than a third. In half precision compiling changes more: all batches are compiled or none.

    Args:
        network: on `device`, weights channels_last.
        device: where to.
        compiling: one of `choices.COMPILING`; "auto" never compiles in half precision.
        dtype: half precision to cast to; None: float32.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device | str,
        *,
        compiling: str = "auto",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.network = network
        self.device = torch.device(device)
        self.dtype = dtype
        waits = COMPILE_AFTER if self.device.type == "cuda" and dtype is None else float("inf")
        self.compile_after: float = {"always": 0, "never": float("inf")}.get(compiling, waits)
        self.batches = 0.0
        """Whole batches of work so far: a batch of half as many rows is half of one."""
        self._sparing = compiling == "auto"
        self._first_batch = 0
        self._sizes: set[tuple[int, ...]] = set()
        self._compiled: Callable[..., Tensor] | None = None

    @property
    def form(self) -> str:
        """Runtime and number format."""
        how = COMPILED if self._compiled is not None else TORCH
        return f"{how} {str(self.dtype or torch.float32).removeprefix('torch.')}"

    def __call__(self, inputs: Sequence[Tensor], batch: int) -> Tensor:
        """(n, outputs) from inputs of n objects, n <= `batch`."""
        count = len(inputs[0])
        if self.device.type == "cuda":
            inputs = [_channels_last(item) for item in inputs]
        compiled = self.batches >= self.compile_after
        self.batches += count / max(1, batch)
        with calling(), torch.inference_mode(), self._arithmetic():
            outputs = self._call_compiled(inputs, batch) if compiled and count else self.network(*inputs)
        return self._recompute_overflow(outputs, inputs) if self.dtype is torch.float16 else outputs

    def _recompute_overflow(self, outputs: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """Outputs; rows that overflowed float16 are recomputed in float32."""
        lost = ~outputs.flatten(1).isfinite().all(1)
        whole = outputs.float()
        if bool(lost.any()):
            with calling(), torch.inference_mode(), exact_float32():
                whole = whole.index_put((lost,), self.network(*(item[lost] for item in inputs)))
        return whole

    def _arithmetic(self) -> AbstractContextManager[Any]:
        return exact_float32() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def _call_compiled(self, inputs: Sequence[Tensor], batch: int) -> Tensor:
        count = len(inputs[0])
        self._first_batch = self._first_batch or batch
        rows = padded_rows(count, batch, self._first_batch)
        shape = (rows, *(side for item in inputs for side in item.shape[1:]))
        known = shape in self._sizes or len(self._sizes) < _MOST_SHAPES
        if self.dtype is None and (not known or (self._sparing and 3 * rows > 4 * count)):
            output: Tensor = self.network(*inputs)
            return output
        if not known:
            raise InputError(f"{self._named()} was compiled for {_MOST_SHAPES} sizes of batches: give one --batch")
        try:
            return self._padded(inputs, rows, shape)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return self._uncompiled(inputs, error)

    def _padded(self, inputs: Sequence[Tensor], rows: int, shape: tuple[int, ...]) -> Tensor:
        """Answers of the compiled network, compared with the plain one's at the first call of each shape."""
        if self._compiled is None:
            if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:  # torch would load code from a folder that anyone can make
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private_folder("torchinductor"))
            self._compiled = torch.compile(self.network, dynamic=False)
        outputs = self._compiled(*(padded(item, rows) for item in inputs))[: len(inputs[0])]
        if shape not in self._sizes:
            gap = difference(self.network(*inputs), outputs)
            if gap > (COMPILED_GAP if self.dtype is None else HALF_GAP):
                raise ArithmeticError(f"compiled, its answers differ by {gap:.2g} of their range")
            self._sizes.add(shape)
        return outputs

    def _uncompiled(self, inputs: Sequence[Tensor], error: Exception) -> Tensor:
        """The plain network's answers, from now on: a missing compiler, an unsupported layer.

        Raises:
            InputError: in half precision, where the answers are not those of the compiled network.
        """
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        self._compiled = None
        if self.dtype is not None:
            raise InputError(
                f"{self._named()} cannot be compiled here ({reason}), and rows in half precision are of compiled "
                f"networks in this catalog: run on other machines, or begin another catalog with --compile never"
            ) from error
        self.compile_after = float("inf")
        warnings.warn(f"not compiled ({reason}): runs eager", RuntimeWarning, stacklevel=4)
        output: Tensor = self.network(*inputs)
        return output

    def _named(self) -> str:
        return f"network {type(self.network).__name__}"


def padded_rows(count: int, batch: int, first: int) -> int:
    """Rows that a batch of `count` objects is padded to: a power of two, at least a 32nd of `first`, or `batch`.

    Args:
        count: 1 to `batch`.
        batch: objects per forward, at most.
        first: the batch that the run began with; halved batches are padded to the same sizes.
    """
    least: int = 1 << max(0, (first // 2 ** (SIZES - 1)).bit_length() - 1)
    wanted: int = 1 << (count - 1).bit_length()
    return min(batch, max(least, wanted))


def _channels_last(item: Tensor) -> Tensor:
    return item.contiguous(memory_format=torch.channels_last) if item.ndim == 4 else item


def padded(item: Tensor, rows: int) -> Tensor:
    """`item` (n, …) with zeros after it, `rows` in all and in its memory format."""
    if len(item) == rows:
        return item
    whole = item.new_zeros((rows, *item.shape[1:]))
    if item.ndim == 4 and item.is_contiguous(memory_format=torch.channels_last):
        whole = whole.contiguous(memory_format=torch.channels_last)
    whole[: len(item)] = item
    return whole
