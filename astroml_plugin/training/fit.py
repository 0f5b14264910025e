"""Fitting a network to a task: schedule, clipping, averaging, early stopping, checkpoints that resume identically.

Everything random is drawn from (seed, epoch), so that the state at the end of an epoch is weights, optimizer state and
a number. A checkpoint is one safetensors file, its plain values in the header. Several processes of a `Group` train
one network on their shares of the data (torch's DistributedDataParallel); the first of them keeps the records.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from astroml_plugin.core import storage
from astroml_plugin.core.errors import DivergedError, InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.settings import refuse_choices
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.tasks.augmentation import Warp
from astroml_plugin.tasks.base import SYMMETRIES, Task, transform
from astroml_plugin.training.batches import Batch
from astroml_plugin.training.distributed import ALONE, Group

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": lambda parameters, lr, weight_decay: torch.optim.SGD(parameters, lr, 0.9, weight_decay=weight_decay),
    "rmsprop": torch.optim.RMSprop,
    "nadam": torch.optim.NAdam,
    "adagrad": torch.optim.Adagrad,
}
_SCHEDULES = ("one_cycle", "cosine", "step", "constant")
_STEPS, _STEP_FACTOR = 3, 0.1
_ASKED_SEED = 9001
"""Of the questions that validation asks."""


@dataclass(frozen=True)
class TrainingSettings:
    """How the network is fitted."""

    epochs: int = 12
    """Passes over the training split, at most."""
    batch_size: int = 128
    """Stamps per step."""
    optimizer: str = "adamw"
    """adamw, adam, nadam, rmsprop, adagrad or sgd (momentum 0.9)."""
    learning_rate: float = 2e-3
    """Highest learning rate of the schedule."""
    weight_decay: float = 1e-4
    """Of the optimizer."""
    schedule: str = "one_cycle"
    """one_cycle (linear warm-up, half a cosine to 0), cosine (no warm-up), step (a tenth at each third), constant."""
    warmup: float = 0.15
    """Fraction of the whole training that warms up."""
    clip: float = 5.0
    """Largest norm of the gradient; 0 does not clip."""
    ema: float = 0.0
    """Decay per step of an exponential average of the weights, which then is what is validated and kept; 0: none."""
    precision: str = "float32"
    """float32, or bfloat16: the forward pass in mixed precision (for GPUs; CPUs are mostly slower with it)."""
    patience: int = 8
    """Epochs without a better validation loss after which it stops; 0 never stops."""
    augment: bool = True
    """Random quarter turns and mirrorings of each object in each epoch."""
    warp: Warp = field(default_factory=Warp)
    """Further random changes of each object in each epoch: any angle, shifts, brightness."""
    mixup: float = 0.0
    """Batches are blended with themselves in another order, by parts drawn from Beta(mixup, mixup), and so are their
    losses (Zhang et al. 2018); 0 for none. A regulariser for small training sets."""
    seed: int = 0
    """Of weights, order and augmentation."""
    memory: float = 2e9
    """Bytes of decoded stamps to hold."""
    cache: bool = False
    """Keep what the fixed first layer (`stem`) of the network gives for every training stamp in its eight
    orientations: later epochs read no pixels. Only for networks that have one."""

    def __post_init__(self) -> None:
        refuse_choices(
            self,
            {"optimizer": tuple(_OPTIMIZERS), "schedule": _SCHEDULES, "precision": ("float32", "bfloat16")},
            "training",
        )
        if not 0 <= self.ema < 1:
            raise InputError(f"training ema ({self.ema}) is a decay per step: 0 for none, else below 1, such as 0.999")
        if self.mixup < 0 or (self.cache and (self.warp or self.mixup)):
            raise InputError(
                f"training mixup ({self.mixup}) must be 0 or more, and with a cache there is neither warp nor mixup"
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

    def epoch(self, number: int) -> Iterator[Batch | StemBatch]:
        """Shuffled batches of one epoch."""

    def ordered(self) -> Iterator[Batch | StemBatch]:
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
    """"done", "early", "reported" or "paused"."""


@dataclass
class _State:
    """What a checkpoint holds beside weights and optimizer."""

    identity: str
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = math.inf
    stopped: str = ""
    steps: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class _Loop:
    """What the steps of one training share."""

    task: Task
    network: nn.Module
    """With the weights that the optimizer changes."""
    wrapped: nn.Module
    """The same, or around it what averages gradients over processes."""
    averaged: nn.Module | None
    """With the exponential average of the weights."""
    optimizer: torch.optim.Optimizer
    settings: TrainingSettings
    device: str
    out: str
    group: Group
    steps: int = 0
    """Steps taken, over all epochs."""

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.averaged or self.network

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass."""
        if self.settings.precision == "float32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)


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
    until: int | None = None,
    report: Callable[[dict[str, Any]], bool | None] | None = None,
    device: str = "cpu",
    group: Group = ALONE,
) -> FitResult:
    """Train `network` on `train`, keep the weights that are best on `validation`.

    Args:
        task: normalises, augments and scores.
        network: fresh; its weights are changed in place.
        train, validation: the data; `train` is this process's share, or a `StemCache` of it.
        settings: how.
        out: folder or URL of checkpoint and log; a checkpoint found there is continued.
        identity: digest of recipe and data; a checkpoint of another one is refused.
        resume: False starts anew.
        until: pause after so many epochs in all; the same call with a later one goes on.
        report: called with each epoch's record once its checkpoint is written, in the first process only; a true
            answer stops the training.
        device: torch device.
        group: the processes that train together.

    Raises:
        DivergedError: the loss is no longer finite; the last good checkpoint is kept.
        InputError: the checkpoint belongs to another training, or a cache is asked of a network without a stem.
    """
    if settings.warp.turn and type(task).transform_targets is not Task.transform_targets:
        raise InputError("training warp turn is for tasks whose labels a turn does not change: use augment alone")
    loop = _loop(task, network, settings, out, device, group)
    state = _restore(out, identity, loop) if resume else None
    state = state or _State(identity)
    last = settings.epochs if until is None else min(until, settings.epochs)
    if settings.cache and not isinstance(train, StemCache) and len(state.history) < last and not state.stopped:
        train = StemCache(task, network, train, settings, device)
    with torch.random.fork_rng():
        while len(state.history) < last and not state.stopped:
            epoch = len(state.history)
            started, cpu = time.perf_counter(), time.process_time()
            record = {"epoch": epoch, **_one_epoch(loop, train, epoch)}
            trained = time.perf_counter() - started
            record["objects_per_second"] = round(group.size * len(train) / trained, 1)
            if group.first:
                record.update(_validate(task, loop.judged, validation, device))
                record["seconds"] = round(time.perf_counter() - started, 3)
                record["cpu_seconds"] = round(time.process_time() - cpu, 3)
                _keep(state, record, loop.judged, settings)
                _save(state, loop)
                if report is not None and report(record):
                    state.stopped = state.stopped or "reported"
                    _save(state, loop)
            else:
                state.history.append(record)
            state.stopped = "stopped" if group.agree(bool(state.stopped)) and not group.first else state.stopped
    network.load_state_dict(state.best or loop.judged.state_dict())
    stopped = state.stopped or ("done" if len(state.history) >= settings.epochs else "paused")
    return FitResult(network.eval(), state.history, state.best_epoch, stopped)


def _loop(task: Task, network: nn.Module, settings: TrainingSettings, out: str, device: str, group: Group) -> _Loop:
    """Network on its device, optimizer, average."""
    network.to(torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    make = _OPTIMIZERS[settings.optimizer]
    optimizer = make(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    averaged = copy.deepcopy(network).requires_grad_(False) if settings.ema else None
    return _Loop(task, network, group.wrap(network), averaged, optimizer, settings, device, out, group)


def learning_rate(settings: TrainingSettings, progress: float) -> float:
    """The rate after a fraction `progress` of the whole training."""
    warmup = settings.warmup if settings.schedule == "one_cycle" else 0.0
    if settings.schedule == "constant":
        return settings.learning_rate
    if settings.schedule == "step":
        return settings.learning_rate * _STEP_FACTOR ** min(_STEPS - 1, int(_STEPS * progress))
    if progress < warmup:
        return settings.learning_rate * (0.04 + 0.96 * progress / warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def _one_epoch(loop: _Loop, train: Batches, epoch: int) -> dict[str, Any]:
    """One pass; mean loss, last rate and how many stamps could not be used."""
    settings, rank = loop.settings, loop.group.rank
    loop.wrapped.train()
    torch.manual_seed(_seed(settings.seed, epoch, 1, rank))  # dropout
    generator = torch.Generator().manual_seed(_seed(settings.seed, epoch, 2, rank))
    total, used, seen, rate = 0.0, 0, 0, settings.learning_rate
    with loop.group.uneven(loop.wrapped):
        for batch in train.epoch(epoch):
            rate = learning_rate(settings, (epoch + seen / len(train)) / settings.epochs)
            inputs, targets, _ = ready(loop.task, batch, loop.device)
            seen += len(batch.rows)
            if len(targets) < 2:  # batch normalisation has no width of one object
                continue
            if not isinstance(batch, StemBatch):
                inputs, targets = _changed(loop, inputs, targets, generator)
            loss = _step(loop, *_mixed(settings, inputs, targets, generator), rate)
            if not math.isfinite(loss):
                raise _diverged(loop, loss, epoch, seen, rate)
            total, used = total + loss * len(targets), used + len(targets)
    if used == 0:
        raise InputError(f"none of the {seen} training stamps has a valid pixel: check the images and their masks")
    return {"train_loss": total / used, "learning_rate": rate, "unusable": seen - used}


def _changed(
    loop: _Loop, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
) -> tuple[tuple[Tensor, ...], Tensor]:
    """A batch as this epoch shows it."""
    if loop.settings.augment:
        inputs, targets = loop.task.augment(inputs, targets, generator)
    inputs = loop.settings.warp.apply(inputs, generator) if loop.settings.warp else inputs
    return loop.task.asked(inputs, targets, generator)


def _mixed(
    settings: TrainingSettings, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
) -> tuple[tuple[Tensor, ...], list[tuple[float, Tensor]]]:
    """Inputs, and targets with their parts of the loss."""
    if not settings.mixup:
        return inputs, [(1.0, targets)]
    seed = int(torch.randint(2**31, (1,), generator=generator))
    part = float(np.random.default_rng(seed).beta(settings.mixup, settings.mixup))
    order = torch.randperm(len(targets), generator=generator).to(targets.device)
    mixed = tuple(part * item + (1 - part) * item[order] for item in inputs)
    return mixed, [(part, targets), (1 - part, targets[order])]


def _seed(*parts: int) -> int:
    """One seed from several numbers; a trailing 0 (the first process) changes nothing."""
    return int(np.random.SeedSequence(parts[:-1] if parts[-1] == 0 else parts).generate_state(1)[0])


def _diverged(loop: _Loop, loss: float, epoch: int, seen: int, rate: float) -> DivergedError:
    kept = f"; the checkpoint of epoch {epoch - 1} is kept in {storage.redact(loop.out)}" if epoch else ""
    return DivergedError(
        f"the loss became {loss} in epoch {epoch} after {seen} objects at a learning rate of {rate:.3g}: "
        f"lower learning_rate or check the labels{kept}"
    )


def _step(loop: _Loop, inputs: tuple[Tensor, ...], targets: list[tuple[float, Tensor]], rate: float) -> float:
    """One gradient step; gives the loss, a sum of parts, without stepping when it is not finite."""
    for group in loop.optimizer.param_groups:
        group["lr"] = rate
    loop.optimizer.zero_grad(set_to_none=True)
    with loop.autocast():
        outputs = loop.wrapped(*inputs)
    loss = torch.stack([part * loop.task.loss(outputs.float(), wanted) for part, wanted in targets]).sum()
    value = float(loss.detach())
    if not math.isfinite(value):
        return value
    loss.backward()
    clip = loop.settings.clip
    norm = nn.utils.clip_grad_norm_(loop.network.parameters(), clip if clip > 0 else math.inf)
    if not bool(torch.isfinite(norm)):
        return math.nan
    loop.optimizer.step()
    loop.steps += 1
    _average(loop)
    return value


def _average(loop: _Loop) -> None:
    """Move the average towards the weights; young averages follow faster. Buffers (batch statistics) are copied."""
    if loop.averaged is None:
        return
    weight = 1 - min(loop.settings.ema, (1 + loop.steps) / (10 + loop.steps))
    with torch.no_grad():
        torch._foreach_lerp_(list(loop.averaged.parameters()), list(loop.network.parameters()), weight)
        for ours, theirs in zip(loop.averaged.buffers(), loop.network.buffers()):
            ours.copy_(theirs)


@dataclass(frozen=True)
class StemBatch:
    """What the network's fixed first layer gives, and what to learn from it."""

    inputs: tuple[Tensor, ...]
    """(n, features)"""
    targets: Tensor
    """(n, ...)"""
    rows: np.ndarray
    """(n,)"""


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
        parts = [self._featured(task, network, ready(task, batch, device)) for batch in data.ordered()]
        self.features, self.targets = (torch.cat([part[number] for part in parts]) for number in (0, 1))
        self.rows = np.concatenate([part[2] for part in parts])

    def _featured(
        self, task: Task, network: nn.Module, given: tuple[tuple[Tensor, ...], Tensor, np.ndarray]
    ) -> tuple[Tensor, Tensor, np.ndarray]:
        """Features (n, symmetries, f) and targets (n, symmetries, ...) of a batch."""
        inputs, targets, rows = given
        with torch.no_grad():
            features = [network.stem(*(transform(item, one) for item in inputs)) for one in self.symmetries]  # type: ignore[operator]
        learned = [task.transform_targets(targets, one) for one in self.symmetries]
        return torch.stack(features, dim=1), torch.stack(learned, dim=1), rows

    def under(self, settings: TrainingSettings) -> StemCache:
        """The same features in batches of other settings, which must agree in `augment`."""
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


def ready(task: Task, batch: Batch | StemBatch, device: str) -> tuple[tuple[Tensor, ...], Tensor, np.ndarray]:
    """Network inputs, targets and rows of a batch on the device, without stamps that have no valid pixel."""
    if isinstance(batch, StemBatch):
        return batch.inputs, batch.targets, batch.rows
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


def outputs_of(
    task: Task, network: nn.Module, data: Batches, device: str = "cpu", *, asked: bool = False
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Outputs (n, ...), targets (n, ...) and rows (n,) on the CPU; stamps without a valid pixel are left out.

    Args:
        task, network, data, device: whose.
        asked: of what `Task.asked` makes of the stamps, the same every time, instead of the stamps as they are.
    """
    network.eval()
    generator = torch.Generator().manual_seed(_ASKED_SEED)
    outputs, targets, rows = [], [], []
    with torch.inference_mode():
        for batch in data.ordered():
            inputs, wanted, numbers = ready(task, batch, device)
            if asked and not isinstance(batch, StemBatch):
                inputs, wanted = task.asked(inputs, wanted, generator)
            outputs.append(network(*inputs).float().cpu())
            targets.append(wanted.cpu())
            rows.append(numbers)
    return torch.cat(outputs), torch.cat(targets), np.concatenate(rows)


def _validate(task: Task, network: nn.Module, validation: Batches, device: str) -> dict[str, Any]:
    """Validation loss and the task's scalar metrics."""
    outputs, targets, _ = outputs_of(task, network, validation, device, asked=True)
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


def _save(state: _State, loop: _Loop) -> None:
    """Log and checkpoint, each written whole or not at all."""
    lines = "".join(json.dumps(record) + "\n" for record in state.history)
    storage.write_atomic(storage.join(loop.out, LOG), lines.encode())
    tensors = {f"network.{name}": value for name, value in loop.network.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    if loop.averaged is not None:
        tensors |= {f"averaged.{name}": value for name, value in loop.averaged.state_dict().items()}
    for number, values in loop.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items() if value is not None}
    plain = {
        "identity": state.identity,
        "history": state.history,
        "best_epoch": state.best_epoch,
        "best_loss": state.best_loss if math.isfinite(state.best_loss) else None,
        "stopped": state.stopped,
        "steps": loop.steps,
    }
    data = safetensors.torch.save(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
        metadata={"state": json.dumps(plain)},
    )
    storage.write_atomic(storage.join(loop.out, CHECKPOINT), data)


def history_of(out: str) -> list[dict[str, Any]]:
    """The records of the epochs that the checkpoint in `out` holds; none where there is no checkpoint."""
    data = _checkpoint(out)
    return [] if data is None else list(_plain_state(data)["history"])


def _checkpoint(out: str) -> bytes | None:
    url = storage.join(out, CHECKPOINT)
    return storage.read_bytes(url) if storage.exists(url) else None


def _plain_state(data: bytes) -> dict[str, Any]:
    """What the header of a checkpoint holds."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return dict(json.loads(header["__metadata__"]["state"]))


def _restore(out: str, identity: str, loop: _Loop) -> _State | None:
    """The state of the checkpoint in `out`, its weights put into networks and optimizer; None where there is none."""
    data = _checkpoint(out)
    if data is None:
        return None
    plain = _plain_state(data)
    if plain["identity"] != identity:
        raise InputError(
            f"{storage.redact(out)} holds the checkpoint of a training with another recipe, seed or data: "
            f"choose another output or remove it"
        )
    tensors = safetensors.torch.load(data)
    loop.network.load_state_dict(_below(tensors, "network."))
    if loop.averaged is not None:
        loop.averaged.load_state_dict(_below(tensors, "averaged."))
    loop.steps = plain.get("steps", 0)
    optimizer_state = loop.optimizer.state_dict()
    for name, value in _below(tensors, "optimizer.").items():
        number, _, key = name.partition(".")
        optimizer_state["state"].setdefault(int(number), {})[key] = value
    loop.optimizer.load_state_dict(optimizer_state)
    best_loss = math.inf if plain["best_loss"] is None else plain["best_loss"]
    best = _below(tensors, "best.")
    return _State(identity, plain["history"], plain["best_epoch"], best_loss, plain["stopped"], loop.steps, best)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
