"""Train a bundle: labelled stamps and a recipe in, a folder with weights and card out."""

from __future__ import annotations

import io
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

import astroml_plugin
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import to_mapping
from astroml_plugin.core.version import code_digest
from astroml_plugin.evaluation import figures as pictures
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.test_time_augmentation import averaged
from astroml_plugin.training import adversarial
from astroml_plugin.training import distributed as parallel
from astroml_plugin.training.adversarial import fit_adversarial
from astroml_plugin.training.batches import SPLITS, BlockStream, LabelledStamps, split_record
from astroml_plugin.training.bundle import CARD, Card, ModelBundle
from astroml_plugin.training.fit import CHECKPOINT, LOG, FitResult, fit, outputs_of
from workflows.calibrate_response import calibrate_response
from workflows.recipe import Recipe, read_recipe, to_toml

Progress = Callable[..., None]
"""Called as progress(what, done, total, note) after every epoch."""

_VALIDATED_PIXELS = 256 * 96**2
"""Pixels of a band in a batch without gradients, at most."""

_SAMPLE = 512
"""Training stamps from which scales are measured."""


@dataclass(frozen=True)
class TrainResult:
    """What a training made."""

    bundle: str
    """Path or URL of the bundle."""
    epochs: int
    """Epochs trained, over all runs that resumed."""
    best_epoch: int
    """The epoch whose weights the bundle has (the first is 0)."""
    objects: int
    """Objects in the training split."""
    metrics: dict[str, Any]
    """Of the validation and the test split."""
    seconds: float
    """Wall time of this call."""
    skipped: bool = False
    """Whether the same training was there already, finished."""


@dataclass(frozen=True)
class Plan:
    """Everything known before the first step."""

    recipe: Recipe
    """As given."""
    task: Task
    """Fitted to the data and adapted to the training split."""
    data: LabelledStamps
    """The objects."""
    rows: dict[str, np.ndarray]
    """Split -> (n,) row numbers."""
    targets: dict[str, Tensor]
    """Split -> (n, ...) what to learn."""
    identity: str
    """Of recipe and data."""

    def stream(self, split: str, group: parallel.Group = parallel.ALONE) -> BlockStream:
        """Batches of a split, or of a process's share of it."""
        training = self.recipe.training
        judged = max(8, min(256, _VALIDATED_PIXELS // max(1, self.task.stamp_size**2)))
        return BlockStream(
            self.data,
            group.share(self.rows[split]),
            group.share(self.targets[split]),
            bands=self.task.bands,
            batch_size=training.batch_size if split == "train" else max(judged, training.batch_size),
            seed=training.seed,
            memory=training.memory,
            layers=self.task.layers,
        )

    def table(self, rows: np.ndarray) -> pa.Table:
        """All label columns of some objects."""
        return self.data.labels.take(pa.array(rows))


def train(
    recipe: str | Path | Recipe,
    *,
    data: str | Sequence[str],
    out: str | Path,
    epochs: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    processes: int = 1,
    response: str | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a model and save it as a bundle; run again after an interruption, it continues.

    Started by `torchrun` on several GPUs or nodes, all its processes train together.

    Args:
        recipe: a shipped name, the path of a TOML file, or a `Recipe`.
        data: one or several `Stamps` with label columns.
        out: folder or URL of the bundle; log.jsonl, recipe.toml and training.png are put beside it.
        epochs, seed: instead of the recipe's.
        device: torch device; default CUDA where there is one.
        processes: processes of this machine that train together, each on its share of the data and, with CUDA, its own
            GPU. A batch then has as many times `batch_size` objects.
        response: stamps of `simulate --pairs shear`, on which the shear response of an ellipticity bundle is fitted
            after the training (see `workflows.calibrate_response`).
        resume: False starts anew instead of continuing from a checkpoint.
        progress: told after every epoch.

    Raises:
        InputError: recipe, labels or splits that cannot be used, or `out` holds something else.
        DivergedError: the loss is no longer finite; the last good checkpoint is kept.
    """
    started = time.perf_counter()
    url = storage.absolute(str(out))
    chosen = _overridden(read_recipe(recipe), epochs, seed)
    urls = [data] if isinstance(data, str) else list(data)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if processes > 1:
        watch = _LogWatch(url, chosen.training.epochs, progress)
        parallel.spawn(processes, _train_here, chosen, urls, url, device, resume, watch=watch)
        bundle, skipped = ModelBundle.load(url), False
    else:
        bundle, skipped = _train_here(chosen, urls, url, device, resume, progress)
    if response is not None and not bundle.card.settings.get("response"):
        bundle = calibrate_response(url, data=response).bundle
    return _result(bundle, started, skipped=skipped)


def _train_here(
    recipe: Recipe, urls: Sequence[str], url: str, device: str, resume: bool, progress: Progress | None = None
) -> tuple[ModelBundle, bool]:
    """Train in this process, alone or as one of a group; gives the bundle and whether it was there already."""
    with parallel.joined_group(device) as group:
        device = group.own_device(device)
        plan = planned(recipe, LabelledStamps(urls), group.size)
        finished = _finished(url, plan.identity)
        if finished is not None:
            return finished, True
        if group.first:
            storage.write_atomic(storage.join(url, "recipe.toml"), to_toml(recipe).encode())
        network = fresh_network(plan)
        if recipe.adversarial.epochs:
            if group.size > 1:
                raise InputError("adversarial training runs in one process: leave --processes at 1")
            _pretrain(plan, network, url, device, resume, progress)
        result = fit(
            plan.task,
            network,
            plan.stream("train", group),
            plan.stream("validation"),
            recipe.training,
            out=url,
            identity=plan.identity,
            resume=resume,
            report=_reporter(url, recipe.training.epochs, progress),
            device=device,
            group=group,
        )
        if group.first:
            finish(plan, result, url, device)
        group.agree(True)
        return ModelBundle.load(url), False


def _pretrain(plan: Plan, network: nn.Module, url: str, device: str, resume: bool, progress: Progress | None) -> None:
    """Generator and critic of the learned part of the network."""

    def report(record: dict[str, Any]) -> None:
        if progress is not None:
            note = f"distance {record['distance']:.3f}, spread {record['spread']:.2f}" + (
                "" if record["good"] else f" ({record.get('stopped', 'collapsed')})"
            )
            progress("generator", record["epoch"] + 1, plan.recipe.adversarial.epochs, note)

    fit_adversarial(
        plan.task,
        getattr(network, "network", network),
        plan.stream("train"),
        plan.recipe.adversarial,
        out=url,
        identity=plan.identity,
        seed=plan.recipe.training.seed,
        resume=resume,
        report=report,
        device=device,
    )


def _reporter(url: str, epochs: int, progress: Progress | None) -> Callable[[dict[str, Any]], None]:
    """Called with each epoch's record: draws the curves so far, tells the progress."""

    def report(record: dict[str, Any]) -> None:
        earlier = _log(url)[: record["epoch"]] if record["epoch"] else []
        write_figure(storage.join(url, "training.png"), pictures.training_curves([*earlier, record]))
        _tell(progress, record, epochs)

    return report


def _tell(progress: Progress | None, record: dict[str, Any], epochs: int) -> None:
    if progress is not None:
        note = f"loss {record['validation_loss']:.4f}, {record['objects_per_second']:,.0f} objects/s"
        progress("trained", record["epoch"] + 1, epochs, note)


def _log(url: str) -> list[dict[str, Any]]:
    """The records of the epochs that a checkpoint holds."""
    place = storage.join(url, LOG)
    return [json.loads(line) for line in storage.read_bytes(place).splitlines()] if storage.exists(place) else []


class _LogWatch:
    """Tells the progress of other processes from their log."""

    def __init__(self, url: str, epochs: int, progress: Progress | None) -> None:
        self.url, self.epochs, self.progress, self.told = url, epochs, progress, len(_log(url))

    def __call__(self) -> None:
        for record in _log(self.url)[self.told :]:
            _tell(self.progress, record, self.epochs)
            self.told += 1


def _overridden(recipe: Recipe, epochs: int | None, seed: int | None) -> Recipe:
    training = recipe.training
    return replace(
        recipe,
        training=replace(
            training,
            epochs=training.epochs if epochs is None else epochs,
            seed=training.seed if seed is None else seed,
        ),
    )


def planned(recipe: Recipe, data: LabelledStamps, processes: int = 1) -> Plan:
    """Task, splits and targets, all refused before the first step if they cannot be used.

    Raises:
        InputError: recipe, labels or splits that cannot be used.
    """
    task = recipe.build_task()
    task = fitted_to(task, data)
    rows = data.split(recipe.split, task.usable(data.labels))
    if len(rows["train"]) == 0:
        raise InputError(
            f"the train split of {data.labels.num_rows} objects is empty: give more data or other fractions"
        )
    table = data.labels.take(pa.array(rows["train"]))
    task = task.adapted(table, data.sample(rows["train"], _SAMPLE, recipe.training.seed))
    targets = {name: task.targets(data.labels.take(pa.array(rows[name]))) for name in SPLITS}
    task.check_splits(targets)
    return Plan(recipe, task, data, rows, targets, identity_of(recipe, data, processes))


def identity_of(recipe: Recipe, data: LabelledStamps, processes: int = 1) -> str:
    """Digest of all that a training's result depends on."""
    plain = {**to_mapping(recipe), "split": split_record(recipe.split)}
    if recipe.adversarial.epochs == 0:  # what was made before there was such a table keeps its identity
        del plain["adversarial"]
    parts = [plain, data.digest] + ([processes] if processes > 1 else [])
    return storage.digest(*parts)


def fitted_to(task: Task, data: LabelledStamps) -> Task:
    """The task with what the recipe left to the data: bands, stamp size, pixel scale and kind of pixels.

    Raises:
        InputError: a task that cannot work on these data.
    """
    source = data.first
    settings = task.settings
    if settings.any_band and len(settings.bands or source.bands) != 1:
        raise InputError(
            f"a model that takes any band is trained on one, and the data have {', '.join(source.bands)}: "
            f'set bands = ["{source.bands[0]}"] or any_band = false in [settings] of the recipe'
        )
    task = task.with_settings(
        bands=settings.bands or source.bands,
        stamp_size=settings.stamp_size or min(source.size),
        pixel_scale=settings.pixel_scale or source.pixel_scale,
        dtype="uint8" if source.dtype == np.uint8 else "float32",
    )
    chosen = task.check_source(
        bands=source.bands,
        pixel_scale=source.pixel_scale,
        size=source.size,
        dtype=source.dtype.name,
        has_psf=source.has_psf,
    )
    return task.with_settings(bands=chosen)


def fresh_network(plan: Plan) -> nn.Module:
    """The network with weights drawn from the recipe's seed; the caller's random numbers are left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(plan.recipe.training.seed)
        return plan.task.build_network(plan.recipe.network, plan.recipe.network_arguments)


def _finished(url: str, identity: str) -> ModelBundle | None:
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


def finish(
    plan: Plan, result: FitResult, url: str, device: str, record: Mapping[str, Any] | None = None
) -> ModelBundle:
    """Calibrate on the validation split, score once on the test split, write the bundle, drop the checkpoint.

    Args:
        plan, result: of the training.
        url: folder or URL of the bundle.
        device: torch device.
        record: more for the card's `training`.
    """
    network = averaged(plan.task, result.network)
    found = {name: outputs_of(plan.task, network, plan.stream(name), device) for name in plan.task.calibrates_on}
    outputs, targets = (torch.cat([part[number] for part in found.values()]) for number in (0, 1))
    task = plan.task.calibrated(outputs, targets)
    metrics = {}
    for name in ("validation", "test"):
        outputs, targets, rows = outputs_of(task, network, plan.stream(name), device)
        metrics[name] = task.metrics(outputs, targets, plan.table(rows))
        if type(task).asked is not Task.asked:  # the loss, and what else only the task's own question tells
            outputs, targets, _ = outputs_of(task, network, plan.stream(name), device, asked=True)
            metrics[name] |= task.metrics(outputs, targets)
    card = Card(
        name=url.rstrip("/").rpartition("/")[2],
        task=plan.recipe.task,
        settings=task.to_settings(),
        network=plan.recipe.network,
        network_arguments=plan.recipe.network_arguments,
        training={**_training_record(plan, result), **(record or {})},
        metrics=finite(metrics),
        versions=_versions(),
        description=plan.recipe.description,
        licence=plan.recipe.licence,
    )
    bundle = ModelBundle.save(url, result.network, card)
    storage.remove(storage.join(url, CHECKPOINT))
    storage.remove(storage.join(url, adversarial.CHECKPOINT))
    return bundle


def _training_record(plan: Plan, result: FitResult) -> dict[str, Any]:
    """What the card says of the training; sources by their last name only, since paths mean nothing elsewhere."""
    sources = [
        {"name": source.url.rstrip("/").rpartition("/")[2], "id": source.id, "objects": source.count}
        for source in plan.data.sources
    ]
    return {
        "sources": sources,
        "digest": plan.data.digest,
        "identity": plan.identity,
        "objects": {name: len(rows) for name, rows in plan.rows.items()},
        "left_out": plan.data.labels.num_rows - sum(len(rows) for rows in plan.rows.values()),
        "split": split_record(plan.recipe.split),
        "split_ids": plan.data.split_identity(plan.rows),
        "settings": to_mapping(plan.recipe.training),
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
    }


def _versions() -> dict[str, str]:
    return {
        "astroml_plugin": astroml_plugin.__version__,
        "code": code_digest(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def _result(bundle: ModelBundle, started: float, *, skipped: bool = False) -> TrainResult:
    record = bundle.card.training
    return TrainResult(
        bundle.url,
        record["epochs"],
        record["best_epoch"],
        record["objects"]["train"],
        bundle.card.metrics,
        time.perf_counter() - started,
        skipped,
    )


def finite(value: Any) -> Any:
    """Plain JSON: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_figure(url: str, figure: Any) -> None:
    """A matplotlib figure as PNG."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=120)
    storage.write_atomic(url, sink.getvalue())
