"""A pretended CUDA device: real numbers on the CPU, and CUDA's rules of devices, streams, events and memory held.

Tensors that were sent to "cuda" say that they are there. Their numbers lie in the CPU's memory and are calculated at
once; what order CUDA promises is followed with vector clocks, as in a checker of threads: each stream and each thread
knows how far it has seen every other stream. Reported are

- use of memory that another stream may still write, or writing what another may still read;
- memory that is let go while another stream than its own may use it, so that the allocator may give it away;
- a pinned buffer that is filled again while a copy may still read it;
- a tensor of the CPU beside one of the GPU, or NumPy's view of one of the GPU, which raise as torch does.

Counted are stops of the host (`stops`, by the thread that was stopped) and launches. Nothing is said of the
arithmetic of a GPU: autocast to half precision does nothing here, and torch.compile is not run.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
Clock = dict[str, int]

_STOPPING = {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "equal", "allclose", "nonzero"}
_STOPPING |= {"masked_select", "unique", "_unique2", "repeat_interleave", "numpy", "__array__"}
_INDEXING = {"__getitem__", "__setitem__", "index_put", "index_put_", "take"}
_PLAIN = {"__get__", "__set__", "dim", "size", "stride", "numel", "is_floating_point", "is_contiguous", "__len__"}
_PLAIN |= {
    "untyped_storage",
    "storage_offset",
    "data_ptr",
    "element_size",
    "is_complex",
    "requires_grad_",
    "ndimension",
}
_OUTER = (str(Path(torch.__file__).parent), __file__, "contextlib", "threading.py", "concurrent")


def _joined(into: Clock, other: Clock) -> None:
    for stream, seen in other.items():
        into[stream] = max(into.get(stream, 0), seen)


def _here() -> str:
    """The line of our code that runs now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_outer(frame.f_code.co_filename):
        frame = frame.f_back
    return "?" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


@cache
def _is_outer(filename: str) -> bool:
    return any(name in filename for name in _OUTER)


class Stream:
    """A CUDA stream: what was put into it runs in that order."""

    count = 0

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        Stream.count += 1
        self.name, self.clock, self.device = f"stream {Stream.count}", Clock(), CUDA

    def launch(self) -> int:
        """Put work into the stream: it comes after all that the launching thread has waited for."""
        with _state.lock:
            _joined(self.clock, _state.host())
            self.clock[self.name] = self.clock.get(self.name, 0) + 1
            return self.clock[self.name]

    def synchronize(self) -> None:
        """Stop the host until all in the stream is done."""
        _state.stop("synchronize")
        with _state.lock:
            _joined(self.clock, _state.host())
            _joined(_state.host(), self.clock)
            _joined(_state.done, self.clock)

    def wait_event(self, event: Event) -> None:
        """Let what comes next wait for an event."""
        with _state.lock:
            _joined(self.clock, event.clock)

    def wait_stream(self, other: Stream) -> None:
        """Let what comes next wait for all that is in another stream."""
        with _state.lock:
            _joined(self.clock, other.clock)


class Event:
    """A moment in a stream."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()

    def record(self, stream: Stream | None = None) -> None:
        """Take the present end of a stream."""
        with _state.lock:
            chosen = stream or _state.stream()
            _joined(chosen.clock, _state.host())
            self.clock = dict(chosen.clock)

    def synchronize(self) -> None:
        """Stop the host until the moment has come."""
        with _state.lock:
            _joined(_state.host(), self.clock)
            _joined(_state.done, self.clock)

    def elapsed_time(self, other: Event) -> float:
        """Milliseconds between two moments: none, as nothing takes time here."""
        return 0.0


class _Memory:
    """What is known of one piece of the device's memory."""

    def __init__(self, owner: Stream) -> None:
        self.owner, self.write, self.reads, self.users, self.place = owner, None, Clock(), 0, _here()
        self.write: tuple[str, int] | None


class _State:
    """All that the pretended device knows; made anew for each test."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.local = threading.local()
        self.default = Stream()
        self.done = Clock()
        self.memory: dict[int, _Memory] = {}
        self.pinned: dict[int, Clock] = {}
        self.reports: Counter[str] = Counter()
        self.stops: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()

    def host(self) -> Clock:
        """What this thread has waited for."""
        if not hasattr(self.local, "clock"):
            self.local.clock = Clock()
        clock: Clock = self.local.clock
        return clock

    def stream(self) -> Stream:
        """The current stream of this thread."""
        found: Stream = getattr(self.local, "stream", self.default)
        return found

    def stop(self, why: str) -> None:
        """Count a stop of this thread."""
        self.stops[f"{threading.current_thread().name.split('_')[0]}: {why} at {_here()}"] += 1

    def wait(self, why: str) -> None:
        """Stop this thread until its current stream is done."""
        self.stop(why)
        with self.lock:
            _joined(self.host(), self.stream().clock)
            _joined(self.done, self.stream().clock)

    def use(self, inner: Tensor, number: int, *, write: bool) -> None:
        """Work `number` of the current stream reads or writes a tensor's memory."""
        stream, key = self.stream(), inner.untyped_storage()._cdata
        with self.lock:
            memory = self.memory.get(key)
            if memory is None:
                return
            if memory.write is not None and self._unseen(stream, *memory.write):
                self.reports[f"used while it may be written, made at {memory.place}, at {_here()}"] += 1
            if not write:
                memory.reads[stream.name] = number
                return
            for name, seen in memory.reads.items():
                if self._unseen(stream, name, seen):
                    self.reports[f"written while it may be read, made at {memory.place}, at {_here()}"] += 1
            memory.write, memory.reads = (stream.name, number), Clock()

    @staticmethod
    def _unseen(stream: Stream, name: str, number: int) -> bool:
        return name != stream.name and stream.clock.get(name, 0) < number

    def keep(self, tensor: OnGpu, inner: Tensor) -> None:
        """Follow a tensor until it is let go."""
        key = inner.untyped_storage()._cdata
        with self.lock:
            memory = self.memory.setdefault(key, _Memory(self.stream()))
            memory.users += 1
        weakref.finalize(tensor, self.release, key, memory).atexit = False

    def release(self, key: int, memory: _Memory) -> None:
        """Give memory back to the stream that it was taken for, when the last tensor of it is let go."""
        with self.lock:
            memory.users -= 1
            if memory.users:
                return
            if self.memory.get(key) is memory:
                del self.memory[key]
            uses = Clock(memory.reads)
            if memory.write is not None:
                _joined(uses, dict([memory.write]))
            owner = memory.owner
            for name, number in uses.items():
                if self._unseen(owner, name, number) and self.done.get(name, 0) < number:
                    self.reports[f"let go while {name} may use it, made at {memory.place}"] += 1


_state = _State()


class OnGpu(Tensor):
    """A tensor that says it is on the GPU."""

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _handled(func, args, kwargs or {})

    def __deepcopy__(self, memo: Any) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            copied = _placed(self.detach().clone())
        copied._is_param = getattr(self, "_is_param", False)
        return copied


def _placed(inner: Tensor) -> Any:
    """A plain tensor as one of the GPU."""
    with torch._C.DisableTorchFunctionSubclass():
        tensor = inner.as_subclass(OnGpu)
        _state.keep(tensor, inner)
    return tensor


def _wanted(name: str, args: Any, kwargs: Any) -> torch.device | None:
    """The device that a call names."""
    if name == "cpu":
        return torch.device("cpu")
    if name == "cuda":
        return CUDA
    given = kwargs.get("device")
    if given is None and name in ("to", "_to"):
        others = [one for one in args[1:] if isinstance(one, str | torch.device | Tensor)]
        given = others[0] if others else None
        given = given.device if isinstance(given, Tensor) else given
    return None if given is None else torch.device(given)


def _handled(func: Any, args: Any, kwargs: Any) -> Any:
    name = getattr(func, "__name__", "")
    flat, _ = tree_flatten((args, kwargs))
    mine = [one for one in flat if isinstance(one, OnGpu)]
    wanted = _wanted(name, args, kwargs)
    pinned = bool(kwargs.pop("pin_memory", False))
    if not mine and (wanted is None or wanted.type != "cuda"):
        return _on_the_cpu(func, name, args, kwargs, pinned)
    if name in _PLAIN:
        return _rewrapped(func, args, kwargs)
    if name in ("numpy", "__array__"):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
    _refuse_mixture(name, flat, mine)
    return _calculated(func, name, args, kwargs, mine, wanted)


def _on_the_cpu(func: Any, name: str, args: Any, kwargs: Any, pinned: bool) -> Any:
    if name == "copy_":
        key = args[0].untyped_storage()._cdata
        for stream, number in _state.pinned.get(key, Clock()).items():
            if _state.host().get(stream, 0) < number:
                _state.reports[f"a pinned buffer filled while {stream} may read it, at {_here()}"] += 1
    found = func(*args, **kwargs)
    if pinned or name == "pin_memory":
        _state.pinned[found.untyped_storage()._cdata] = Clock()
    return found


def _rewrapped(func: Any, args: Any, kwargs: Any) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        found = func(*args, **kwargs)
    return _placed(found) if isinstance(found, Tensor) and not isinstance(found, OnGpu) else found


def _refuse_mixture(name: str, flat: list[Any], mine: list[OnGpu]) -> None:
    plain = [one for one in flat if isinstance(one, Tensor) and not isinstance(one, OnGpu) and one.dim()]
    if not mine or not plain or name in ("copy_", "to"):
        return
    if name in _INDEXING and isinstance(flat[0], OnGpu):
        _state.wait("an index from the CPU")
        return
    raise RuntimeError(f"Expected all tensors to be on the same device: {name} at {_here()}")


def _calculated(func: Any, name: str, args: Any, kwargs: Any, mine: list[OnGpu], wanted: torch.device | None) -> Any:
    number = _state.stream().launch()
    _state.launches[threading.current_thread().name.split("_")[0]] += 1
    changed = [args[0]] if (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" else []
    changed += [kwargs["out"]] if isinstance(kwargs.get("out"), Tensor) else []
    with torch._C.DisableTorchFunctionSubclass():
        for one in mine:
            _state.use(one, number, write=any(one is other for other in changed))
    if name in _STOPPING or (name in _INDEXING and any(one.dtype in (torch.bool, torch.uint8) for one in mine[1:])):
        _state.wait(name)
    if name == "copy_":
        _note_copy(args, kwargs, number)
    leaves = wanted is not None and wanted.type == "cpu"
    comes = bool(not mine and wanted is not None and name in ("to", "cuda", "tensor"))
    waits = not (kwargs.get("non_blocking") or (name == "to" and any(one is True for one in args[1:])))
    if comes and not waits:
        _note_read(args[0], number)
    elif (comes and name != "tensor") or leaves:
        _state.wait(f"{name} {'from' if leaves else 'to'} the GPU")
    inner = {
        key: (torch.device("cpu") if key == "device" and wanted and wanted.type != "meta" else value)
        for key, value in kwargs.items()
    }
    given = tuple(_away(one, wanted) for one in args)
    with torch._C.DisableTorchFunctionSubclass():
        found = func(*given, **inner)
    if leaves and isinstance(found, OnGpu):
        with torch._C.DisableTorchFunctionSubclass():
            return found.as_subclass(Tensor).clone()
    if leaves or (wanted is not None and wanted.type == "meta"):
        return found
    if comes and name in ("to", "cuda") and found is args[0]:
        found = found.clone()
    return tree_map(lambda one: _result(one, number), found)


def _away(one: Any, wanted: torch.device | None) -> Any:
    """An argument that names the GPU, for the CPU that does the work."""
    if wanted is not None and wanted.type == "cuda":
        if isinstance(one, torch.device):
            return torch.device("cpu")
        if isinstance(one, str) and one.startswith("cuda"):
            return "cpu"
    return one


def _result(one: Any, number: int) -> Any:
    if not isinstance(one, Tensor) or isinstance(one, OnGpu):
        return one
    known = one.untyped_storage()._cdata in _state.memory
    placed = _placed(one)
    if not known:
        with torch._C.DisableTorchFunctionSubclass():
            _state.use(one, number, write=True)
    return placed


def _note_copy(args: Any, kwargs: Any, number: int) -> None:
    target, source = args[0], args[1]
    if isinstance(target, OnGpu) == isinstance(source, OnGpu):
        return
    if isinstance(target, OnGpu) and (kwargs.get("non_blocking") or any(one is True for one in args[2:])):
        _note_read(source, number)
    else:
        _state.wait("copy_")


def _note_read(source: Tensor, number: int) -> None:
    """A copy that nobody waits for reads host memory: pinned memory, or CUDA would wait."""
    key = source.untyped_storage()._cdata
    if key in _state.pinned:
        _state.pinned[key][_state.stream().name] = number
    else:
        _state.wait("a copy of pageable memory")


class _Mode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _handled(func, args, dict(kwargs or {}))


def _applied(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` that keeps the kind of the tensors."""
    for module in self.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                made = fn(parameter.detach())
                if isinstance(made, OnGpu):
                    made.requires_grad_(parameter.requires_grad)
                    made._is_param = True
                else:
                    made = nn.Parameter(made, parameter.requires_grad)
                module._parameters[name] = made  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fn(buffer)
    return self


@contextlib.contextmanager
def _in_stream(stream: Stream | None) -> Iterator[None]:
    before = _state.stream()
    _state.local.stream = stream or before
    try:
        yield
    finally:
        _state.local.stream = before


def install(patch: pytest.MonkeyPatch, free: int = 8 * 2**30) -> _State:
    """Pretend for one test that this machine has a GPU with so many bytes free; call within `pretending`."""
    global _state
    _state = _State()
    cuda: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "Stream": Stream,
        "Event": Event,
        "stream": _in_stream,
        "current_stream": lambda device=None: _state.stream(),
        "default_stream": lambda device=None: _state.default,
        "synchronize": lambda device=None: _state.wait("synchronize"),
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (free, free),
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: "pretended",
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None,
        "manual_seed_all": lambda seed: None,
    }
    for name, value in cuda.items():
        patch.setattr(torch.cuda, name, value)
    patch.setattr(Tensor, "pin_memory", _pinned)
    patch.setattr(nn.Module, "_apply", _applied)
    run, submit, result = threading.Thread.run, ThreadPoolExecutor.submit, Future.result

    def run_with_rules(self: threading.Thread) -> None:
        with _Mode():
            run(self)

    def submit_with_clock(self: ThreadPoolExecutor, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        known, learned = dict(_state.host()), Clock()

        def working(*args: Any, **kwargs: Any) -> Any:
            _joined(_state.host(), known)
            try:
                return work(*args, **kwargs)
            finally:
                learned.update(_state.host())

        future = submit(self, working, *args, **kwargs)
        future._learned = learned
        return future

    def result_with_clock(self: Any, timeout: float | None = None) -> Any:
        try:
            return result(self, timeout)
        finally:
            _joined(_state.host(), getattr(self, "_learned", Clock()))

    patch.setattr(threading.Thread, "run", run_with_rules)
    patch.setattr(ThreadPoolExecutor, "submit", submit_with_clock)
    patch.setattr(Future, "result", result_with_clock)
    return _state


def _pinned(self: Tensor, device: Any = None) -> Tensor:
    copied = self.clone()
    _state.pinned[copied.untyped_storage()._cdata] = Clock()
    return copied


@contextlib.contextmanager
def pretending(patch: pytest.MonkeyPatch, free: int = 8 * 2**30) -> Iterator[_State]:
    """The device for the length of a block."""
    state = install(patch, free)
    with _Mode():
        yield state
