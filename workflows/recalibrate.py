"""Fit the errors of a bundle anew on labelled stamps: that they hold for another population than it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import InputError
from astroml_plugin.training.batches import BlockStream
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.forward import outputs_of
from astroml_plugin.training.labelled import LabelledStamps


def recalibrate(
    bundle: str | Path, *, data: str | Sequence[str], out: str | Path | None = None, band: str | None = None
) -> ModelBundle:
    """Set what a task learns from validation outputs (widths of intervals, temperature) on other labelled stamps.

    Args:
        bundle: path or URL.
        data: one or several `Stamps` with the labels of the task, none of them trained on.
        out: where to write it; default in place.
        band: the band of the data for a model that takes any.

    Raises:
        InputError: data that were trained on, or without the labels.
    """
    model = ModelBundle.load(bundle)
    task, labelled = model.task(), LabelledStamps([data] if isinstance(data, str) else list(data))
    seen = {source["id"] for source in model.card.training.get("sources", [])}
    if seen & {source.id for source in labelled.sources}:
        raise InputError("errors cannot be calibrated on data that were trained on: give stamps of another seed")
    rows = np.flatnonzero(task.usable(labelled.labels))
    targets = task.targets(labelled.labels.take(pa.array(rows)))
    bands = task.choose_bands(labelled.first.bands, band)
    stream = BlockStream(labelled, rows, targets, bands=bands, batch_size=256)
    network = model.network()
    outputs, truth, _ = outputs_of(task, network, stream)
    fitted = task.calibrate(outputs, truth)
    record = {"digest": labelled.digest, "objects": len(truth)}
    card = replace(model.card, settings=fitted.to_settings(), training={**model.card.training, "calibration": record})
    return ModelBundle.save(str(out or model.url), network, card)
