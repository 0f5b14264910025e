"""Give a trained ellipticity bundle its shear response, from a calibration set of sheared stamps."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astroml_plugin import storage
from astroml_plugin.bundle import ModelBundle
from astroml_plugin.errors import InputError
from astroml_plugin.response import fit_response
from astroml_plugin.stream import BlockStream, LabelledStamps
from astroml_plugin.tasks.ellipticity import EllipticityTask


@dataclass(frozen=True)
class RespondResult:
    """What a calibration of the response gave."""

    bundle: ModelBundle
    """As written."""
    report: dict[str, Any]
    """Pairs, mean response, explained part of its variance, per component of the shear."""
    seconds: float
    """Wall time."""


def respond(bundle: str | Path, *, data: str, out: str | Path | None = None, band: str | None = None) -> RespondResult:
    """Fit the outputs r11, r12, r21, r22 of a bundle and write it again.

    Args:
        bundle: path or URL of an ellipticity bundle.
        data: `Stamps` of `simulate --pairs shear`, with a seed that nothing else used.
        out: where to write it; default in place.
        band: the band of the data for a model that takes any.

    Raises:
        InputError: another kind of bundle, data that were trained on, or that hold no pairs.
    """
    started = time.perf_counter()
    model = ModelBundle.load(bundle)
    task, sheared = model.task(), LabelledStamps([data])
    if not isinstance(task, EllipticityTask):
        raise InputError(f"bundle {model.name} measures no ellipticity: it has no shear response")
    if sheared.first.id in [source["id"] for source in model.card.training.get("sources", [])]:
        raise InputError(f"{storage.redact(data)} was trained on: simulate a calibration set with another seed")
    missing = {"set_id", "branch", "g1", "g2"} - set(sheared.labels.column_names)
    if missing:
        raise InputError(
            f"{storage.redact(data)} lacks {', '.join(sorted(missing))}: make it with simulate --pairs shear"
        )
    bands = task.choose_bands(sheared.first.bands, band)
    rows = np.arange(sheared.labels.num_rows)
    stream = BlockStream(sheared, rows, torch.zeros(len(rows), 2), bands=bands, batch_size=256)
    network = model.network()
    report = fit_response(task, network, stream, sheared.labels)
    card = replace(
        model.card,
        settings=task.with_settings(response=True).to_settings(),
        training={**model.card.training, "response": {"id": sheared.first.id, "digest": sheared.digest}},
        metrics={**model.card.metrics, "response": report},
    )
    return RespondResult(ModelBundle.save(str(out or model.url), network, card), report, time.perf_counter() - started)
