"""CPU seconds, and what they are compared with: those of a fixed piece of work done just before and after."""

from __future__ import annotations

import os
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch

from astroml_plugin.inference.meter import Meter

T = TypeVar("T")

Arm = Callable[[], Mapping[str, float]]
"""Does a fixed piece of work: name -> CPU seconds of it, or of its parts."""


class CpuMeter(Meter):
    """A meter that counts the CPU seconds of all threads of the process: for one unit at a time."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the CPU time of a `with` block as stage `name`."""
        started = time.process_time()
        yield
        self.add(name, time.process_time() - started)

    def each(self, name: str, items: Iterator[T]) -> Iterator[T]:
        """`items`; the CPU time that making each of them takes counts as `name`."""
        while True:
            with self.stage(name):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


def cpu_of(command: Sequence[str]) -> float:
    """CPU seconds of a command, user and system, with its own children; RuntimeError where it fails."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return float(usage.ru_utime + usage.ru_stime)


class Canary:
    """A fixed piece of work like that of a run: matrix products, passes over memory, compression, plain Python."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.matrix = torch.from_numpy(generator.normal(size=(384, 384)).astype(np.float32))
        self.pixels = torch.from_numpy(generator.normal(size=2**20).astype(np.float32))
        self.bytes = generator.normal(size=2**16).astype(np.float32).tobytes()

    def __call__(self) -> float:
        """CPU seconds of it (about 0.1), in this thread."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        started = time.thread_time()
        for _ in range(20):
            self.matrix @ self.matrix
        for _ in range(15):
            self.pixels.mul(2.0).add_(1.0).abs_().sqrt_()
        zlib.decompress(zlib.compress(self.bytes, 1))
        sum(number % 7 for number in range(200_000))
        seconds = time.thread_time() - started
        torch.set_num_threads(threads)
        return seconds


def ratios(arms: Mapping[str, Arm], repeats: int) -> tuple[dict[str, list[float]], dict[str, list[float]], list[float]]:
    """Do every arm once per round, in turn, with a canary between any two.

    Returns:
        CPU seconds by name (arm and part, `arm: part`); the same over the mean of the canaries before and after; the
        canaries' seconds.
    """
    canary = Canary()
    canary()
    before, canaries = canary(), []
    seconds: dict[str, list[float]] = {}
    over: dict[str, list[float]] = {}
    for _ in range(repeats):
        for arm, do in arms.items():
            found = do()
            after = canary()
            for part, value in found.items():
                name = f"{arm}: {part}" if part else arm
                seconds.setdefault(name, []).append(value)
                over.setdefault(name, []).append(2 * value / (before + after))
            canaries.append(after)
            before = after
    return seconds, over, canaries


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = (float(value) for value in np.percentile(np.asarray(values, float), [25, 50, 75]))
    return low, middle, high
