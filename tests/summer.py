"""A small real Task for stamps with run options of its own: the sum of the pixels, times a gain that a run sets."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from astroml_plugin.catalog import Column
from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.sources.labels import float_labels
from astroml_plugin.tasks.base import Task, TaskRunOptions
from astroml_plugin.training.bundle import Card, ModelBundle


class SumNetwork(nn.Module):
    """Sum of the pixels times a weight."""

    def __init__(self, bands: int, outputs: int, *, psf: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        """(n, 1)."""
        return image.sum((1, 2, 3))[:, None] * self.weight


@dataclass(frozen=True)
class SumRunOptions(TaskRunOptions):
    """Options of one run."""

    gain: float = 1.0
    """Factor of every sum."""
    doubled: bool = False
    """Whether the network's answers count twice."""


class Twice(nn.Module):
    """A network's answers, twice."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """(n, 1)."""
        return 2 * self.network(image)


class SumTask(Task):
    """total: sum of a stamp's pixels in units of their noise, times the run's gain."""

    RunOptions: ClassVar[type[TaskRunOptions]] = SumRunOptions
    outputs, labels = 1, ("total",)
    options = SumRunOptions()

    def for_run(self, options: Any) -> Task:
        if options.gain <= 0:
            raise InputError(f"a gain of {options.gain} makes nothing brighter: give a number above 0")
        task = copy.copy(super().for_run(options))
        task.options = options  # type: ignore[attr-defined]
        return task

    def inference_network(self, network: nn.Module) -> nn.Module:
        return Twice(network) if self.options.doubled else network

    def columns(self) -> list[Column]:
        return [Column("total", "float32", "", "phot.flux", "Sum of the pixels")]

    def targets(self, table: pa.Table) -> Tensor:
        return torch.from_numpy(float_labels(table, self.labels))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean()

    def decode(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        return {"total": outputs[:, 0].numpy() * np.float32(self.options.gain)}


def make_bundle(url: str, size: int = 32) -> str:
    """A bundle of it."""
    task = SumTask.from_settings({"bands": ["r"], "pixel_scale": 0.2, "stamp_size": size})
    card = Card(url.rstrip("/").rpartition("/")[2], "sums", task.to_settings(), "summer", {})
    ModelBundle.save(url, task.build_network(SumNetwork, {}), card)
    return url


@contextmanager
def installed(folder: Path) -> Iterator[dict[str, str]]:
    """The task and its network registered as an installer would; gives the environment for other processes."""
    metadata = folder / "summer-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: summer\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[astroml_plugin.tasks]\nsums = tests.summer:SumTask\n"
        "[astroml_plugin.networks]\nsummer = tests.summer:SumNetwork\n"
    )
    sys.path.insert(0, str(folder))
    try:
        yield {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[1]}"}
    finally:
        sys.path.remove(str(folder))
