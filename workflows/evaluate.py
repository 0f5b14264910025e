"""How good is a bundle on labelled stamps: metrics.json and figures."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin.compute.device import choose_device
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping
from astroml_plugin.core.storage import finite
from astroml_plugin.evaluation import class_figures as class_pictures
from astroml_plugin.evaluation import class_report as class_merit
from astroml_plugin.evaluation.figures import write_figure
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.classification.task import ClassifyTask, most_votes
from astroml_plugin.tasks.run_options import assign_options, run_options
from astroml_plugin.tasks.test_time_augmentation import COUNTS, averaged
from astroml_plugin.training.batches import BlockStream
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.forward import outputs_of
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.measure_labelled import measure
from astroml_plugin.training.splits import SplitSettings


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
    options: Mapping[str, Any] | None = None,
) -> EvaluateResult:
    """Score a bundle on labelled stamps; where it was trained on them, only on those of its test split.

    Args:
        source: `Stamps` with the label columns that the bundle's task needs.
        bundle: path, URL or shipped name.
        out: folder or URL for metrics.json and the figures.
        band: the band for a model that takes any.
        device: torch device; default CUDA where there is one.
        baselines: other methods to measure the same pixels with (of ellipticity: hsm, moments, unweighted, ngmix);
            default the task's usual ones, as far as the installed packages allow.
        robustness: also measure with errors of PSF model, background and noise, where the task knows some.
        options: run options of the bundle's task, NAME -> value, as for `infer`: what is said of the catalog columns
            then holds with them. Of classes `prior`, and `symmetries`, of which is said what they cost and gain.

    Raises:
        InputError: source and bundle do not fit, labels are missing, or no object is left.
    """
    started = time.perf_counter()
    model = ModelBundle.load(bundle)
    data = LabelledStamps([source])
    own = model.task()
    run = run_options(own, assign_options({model.name: own}, {"band": band, **(options or {})}).by_bundle[model.name])
    task = own.for_run(run)
    first = data.first
    bands = task.check_source(
        bands=first.bands,
        pixel_scale=first.pixel_scale,
        size=first.size,
        dtype=first.dtype.name,
        has_psf=first.has_psf,
        band=run.band,
    )
    rows, split = _rows(model, data, task.usable(data.labels))
    targets = task.targets(data.labels.take(pa.array(rows)))
    stream = BlockStream(data, rows, targets, bands=bands, batch_size=256, layers=task.layers)
    device = device or choose_device()
    single = model.network(fused=True).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = task.inference_network(single)
    outputs, targets, measured = outputs_of(task, network, stream, device)
    table = data.labels.take(pa.array(measured))
    metrics = {**own.metrics(outputs, targets, table), "failures": len(rows) - len(measured)}
    drawn = own.figures(outputs, targets, table)
    assessed, more = _assess(task, network, stream, data, device, _chosen_baselines(task, first, baselines), robustness)
    metrics, drawn = {**metrics, **assessed}, {**drawn, **more}
    symmetries = getattr(run, "symmetries", None) or 1
    if symmetries > 1 and isinstance(own, ClassifyTask) and not own.settings.multi_label:
        metrics["symmetries"] = _symmetries(own, single, stream, device, symmetries)
        drawn["symmetries"] = class_pictures.symmetry(metrics["symmetries"], _COMPARED)
    metrics = finite(metrics)
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
        **own.run_record(run),
        "metrics": metrics,
    }
    storage.write_json(storage.join(url, "metrics.json"), record)
    figures = [f"{name}.png" for name in drawn]
    return EvaluateResult(url, len(rows), split, metrics, figures, time.perf_counter() - started)


_COMPARED = ("accuracy", "balanced_accuracy", "nll", "ece")
"""Figures of which the gain by averaging is drawn."""


def _symmetries(
    task: ClassifyTask, network: torch.nn.Module, stream: BlockStream, device: str, most: int
) -> list[dict[str, Any]]:
    """What averaging over up to `most` symmetries costs and gains on the same stamps."""
    probabilities, seconds, truth = {}, {}, np.zeros(0, np.int64)
    for count in [number for number in COUNTS if number <= most]:
        chosen = task.with_settings(symmetries=count)
        started = time.perf_counter()
        outputs, targets, _ = outputs_of(chosen, averaged(chosen, network), stream, device)
        seconds[count] = time.perf_counter() - started
        probabilities[count] = task.probabilities(outputs).double().numpy()
        truth = most_votes(targets).numpy()
    return class_merit.compared(probabilities, truth, seconds)


def _chosen_baselines(task: Task, source: Stamps, asked: Sequence[str] | None) -> tuple[str, ...]:
    """The methods to compare with: those asked for, or the usual ones that can run here."""
    if asked is not None:
        return tuple(asked)
    usual = task.default_baselines(has_psf=source.has_psf, has_variance=source.has_variance)
    return tuple(name for name, needs in usual.items() if needs is None or importlib.util.find_spec(needs) is not None)


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
    """The rows to score: never those whose labels the bundle was trained on."""
    training = model.card.training
    seen = data.first.id in [source["id"] for source in training.get("sources", [])]
    if seen and model.task().learns_labels:
        settings = from_mapping(SplitSettings, training["split"], "the split of the card")
        rows, split = data.split(settings, usable)["test"], "test"
    else:
        rows, split = np.flatnonzero(usable), "all"
    if len(rows) == 0:
        raise InputError(f"no object of {storage.redact(data.first.url)} is left to evaluate on (split {split})")
    return rows, split


def show(result: EvaluateResult) -> str:
    """What was found, for a terminal: the line of the outcome, and the scores where the bundle gives classes."""
    lines = [f"evaluated {result.objects} objects into {result.out}"]
    found = result.metrics.get("catalog", {})
    if "scores" in found:
        lines += [f"{name.replace('_', ' '):>20}  {_interval(value)}" for name, value in found["scores"].items()]
    if "search" in found:
        lines += ["", *_show_search(found["search"])]
    for row in result.metrics.get("symmetries", []):
        gain = row["accuracy_gain"]
        lines.append(
            f"{row['symmetries']} symmetries: {row['cost']:.2f} times the time, {row['objects_per_second']:,.0f} "
            f"objects/s, accuracy {row['accuracy']:.4f} ({gain['value']:+.4f}, 95 % {gain['low']:+.4f} to "
            f"{gain['high']:+.4f}), NLL {row['nll']:.4f}, ECE {row['ece']:.4f}"
        )
    return "\n".join(lines)


_SEARCH = {
    "auroc": "AUROC",
    "tpr0": "TPR0",
    "tpr10": "TPR10",
    "tpr_fpr_1e-3": "TPR at FPR 1e-3",
    "tpr_fpr_1e-4": "TPR at FPR 1e-4",
}


def _show_search(found: Mapping[str, Any]) -> list[str]:
    """The table of the strong-lens challenge, bins of the positives and kinds of negatives below."""
    rows = [("all", found)]
    for name, bins in found.get("bins", {}).items():
        rows += [(f"{name} {row['low']:.3g}-{row['high']:.3g}", row) for row in bins]
    rows += [(f"against {kind}", row) for kind, row in found.get("kinds", {}).items()]
    width = max(len(name) for name, _ in rows)
    lines = [
        f"{found['class']:<{width}}  positives  negatives  " + "  ".join(f"{text:>15}" for text in _SEARCH.values())
    ]
    for name, row in rows:
        values = "  ".join(f"{row[key]['value']:>15.4f}" for key in _SEARCH)
        lines.append(f"{name:<{width}}  {row['positives']:>9}  {row['negatives']:>9}  {values}")
    for row in found["purity_at_completeness"]:
        purity = ", ".join(f"{value:.3g} at a fraction of {prior}" for prior, value in row["purity"].items())
        lines.append(f"completeness {row['completeness']:.2f}: p >= {row['threshold']:.4g}, expected purity {purity}")
    return lines


def _interval(value: Mapping[str, float | None]) -> str:
    low, high = value["low"], value["high"]
    return f"{value['value']:.4f}" + ("" if low is None or high is None else f"  ({low:.4f}-{high:.4f})")
