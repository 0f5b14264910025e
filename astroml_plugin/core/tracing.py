"""Whether torch follows this thread's code to compile or export it. torch does so to all threads of a process.

While a module is exported, torch calls every module of the process, of whatever thread, by a function of its own, and
the module's weights are stand-ins. So no network may be called meanwhile: `exporting` waits until none is, and
`calling` until nothing is exported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch

CONSTANT = "_dynamo_marked_constant"
"""Attribute by which `torch.compiler.assume_constant_result` marks a function.

It is set here without that call, which imports torch's compiler: more work than to import the rest of torch, and few
processes ever compile.
"""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class _Door:
    """Many threads may call networks, or one may export one."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    callers: dict[int, int] = field(default_factory=dict)
    """Thread -> calls that it is within."""
    exporter: int | None = None
    """The thread that exports, or waits for the others to end their calls."""


_door = _Door()


def is_traced() -> bool:
    """Whether the code of this thread is followed, so that it must be in words that every runtime knows.

    `torch.compiler.is_compiling` is also true where another thread exports: stamps that are prepared meanwhile would
    take another way, to float32 rounding.
    """
    return torch.compiler.is_compiling() and (_door.exporter is None or _exports())


def _exports() -> bool:
    """Whether this thread exports."""
    return _door.exporter == threading.get_ident()


def constant(make: Callable[P, T]) -> Callable[P, T]:
    """Give a function of plain values and devices a memory; to a compiler it gives constants of the network.

    Without it `torch.compile` would follow the making, and stop at each question that it asks about its numbers. While
    a network is exported new tensors are stand-ins, in that thread alone: another one makes what is kept.
    """
    # not in inference mode: the first caller may be measuring, the next one training
    made: Callable[P, T] = lru_cache(maxsize=16)(torch.inference_mode(False)(make))  # type: ignore[assignment]

    @wraps(make)
    def remembered(*values: P.args, **named: P.kwargs) -> T:
        if not _exports():
            return made(*values, **named)
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(made, *values, **named).result()

    vars(remembered)[CONSTANT] = True
    found: Callable[P, T] = remembered
    return found


@contextmanager
def calling() -> Iterator[None]:
    """Around calls of networks; waits while another thread exports one."""
    me = threading.get_ident()
    with _door.changed:
        while me not in _door.callers and _door.exporter not in (None, me):
            _door.changed.wait()
        _door.callers[me] = _door.callers.get(me, 0) + 1
    try:
        yield
    finally:
        with _door.changed:
            _door.callers[me] -= 1
            if not _door.callers[me]:
                del _door.callers[me]
                _door.changed.notify_all()


@contextmanager
def exporting() -> Iterator[None]:
    """Around an export: it begins when no other thread calls a network or exports one; not to be used within `calling`.

    Raises:
        RuntimeError: the thread is within `calling`; two such threads would wait for each other.
    """
    me = threading.get_ident()
    with _door.changed:
        if me in _door.callers:
            raise RuntimeError("a network is exported while it is called")
        while _door.exporter is not None:
            _door.changed.wait()
        _door.exporter = me
        while _door.callers:
            _door.changed.wait()
    try:
        yield
    finally:
        with _door.changed:
            _door.exporter = None
            _door.changed.notify_all()
