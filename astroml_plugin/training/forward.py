"""Network inputs and outputs of batches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.tasks.base import Task
from astroml_plugin.training.batches import Batch, Batches, StemBatch

_PRETEXT_SEED = 9001
"""Seed of the corruption that validation asks a network to undo."""


def network_inputs(task: Task, batch: Batch | StemBatch, device: str) -> tuple[tuple[Tensor, ...], Tensor, np.ndarray]:
    """Network inputs, targets and rows of a batch on the device, without stamps that have no valid pixel."""
    if isinstance(batch, StemBatch):
        return batch.inputs, batch.targets, batch.rows
    inputs, flags = task.prepare(batch.cutouts.to(device))
    targets = batch.targets.to(device)
    usable = (flags & int(ObjectFlag.NONFINITE)) == 0
    if bool(usable.all()):
        return inputs, targets, batch.rows
    return tuple(item[usable] for item in inputs), targets[usable], batch.rows[usable.cpu().numpy()]


def network_outputs(
    task: Task, network: nn.Module, data: Batches, device: str = "cpu", *, pretext: bool = False
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Outputs (n, ...), targets (n, ...) and rows (n,) on the CPU; stamps without a valid pixel are left out.

    Args:
        task, network, data, device: whose.
        pretext: of what `Task.pretext` makes of the stamps, the same every time, instead of the stamps as they are.
    """
    network.eval()
    generator = torch.Generator().manual_seed(_PRETEXT_SEED)
    outputs, targets, rows = [], [], []
    with torch.inference_mode():
        for batch in data.ordered():
            inputs, wanted, numbers = network_inputs(task, batch, device)
            if pretext and not isinstance(batch, StemBatch):
                inputs, wanted = task.pretext(inputs, wanted, generator)
            outputs.append(network(*inputs).float().cpu())
            targets.append(wanted.cpu())
            rows.append(numbers)
    return torch.cat(outputs), torch.cat(targets), np.concatenate(rows)
