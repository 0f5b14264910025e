"""Running a network on a device: precision, compilation, copies and batches made ahead. Needs torch and NumPy only."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.compute.exact import exact_float32
from astroml_plugin.compute.precision import HALF_PAYS, half_type
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.private import private_folder

Item = TypeVar("Item")
Output = TypeVar("Output")
Done = TypeVar("Done")

COMPILE_AFTER = 100
"""Batches after which compiling, a matter of a minute, begins to pay on CUDA."""

PLAIN_BATCH = 128
"""Stamps per forward on a CPU, and where memory cannot be foreseen."""

AHEAD = 2
"""Batches that are prepared before the network is ready for them."""

CHUNK_BYTES = 16 * 2**20
"""Size of one pinned buffer."""


def choose_device() -> str:
    """Torch device to use where none is named: "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_problem(name: str) -> str:
    """Why a torch device cannot be used in this process, in words; empty where it can."""
    try:
        if torch.device(name).type == "meta":
            return "it holds no numbers"
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return f"{str(error).splitlines()[0][:160]}"
    return ""


def usable_device(name: str | None) -> str:
    """The torch device of that name, or the one to use where none is named.

    Raises:
        InputError: it cannot be used here.
    """
    if name is not None and (problem := device_problem(name)):
        raise InputError(f"device {name} cannot be used here ({problem}): name another one, or leave it away")
    return name or choose_device()


def place_network(network: nn.Module, device: torch.device | str) -> nn.Module:
    """The network on a torch device, its weights in the channels_last order; it is changed in place."""
    placed: nn.Module = network.to(torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


FOLDED, COMPILED, HALF = 1e-4, 1e-3, 0.1
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

    A compiled network must always be called by one and the same thread.

    Args:
        network: on `device`, weights channels_last.
        device: where to.
        precision: one of `choices.PRECISIONS`.
        compiling: one of `choices.COMPILING`.
        dtype: cast to this type instead of the one that `precision` means on this device.
        example: gives inputs of some objects. With it, half precision is compared with float32 before it is used; where
            they differ by more than `HALF`, the network runs in float32 and a RuntimeWarning says so.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device | str,
        *,
        precision: str = "float32",
        compiling: str = "auto",
        dtype: torch.dtype | None = None,
        example: Callable[[], Sequence[Tensor]] | None = None,
    ) -> None:
        self.network = network
        self.device = torch.device(device)
        self.dtype = dtype or (half_type(self.device) if precision == "auto" else None)
        self.compile_after: float = {"always": 0, "never": float("inf")}.get(
            compiling, COMPILE_AFTER if self.device.type == "cuda" else float("inf")
        )
        self.calls = 0
        self._compiled: Callable[..., Tensor] | None = None
        if self.dtype is not None and example is not None:
            self._check_half([item.to(self.device) for item in example()])

    @property
    def form(self) -> str:
        """Runtime and number format."""
        how = "torch.compile" if self._compiled is not None else "torch"
        return f"{how} {str(self.dtype or torch.float32).removeprefix('torch.')}"

    def _check_half(self, inputs: Sequence[Tensor]) -> None:
        """Give half precision up where it changes what the network answers, and on a CPU where it is no faster."""
        half, name = self.dtype, type(self.network).__name__
        found = self(inputs, len(inputs[0])).float()
        self.dtype, self.calls = None, 0
        gap = difference(self(inputs, len(inputs[0])), found)
        self.calls = 0
        if gap <= HALF:
            self.dtype = half if self.device.type == "cuda" or self._half_pays(half, inputs) else None
            return
        warnings.warn(
            f"network {name} runs in float32: in {half} its answers differ by {gap:.2g} of their range",
            RuntimeWarning,
            stacklevel=3,
        )

    def _half_pays(self, half: torch.dtype | None, inputs: Sequence[Tensor]) -> bool:
        """Whether half precision takes at most `HALF_PAYS` of float32's time, in turns."""
        ratios = []
        for _ in range(3):
            took = []
            for dtype in (half, None):
                self.dtype, began = dtype, time.perf_counter()
                self(inputs, len(inputs[0]))
                took.append(time.perf_counter() - began)
            ratios.append(took[0] / took[1])
        self.calls = 0
        return sorted(ratios)[1] <= HALF_PAYS

    def __call__(self, inputs: Sequence[Tensor], batch: int) -> Tensor:
        """(n, outputs) from inputs of n <= `batch` objects; compiled networks are given `batch`, padded with zeros."""
        self.calls += 1
        if self.device.type == "cuda":
            inputs = [_channels_last(item) for item in inputs]
        with torch.inference_mode(), self._arithmetic():
            compiled = self.calls > self.compile_after
            outputs = self._call_compiled(inputs, batch) if compiled else self.network(*inputs)
        return self._recompute_overflow(outputs, inputs) if self.dtype is torch.float16 else outputs

    def _recompute_overflow(self, outputs: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """Outputs; rows that overflowed float16 are recomputed in float32."""
        lost = ~outputs.flatten(1).isfinite().all(1)
        whole = outputs.float()
        if bool(lost.any()):
            with torch.inference_mode():
                whole = whole.index_put((lost,), self.network(*(item[lost] for item in inputs)))
        return whole

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self.dtype is not None:
            return torch.autocast(self.device.type, self.dtype)
        return exact_float32()

    def _call_compiled(self, inputs: Sequence[Tensor], batch: int) -> Tensor:
        try:
            if self._compiled is not None:
                return self._compiled(*(padded(item, batch) for item in inputs))[: len(inputs[0])]
            if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:  # torch would load code from a folder that anyone can make
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private_folder("torchinductor"))
            self._compiled = torch.compile(self.network, dynamic=False)
            outputs = self._compiled(*(padded(item, batch) for item in inputs))[: len(inputs[0])]
            gap = difference(self.network(*inputs), outputs)
            if gap > (COMPILED if self.dtype is None else HALF):
                raise ArithmeticError(f"compiled, its answers differ by {gap:.2g} of their range")
            return outputs
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a missing compiler, an unsupported layer: eager does all of them
            self.compile_after, self._compiled = float("inf"), None
            reason = next(iter(str(error).splitlines()), "")
            warnings.warn(f"not compiled ({type(error).__name__}: {reason}): runs eager", RuntimeWarning, stacklevel=2)
            output: Tensor = self.network(*inputs)
            return output


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


class Copier:
    """Moves arrays to a device in their own dtype through two buffers, reused: pinned on CUDA.

    While one buffer travels the other is filled, so that neither the array nor the bus waits, and what is pinned stays
    small. Copies are made in the caller's current stream; several threads take turns.

    Args:
        device: where to.
        chunk: bytes of a buffer.
    """

    def __init__(self, device: torch.device | str, chunk: int = CHUNK_BYTES) -> None:
        self.device = torch.device(device)
        self.cuda = self.device.type == "cuda"
        self.bytes = 0
        """Moved so far."""
        self._buffers = [torch.empty(chunk, dtype=torch.uint8, pin_memory=self.cuda) for _ in range(2)]
        self._free: list[torch.cuda.Event | None] = [None, None]
        self._next = 0
        self._lock = threading.Lock()

    def __call__(self, array: np.ndarray) -> Tensor:
        """The array on the device, without waiting for its last bytes."""
        whole = torch.from_numpy(np.ascontiguousarray(array) if array.flags.writeable else array.copy())
        target = torch.empty(array.shape, dtype=whole.dtype, device=self.device)
        source, flat = whole.view(-1).view(torch.uint8), target.view(-1).view(torch.uint8)
        with self._lock:
            chunk = len(self._buffers[0])
            for start in range(0, len(source), chunk):
                self._send(source[start : start + chunk], flat[start : start + chunk])
            self.bytes += len(source)
        return target

    def _send(self, source: Tensor, target: Tensor) -> None:
        number, self._next = self._next, 1 - self._next
        event = self._free[number]
        if event is not None:
            event.synchronize()
        buffer = self._buffers[number][: len(source)]
        buffer.copy_(source)
        target.copy_(buffer, non_blocking=True)
        self._free[number] = mark(self.device)


@lru_cache(maxsize=16)
def copier(device: str) -> Copier:
    """The process's copier for a device."""
    return Copier(device)


@dataclass(frozen=True)
class Streams:
    """CUDA streams of a process beside the one that its network runs in; None beside CUDA."""

    copying: Any = None
    """Tiles on their way."""
    feeding: Any = None
    """Stamps copied, cut and prepared."""
    finishing: Any = None
    """Answers taken."""


@lru_cache(maxsize=16)
def streams(device: str) -> Streams:
    """The process's streams of a device."""
    if torch.device(device).type != "cuda":
        return Streams()
    return Streams(*(torch.cuda.Stream(device) for _ in range(3)))


def on(stream: Any) -> AbstractContextManager[Any]:
    """Work of this thread goes into `stream`; into the usual one for None."""
    return nullcontext() if stream is None else torch.cuda.stream(stream)


def mark(device: torch.device) -> torch.cuda.Event | None:
    """The present end of the current stream; None beside CUDA."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


def after(event: torch.cuda.Event | None, device: torch.device) -> None:
    """Make the current stream wait for `event` from now on; this thread does not wait."""
    if event is not None:
        torch.cuda.current_stream(device).wait_event(event)


_END = object()


def pipelined(
    items: Iterator[Item],
    forward: Callable[[Item], Output],
    finish: Callable[[Item, Output], Done],
    *,
    device: torch.device | str,
    overlap: bool | None = None,
) -> list[Done]:
    """Results of `finish` for every item, in order.

    Overlapped, items are taken by a thread of their own, `AHEAD` in advance and in a stream of their own, and finished
    by another, so that neither copies and normalisation nor copies back ever keep the network waiting. Otherwise
    everything is done here, one item after the other. `forward` is always called by this thread.

    Args:
        items: batches, copied and prepared as they are taken.
        forward: runs the network.
        finish: takes the answer to the CPU.
        device: of the network.
        overlap: default: on CUDA. On a CPU there is nothing to overlap with.
    """
    device = torch.device(device)
    if not (device.type == "cuda" if overlap is None else overlap):
        return [finish(item, forward(item)) for item in items]
    beside = streams(str(device))

    def take() -> tuple[Any, torch.cuda.Event | None]:
        with torch.inference_mode(), on(beside.feeding):
            return next(items, _END), mark(device)

    def end(item: Item, output: Output, ready: torch.cuda.Event | None) -> Done:
        with torch.inference_mode(), on(beside.finishing):
            after(ready, device)
            done = finish(item, output)
            if beside.finishing is not None:
                beside.finishing.synchronize()  # from here on its memory may be used again
            return done

    done: list[Done] = []
    going: deque[Any] = deque()
    with ThreadPoolExecutor(1, "feed") as feeder, ThreadPoolExecutor(1, "finish") as finisher:
        coming = deque(feeder.submit(take) for _ in range(AHEAD))
        while True:
            item, ready = coming.popleft().result()
            if item is _END:
                break
            coming.append(feeder.submit(take))
            after(ready, device)
            output = forward(item)
            going.append(finisher.submit(end, item, output, mark(device)))
            del item, output
            if len(going) > AHEAD:
                done.append(going.popleft().result())
        done += [future.result() for future in going]
    return done
