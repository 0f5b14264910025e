"""Fitting a network to a task: schedule, clipping, early stopping, checkpoints that resume to identical losses.

Everything random is drawn from (seed, epoch), so that the state at the end of an epoch is weights, optimizer state and
a number. A checkpoint is one safetensors file, its plain values in the header.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from astroml_plugin import storage
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.errors import DivergedError, InputError
from astroml_plugin.flags import ObjectFlag
from astroml_plugin.settings import refuse_choices
from astroml_plugin.stream import Batch
from astroml_plugin.tasks.base import Task

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": lambda parameters, lr, weight_decay: torch.optim.SGD(parameters, lr, 0.9, weight_decay=weight_decay),
}


@dataclass(frozen=True)
class TrainingSettings:
    """How the network is fitted."""

    epochs: int = 12
    """Passes over the training split, at most."""
    batch_size: int = 128
    """Stamps per step."""
    optimizer: str = "adamw"
    """adamw, adam or sgd (momentum 0.9)."""
    learning_rate: float = 2e-3
    """Highest learning rate of the schedule."""
    weight_decay: float = 1e-4
    """Of the optimizer."""
    schedule: str = "one_cycle"
    """one_cycle (linear warm-up, then half a cosine to 0), cosine (no warm-up) or constant."""
    warmup: float = 0.15
    """Fraction of the whole training that warms up."""
    clip: float = 5.0
    """Largest norm of the gradient; 0 does not clip."""
    patience: int = 8
    """Epochs without a better validation loss after which it stops; 0 never stops."""
    augment: bool = True
    """Random rotations and mirrorings of each object in each epoch."""
    seed: int = 0
    """Of weights, order and augmentation."""
    memory: float = 2e9
    """Bytes of decoded stamps to hold."""

    def __post_init__(self) -> None:
        refuse_choices(
            self, {"optimizer": tuple(_OPTIMIZERS), "schedule": ("one_cycle", "cosine", "constant")}, "training"
        )
        if self.epochs < 1 or self.batch_size < 2 or self.learning_rate <= 0 or self.seed < 0:
            raise InputError(
                f"training needs epochs of 1 or more ({self.epochs}), batch_size of 2 or more ({self.batch_size}), "
                f"learning_rate above 0 ({self.learning_rate}) and a seed of 0 or more ({self.seed})"
            )


class Batches(Protocol):
    """What `fit` needs of its data; `stream.BlockStream` is one."""

    def __len__(self) -> int:
        """Objects."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """Shuffled batches of one epoch."""

    def ordered(self) -> Iterator[Batch]:
        """The same batches every time."""


@dataclass(frozen=True)
class FitResult:
    """A finished training."""

    network: nn.Module
    """With the best weights, in eval mode."""
    history: list[dict[str, Any]]
    """One record per epoch, as in the log."""
    best_epoch: int
    """Epoch of the best validation loss."""
    stopped: str
    """"done", "early" or "reported"."""


@dataclass
class _State:
    """What a checkpoint holds beside weights and optimizer."""

    identity: str
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = math.inf
    stopped: str = ""
    best: dict[str, Tensor] = field(default_factory=dict)


def fit(
    task: Task,
    network: nn.Module,
    train: Batches,
    validation: Batches,
    settings: TrainingSettings,
    *,
    out: str,
    identity: str = "",
    resume: bool = True,
    report: Callable[[dict[str, Any]], bool | None] | None = None,
    device: str = "cpu",
) -> FitResult:
    """Train `network` on `train`, keep the weights that are best on `validation`.

    Args:
        task: normalises, augments and scores.
        network: fresh; its weights are changed in place.
        train, validation: the data.
        settings: how.
        out: folder or URL of checkpoint and log; a checkpoint found there is continued.
        identity: digest of recipe and data; a checkpoint of another one is refused.
        resume: False starts anew.
        report: called with each epoch's record; a true answer stops the training.
        device: torch device.

    Raises:
        DivergedError: the loss is no longer finite; the last good checkpoint is kept.
        InputError: the checkpoint belongs to another training.
    """
    network.to(torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    make = _OPTIMIZERS[settings.optimizer]
    optimizer = make(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    state = _restore(out, identity, network, optimizer) if resume else None
    state = state or _State(identity)
    with torch.random.fork_rng():
        while len(state.history) < settings.epochs and not state.stopped:
            epoch = len(state.history)
            started = time.perf_counter()
            record = {"epoch": epoch, **_one_epoch(task, network, optimizer, train, settings, epoch, out, device)}
            trained = time.perf_counter() - started
            record["objects_per_second"] = round(len(train) / trained, 1)
            record.update(_validate(task, network, validation, device))
            record["seconds"] = round(time.perf_counter() - started, 3)
            _keep(state, record, network, settings)
            if report is not None and report(record):
                state.stopped = state.stopped or "reported"
            _save(out, state, network, optimizer)
    network.load_state_dict(state.best)
    return FitResult(network.eval(), state.history, state.best_epoch, state.stopped or "done")


def learning_rate(settings: TrainingSettings, progress: float) -> float:
    """The rate after a fraction `progress` of the whole training."""
    warmup = settings.warmup if settings.schedule == "one_cycle" else 0.0
    if settings.schedule == "constant":
        return settings.learning_rate
    if progress < warmup:
        return settings.learning_rate * (0.04 + 0.96 * progress / warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def _one_epoch(
    task: Task,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Batches,
    settings: TrainingSettings,
    epoch: int,
    out: str,
    device: str,
) -> dict[str, Any]:
    """One pass; mean loss, last rate and how many stamps could not be used."""
    network.train()
    torch.manual_seed(int(np.random.SeedSequence([settings.seed, epoch, 1]).generate_state(1)[0]))  # dropout
    generator = torch.Generator().manual_seed(
        int(np.random.SeedSequence([settings.seed, epoch, 2]).generate_state(1)[0])
    )
    total, used, seen, rate = 0.0, 0, 0, settings.learning_rate
    for batch in train.epoch(epoch):
        rate = learning_rate(settings, (epoch + seen / len(train)) / settings.epochs)
        seen += len(batch.rows)
        inputs, targets, _ = ready(task, batch, device)
        if len(targets) < 2:  # batch normalisation has no width of one object
            continue
        if settings.augment:
            inputs, targets = task.augment(inputs, targets, generator)
        loss = _step(task, network, optimizer, inputs, targets, rate, settings.clip)
        if not math.isfinite(loss):
            kept = f"; the checkpoint of epoch {epoch - 1} is kept in {storage.redact(out)}" if epoch else ""
            raise DivergedError(
                f"the loss became {loss} in epoch {epoch} after {seen} objects at a learning rate of {rate:.3g}: "
                f"lower learning_rate or check the labels{kept}"
            )
        total, used = total + loss * len(targets), used + len(targets)
    if used == 0:
        raise InputError(f"none of the {seen} training stamps has a valid pixel: check the images and their masks")
    return {"train_loss": total / used, "learning_rate": rate, "unusable": seen - used}


def _step(
    task: Task,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: tuple[Tensor, ...],
    targets: Tensor,
    rate: float,
    clip: float,
) -> float:
    """One gradient step; gives the loss, without stepping when it is not finite."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss = task.loss(network(*inputs), targets)
    value = float(loss.detach())
    if not math.isfinite(value):
        return value
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), clip if clip > 0 else math.inf)
    if not bool(torch.isfinite(norm)):
        return math.nan
    optimizer.step()
    return value


def ready(task: Task, batch: Batch, device: str) -> tuple[tuple[Tensor, ...], Tensor, np.ndarray]:
    """Network inputs, targets and rows of a batch on the device, without stamps that have no valid pixel."""
    inputs, flags = task.prepare(moved(batch.cutouts, device))
    targets = batch.targets.to(device)
    usable = (flags & int(ObjectFlag.NONFINITE)) == 0
    if bool(usable.all()):
        return inputs, targets, batch.rows
    return tuple(item[usable] for item in inputs), targets[usable], batch.rows[usable.cpu().numpy()]


def moved(cutouts: Cutouts, device: str) -> Cutouts:
    """The stamps on a device; the jacobian stays on the CPU."""
    if torch.device(device) == cutouts.image.device:
        return cutouts
    names = ("image", "variance", "valid", "psf", "flags")
    present = {name: value for name in names if (value := getattr(cutouts, name)) is not None}
    fields = {name: value.to(device, non_blocking=True) for name, value in present.items()}
    return Cutouts(
        **{**{"variance": None, "psf": None}, **fields},
        jacobian=cutouts.jacobian,
        bands=cutouts.bands,
        pixel_scale=cutouts.pixel_scale,
    )


def outputs_of(task: Task, network: nn.Module, data: Batches, device: str = "cpu") -> tuple[Tensor, Tensor, np.ndarray]:
    """Outputs (n, ...), targets (n, ...) and rows (n,) on the CPU; stamps without a valid pixel are left out."""
    network.eval()
    outputs, targets, rows = [], [], []
    with torch.inference_mode():
        for batch in data.ordered():
            inputs, wanted, numbers = ready(task, batch, device)
            outputs.append(network(*inputs).float().cpu())
            targets.append(wanted.cpu())
            rows.append(numbers)
    return torch.cat(outputs), torch.cat(targets), np.concatenate(rows)


def _validate(task: Task, network: nn.Module, validation: Batches, device: str) -> dict[str, Any]:
    """Validation loss and the task's scalar metrics."""
    outputs, targets, _ = outputs_of(task, network, validation, device)
    metrics = task.metrics(outputs, targets)
    scalars = {name: value for name, value in metrics.items() if isinstance(value, int | float) and name != "loss"}
    return {
        "validation_loss": float(metrics["loss"]),
        **{f"validation_{name}": value for name, value in scalars.items()},
    }


def _keep(state: _State, record: dict[str, Any], network: nn.Module, settings: TrainingSettings) -> None:
    """Append the record; keep the weights if they are the best so far, stop if none was for too long."""
    state.history.append(record)
    loss = record["validation_loss"]
    if loss < state.best_loss or not state.best:
        state.best_loss = loss if math.isfinite(loss) else math.inf
        state.best_epoch = record["epoch"]
        state.best = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    elif settings.patience and record["epoch"] - state.best_epoch >= settings.patience:
        state.stopped = "early"


def _save(out: str, state: _State, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Log and checkpoint, each written whole or not at all."""
    lines = "".join(json.dumps(record) + "\n" for record in state.history)
    storage.write_atomic(storage.join(out, LOG), lines.encode())
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items() if value is not None}
    plain = {
        "identity": state.identity,
        "history": state.history,
        "best_epoch": state.best_epoch,
        "best_loss": state.best_loss if math.isfinite(state.best_loss) else None,
        "stopped": state.stopped,
    }
    data = safetensors.torch.save(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
        metadata={"state": json.dumps(plain)},
    )
    storage.write_atomic(storage.join(out, CHECKPOINT), data)


def _restore(out: str, identity: str, network: nn.Module, optimizer: torch.optim.Optimizer) -> _State | None:
    """The state of the checkpoint in `out`, its weights put into network and optimizer; None where there is none."""
    url = storage.join(out, CHECKPOINT)
    if not storage.exists(url):
        return None
    data = storage.read_bytes(url)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    plain = json.loads(header["__metadata__"]["state"])
    if plain["identity"] != identity:
        raise InputError(
            f"{storage.redact(out)} holds the checkpoint of a training with another recipe, seed or data: "
            f"choose another output or remove it"
        )
    tensors = safetensors.torch.load(data)
    network.load_state_dict(_below(tensors, "network."))
    optimizer_state = optimizer.state_dict()
    for name, value in _below(tensors, "optimizer.").items():
        number, _, key = name.partition(".")
        optimizer_state["state"].setdefault(int(number), {})[key] = value
    optimizer.load_state_dict(optimizer_state)
    best_loss = math.inf if plain["best_loss"] is None else plain["best_loss"]
    return _State(
        identity, plain["history"], plain["best_epoch"], best_loss, plain["stopped"], _below(tensors, "best.")
    )


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
