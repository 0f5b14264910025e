"""Fitting a network to a task: schedule, clipping, averaging, early stopping, checkpoints that resume identically.

Everything random is drawn from (seed, epoch), so that the state at the end of an epoch is weights, optimizer state and
a number. A checkpoint is one safetensors file, its plain values in the header. Several processes of a `Group` train
one network on their shares of the data (torch's DistributedDataParallel); the first of them keeps the records.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.compute.device import forked_rng, place_network
from astroml_plugin.compute.exact import exact_float32
from astroml_plugin.core import storage
from astroml_plugin.core.errors import DivergedError, InputError
from astroml_plugin.tasks.base import Task
from astroml_plugin.training.batches import Batches, StemBatch
from astroml_plugin.training.checkpoint import (
    CHECKPOINT,
    below,
    optimizer_tensors,
    prefixed,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
    write_log,
)
from astroml_plugin.training.forward import network_inputs, network_outputs
from astroml_plugin.training.layer_watch import LayerWatch
from astroml_plugin.training.settings import OPTIMIZERS, EpochRecord, TrainingRun, TrainingSettings
from astroml_plugin.training.stem_cache import StemCache


@dataclass(frozen=True)
class FitResult:
    """A finished training."""

    network: nn.Module
    """Network with the best weights, in eval mode."""
    history: list[EpochRecord]
    """One record per epoch, as in the log."""
    best_epoch: int
    """Epoch of the best validation loss."""
    stopped: str
    """"done", "early", "reported" or "paused"."""


@dataclass
class _State:
    """Plain values and best weights that a checkpoint holds beside network and optimizer."""

    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = math.inf
    stopped: str = ""
    best: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class _Loop:
    """Everything that the steps of one training share."""

    task: Task
    network: nn.Module
    """Network whose weights the optimizer changes."""
    wrapped: nn.Module
    """`network`, or its wrapper that averages gradients over processes."""
    averaged: nn.Module | None
    """Network with the exponential average of the weights; None without an average."""
    optimizer: torch.optim.Optimizer
    settings: TrainingSettings
    run: TrainingRun
    steps: int = 0
    """Steps taken, over all epochs."""

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.averaged or self.network

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the forward pass."""
        if self.settings.precision == "float32":
            return nullcontext()
        return torch.autocast(torch.device(self.run.device).type, dtype=torch.bfloat16)


@exact_float32()
def fit(
    task: Task, network: nn.Module, train: Batches, validation: Batches, settings: TrainingSettings, run: TrainingRun
) -> FitResult:
    """Train `network` on `train`, keep the weights that are best on `validation`.

    Args:
        task: normalises, augments and scores.
        network: fresh; its weights are changed in place.
        train, validation: the data; `train` is this process's share, or a `StemCache` of it.
        settings: how.
        run: where, and for how long.

    Raises:
        DivergedError: the loss is no longer finite; the last good checkpoint is kept.
        InputError: the checkpoint belongs to another training, or a cache is asked of a network without a stem.
    """
    if not settings.epochs:
        raise InputError("a fit needs epochs: give them, or let pacing.paced choose them for the number of stamps")
    if settings.warp is not None and settings.warp.turn and type(task).transform_targets is not Task.transform_targets:
        raise InputError("training warp turn is for tasks whose labels a turn does not change: use augment alone")
    loop, group = _loop(task, network, settings, run), run.group
    state = (_restore(loop) if run.resume else None) or _State()
    last = settings.epochs if run.until is None else min(run.until, settings.epochs)
    if settings.cache and not isinstance(train, StemCache) and len(state.history) < last and not state.stopped:
        train = StemCache(task, network, train, settings, run.device)
    with forked_rng(run.device):
        while len(state.history) < last and not state.stopped:
            epoch = len(state.history)
            started, cpu = time.perf_counter(), time.process_time()
            record = {"epoch": epoch, **_one_epoch(loop, train, epoch)}
            trained = time.perf_counter() - started
            record["objects_per_second"] = round(group.size * len(train) / trained, 1)
            if group.first:
                record.update(_validate(task, loop.judged, validation, run.device))
                record["seconds"] = round(time.perf_counter() - started, 3)
                record["cpu_seconds"] = round(time.process_time() - cpu, 3)
                _keep(state, record, loop.judged, settings)
                _save(state, loop)
                if run.report is not None and run.report(record):
                    state.stopped = state.stopped or "reported"
                    _save(state, loop)
            else:
                state.history.append(record)
            state.stopped = (
                "stopped" if group.broadcast_flag(bool(state.stopped)) and not group.first else state.stopped
            )
    network.load_state_dict(state.best or loop.judged.state_dict())
    stopped = state.stopped or ("done" if len(state.history) >= settings.epochs else "paused")
    return FitResult(network.eval(), state.history, state.best_epoch, stopped)


def _loop(task: Task, network: nn.Module, settings: TrainingSettings, run: TrainingRun) -> _Loop:
    """Network on its device, optimizer, average."""
    place_network(network, run.device)
    make = OPTIMIZERS[settings.optimizer]
    optimizer = make(_groups(network, run.rates), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    averaged = copy.deepcopy(network).requires_grad_(False) if settings.ema > 0 else None
    return _Loop(task, network, run.group.wrap(network), averaged, optimizer, settings, run)


def _groups(network: nn.Module, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameters of one factor on the learning rate together, in the order of the network; those of factor 0 are
    frozen: no gradient is computed for them, or counts in the norm that is clipped."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if rates.get(name, 1.0) > 0:
            groups.setdefault(rates.get(name, 1.0), []).append(parameter)
        else:
            parameter.requires_grad_(False)
    return [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]


def _one_epoch(loop: _Loop, train: Batches, epoch: int) -> EpochRecord:
    """One pass; mean loss, last rate, how many stamps could not be used, and what the last step did to the layers."""
    settings, rank = loop.settings, loop.run.group.rank
    loop.wrapped.train()
    torch.manual_seed(_seed(settings.seed, epoch, 1, rank))  # dropout
    generator = torch.Generator().manual_seed(_seed(settings.seed, epoch, 2, rank))
    total, used, seen, rate = 0.0, 0, 0, settings.learning_rate
    watch = LayerWatch(loop.network)
    with loop.run.group.uneven(loop.wrapped):
        for batch in train.epoch(epoch):
            rate = settings.rate((epoch + seen / len(train)) / settings.epochs)
            inputs, targets, _ = network_inputs(loop.task, batch, loop.run.device)
            seen, count = seen + len(batch.rows), len(targets)
            if count < 2:  # batch normalisation has no width of one object
                continue
            if not isinstance(batch, StemBatch):
                inputs, targets = _augmented(loop, inputs, targets, generator)
            watched = watch if seen >= len(train) else None
            loss = _step(loop, *_mixed(settings, inputs, targets, generator), rate, watched)
            if not math.isfinite(loss):
                raise _diverged(loop, loss, epoch, seen, rate)
            total, used = total + loss * count, used + count
    if used == 0:
        raise InputError(f"none of the {seen} training stamps has a valid pixel: check the images and their masks")
    return {"train_loss": total / used, "learning_rate": rate, "unusable": seen - used, **watch.record()}


def _augmented(
    loop: _Loop, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Augment a batch: symmetries, warp, the corruption of the task's pretext."""
    if loop.settings.augment:
        inputs, targets = loop.task.augment(inputs, targets, generator)
    inputs = loop.settings.warp.apply(inputs, generator) if loop.settings.warp else inputs
    return loop.task.pretext(inputs, targets, generator)


def _mixed(
    settings: TrainingSettings, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
) -> tuple[tuple[Tensor, ...], list[tuple[float, Tensor]]]:
    """Inputs, and targets with their parts of the loss."""
    if settings.mixup <= 0:
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
    kept = f"; the checkpoint of epoch {epoch - 1} is kept in {storage.redact(loop.run.out)}" if epoch else ""
    return DivergedError(
        f"the loss became {loss} in epoch {epoch} after {seen} objects at a learning rate of {rate:.3g}: "
        f"lower learning_rate or check the labels{kept}"
    )


def _step(
    loop: _Loop,
    inputs: tuple[Tensor, ...],
    targets: list[tuple[float, Tensor]],
    rate: float,
    watch: LayerWatch | None = None,
) -> float:
    """One gradient step; gives the loss, a sum of parts, without stepping when it is not finite."""
    for group in loop.optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    loop.optimizer.zero_grad(set_to_none=True)
    with loop.autocast(), watch.forward() if watch else nullcontext():
        outputs = loop.wrapped(*inputs)
    loss = torch.stack([part * loop.task.loss(outputs.float(), wanted) for part, wanted in targets]).sum()
    value = float(loss.detach())
    if not math.isfinite(value):
        return value
    loss.backward()
    if watch is not None:
        watch.look_back()
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


def _validate(task: Task, network: nn.Module, validation: Batches, device: str) -> EpochRecord:
    """Validation loss and the task's scalar metrics."""
    outputs, targets, _ = network_outputs(task, network, validation, device, pretext=True)
    metrics = task.metrics(outputs, targets)
    scalars = {name: value for name, value in metrics.items() if isinstance(value, int | float) and name != "loss"}
    return {
        "validation_loss": float(metrics["loss"]),
        **{f"validation_{name}": value for name, value in scalars.items()},
    }


def _keep(state: _State, record: EpochRecord, network: nn.Module, settings: TrainingSettings) -> None:
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
    """Write log and checkpoint, each whole or not at all."""
    write_log(loop.run.out, state.history)
    tensors = prefixed("network.", loop.network.state_dict()) | prefixed("best.", state.best)
    if loop.averaged is not None:
        tensors |= prefixed("averaged.", loop.averaged.state_dict())
    tensors |= prefixed("optimizer.", optimizer_tensors(loop.optimizer))
    plain = {
        "identity": loop.run.identity,
        "history": state.history,
        "best_epoch": state.best_epoch,
        "best_loss": state.best_loss if math.isfinite(state.best_loss) else None,
        "stopped": state.stopped,
        "steps": loop.steps,
    }
    write_checkpoint(storage.join(loop.run.out, CHECKPOINT), tensors, plain)


def _restore(loop: _Loop) -> _State | None:
    """The state of the checkpoint, its weights put into networks and optimizer; None where there is none."""
    found = read_checkpoint(loop.run.out, CHECKPOINT, loop.run.identity)
    if found is None:
        return None
    tensors, plain = found
    loop.network.load_state_dict(below(tensors, "network."))
    if loop.averaged is not None:
        loop.averaged.load_state_dict(below(tensors, "averaged."))
    restore_optimizer(loop.optimizer, below(tensors, "optimizer."))
    loop.steps = plain.get("steps", 0)
    best_loss = math.inf if plain["best_loss"] is None else plain["best_loss"]
    return _State(plain["history"], plain["best_epoch"], best_loss, plain["stopped"], below(tensors, "best."))
