"""How good is a bundle on labelled stamps: metrics.json and figures."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin import storage
from astroml_plugin.bundle import ModelBundle
from astroml_plugin.errors import InputError
from astroml_plugin.evaluation import measure
from astroml_plugin.settings import from_mapping
from astroml_plugin.stamps import Stamps
from astroml_plugin.stream import BlockStream, LabelledStamps, SplitSettings
from astroml_plugin.tasks.base import Task
from astroml_plugin.training import outputs_of
from workflows.train import finite, write_figure

USUAL_BASELINES = {"hsm": "galsim", "moments": None}
"""Methods to compare with unless told otherwise, and the package each needs."""


@dataclass(frozen=True)
class EvaluateResult:
    """What an evaluation found."""

    out: str
    """Folder of metrics.json and the figures."""
    objects: int
    """Objects evaluated."""
    split: str
    """"test" where the bundle was trained on this source, else "all"."""
    metrics: dict[str, Any]
    """The task's figures of merit."""
    figures: list[str]
    """File names of the figures."""
    seconds: float
    """Wall time."""


def evaluate(
    source: str,
    *,
    bundle: str | Path,
    out: str | Path,
    band: str | None = None,
    device: str | None = None,
    baselines: Sequence[str] | None = None,
    robustness: bool = True,
) -> EvaluateResult:
    """Score a bundle on labelled stamps; where it was trained on them, only on those of its test split.

    Args:
        source: `Stamps` with the label columns that the bundle's task needs.
        bundle: path, URL or shipped name.
        out: folder or URL for metrics.json and the figures.
        band: the band for a model that takes any.
        device: torch device; default CUDA where there is one.
        baselines: other methods to measure the same pixels with (of ellipticity: hsm, moments, unweighted, ngmix);
            default those of `USUAL_BASELINES` that the task knows and the installed packages allow.
        robustness: also measure with errors of PSF model, background and noise, where the task knows some.

    Raises:
        InputError: source and bundle do not fit, labels are missing, or no object is left.
    """
    started = time.perf_counter()
    model = ModelBundle.load(bundle)
    task, data = model.task(), LabelledStamps([source])
    first = data.first
    bands = task.check_source(
        bands=first.bands,
        pixel_scale=first.pixel_scale,
        size=first.size,
        dtype=first.dtype.name,
        has_psf=first.has_psf,
        band=band,
    )
    rows, split = _rows(model, data, task.usable(data.labels))
    stream = BlockStream(data, rows, task.targets(data.labels.take(pa.array(rows))), bands=bands, batch_size=256)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network = model.network(fused=True).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    outputs, targets, measured = outputs_of(task, network, stream, device)
    table = data.labels.take(pa.array(measured))
    metrics = {**task.metrics(outputs, targets, table), "failures": len(rows) - len(measured)}
    drawn = task.figures(outputs, targets, table)
    assessed, more = _assess(task, network, stream, data, device, _chosen_baselines(task, first, baselines), robustness)
    metrics, drawn = finite({**metrics, **assessed}), {**drawn, **more}
    url = storage.absolute(str(out))
    for name, figure in drawn.items():
        write_figure(storage.join(url, f"{name}.png"), figure)
    record = {
        "bundle": model.name,
        "bundle_sha256": model.sha256,
        "task": model.card.task,
        "source": {"id": first.id, "digest": data.digest},
        "split": split,
        "objects": len(rows),
        "metrics": metrics,
    }
    storage.write_json(storage.join(url, "metrics.json"), record)
    figures = [f"{name}.png" for name in drawn]
    return EvaluateResult(url, len(rows), split, metrics, figures, time.perf_counter() - started)


def _chosen_baselines(task: Task, source: Stamps, asked: Sequence[str] | None) -> tuple[str, ...]:
    """The methods to compare with: those asked for, or the usual ones that can run here."""
    if asked is not None:
        return tuple(asked)
    if not (source.has_psf and source.has_variance):
        return ()
    return tuple(
        name
        for name, needs in USUAL_BASELINES.items()
        if name in task.baselines() and (needs is None or importlib.util.find_spec(needs) is not None)
    )


def _assess(
    task: Task,
    network: torch.nn.Module,
    stream: BlockStream,
    data: LabelledStamps,
    device: str,
    baselines: Sequence[str],
    robustness: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the task says of its catalog columns, under "catalog", and its figures."""
    if type(task).assess is Task.assess:
        return {}, {}
    measured, rows = measure(
        task,
        network,
        stream.ordered(),
        device=device,
        perturbations=None if robustness else (),
        baselines=baselines,
    )
    table = data.labels.take(pa.array(rows))
    found, drawn = task.assess(measured, task.targets(table), table)
    return {"catalog": found}, drawn


def _rows(model: ModelBundle, data: LabelledStamps, usable: np.ndarray) -> tuple[np.ndarray, str]:
    """The rows to score: never those that the bundle was trained on."""
    training = model.card.training
    seen = data.first.id in [source["id"] for source in training.get("sources", [])]
    if seen:
        settings = from_mapping(SplitSettings, training["split"], "the split of the card")
        rows, split = data.split(settings, usable)["test"], "test"
    else:
        rows, split = np.flatnonzero(usable), "all"
    if len(rows) == 0:
        raise InputError(f"no object of {storage.redact(data.first.url)} is left to evaluate on (split {split})")
    return rows, split
