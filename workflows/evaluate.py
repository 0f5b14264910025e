"""How good is a bundle on labelled stamps: metrics.json and figures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.places import Place
from astroml_plugin.core.results import Result
from astroml_plugin.core.settings import texts
from astroml_plugin.cutouts import REACH
from astroml_plugin.cutting import CutoutOptions
from astroml_plugin.cutting.labels import labelled
from astroml_plugin.evaluation.text import described
from astroml_plugin.inference.scaling import side_read
from astroml_plugin.sources.survey import Survey
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.bundle_evaluation import EvaluationOptions, evaluate_bundle
from workflows.notebook import shows_progress


@dataclass(frozen=True, repr=False)
class EvaluateResult(Result):
    """Outcome of an evaluation."""

    out: str
    """Folder of metrics.json and the figures."""
    objects: int
    """Objects evaluated."""
    split: str
    """"test" where the bundle was trained on this source; "unseen" where training objects are left out; else "all"."""
    left_out: str
    """Objects left out because the bundle was trained on them, in words; empty where there are none."""
    metrics: dict[str, Any]
    """The task's figures of merit."""
    figures: list[str]
    """File names of the figures."""
    seconds: float
    """Wall time."""
    notes: tuple[str, ...] = ()
    """Sentences about labelled objects of a survey that have no stamp, or stand twice."""


@shows_progress()
def evaluate(
    source: Place | Sequence[Place],
    *,
    bundle: Place,
    out: Place,
    band: str | None = None,
    device: str | None = None,
    baselines: Sequence[str] | None = None,
    robustness: bool = True,
    options: Mapping[str, Any] | None = None,
    **labelling: Any,
) -> EvaluateResult:
    """Score a bundle on labelled stamps that it was not trained on.

    Where it was trained on the source, only the test split is scored. Training objects that come in another store,
    format or order are recognised by their pixels or their place on the sky, and left out.

    Args:
        source: `Stamps` with the label columns that the bundle's task needs, a view, or a `Survey` with `labels`; of
            several, figures of each are given too.
        bundle: path, URL or shipped name.
        out: folder or URL for metrics.json and the figures.
        band: the band for a model that takes any.
        device: torch device; default CUDA where there is one.
        baselines: other methods to measure the same pixels with (of ellipticity: hsm, moments, unweighted, ngmix);
            default the task's usual ones, as far as the installed packages allow.
        robustness: also measure with errors of PSF model, background and noise, where the task knows some.
        options: run options of the bundle's task, NAME -> value, as for `infer`: what is said of the catalog columns
            then holds with them. Of classes `prior`, and `symmetries`, of which is said what they cost and gain.
        labelling: of a Survey: fields of `cutting.labels.LabelTable`: `labels`, the table, and how it is read.

    Raises:
        InputError: source and bundle do not fit, labels are missing, or no object is left.
    """
    started = time.perf_counter()
    url = storage.absolute(out)
    asked = EvaluationOptions(baselines, robustness, {"band": band, **(options or {})}, device)
    model = ModelBundle.load(bundle)
    with labelled(texts(source), labelling, partial(stamps_for, model, band)) as sources:
        found = evaluate_bundle(model, sources.urls, url, asked)
    record = found.record
    seconds = time.perf_counter() - started
    about = record["objects"], record["split"], found.left_out
    return EvaluateResult(url, *about, record["metrics"], found.figures, seconds, sources.notes)


def stamps_for(model: ModelBundle, band: str | None, survey: Survey) -> CutoutOptions:
    """Stamps of a survey as a bundle takes them: as large as `infer` cuts them."""
    task = model.task()
    size = side_read(task, survey)
    size += 2 * REACH if size > task.stamp_size else 0
    return CutoutOptions(size=size, bands=task.choose_bands(survey.bands, band))


def show(result: EvaluateResult) -> str:
    """The outcome for a terminal: one line, and the figures of the catalog columns."""
    told = f", {result.left_out}" if result.left_out else ""
    return "\n".join([f"evaluated {result.objects} objects into {result.out}{told}", *described(result.metrics)])
