"""Adversarial training of a generator against a critic, before `training.fit` trains the rest of the network.

Wasserstein distance with gradient penalty (Arjovsky et al. 2017; Gulrajani et al. 2017, NeurIPS 30, 5767). Nothing of a
batch of a bad epoch is kept: where the generator no longer varies (mode collapse) or numbers are not finite any more,
the last good epoch is what remains, and the record says so.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from astroml_plugin.compute.device import forked_rng
from astroml_plugin.compute.exact import exact_float32
from astroml_plugin.core import storage
from astroml_plugin.core.errors import DivergedError, InputError
from astroml_plugin.tasks.base import Task
from astroml_plugin.training.batches import Batches
from astroml_plugin.training.checkpoint import (
    below,
    optimizer_tensors,
    prefixed,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from astroml_plugin.training.forward import network_inputs
from astroml_plugin.training.settings import EpochRecord, TrainingRun

CHECKPOINT = "adversarial.safetensors"
"""Beside the checkpoint of `training.fit`."""

_BETAS = (0.5, 0.9)


@dataclass(frozen=True)
class AdversarialSettings:
    """How generator and critic are trained before the rest of the network."""

    epochs: int = 0
    """Passes over the training split; 0: the network has no adversaries."""
    learning_rate: float = 3e-4
    """Learning rate of generator and critic (Adam)."""
    critic_steps: int = 3
    """Steps of the critic for each of the generator."""
    penalty: float = 10.0
    """Weight of the gradient penalty."""
    average: float = 0.99
    """Decay per step of the generator's averaged weights, which are kept; less in the first steps, whose weights the
    average forgets."""
    least_spread: float = 0.25
    """Standard deviation over generated images, relative to that over real ones, below which it has collapsed."""
    patience: int = 3
    """Collapsed epochs in a row after which it stops."""

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.critic_steps < 1 or self.learning_rate <= 0 or self.penalty < 0 or self.patience < 1:
            raise InputError(
                f"adversarial training needs epochs of 0 or more ({self.epochs}), critic_steps ({self.critic_steps}) "
                f"and patience ({self.patience}) of 1 or more, a learning_rate above 0 ({self.learning_rate}) and a "
                f"penalty of 0 or more ({self.penalty})"
            )
        if not 0 <= self.average < 1 or not 0 <= self.least_spread < 1:
            raise InputError(
                f"adversarial average ({self.average}) and least_spread ({self.least_spread}) lie from 0 to below 1"
            )


@dataclass
class _State:
    history: list[EpochRecord] = field(default_factory=list)
    good_epoch: int = -1
    stopped: str = ""
    good: dict[str, Tensor] = field(default_factory=dict)
    """Averaged generator and critic of the last good epoch."""


class GanTrainer:
    """Both networks, their optimisers, and the generator's average."""

    def __init__(self, network: Any, settings: AdversarialSettings, device: str) -> None:
        self.network, self.settings, self.device = network.to(device), settings, device
        self.generator, self.critic = network.generator, network.critic
        rate = settings.learning_rate
        self.optimizers = {
            "generator": torch.optim.Adam(self.generator.parameters(), rate, _BETAS),
            "critic": torch.optim.Adam(self.critic.parameters(), rate, _BETAS),
        }
        self.average = {name: value.detach().clone() for name, value in self.generator.state_dict().items()}

    def made(self, count: int, random: torch.Generator) -> Tensor:
        """Generated images (count, b, s, s), with gradients."""
        output: Tensor = self.generator(self.network.drawn(count, random).to(self.device))
        return output

    def kept(self, count: int, random: torch.Generator) -> Tensor:
        """Images (count, b, s, s) of the averaged generator as it will be used, without gradients."""
        self.generator.eval()
        drawn = self.network.drawn(count, random).to(self.device)
        with torch.no_grad():
            output: Tensor = functional_call(self.generator, self.average, (drawn,))
        self.generator.train()
        return output

    def criticise(self, real: Tensor, random: torch.Generator) -> float:
        """One step of the critic; gives the distance it sees."""
        with torch.no_grad():
            fake = self.made(len(real), random)
        part = torch.rand(len(real), 1, 1, 1, generator=random).to(self.device)
        between = (part * real + (1 - part) * fake).requires_grad_(True)
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        distance = self.critic(real).mean() - self.critic(fake).mean()
        self._step("critic", self.settings.penalty * penalty - distance)
        return float(distance.detach())

    def imitate(self, count: int, random: torch.Generator) -> None:
        """One step of the generator."""
        self._step("generator", -self.critic(self.made(count, random)).mean())
        weight = 1 - min(self.settings.average, self._steps / (9 + self._steps))
        for name, value in self.generator.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, weight)
            else:
                self.average[name].copy_(value)

    @property
    def _steps(self) -> int:
        """Steps of the generator so far."""
        return int(next(iter(self.optimizers["generator"].state.values()))["step"])

    def _step(self, which: str, loss: Tensor) -> None:
        optimizer = self.optimizers[which]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Weights to keep of a good epoch: averaged generator and critic, on the CPU."""
        both = prefixed("generator.", self.average) | prefixed("critic.", self.critic.state_dict())
        return {name: value.detach().cpu().clone() for name, value in both.items()}


@exact_float32()
def fit_adversarial(
    task: Task, network: Any, train: Batches, settings: AdversarialSettings, run: TrainingRun, seed: int = 0
) -> list[EpochRecord]:
    """Train `network.generator` against `network.critic`; both then hold the weights of the last good epoch.

    Args:
        task: normalises and augments.
        network: with adversaries; changed in place.
        train: the data.
        settings: how.
        run: where; a finished checkpoint gives its weights.
        seed: seed of everything random.

    Returns:
        One record per epoch: epoch, distance, spread, good.

    Raises:
        InputError: a network without adversaries, or a checkpoint of another training.
        DivergedError: no epoch was good.
    """
    if not all(hasattr(network, name) for name in ("generator", "critic", "real", "drawn")):
        raise InputError("adversarial epochs are for networks with a generator and a critic, such as anogan")
    trainer = GanTrainer(network, settings, run.device)
    state = (_restored(run, trainer) if run.resume else None) or _State()
    with forked_rng(run.device):
        while len(state.history) < settings.epochs and not state.stopped:
            record = _epoch(task, trainer, train, len(state.history), seed)
            _judge(state, trainer, record)
            if run.report is not None:
                run.report(record)
            _save(run, state, trainer)
    if not state.good:
        told = state.history[-1] if state.history else {}
        raise DivergedError(
            f"the generator was never good in {len(state.history)} epochs (distance {told.get('distance')}, spread "
            f"{told.get('spread')}): lower the adversarial learning_rate or give more data"
        )
    for name in ("generator", "critic"):
        getattr(network, name).load_state_dict(below(state.good, f"{name}."))
        getattr(network, name).requires_grad_(False).eval()
    return state.history


def _epoch(task: Task, trainer: GanTrainer, train: Batches, epoch: int, seed: int) -> EpochRecord:
    """One pass; mean distance and how much images of the generator that is kept vary."""
    started = time.perf_counter()
    random = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    torch.manual_seed(1_000_003 * seed + epoch)
    trainer.generator.train()
    distances: list[float] = []
    real = torch.zeros(0)
    for step, batch in enumerate(train.epoch(epoch)):
        inputs, targets, _ = network_inputs(task, batch, trainer.device)
        if len(targets) < 2:
            continue
        inputs, _ = task.augment(inputs, targets, random)
        with torch.no_grad():
            real = trainer.network.real(*inputs)
        distances.append(trainer.criticise(real, random))
        if step % trainer.settings.critic_steps == 0:
            trainer.imitate(len(real), random)
    if not distances:
        raise InputError("none of the training stamps has a valid pixel: check the images and their masks")
    made = trainer.kept(max(64, len(real)), random)
    spread = float(made.std(0).mean() / real.std(0).mean().clamp_min(1e-9))
    return {
        "epoch": epoch,
        "distance": sum(distances) / len(distances),
        "spread": spread,
        "objects_per_second": round(len(train) / (time.perf_counter() - started), 1),
    }


def _judge(state: _State, trainer: GanTrainer, record: EpochRecord) -> None:
    """Keep a good epoch; stop after one that is not finite, or some that have collapsed."""
    finite = math.isfinite(record["distance"]) and math.isfinite(record["spread"])
    record["good"] = finite and record["spread"] >= trainer.settings.least_spread
    state.history.append(record)
    if record["good"]:
        state.good, state.good_epoch = trainer.state(), record["epoch"]
    elif not finite:
        state.stopped = "diverged"
    elif state.good and record["epoch"] - state.good_epoch >= trainer.settings.patience:
        state.stopped = "collapsed"
    if state.stopped:
        record["stopped"] = f"{state.stopped}; epoch {state.good_epoch} is kept"


def _save(run: TrainingRun, state: _State, trainer: GanTrainer) -> None:
    tensors = prefixed("good.", state.good) | prefixed("average.", trainer.average)
    for name, module in (("generator", trainer.generator), ("critic", trainer.critic)):
        tensors |= prefixed(f"now.{name}.", module.state_dict())
    for name, optimizer in trainer.optimizers.items():
        tensors |= prefixed(f"optimizer.{name}.", optimizer_tensors(optimizer))
    plain = {name: getattr(state, name) for name in ("history", "good_epoch", "stopped")}
    write_checkpoint(storage.join(run.out, CHECKPOINT), tensors, {"identity": run.identity, **plain})


def _restored(run: TrainingRun, trainer: GanTrainer) -> _State | None:
    found = read_checkpoint(run.out, CHECKPOINT, run.identity)
    if found is None:
        return None
    tensors, plain = found
    for name, module in (("generator", trainer.generator), ("critic", trainer.critic)):
        module.load_state_dict(below(tensors, f"now.{name}."))
    trainer.average = below(tensors, "average.")
    for name, optimizer in trainer.optimizers.items():
        restore_optimizer(optimizer, below(tensors, f"optimizer.{name}."))
    return _State(plain["history"], plain["good_epoch"], plain["stopped"], below(tensors, "good."))
