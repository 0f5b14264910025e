"""Settings of a fit, which enter a bundle's identity, and where and how long one training runs, which never does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_choices
from astroml_plugin.tasks.augmentation import Warp
from astroml_plugin.training.distributed import ALONE, Group

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": lambda parameters, lr, weight_decay: torch.optim.SGD(parameters, lr, 0.9, weight_decay=weight_decay),
    "rmsprop": torch.optim.RMSprop,
    "nadam": torch.optim.NAdam,
    "adagrad": torch.optim.Adagrad,
}
_SCHEDULES = ("one_cycle", "cosine", "step", "constant")
_STEPS, _STEP_FACTOR = 3, 0.1

EpochRecord = dict[str, Any]
"""Plain values of one epoch, a line of the log: epoch, losses, metrics, rates and seconds."""


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
    """Weight decay of the optimizer."""
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
    """Seed of weights, order and augmentation."""
    memory: float = 2e9
    """Bytes of decoded stamps to hold."""
    cache: bool = False
    """Keep what the fixed first layer (`stem`) of the network gives for every training stamp in its eight
    orientations: later epochs read no pixels. Only for networks that have one."""

    def __post_init__(self) -> None:
        refuse_choices(
            self,
            {"optimizer": tuple(OPTIMIZERS), "schedule": _SCHEDULES, "precision": ("float32", "bfloat16")},
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

    def rate(self, progress: float) -> float:
        """Learning rate after a fraction `progress` of the whole training."""
        warmup = self.warmup if self.schedule == "one_cycle" else 0.0
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "step":
            return self.learning_rate * _STEP_FACTOR ** min(_STEPS - 1, int(_STEPS * progress))
        if progress < warmup:
            return self.learning_rate * (0.04 + 0.96 * progress / warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


@dataclass(frozen=True)
class TrainingRun:
    """Where and how long one training runs."""

    out: str
    """Folder or URL of checkpoint and log; a checkpoint found there is continued."""
    identity: str = ""
    """Digest of recipe and data; a checkpoint of another one is refused."""
    resume: bool = True
    """False starts anew."""
    until: int | None = None
    """Pause after so many epochs in all; a later run goes on."""
    report: Callable[[EpochRecord], bool | None] | None = None
    """Called with each epoch's record once its checkpoint is written, in the first process only; a true answer stops
    the training."""
    device: str = "cpu"
    """Torch device."""
    group: Group = ALONE
    """The processes that train together."""
