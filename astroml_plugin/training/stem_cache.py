"""Features of a network's fixed first layer, kept in memory for every training stamp."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.symmetries import SYMMETRIES, transform
from astroml_plugin.training.batches import Batches, StemBatch
from astroml_plugin.training.forward import network_inputs
from astroml_plugin.training.settings import TrainingSettings


class StemCache:
    """Batches of the features of a network's `stem`, made once for every object in its eight orientations.

    Args:
        task, network: whose stem.
        data: the objects.
        settings: batch size, seed, and whether to augment.
        device: where stem and features live.

    Raises:
        InputError: the network has no stem, or the task changes its inputs in other ways while augmenting.
    """

    def __init__(self, task: Task, network: nn.Module, data: Batches, settings: TrainingSettings, device: str) -> None:
        if not hasattr(network, "stem") or task.settings.psf == "optional":
            raise InputError("training cache needs a network with a fixed stem and a PSF that is not optional")
        self.settings = settings
        self.symmetries = SYMMETRIES if settings.augment else SYMMETRIES[:1]
        parts = [self._featured(task, network, network_inputs(task, batch, device)) for batch in data.ordered()]
        self.features = torch.cat([features for features, _, _ in parts])
        self.targets = torch.cat([targets for _, targets, _ in parts])
        self.rows = np.concatenate([rows for _, _, rows in parts])

    def _featured(
        self, task: Task, network: nn.Module, given: tuple[tuple[Tensor, ...], Tensor, np.ndarray]
    ) -> tuple[Tensor, Tensor, np.ndarray]:
        """Features (n, symmetries, f) and targets (n, symmetries, ...) of a batch."""
        inputs, targets, rows = given
        stem: Callable[..., Tensor] = getattr(network, "stem")  # noqa: B009 - not every network has one
        with torch.no_grad():
            features = [stem(*(transform(item, one) for item in inputs)) for one in self.symmetries]
        learned = [task.transform_targets(targets, one) for one in self.symmetries]
        return torch.stack(features, dim=1), torch.stack(learned, dim=1), rows

    def under(self, settings: TrainingSettings) -> StemCache:
        """A cache with these features and other settings of batches; `augment` must agree."""
        other = copy.copy(self)
        other.settings = settings
        return other

    def __len__(self) -> int:
        return len(self.rows)

    def epoch(self, number: int) -> Iterator[StemBatch]:
        """Every object once, in an order and orientations that depend on (seed, number) only."""
        random = np.random.default_rng([self.settings.seed, number])
        order = random.permutation(len(self))
        drawn = torch.from_numpy(random.integers(0, len(self.symmetries), len(self)))
        for part in np.array_split(order, max(1, -(-len(order) // self.settings.batch_size))):
            index = torch.from_numpy(part)
            chosen = (index, drawn[index])
            yield StemBatch((self.features[chosen],), self.targets[chosen], self.rows[part])

    def ordered(self) -> Iterator[StemBatch]:
        """Every object once, as it lies."""
        for part in np.array_split(np.arange(len(self)), max(1, -(-len(self) // self.settings.batch_size))):
            index = torch.from_numpy(part)
            yield StemBatch((self.features[index, 0],), self.targets[index, 0], self.rows[part])
