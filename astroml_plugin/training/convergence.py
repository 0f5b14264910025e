"""Whether a training has converged, in one sentence: nothing learned, or not at its end yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.tasks.base import Task
from astroml_plugin.training.settings import EpochRecord

_JUDGED = 512
"""Validation objects, at most, whose losses are taken one by one."""
_SURE = 2.0
"""Standard errors by which the network must be better than an answer that does not look."""
_LATE = 5
"""The end of a training: its last epochs, one in so many."""
_FALLING = 0.08
"""Part of all that the validation loss ever gained, above which a gain in the end says that more would come."""


def blind_loss(task: Task, outputs: Tensor, targets: Tensor) -> tuple[float, float, float] | None:
    """Whether a network is better than the best answer that is the same for all stamps.

    Args:
        task: calibrated.
        outputs: (n, outputs) of the network on the validation split.
        targets: (n, ...).

    Returns:
        Mean loss of the network, mean loss of that answer, and the standard error of their difference over objects;
        None where no answer is one row of numbers, or there is no label.
    """
    if outputs.ndim != 2 or task.layers or not task.learns_labels or len(targets) < 2:
        return None
    outputs, targets = task.calibrated(outputs.float().clone()), targets.clone()  # no longer tensors of inference mode
    constant = _best_constant(task, outputs, targets)
    rows = np.unique(np.linspace(0, len(targets) - 1, _JUDGED).astype(int)).tolist()
    with torch.no_grad():
        pairs = [
            [float(task.loss(given, targets[row : row + 1])) for given in (outputs[row : row + 1], constant[None])]
            for row in rows
        ]
    losses = np.array(pairs)
    losses = losses[np.isfinite(losses).all(1)]
    if len(losses) < 2:
        return None
    error = float((losses[:, 1] - losses[:, 0]).std(ddof=1) / np.sqrt(len(losses)))
    return float(losses[:, 0].mean()), float(losses[:, 1].mean()), error


def _best_constant(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """(outputs,) the row of numbers that has the least loss as the answer to every stamp."""
    constant = outputs.mean(0).detach().clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([constant], lr=0.5, max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = task.loss(constant.expand(len(targets), -1), targets)
        value.backward()
        return value

    optimizer.step(loss)
    return constant.detach()


def unconverged(
    history: Sequence[EpochRecord], stopped: str, blind: tuple[float, float, float] | None, objects: int
) -> str:
    """One sentence if a training ended before it had converged, else nothing.

    Args:
        history: records of all epochs.
        stopped: as in `FitResult`.
        blind: of `blind_loss`.
        objects: in the validation split.
    """
    if blind is not None and blind[1] - blind[0] < _SURE * blind[2]:
        return (
            f"the training has not converged: on {objects:,} validation objects the network is no better than one "
            f"answer for all of them (loss {blind[0]:.3g} against {blind[1]:.3g}, error {blind[2]:.2g}): give it more "
            f"epochs or another learning_rate, check the labels, or take a recipe made for such objects"
        )
    losses = np.array([record["validation_loss"] for record in history], float)
    late = max(2, len(losses) // _LATE)
    if stopped in ("early", "reported") or len(losses) < 2 * late or not np.isfinite(losses).all():
        return ""
    before, end = losses[:-late].min(), losses[-late:].min()
    start = losses[0] if blind is None else max(blind[1], end)
    scatter = float(np.abs(np.diff(losses[-2 * late :])).mean())
    if before - end > max(_FALLING * (start - end), scatter):
        return (
            f"the training has not converged: in the last {late} of {len(losses)} epochs the validation loss still "
            f"fell from {before:.3g} to {end:.3g}: give it more epochs"
        )
    return ""
