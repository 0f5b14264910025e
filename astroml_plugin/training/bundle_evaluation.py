"""A bundle on labelled stamps: figures of merit and pictures, written into a folder."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin.compute.device import usable_device
from astroml_plugin.core import storage
from astroml_plugin.core.storage import finite
from astroml_plugin.evaluation.figures import write_figure
from astroml_plugin.networks.typicality import split
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.tasks.run_options import assign_options, run_options
from astroml_plugin.training.batches import CentredBatches, StampBatches
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.domains import by_domain, figures_of
from astroml_plugin.training.forward import network_outputs
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.measure_labelled import measure
from astroml_plugin.training.unseen import unseen_rows

METRICS = "metrics.json"
"""File of an evaluation's figures of merit."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Choices of an evaluation."""

    baselines: Sequence[str] | None = None
    """Other methods to measure the same pixels with; None: the task's usual ones that can run here."""
    robustness: bool = True
    """Also measure with errors of PSF model, background and noise, where the task knows some."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Run options of the bundle's task, `band` too."""
    device: str | None = None
    """torch device; None: CUDA where there is one."""


@dataclass(frozen=True)
class Evaluation:
    """Outcome of an evaluation."""

    record: dict[str, Any]
    """Content of metrics.json."""
    figures: list[str]
    """File names of the figures."""
    left_out: str
    """The objects left out because the bundle was trained on them, in words; empty where there are none."""


def evaluate_bundle(
    model: ModelBundle, source: str | Sequence[str], url: str, options: EvaluationOptions
) -> Evaluation:
    """Score a bundle on labelled stamps and write metrics.json and the figures.

    Args:
        model: the bundle.
        source: one or several `Stamps` with the label columns that its task needs; of several, figures of each are
            given too.
        url: folder for the results.
        options: what is asked for.

    Raises:
        InputError: source and bundle do not fit, labels are missing, or no object is left.
    """
    data = LabelledStamps(source)
    own = model.task()
    given = assign_options({model.name: own}, dict(options.run)).by_bundle[model.name]
    run = run_options(own, given)
    task = own.for_run(run)
    forward = _Forward(model, data, task, own, band=run.band, device=options.device)
    outputs, targets, measured = network_outputs(task, forward.judged, forward.stream, forward.device)
    outputs, typical = (outputs, None) if forward.typicality is None else split(outputs)
    table = data.labels.take(pa.array(measured))
    metrics = {**own.metrics(outputs, targets, table), "failures": len(forward.rows) - len(measured)}
    metrics |= by_domain(own, outputs, targets, table)
    if forward.typicality is not None and typical is not None:
        unlike = (typical < forward.typicality.false_flags).numpy()
        parts = {"unflagged": np.flatnonzero(~unlike), "flagged": np.flatnonzero(unlike)}
        figures = {name: figures_of(own, outputs, targets, table, rows) for name, rows in parts.items()}
        metrics |= {"typicality": figures}
    drawn = own.figures(outputs, targets, table)
    assessed, more = _assess(task, forward, options)
    costs, pictures = own.run_report(run, forward.timed)
    metrics, drawn = finite({**metrics, **assessed, **costs}), {**drawn, **more, **pictures}
    for name, figure in drawn.items():
        write_figure(storage.join(url, f"{name}.png"), figure)
    record = {
        "bundle": model.name,
        "bundle_sha256": model.sha256,
        "task": model.card.task,
        "source": {"id": data.first.id, "digest": data.digest},
        "split": forward.unseen.split,
        "objects": len(forward.rows),
        "left_out": {
            "trained_on": forward.unseen.known,
            "not_told": forward.unseen.unknown,
            **({"drawn": forward.unseen.drawn} if forward.unseen.drawn else {}),
        },
        **own.run_record(run),
        "metrics": metrics,
    }
    storage.write_json(storage.join(url, METRICS), record)
    return Evaluation(record, [f"{name}.png" for name in drawn], forward.unseen.left_out)


class _Forward:
    """The network of a bundle on the stamps that it may be judged on."""

    def __init__(
        self, model: ModelBundle, data: LabelledStamps, task: Task, own: Task, *, band: str | None, device: str | None
    ) -> None:
        first = data.first
        bands = task.check_source(**first.facts, band=band)
        self.data = data
        self.device = usable_device(device)
        usable = task.usable(data.labels)
        self.unseen = unseen_rows(model, data, usable, bands, learns_labels=own.learns_labels)
        self.rows = self.unseen.rows
        targets = task.targets(data.labels.take(pa.array(self.rows)))
        stream = StampBatches(data, self.rows, targets, bands=bands, batch_size=256, layers=task.layers)
        self.stream = CentredBatches(stream, task)
        network = model.network(fused=True)
        self._single = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = task.inference_network(self._single)
        self.typicality = None if isinstance(task, DetectingTask) else model.typicality()
        self.judged = self.network
        """The network, and the typicality behind its numbers where the bundle tells it."""
        if self.typicality is not None:
            taps = self.typicality.taps(self._single, model.name)
            self.judged = self.typicality.around(self.network, taps, task.input_shapes())

    def timed(self, task: Task) -> tuple[Tensor, Tensor, float]:
        """Outputs of the network as a task has them averaged, targets, and the seconds that it took."""
        started = time.perf_counter()
        outputs, targets, _ = network_outputs(task, task.inference_network(self._single), self.stream, self.device)
        return outputs, targets, time.perf_counter() - started


def _assess(task: Task, forward: _Forward, options: EvaluationOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """The task's report on its catalog columns, under "catalog", and figures."""
    labels = forward.data.labels
    if not task.assesses(labels.take(pa.array(forward.rows))):
        return {}, {}
    measured, rows = measure(
        task,
        forward.network,
        forward.stream.ordered(),
        device=forward.device,
        perturbations=None if options.robustness else (),
        baselines=_chosen_baselines(task, forward.data, options.baselines),
    )
    table = labels.take(pa.array(rows))
    found, drawn = task.assess(measured, task.targets(table), table)
    return {"catalog": found}, drawn


def _chosen_baselines(task: Task, data: LabelledStamps, asked: Sequence[str] | None) -> tuple[str, ...]:
    """The methods to compare with: those asked for, or the usual ones whose packages are installed."""
    if asked is not None:
        return tuple(asked)
    usual = task.default_baselines(has_psf=data.first.has_psf, has_variance=data.first.has_variance)
    return tuple(name for name, needs in usual.items() if needs is None or importlib.util.find_spec(needs) is not None)
