"""Float32 proper: torch's switches that let devices calculate float32 with fewer bits. Needs torch only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch

T = TypeVar("T")

_IEEE = "ieee"

_lock = threading.Lock()


@dataclass
class _Held:
    """How many threads want float32 proper now, and what sets the switches back."""

    users: int = 0
    undo: list[Callable[[], None]] = field(default_factory=list)


_held = _Held()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Convolutions, recurrent layers and matrix products in float32 proper, on GPUs and CPUs alike.

    torch allows TF32 (ten bits of mantissa) in cuDNN by default. A host program may allow it, or bfloat16, in matrix
    products: in the language of `allow_tf32` and `set_float32_matmul_precision`, or, from torch 2.9 on, in that of
    `fp32_precision`. torch refuses to answer in one while the other says something else; that is caught here. The
    switches hold for the whole process. What was set before is set again when the last thread that asked has left.
    """
    with _lock:
        _held.users += 1
        if _held.users == 1:
            _held.undo = _made_exact()
    try:
        yield
    finally:
        with _lock:
            _held.users -= 1
            if not _held.users:
                for step in _held.undo:
                    step()


def _made_exact() -> list[Callable[[], None]]:
    """Set all switches; gives what sets them back, in that order: the older ones move the newer ones with them."""
    newer = [partial(setattr, one, "fp32_precision", one.fp32_precision) for one in _operators()]
    older = []
    if (tf32 := _told(lambda: torch.backends.cudnn.allow_tf32)) is not None:
        older.append(partial(setattr, torch.backends.cudnn, "allow_tf32", tf32))
        torch.backends.cudnn.allow_tf32 = False
    if (products := _told(torch.get_float32_matmul_precision)) is not None:
        older.append(partial(torch.set_float32_matmul_precision, products))
        torch.set_float32_matmul_precision("highest")
    for one in _operators():
        one.fp32_precision = _IEEE
    return [*older, *newer]


def _operators() -> list[Any]:
    """Places of the newer switches that this torch has."""
    backends = torch.backends
    places = ((backends.cudnn, "conv rnn"), (backends.cuda, "matmul"), (backends.mkldnn, "conv matmul rnn"))
    found = [getattr(module, name, None) for module, names in places for name in names.split()]
    return [one for one in found if hasattr(one, "fp32_precision")]


def _told(question: Callable[[], T]) -> T | None:
    """An answer of torch in its older language; None where it refuses to, as the newer one says something else."""
    try:
        return question()
    except RuntimeError:
        return None
