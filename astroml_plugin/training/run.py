"""From a recipe and labelled stamps to a bundle: fit, calibrate, score, write; alone or in several processes."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from astroml_plugin.compute.device import choose_device, usable_device
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.settings import to_mapping
from astroml_plugin.core.version import code_digest, version
from astroml_plugin.tasks.base import Task
from astroml_plugin.training import adversarial, distributed, reference, tracking
from astroml_plugin.training.adversarial import fit_adversarial
from astroml_plugin.training.batches import Batches
from astroml_plugin.training.bundle import CARD, Card, ModelBundle
from astroml_plugin.training.checkpoint import CHECKPOINT, read_log, write_log
from astroml_plugin.training.convergence import blind_loss, unconverged
from astroml_plugin.training.curves import Curves
from astroml_plugin.training.domains import by_domain, domain_counts
from astroml_plugin.training.fit import FitResult, fit
from astroml_plugin.training.forward import network_outputs
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.pacing import pace
from astroml_plugin.training.plan import Plan, initial_network, plan_training
from astroml_plugin.training.recipe import Recipe, to_toml
from astroml_plugin.training.settings import EpochRecord, TrainingRun
from astroml_plugin.training.splits import split_record
from astroml_plugin.training.transfer import take_weights, transfer_record, transferred_plan
from astroml_plugin.training.typicality import RECORD as TYPICALITY
from astroml_plugin.training.typicality_fit import typicality_of, typicality_record
from astroml_plugin.training.unseen import BEGUN, training_objects

Progress = Callable[..., None]
"""Called as progress(what, done, total, note) after every epoch."""


@dataclass(frozen=True)
class TrainExecution:
    """How a training begins and runs: nothing here changes which bundle is made, but `from_bundle`, and that processes
    share each batch."""

    device: str | None = None
    """Torch device; default: CUDA where there is one."""
    processes: int = 1
    """Processes of this machine that train together, each on its share of the data and, with CUDA, its own GPU. A batch
    then has as many times `batch_size` objects."""
    resume: bool = True
    """Continue from a checkpoint that is there; False starts anew."""
    track: tuple[str, ...] = ()
    """Programs that hear of the epochs: tensorboard, mlflow, wandb; see docs/hyperparameters.md."""

    from_bundle: Place | None = None
    """A bundle of the same network whose weights the training begins with, for fine-tuning to other labels or another
    survey: its last layer is new, and layers near the pixels learn slower (table [transfer] of the recipe). Validation
    and test objects that it was trained on are refused, or left out with leaks = "drop"."""

    def __post_init__(self) -> None:
        tracking.check_names(self.track)


def train_bundle(
    recipe: Recipe,
    sources: Sequence[str],
    url: str,
    execution: TrainExecution | None = None,
    progress: Progress | None = None,
) -> tuple[ModelBundle, bool]:
    """Train a recipe on stamps and write the bundle; gives it, and whether it was there already.

    Args:
        recipe: how.
        sources: `Stamps` with label columns.
        url: folder or URL of the bundle.
        execution: on what.
        progress: told after every epoch.

    Raises:
        InputError: labels or splits that cannot be used, `url` holds something else, or the bundle to begin with does
            not fit.
        DivergedError: the loss is no longer finite; the last good checkpoint is kept.
    """
    execution = execution or TrainExecution()
    with tracking.Tracking(execution.track, url, to_mapping(recipe)) as tracked:
        told = tracked.following(lambda: read_log(url), progress)
        bundle, skipped = _train(recipe, sources, url, execution, told)
        if execution.track:
            tracked.figures(bundle.card.training["epochs"], bundle.card.metrics)
    return bundle, skipped


def _train(
    recipe: Recipe, sources: Sequence[str], url: str, execution: TrainExecution, progress: Progress | None
) -> tuple[ModelBundle, bool]:
    run = TrainingRun(url, resume=execution.resume, device=execution.device or choose_device())
    start = None if execution.from_bundle is None else text_of(execution.from_bundle)
    if execution.processes == 1:
        usable_device(execution.device)
        return _train_here(recipe, sources, run, start, progress)
    if not recipe.training.epochs:
        recipe = plan_training(recipe, LabelledStamps(sources), execution.processes).recipe
    watch = EpochWatch(lambda: read_log(url), lambda record: _tell(progress, record, recipe.training.epochs))
    distributed.spawn(execution.processes, _train_here, recipe, list(sources), run, start, watch=watch)
    return ModelBundle.load(url), False


def _train_here(
    recipe: Recipe, sources: Sequence[str], run: TrainingRun, start: str | None, progress: Progress | None = None
) -> tuple[ModelBundle, bool]:
    """Train in this process, alone or as one of a group; gives the bundle and whether it was there already."""
    with distributed.joined_group(run.device) as group:
        plan = plan_training(recipe, LabelledStamps(sources), group.size)
        begin = None if start is None else ModelBundle.load(start)
        plan = plan if begin is None else transferred_plan(plan, begin)
        recipe, curves = plan.recipe, Curves(run.out)
        report = _reporter(curves, recipe.training.epochs, progress)
        run = replace(run, identity=plan.identity, device=group.device, group=group, report=report)
        finished = finished_bundle(run.out, plan.identity)
        if finished is not None:
            return finished, True
        network = initial_network(plan)
        record: dict[str, Any] = {}
        if begin is not None:
            made = take_weights(network, plan, begin)
            run, record = replace(run, rates=made.rates), {BEGUN: transfer_record(plan, begin, made)}
        if group.first:
            storage.write_atomic(storage.join(run.out, "recipe.toml"), to_toml(recipe).encode())
        if recipe.adversarial.epochs:
            if group.size > 1:
                raise InputError("adversarial training runs in one process: leave --processes at 1")
            _pretrain(plan, network, run, progress)
        result = fit_plan(plan, network, run)
        if group.first:
            curves.draw(result.history)
            bundle = write_bundle(plan, result, run.out, run.device, record, begin)
            if doubt := bundle.card.training.get("convergence"):
                write_log(run.out, [*result.history[:-1], {**result.history[-1], "convergence": doubt}])
        group.broadcast_flag(True)
        return ModelBundle.load(run.out), False


def fit_plan(plan: Plan, network: nn.Module, run: TrainingRun, train: Batches | None = None) -> FitResult:
    """Fit a network to the splits of a plan; `train` takes the place of the training split's batches."""
    train = plan.batches("train", run.group) if train is None else train
    return fit(plan.task, network, train, plan.batches("validation"), plan.recipe.training, run)


class EpochWatch:
    """Reports the epochs that other processes add to the records of a training; called now and then.

    Args:
        read: gives all records so far; those of the moment when the watch begins are not reported.
        report: called with each further record.
    """

    def __init__(self, read: Callable[[], list[EpochRecord]], report: Callable[[EpochRecord], object]) -> None:
        self.read, self.report, self.seen = read, report, len(read())

    def __call__(self) -> None:
        for record in self.read()[self.seen :]:
            self.seen += 1
            self.report(record)


def _pretrain(plan: Plan, network: nn.Module, run: TrainingRun, progress: Progress | None) -> None:
    """Train generator and critic of the learned part of the network."""

    def report(record: EpochRecord) -> None:
        if progress is not None:
            note = f"distance {record['distance']:.3f}, spread {record['spread']:.2f}" + (
                "" if record["good"] else f" ({record.get('stopped', 'collapsed')})"
            )
            progress("generator", record["epoch"] + 1, plan.recipe.adversarial.epochs, note)

    learned = getattr(network, "network", network)
    adversaries, run = plan.recipe.adversarial, replace(run, report=report)
    fit_adversarial(plan.task, learned, plan.batches("train"), adversaries, run, plan.recipe.training.seed)


def _reporter(curves: Curves, epochs: int, progress: Progress | None) -> Callable[[EpochRecord], None]:
    """Called with each epoch's record: draws the curves now and then, tells the progress."""

    def report(record: EpochRecord) -> None:
        curves.now_and_then()
        _tell(progress, record, epochs)

    return report


def told_epochs(epochs: int, progress: Progress | None) -> Callable[[EpochRecord], None]:
    """Called with each epoch's record: tells the progress."""
    return lambda record: _tell(progress, record, epochs)


def _tell(progress: Progress | None, record: EpochRecord, epochs: int) -> None:
    if progress is not None:
        note = f"loss {record['validation_loss']:.4f}, {record['objects_per_second']:,.0f} objects/s"
        progress("trained", record["epoch"] + 1, epochs, note)


def finished_bundle(url: str, identity: str) -> ModelBundle | None:
    """The bundle that this very training made before.

    Raises:
        InputError: `url` holds another bundle, or a store.
    """
    for name in ("zarr.json", "schema.json"):
        if storage.exists(storage.join(url, name)):
            raise InputError(f"{storage.redact(url)} holds a store or catalog: choose another output for the bundle")
    if not storage.exists(storage.join(url, CARD)):
        return None
    bundle = ModelBundle.load(url)
    if bundle.card.training.get("identity") != identity:
        raise InputError(
            f"{storage.redact(url)} holds a bundle made with another recipe, seed or data: "
            f"choose another output or remove it"
        )
    return bundle


def write_bundle(
    plan: Plan,
    result: FitResult,
    url: str,
    device: str,
    record: Mapping[str, Any] | None = None,
    start: ModelBundle | None = None,
) -> ModelBundle:
    """Calibrate on the validation split, score once on the test split, learn what is typical, write the bundle.

    Then the checkpoint is dropped.

    Args:
        plan, result: of the training.
        url: folder or URL of the bundle.
        device: torch device.
        record: more for the card's `training`.
        start: the bundle that the training began with: what it knows again, the new one knows again.
    """
    network = plan.task.inference_network(result.network)
    parts = [network_outputs(plan.task, network, plan.batches(name), device) for name in plan.task.calibrates_on]
    task = plan.task.calibrate(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))
    metrics, doubt = {}, ""
    for name in ("validation", "test"):
        outputs, targets, rows = network_outputs(task, network, plan.batches(name), device)
        metrics[name] = task.metrics(outputs, targets, plan.table(rows))
        metrics[name] |= by_domain(task, outputs, targets, plan.table(rows))
        if name == "validation":
            doubt = unconverged(result.history, result.stopped, blind_loss(task, outputs, targets), len(targets))
        if type(task).pretext is not Task.pretext:  # the loss, and what else only the task's own question tells
            outputs, targets, _ = network_outputs(task, network, plan.batches(name), device, pretext=True)
            metrics[name] |= task.metrics(outputs, targets)
    told = reference.reference_record(task, network, plan.data, plan.observed, bands=plan.bands, device=device)
    typical, fitted = plan.recipe.typicality, None
    if typical.fit:
        fitted = typicality_of(task, result.network.eval(), plan.data, plan.observed, typical, device)
    known = {} if fitted is None else {TYPICALITY: typicality_record(fitted, plan.data)}
    card = Card(
        name=storage.redact(url).rstrip("/").rpartition("/")[2],
        task=plan.recipe.task,
        settings=task.to_settings(),
        network=plan.recipe.network,
        network_arguments=plan.recipe.network_arguments,
        training={
            **_training_record(plan, result),
            reference.KEY: told,
            **known,
            **({"convergence": doubt} if doubt else {}),
            **(record or {}),
        },
        metrics=storage.finite(metrics),
        versions=_versions(),
        description=plan.recipe.description,
        licence=plan.recipe.licence,
    )
    objects = training_objects(plan.data, plan.bands, plan.rows)
    before = start.known_objects() if start is not None and start.task().learns_labels else None
    objects = objects if before is None else objects.joined(before)
    bundle = ModelBundle.save(url, result.network, card, objects, None if fitted is None else fitted.to_bytes())
    storage.remove(storage.join(url, CHECKPOINT))
    storage.remove(storage.join(url, adversarial.CHECKPOINT))
    return bundle


def _training_record(plan: Plan, result: FitResult) -> dict[str, Any]:
    """Record of the training for the card."""
    return {
        "sources": plan.data.sources_record(),
        "digest": plan.data.digest,
        "identity": plan.identity,
        "objects": {name: len(rows) for name, rows in plan.rows.items()},
        "left_out": plan.data.labels.num_rows - sum(len(rows) for rows in plan.rows.values()),
        **({"domains": domains} if (domains := domain_counts(plan.data.labels, plan.rows)) else {}),
        **({"sampling": to_mapping(plan.recipe.sampling)} if plan.expected is not None else {}),
        "split": split_record(plan.recipe.split),
        "split_ids": plan.data.split_identity(plan.rows),
        "settings": to_mapping(plan.recipe.training),
        "pace": pace(plan.recipe.training, len(plan.rows["train"])),
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
    }


def _versions() -> dict[str, str]:
    return {
        "astroml_plugin": version(),
        "code": code_digest(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
