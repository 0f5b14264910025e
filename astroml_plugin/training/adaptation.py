"""Adapt a classifier to a survey that nobody labelled: it goes on learning its labels, and its own answers there.

A bundle answers for all unlabelled stamps (averaged over symmetries); a copy of its network learns these answers on
turned and mirrored stamps, and in every second step labelled ones (self-training with soft labels: Lee 2013, ICML
Workshop; Xie et al. 2020, CVPR). What is typical is then what the unlabelled stamps show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.compute.device import choose_device, usable_device
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import to_mapping
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.scale import refuse_other
from astroml_plugin.tasks.test_time_augmentation import COUNTS
from astroml_plugin.training.batches import Batch, CentredBatches, StampBatches, StemBatch
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.forward import network_outputs
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.plan import Plan, judged_apart
from astroml_plugin.training.recalibration import fit_bundle_typicality
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.run import Progress, finished_bundle, fit_plan, told_epochs, write_bundle
from astroml_plugin.training.settings import TrainingRun, TrainingSettings
from astroml_plugin.training.splits import SplitSettings
from astroml_plugin.training.typicality_fit import LEAST, TypicalitySettings
from astroml_plugin.training.unseen import ADAPTED, learned_from, own_split, trained_on

FEWEST = 64
"""Unlabelled stamps below which there is nothing to adapt to."""


@dataclass(frozen=True)
class AdaptSettings:
    """How a bundle is adapted."""

    epochs: int = 4
    """Passes over the unlabelled stamps; each step on them is followed by one on labelled ones."""
    batch_size: int = 96
    """Stamps per step."""
    learning_rate: float = 3e-4
    """Highest one; it falls to 0 along half a cosine."""
    weight_decay: float = 0.01
    """Weight decay of the optimizer."""
    symmetries: int = 4
    """Turned and mirrored copies over which the answers that are learned are averaged: 1, 2, 4 or 8. A bundle that was
    trained with augment = false is adapted without any."""
    memory: float = 2e9
    """Bytes of decoded stamps to hold, of labelled and of unlabelled ones."""
    band: str | None = None
    """The band of the unlabelled stamps, for a model that takes any."""
    seed: int = 0
    """Seed of order and augmentation."""

    def __post_init__(self) -> None:
        least = min(self.learning_rate, self.memory)
        if (
            self.epochs < 1
            or self.batch_size < 2
            or least <= 0
            or self.symmetries not in COUNTS
            or self.weight_decay < 0
        ):
            raise InputError(
                f"adapting needs epochs of 1 or more ({self.epochs}), batch_size of 2 or more ({self.batch_size}), "
                f"learning_rate ({self.learning_rate}) and memory ({self.memory:g}) above 0, weight_decay of 0 or more "
                f"({self.weight_decay}), and symmetries of {', '.join(map(str, COUNTS))} ({self.symmetries})"
            )


def adapt_bundle(
    model: ModelBundle,
    data: Sequence[str],
    unlabelled: Sequence[str],
    url: str,
    settings: AdaptSettings,
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> ModelBundle:
    """Adapt a bundle to stamps without labels, and write the new bundle.

    Args:
        model: a classifier of classes that exclude each other.
        data: one or several `Stamps` with its labels: those that it was trained on, or others of their kind.
        unlabelled: one or several `Stamps` of the survey; they need not be like the labelled ones.
        url: folder or URL of the new bundle.
        settings: how. Labelled stamps that the bundle was trained on are divided as they were, others by chance; the
            validation side keeps the best epoch and fits the temperature.
        device: torch device; default CUDA where there is one.
        progress: told after every epoch.

    Raises:
        InputError: a bundle of another task, too few stamps, labels that do not fit, or a `url` that holds something
            else.
    """
    task = model.task()
    task.taught(torch.zeros(1, task.network_outputs))  # refuses
    labelled, strange = LabelledStamps(data), LabelledStamps(unlabelled, "unlabelled")
    if strange.labels.num_rows < FEWEST:
        raise InputError(f"{strange.labels.num_rows} stamps show no survey to adapt to: give {FEWEST} or more")
    usable_device(device)
    settings = _as_it_learned(model, settings)
    bands = task.choose_bands(strange.first.bands, settings.band)
    plan = _plan(model, labelled, settings, storage.digest(strange.digest, bands))
    run = TrainingRun(url, identity=plan.identity, device=device or choose_device())
    bundle = finished_bundle(url, plan.identity)
    if bundle is None:
        run = replace(run, report=told_epochs(settings.epochs, progress))
        network = model.network().to(run.device)
        taught, count = _taught(task, network, strange, settings, bands, run.device)
        outputs, targets, _ = network_outputs(task, network, plan.batches("validation"), run.device)
        before = float(task.metrics(outputs, targets)["loss"])
        train = Alternating(plan.batches("train"), taught)
        result = fit_plan(plan, network.requires_grad_(True), run, train)
        record: dict[str, Any] = {"name": model.name, "sha256": model.sha256, "sources": strange.sources_record()}
        record |= {"objects": count, "settings": to_mapping(settings), "loss_before": storage.finite(before)}
        bundle = write_bundle(plan, result, url, run.device, {ADAPTED: record}, model)
    done = bundle.typicality_file() is not None  # else it may have been interrupted here
    if done or model.typicality_file() is None or bundle.card.training[ADAPTED]["objects"] < LEAST:
        return bundle
    rate = model.card.training.get("typicality", {}).get("false_flags", TypicalitySettings.false_flags)
    return fit_bundle_typicality(
        bundle, unlabelled, url, TypicalitySettings(false_flags=rate), settings.band, unlabelled=True
    )


def _as_it_learned(model: ModelBundle, settings: AdaptSettings) -> AdaptSettings:
    """Without symmetries for a bundle that learned without: what a stamp shows may differ from its mirror image."""
    return settings if _turns(model) else replace(settings, symmetries=1)


def _turns(model: ModelBundle) -> bool:
    return bool(model.card.training.get("settings", {}).get("augment", TrainingSettings.augment))


def _plan(model: ModelBundle, labelled: LabelledStamps, settings: AdaptSettings, unlabelled: str) -> Plan:
    """The plan of a training of the bundle's own network on its own labels; its inputs stay as they are.

    Args:
        model, labelled, settings: of `adapt_bundle`.
        unlabelled: digest of what is read of the unlabelled stamps.
    """
    task = model.task()
    task.check_source(**labelled.first.facts)
    refuse_other(task.settings, labelled.first.pixel_scale)
    usable, bands = task.usable(labelled.labels), task.choose_bands(labelled.first.bands)
    split = own_split(model) if trained_on(model, labelled) else SplitSettings(leaks="drop")
    rows = labelled.split(split, usable)
    learned = learned_from(model, labelled, usable, bands)
    recipe = Recipe(
        model.card.task,
        model.card.network,
        model.card.description,
        model.card.licence,
        dict(model.card.settings),
        dict(model.card.network_arguments),
        TrainingSettings(
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            schedule="cosine",
            patience=0,
            memory=settings.memory,
            seed=settings.seed,
            augment=_turns(model),
        ),
        split,
        typicality=TypicalitySettings(fit=False),
    )
    identity = storage.digest(model.sha256, labelled.digest, unlabelled, to_mapping(settings))
    return judged_apart(Plan(recipe, task, labelled, rows, {}, identity), learned, f"bundle {model.called}")


def _taught(
    task: Task,
    network: nn.Module,
    strange: LabelledStamps,
    settings: AdaptSettings,
    bands: tuple[str, ...],
    device: str,
) -> tuple[CentredBatches, int]:
    """Unlabelled stamps with the bundle's answers as targets, and how many have some."""
    task = task.with_settings(symmetries=settings.symmetries)
    everything = np.arange(strange.labels.num_rows)
    nothing = torch.zeros(len(everything))

    def batches(rows: np.ndarray, targets: Tensor) -> CentredBatches:
        stamps = StampBatches(
            strange,
            rows,
            targets,
            bands=bands,
            batch_size=settings.batch_size,
            seed=settings.seed,
            memory=settings.memory,
        )
        return CentredBatches(stamps, task)

    whole = task.inference_network(network)
    outputs, _, rows = network_outputs(task, whole, batches(everything, nothing), device)
    if len(rows) < FEWEST:
        raise InputError(f"only {len(rows)} of the unlabelled stamps have usable pixels: give {FEWEST} or more")
    return batches(rows, task.taught(outputs)), len(rows)


@dataclass(frozen=True)
class Alternating:
    """Batches of labelled stamps and of taught ones in turn, until the taught ones have been seen once."""

    labelled: StampBatches
    """With true targets."""
    taught: CentredBatches
    """With a bundle's answers as targets."""

    def __len__(self) -> int:
        """Objects that an epoch shows: the taught ones, and a batch of labelled ones for each of their batches."""
        stamps, size = len(self.labelled), self.labelled.batch_size
        batches = -(-len(self.taught) // size)
        return len(self.taught) + round(batches * stamps / -(-stamps // size))

    def epoch(self, number: int) -> Iterator[Batch | StemBatch]:
        """Shuffled batches of one epoch; the labelled ones are drawn anew from all."""
        truth = self._drawn(number)
        for batch in self.taught.epoch(number):
            yield batch
            yield next(truth)

    def ordered(self) -> Iterator[Batch | StemBatch]:
        """All batches in order: the taught ones."""
        return self.taught.ordered()

    def _drawn(self, number: int) -> Iterator[Batch]:
        turn = 0
        while True:  # where there are fewer labelled stamps than others, they come again in another order
            yield from self.labelled.epoch(1000 * turn + number)
            turn += 1
