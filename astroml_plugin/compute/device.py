"""Devices: copies to them, streams, and batches made ahead. Needs torch and NumPy only."""

from __future__ import annotations

import platform
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.core.errors import InputError

Item = TypeVar("Item")
Output = TypeVar("Output")
Done = TypeVar("Done")

PLAIN_BATCH = 128
"""Stamps of usual size per forward on a CPU, and where memory cannot be foreseen."""

AHEAD = 2
"""Batches that are prepared before the network is ready for them."""

CHUNK_BYTES = 16 * 2**20
"""Size of one pinned buffer."""


def choose_device() -> str:
    """Torch device to use where none is named: "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache(maxsize=16)
def device_name(device: str) -> str:
    """Type and model of a device of this machine, as its maker calls it."""
    place = torch.device(device)
    if place.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(place)}"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{place.type}: {model or platform.machine()}"


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
    """The network on a torch device, its weights in the channels_last order; it is changed in place.

    Weights too small for normal floats become 0: some processors take a hundred times as long for a product with one.
    """
    with torch.no_grad():
        for item in (*network.parameters(), *network.buffers()):
            if item.is_floating_point():
                item.masked_fill_(item.abs() < torch.finfo(item.dtype).tiny, 0.0)
    placed: nn.Module = network.to(torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def sent(item: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on a device. What goes to CUDA goes from pinned memory, and this thread does not wait for it."""
    wanted = torch.device(device)
    if wanted.type != "cuda" or item.device.type != "cpu":
        return item.to(wanted)
    return item.pin_memory().to(wanted, non_blocking=True)


def forked_rng(device: torch.device | str) -> AbstractContextManager[Any]:
    """Random numbers of the CPU and of one GPU that are put back at the end; other GPUs are not looked at."""
    wanted = torch.device(device)
    return torch.random.fork_rng(devices=[wanted] if wanted.type == "cuda" else [])


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
