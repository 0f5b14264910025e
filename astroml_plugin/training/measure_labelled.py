"""Measuring labelled stamps as a catalog would, with errors of the input, and by other methods on the same pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.tasks.base import Task
from astroml_plugin.training.batches import Batch

Columns = dict[str, np.ndarray]


def measure(
    task: Task,
    network: nn.Module,
    batches: Iterable[Batch],
    *,
    device: str = "cpu",
    perturbations: Sequence[str] | None = (),
    baselines: Sequence[str] = (),
) -> tuple[Measurements, np.ndarray]:
    """Measure every stamp in all ways.

    Args:
        task, network: of the bundle, the network in eval mode on `device`.
        batches: stamps.
        perturbations: names of `Task.perturbations`; None for all.
        baselines: names of `Task.baselines`.

    Returns:
        The columns of n objects, and their row numbers (n,).

    Raises:
        InputError: a name that the task does not know.
    """
    errors = task.perturbations()
    ways: dict[tuple[str, str], Callable[[Cutouts], Columns]] = {("own", ""): lambda c: columns(task, network, c)}
    for name in errors if perturbations is None else perturbations:
        ways["perturbed", name] = _perturbed(task, network, _known(errors, name, "error of the input"))
    for name in baselines:
        ways["baselines", name] = _known(task.baselines(), name, "baseline")
    found: dict[tuple[str, str], list[Columns]] = {way: [] for way in ways}
    rows = []
    for batch in batches:
        cutouts = batch.cutouts.to(device)
        rows.append(batch.rows)
        for way, function in ways.items():
            found[way].append(function(cutouts))
    parts = {way: _joined(values) for way, values in found.items()}
    kinds = {
        kind: {name: value for (where, name), value in parts.items() if where == kind}
        for kind in ("perturbed", "baselines")
    }
    return Measurements(parts["own", ""], **kinds), np.concatenate(rows)


def columns(task: Task, network: nn.Module, cutouts: Cutouts) -> Columns:
    """The catalog's columns of some stamps, `flags` too."""
    with torch.inference_mode():
        inputs, prepared = task.prepare(cutouts)
        values, flags = task.to_columns(network(*inputs), cutouts, prepared)
    return {**values, "flags": flags | task.cut_flags(cutouts)}


def _perturbed(task: Task, network: nn.Module, change: Callable[[Cutouts], Cutouts]) -> Callable[[Cutouts], Columns]:
    return lambda cutouts: columns(task, network, change(cutouts))


def _known(known: Mapping[str, Callable[..., Any]], name: str, what: str) -> Callable[..., Any]:
    if name not in known:
        told = ", ".join(known) or "none"
        raise InputError(f"this task knows no {what} {name!r}: there are {told}")
    return known[name]


def _joined(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
