"""A unit's pixels on their way to the device: the tile once for all bundles, stamps batch by batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.compute.device import copier, on, streams
from astroml_plugin.compute.memory import is_out_of_memory
from astroml_plugin.cutouts import Move
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.reading import BlockWork, TileWork

TILES_AT_ONCE = 2
"""Tiles on a GPU at once: one is worked on, the next is on its way."""

_tiles = threading.BoundedSemaphore(TILES_AT_ONCE)


def overlaps(device: str) -> bool:
    """Whether copies, network and answers go on side by side: on CUDA; a CPU has other units for its other cores."""
    return torch.device(device).type == "cuda"


def mover(device: str, meter: Meter) -> Move | None:
    """Takes arrays to the device and counts their bytes as those of `copy`; None where they stay."""
    if not overlaps(device):
        return None
    move = copier(device)

    def counted(array: np.ndarray, move: Callable[[np.ndarray], Tensor] = move) -> Tensor:
        meter.add("copy", count=array.nbytes)
        return move(array)

    return counted


class DeviceUpload:
    """The pixels of a unit on the device: sent ahead of the unit's turn on CUDA, at its turn on a CPU.

    Use as a context around the unit's turn: on CUDA no more than `TILES_AT_ONCE` units have a place there.
    """

    def __init__(self, work: TileWork | BlockWork, device: str, meter: Meter) -> None:
        self.work, self.device, self.meter = work, device, meter
        self._early = overlaps(device) and isinstance(work, TileWork)
        self._pixels: Any = None
        self._placed = False

    def __enter__(self) -> DeviceUpload:
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()
        self._give_place()

    def enter(self) -> None:
        """Wait for a place on the device and send the pixels; nothing where they have one."""
        if not self._early or self._placed:
            return
        _tiles.acquire()
        self._placed = True
        try:
            self._pixels = self._send()
        except RuntimeError as error:
            self._pixels = None
            if not is_out_of_memory(error):  # else it waits for the unit before it
                self._give_place()
                raise

    def left(self) -> Any:
        """The pixels where they are in this machine's memory; from a GPU they go, and another unit takes the place."""
        if not self._early:
            return self._pixels
        self.drop()
        self._give_place()
        return None

    def _give_place(self) -> None:
        if self._placed:
            self._placed = False
            _tiles.release()

    def fetched(self, maps: Tensor) -> np.ndarray:
        """Maps on the CPU, copied beside what the network does meanwhile."""
        with self.meter.stage("copy"), on(streams(self.device).copying):
            return maps.cpu().numpy()

    def pixels(self) -> Any:
        """The tile on the device; None of stamps, which go there batch by batch."""
        if self._pixels is None and isinstance(self.work, TileWork):
            self._pixels = self._send()
        return self._pixels

    def drop(self) -> None:
        """Let the pixels go."""
        self._pixels = None

    def _send(self) -> Any:
        stream = streams(self.device).copying
        with self.meter.stage("copy"), on(stream):
            pixels = self.work.to_device(self.device, mover(self.device, self.meter))
            if stream is not None:
                stream.synchronize()
            return pixels
