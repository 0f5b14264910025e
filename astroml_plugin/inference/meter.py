"""Wall seconds and bytes of a unit by stage, and where the light of its objects lay."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

STAGES = ("read", "copy", "prepare", "forward", "detect", "encode", "write")
"""In the order of the work: from the store to arrays (Zarr decodes as it reads), to the device, cut and normalised,
through the network and to columns, from maps to objects, to Parquet, to the catalog. `wait`, beside them, is the time a
unit stood before the forward threads."""


@dataclass
class Meter:
    """Seconds and bytes of one unit by stage; several threads may add to it."""

    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    centres: Counter[str] = field(default_factory=Counter)
    """Objects by where their light lay: bundle, a space, and a key of `offset_counts`."""
    forms: Counter[str] = field(default_factory=Counter)
    """Objects (or windows) by what ran their forward: bundle, runtime and number format, with spaces between."""
    refused: set[str] = field(default_factory=set)
    """Sentences about runtimes that were asked for and not used."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, stage: str, seconds: float = 0.0, count: int = 0) -> None:
        """Add seconds and bytes to a stage."""
        with self._lock:
            if seconds:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
            if count:
                self.bytes[stage] = self.bytes.get(stage, 0) + count

    def add_centres(self, bundle: str, counts: Mapping[str, int]) -> None:
        """Add objects of a bundle by where their light lay."""
        with self._lock:
            self.centres.update({f"{bundle} {place}": count for place, count in counts.items()})

    def add_forms(self, counts: Mapping[str, int], refused: Iterable[str]) -> None:
        """Add objects by what ran their forward, and what was not used."""
        with self._lock:
            self.forms.update(counts)
            self.refused.update(refused)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a `with` block as stage `name`."""
        started = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - started)

    def timed(self, name: str, function: Callable[..., T]) -> Callable[..., T]:
        """`function`, whose calls count as `name`."""

        def call(*arguments: object) -> T:
            with self.stage(name):
                return function(*arguments)

        return call

    def each(self, name: str, items: Iterator[T]) -> Iterator[T]:
        """`items`; what making each of them takes counts as `name`."""
        while True:
            started = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self.add(name, time.perf_counter() - started)
            yield item


def bottleneck(seconds: Mapping[str, float]) -> str | None:
    """The stage that units spend most time in; a unit that stands before the forward threads waits for the network.

    Args:
        seconds: by stage, over any time.
    """
    spent = {name: seconds.get(name, 0.0) for name in STAGES}
    slowest = "prepare" if spent["prepare"] > spent["forward"] else "forward"
    spent[slowest] += seconds.get("wait", 0.0)
    largest = max(spent, key=lambda name: spent[name])
    return largest if spent[largest] > 0 else None
