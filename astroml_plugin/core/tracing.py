"""Whether torch follows this thread's code to compile or export it. torch says so to all threads of a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_exporting: set[int] = set()


def is_traced() -> bool:
    """Whether the code of this thread is followed, so that it must be in words that every runtime knows.

    `torch.compiler.is_compiling` is also true where another thread exports: stamps that are prepared meanwhile would
    take another way, to float32 rounding.
    """
    if not torch.compiler.is_compiling():
        return False
    return not _exporting or threading.get_ident() in _exporting


@contextmanager
def exporting() -> Iterator[None]:
    """Within the block this thread exports a module, and no other is followed because of it."""
    me = threading.get_ident()
    _exporting.add(me)
    try:
        yield
    finally:
        _exporting.discard(me)
