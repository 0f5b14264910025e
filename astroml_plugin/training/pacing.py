"""How long and how gently a network is fitted to few stamps: settings follow their number, unless a recipe gives them.

Twelve epochs of a few hundred stamps are some tens of steps, after which a network has learned nothing. Fewer stamps
therefore get smaller batches, and as many epochs as make the steps that 16,384 stamps have in 12 epochs. Any angle,
small shifts, brightness and blends make these many sights of each stamp unlike, and averaged weights steady what few
objects validate. From 16,384 stamps on all is as with `epochs = 12`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from astroml_plugin.tasks.augmentation import Warp
from astroml_plugin.training.settings import LEFT_OPEN, PLAIN_EPOCHS, TrainingSettings

_STEPS = 1536
"""Steps of 12 epochs of 16,384 stamps in batches of 128."""
_SMALLEST_BATCH, _LARGEST_BATCH = 32, 128
_MOST_EPOCHS = 400
_EMA = 0.99
_SHIFT, _GAIN, _MIXUP = 0.03, 0.3, 0.2
"""Largest shift, as a fraction of the stamp's side; spread of the brightness; blends of objects (`mixup`)."""
_QUIET = 2
"""Part of all epochs, as one in so many, without a better validation loss, after which it stops: few objects validate
noisily, and a rate that has not fallen yet leaves much to be gained."""


def paced(settings: TrainingSettings, stamps: int, *, side: int = 0, turns: bool = False) -> TrainingSettings:
    """The settings with all that they leave open, for so many training stamps; unchanged where they give epochs.

    Args:
        settings: of a recipe.
        stamps: in the training split, of one process.
        side: of a stamp, pixels.
        turns: whether a stamp that is turned by any angle and moved a little keeps its label.
    """
    if settings.epochs:
        return settings
    batch = settings.batch_size or _batch(stamps)
    epochs = math.ceil(_STEPS / math.ceil(max(1, stamps) / batch))
    few = epochs > PLAIN_EPOCHS
    chosen: dict[str, Any] = {"epochs": min(max(epochs, PLAIN_EPOCHS), _MOST_EPOCHS), "batch_size": batch}
    if few:
        warped = turns and settings.augment and not settings.cache
        follow = {
            "patience": chosen["epochs"] // _QUIET,
            "ema": _EMA,
            "warp": Warp(turn=True, shift=round(_SHIFT * side, 1), gain=_GAIN) if warped else Warp(),
            "mixup": _MIXUP if warped else 0.0,
        }
        chosen |= {name: value for name, value in follow.items() if getattr(settings, name) == LEFT_OPEN[name]}
    return replace(settings, **chosen)


def _batch(stamps: int) -> int:
    """Stamps per step: a power of two near a 128th of all, within bounds."""
    wanted = min(max(stamps / 128, _SMALLEST_BATCH), _LARGEST_BATCH)
    return int(2 ** round(math.log2(wanted)))


def pace(settings: TrainingSettings, stamps: int) -> str:
    """A sentence about the course of a training of so many stamps with settings that leave nothing open."""
    steps = settings.epochs * math.ceil(max(1, stamps) / settings.batch_size)
    parts = [f"{stamps:,} training stamps: at most {settings.epochs} epochs of {settings.batch_size} stamps per step"]
    parts[0] += f", {steps:,} steps"
    if settings.schedule == "one_cycle":
        parts.append(f"{round(settings.warmup * steps):,} of them warm-up, then a rate that falls to 0")
    if settings.patience:
        parts.append(f"it stops after {settings.patience} epochs without a better validation loss")
    if settings.ema > 0:
        parts.append(f"weights averaged with a decay of {settings.ema:g} per step")
    warp = settings.warp or Warp()
    if warp:
        changes = ["any angle"] * warp.turn + [f"shifts up to {warp.shift:g} px"] * (warp.shift > 0)
        changes += [f"brightness ({warp.gain:g})"] * (warp.gain > 0)
        changes += [f"colours ({warp.colour:g})"] * (warp.colour > 0)
        parts.append(f"stamps changed by {', '.join(changes)}")
    if settings.mixup > 0:
        parts.append(f"blended in pairs ({settings.mixup:g})")
    return "; ".join(parts)
