"""Settings of a fit, which enter a bundle's identity, and where and how long one training runs, which never does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
LEFT_OPEN: dict[str, Any] = {"batch_size": 0, "patience": -1, "ema": -1.0, "warp": None, "mixup": -1.0}
"""Values of settings that follow the number of stamps where `epochs` do (`pacing`)."""
PLAIN_EPOCHS = 12
_PLAIN: dict[str, Any] = {"batch_size": 128, "patience": 8, "ema": 0.0, "warp": Warp(), "mixup": 0.0}
"""Their values for large training sets, and wherever epochs are given."""

EpochRecord = dict[str, Any]
"""Plain values of one epoch, a line of the log: epoch, losses, metrics, rates and seconds."""


@dataclass(frozen=True)
class TrainingSettings:
    """How the network is fitted.

    Without `epochs`, they follow the number of training stamps, and so do batch_size, patience, ema, warp and mixup
    where these are not given either (`pacing.paced`). With epochs, what is not given is 128, 8, 0, none and 0.
    """

    epochs: int = 0
    """Passes over the training split, at most; 0: by the number of stamps."""
    batch_size: int = LEFT_OPEN["batch_size"]
    """Stamps per step; 0: see above."""
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
    ema: float = LEFT_OPEN["ema"]
    """Decay per step of an exponential average of the weights, which then is what is validated and kept; 0: none;
    -1: see above."""
    precision: str = "float32"
    """float32, or bfloat16: the forward pass in mixed precision (for GPUs; CPUs are mostly slower with it)."""
    patience: int = LEFT_OPEN["patience"]
    """Epochs without a better validation loss after which it stops; 0 never stops; -1: see above."""
    augment: bool = True
    """Random quarter turns and mirrorings of each object in each epoch."""
    warp: Warp | None = None
    """Further random changes of each object in each epoch: any angle, shifts, brightness; none given: see above."""
    mixup: float = LEFT_OPEN["mixup"]
    """Batches are blended with themselves in another order, by parts drawn from Beta(mixup, mixup), and so are their
    losses (Zhang et al. 2018); 0 for none; -1: see above. A regulariser for small training sets."""
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
        for name, plain in _PLAIN.items() if self.epochs else ():
            if getattr(self, name) == LEFT_OPEN[name]:
                object.__setattr__(self, name, plain)
        if not 0 <= self.ema < 1 and self.ema != LEFT_OPEN["ema"]:
            raise InputError(f"training ema ({self.ema}) is a decay per step: 0 for none, else below 1, such as 0.999")
        left_open = self.mixup == LEFT_OPEN["mixup"]
        if (self.mixup < 0 and not left_open) or (self.cache and (self.warp or self.mixup > 0)):
            raise InputError(
                f"training mixup ({self.mixup}) must be 0 or more, and with a cache there is neither warp nor mixup"
            )
        if self.epochs < 0 or self.batch_size == 1 or self.learning_rate <= 0 or min(self.seed, self.batch_size) < 0:
            raise InputError(
                f"training needs epochs of 1 or more, or none ({self.epochs}), batch_size of 2 or more "
                f"({self.batch_size}), learning_rate above 0 ({self.learning_rate}) and a seed of 0 or more "
                f"({self.seed})"
            )
        if self.patience < LEFT_OPEN["patience"]:
            raise InputError(f"training patience ({self.patience}) must be 0, which never stops, or more epochs")

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
    rates: Mapping[str, float] = field(default_factory=dict)
    """Parameter -> factor on the learning rate; of others 1. They belong to `identity`."""
