"""From a recipe and labelled stamps to a bundle: fit, calibrate, score, write; alone or in several processes."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import to_mapping
from astroml_plugin.core.version import code_digest, version
from astroml_plugin.evaluation.figures import training_curves, write_figure
from astroml_plugin.tasks.base import Task
from astroml_plugin.training import adversarial, distributed
from astroml_plugin.training.adversarial import fit_adversarial
from astroml_plugin.training.batches import LabelledStamps, split_record
from astroml_plugin.training.bundle import CARD, Card, ModelBundle
from astroml_plugin.training.fit import CHECKPOINT, LOG, FitResult, fit, outputs_of
from astroml_plugin.training.plan import Plan, initial_network, plan_training
from astroml_plugin.training.recipe import Recipe, to_toml

Progress = Callable[..., None]
"""Called as progress(what, done, total, note) after every epoch."""


def train_bundle(
    recipe: Recipe,
    sources: Sequence[str],
    url: str,
    *,
    device: str | None = None,
    processes: int = 1,
    resume: bool = True,
    progress: Progress | None = None,
) -> tuple[ModelBundle, bool]:
    """Train a recipe on stamps and write the bundle; gives it, and whether it was there already.

    Args:
        recipe: how.
        sources: `Stamps` with label columns.
        url: folder or URL of the bundle.
        device: torch device; default CUDA where there is one.
        processes: processes of this machine that train together.
        resume: False starts anew instead of continuing from a checkpoint.
        progress: told after every epoch.

    Raises:
        InputError: labels or splits that cannot be used, or `url` holds something else.
        DivergedError: the loss is no longer finite; the last good checkpoint is kept.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if processes == 1:
        return _train_here(recipe, sources, url, device, resume, progress)
    watch = _LogWatch(url, recipe.training.epochs, progress)
    distributed.spawn(processes, _train_here, recipe, list(sources), url, device, resume, watch=watch)
    return ModelBundle.load(url), False


def _train_here(
    recipe: Recipe, urls: Sequence[str], url: str, device: str, resume: bool, progress: Progress | None = None
) -> tuple[ModelBundle, bool]:
    """Train in this process, alone or as one of a group; gives the bundle and whether it was there already."""
    with distributed.joined_group(device) as group:
        device = group.own_device(device)
        plan = plan_training(recipe, LabelledStamps(urls), group.size)
        finished = _finished(url, plan.identity)
        if finished is not None:
            return finished, True
        if group.first:
            storage.write_atomic(storage.join(url, "recipe.toml"), to_toml(recipe).encode())
        network = initial_network(plan)
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
            write_bundle(plan, result, url, device)
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
        write_figure(storage.join(url, "training.png"), training_curves([*earlier, record]))
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


def write_bundle(
    plan: Plan, result: FitResult, url: str, device: str, record: Mapping[str, Any] | None = None
) -> ModelBundle:
    """Calibrate on the validation split, score once on the test split, write the bundle, drop the checkpoint.

    Args:
        plan, result: of the training.
        url: folder or URL of the bundle.
        device: torch device.
        record: more for the card's `training`.
    """
    network = plan.task.inference_network(result.network)
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
        metrics=storage.finite(metrics),
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
        "astroml_plugin": version(),
        "code": code_digest(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
