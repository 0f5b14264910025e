"""Network inputs and outputs of batches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.compute.device import sent
from astroml_plugin.compute.exact import exact_float32
from astroml_plugin.tasks import missing
from astroml_plugin.tasks.base import Task
from astroml_plugin.training.batches import Batch, Batches, StemBatch

_PRETEXT_SEED = 9001
"""Seed of the corruption that validation asks a network to undo."""


def network_inputs(task: Task, batch: Batch | StemBatch, device: str) -> tuple[tuple[Tensor, ...], Tensor, np.ndarray]:
    """Network inputs, targets and rows of a batch on the device, without stamps that get no values: see `missing`."""
    if isinstance(batch, StemBatch):
        return batch.inputs, batch.targets, batch.rows
    cutouts = batch.cutouts.to(device)
    inputs, flags = task.prepare(cutouts)
    targets = sent(batch.targets, device)
    lacks = missing.lacking(flags.cpu().numpy(), cutouts, task.fitted_stamps, task.settings.spare_bands)
    if not lacks.any():
        return inputs, targets, batch.rows
    usable = torch.from_numpy(lacks == 0).to(flags.device)
    return tuple(item[usable] for item in inputs), targets[usable], batch.rows[lacks == 0]


@exact_float32()
def network_outputs(
    task: Task, network: nn.Module, data: Batches, device: str = "cpu", *, pretext: bool = False
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Outputs (n, ...), targets (n, ...) and rows (n,) on the CPU; stamps that get no values, as of
    `network_inputs`, are left out.

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
