"""Adapt a classifier to a survey that nobody labelled: it goes on learning its labels, and its own answers there.

A bundle answers for all unlabelled stamps (averaged over symmetries); a copy of its network learns these answers on
turned and mirrored stamps, and in every second step labelled ones (self-training with soft labels: Lee 2013, ICML
Workshop; Xie et al. 2020, CVPR). What is typical is then what the unlabelled stamps show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.compute.device import choose_device, usable_device
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import to_mapping
from astroml_plugin.tasks.test_time_augmentation import COUNTS
from astroml_plugin.training.batches import Batch, CentredBatches, StampBatches, StemBatch
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.forward import network_outputs
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.plan import Plan
from astroml_plugin.training.recalibration import fit_bundle_typicality
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.run import Progress, finished_bundle, fit_plan, told_epochs, write_bundle
from astroml_plugin.training.settings import TrainingRun, TrainingSettings
from astroml_plugin.training.splits import SPLITS, SplitSettings, without_learned
from astroml_plugin.training.typicality_fit import LEAST, TypicalitySettings
from astroml_plugin.training.unseen import learned_from, own_split, trained_on

KEY = "adapted"
"""Of a card's training record: what it was adapted to."""

FEWEST = 64
"""Unlabelled stamps below which there is nothing to adapt to."""


@dataclass(frozen=True)
class AdaptSettings:
    """How a bundle is adapted."""

    epochs: int = 4
    """Passes over the unlabelled stamps; each step on them is followed by one on as many labelled ones."""
    batch_size: int = 96
    """Stamps per step."""
    learning_rate: float = 3e-4
    """Highest one; it falls to 0 along half a cosine."""
    weight_decay: float = 0.01
    """Of the optimizer."""
    symmetries: int = 4
    """Turned and mirrored copies over which the answers that are learned are averaged: 1, 2, 4 or 8."""
    memory: float = 2e9
    """Bytes of decoded stamps to hold, of labelled and of unlabelled ones."""
    seed: int = 0
    """Of order and augmentation."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.learning_rate <= 0 or self.symmetries not in COUNTS:
            raise InputError(
                f"adapting needs epochs of 1 or more ({self.epochs}), batch_size of 2 or more ({self.batch_size}), "
                f"learning_rate above 0 ({self.learning_rate}), and symmetries of {', '.join(map(str, COUNTS))} "
                f"({self.symmetries})"
            )


def adapt_bundle(
    model: ModelBundle,
    data: Sequence[str],
    unlabelled: Sequence[str],
    url: str,
    settings: AdaptSettings,
    *,
    band: str | None = None,
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
        band: the band of the unlabelled stamps, for a model that takes any.
        device: torch device; default CUDA where there is one.
        progress: told after every epoch.

    Raises:
        InputError: a bundle of another task, too few stamps, labels that do not fit, or a `url` that holds something
            else.
    """
    task = model.task()
    task.taught(torch.zeros(1, task.network_outputs))  # refuses
    labelled, strange = LabelledStamps(data), LabelledStamps(unlabelled)
    if strange.labels.num_rows < FEWEST:
        raise InputError(f"{strange.labels.num_rows} stamps show no survey to adapt to: give {FEWEST} or more")
    usable_device(device)
    plan = _plan(model, labelled, strange, settings)
    run = TrainingRun(url, identity=plan.identity, device=device or choose_device())
    finished = finished_bundle(url, plan.identity)
    if finished is not None:
        return finished
    run = replace(run, report=told_epochs(settings.epochs, progress))
    taught, count = _taught(model, strange, settings, band, run.device)
    network = model.network().requires_grad_(True)
    result = fit_plan(plan, network, run, Alternating(plan.batches("train"), taught))
    record = {"name": model.name, "sha256": model.sha256, "sources": strange.sources_record(), "objects": count}
    bundle = write_bundle(plan, result, url, run.device, {KEY: {**record, "settings": to_mapping(settings)}}, model)
    if model.typicality_file() is None or strange.labels.num_rows < LEAST:
        return bundle
    rate = model.card.training.get("typicality", {}).get("false_flags", TypicalitySettings.false_flags)
    return fit_bundle_typicality(bundle, unlabelled, url, TypicalitySettings(false_flags=rate), band, unlabelled=True)


def _plan(model: ModelBundle, labelled: LabelledStamps, strange: LabelledStamps, settings: AdaptSettings) -> Plan:
    """The plan of a training of the bundle's own network on its own labels; its inputs stay as they are."""
    task = model.task()
    task.check_source(**labelled.first.facts)
    usable, bands = task.usable(labelled.labels), task.choose_bands(labelled.first.bands)
    split = own_split(model) if trained_on(model, labelled) else SplitSettings(leaks="drop")
    rows = labelled.split(split, usable)
    rows = without_learned(rows, learned_from(model, labelled, usable, bands), split, f"bundle {model.called}")
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
        ),
        split,
        typicality=TypicalitySettings(fit=False),
    )
    identity = storage.digest(model.sha256, labelled.digest, strange.digest, to_mapping(settings))
    plan = Plan(recipe, task, labelled, rows, {}, identity)
    targets = {name: task.targets(plan.table(rows[name])) for name in SPLITS}
    task.check_splits(targets)
    return replace(plan, targets=targets)


def _taught(
    model: ModelBundle, strange: LabelledStamps, settings: AdaptSettings, band: str | None, device: str
) -> tuple[CentredBatches, int]:
    """Unlabelled stamps with the bundle's answers as targets, and how many have some."""
    task = model.task().with_settings(symmetries=settings.symmetries)
    bands = task.choose_bands(strange.first.bands, band)
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

    network = task.inference_network(model.network()).to(device)
    outputs, _, rows = network_outputs(task, network, batches(everything, nothing), device)
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
        """Objects that an epoch shows."""
        return 2 * len(self.taught)

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
