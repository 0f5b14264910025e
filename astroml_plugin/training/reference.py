"""Distributions that a bundle keeps of its training: what its inputs and outputs look like where it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from astroml_plugin.compute.exact import exact_float32
from astroml_plugin.core.typing import I64
from astroml_plugin.cutouts import Cutouts, recentred
from astroml_plugin.evaluation.inputs import input_numbers
from astroml_plugin.evaluation.reference import Reference, plain_columns
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.normalisation import Normalisation
from astroml_plugin.tasks.scale import to_scale
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.measure_labelled import columns

KEY = "reference"
"""Key of a card's training record."""

_SAMPLE = 512
"""Stamps that are looked at, of each split."""
_SEED = 0
"""Seed of their choice."""


def reference_record(
    task: Task,
    network: nn.Module,
    data: LabelledStamps,
    rows: Mapping[str, I64],
    *,
    bands: Sequence[str],
    device: str = "cpu",
) -> dict[str, Any]:
    """Inputs of the training split and outputs on the validation split, as a card keeps them.

    What the normalisation takes away is not kept: the level where the background is taken off; noise and fluxes where
    pixels are divided by the noise, which leaves light in units of the noise. Of tasks that learn pixels there are no
    outputs: their columns are of objects that they find.

    Args:
        task: of the bundle, calibrated.
        network: of the bundle, in eval mode on the device.
        data: with the stamps.
        rows: "train" -> (n,) rows that the network was trained on, "validation" -> (m,) others of the same population.
        bands: of the data, in the order of the task's.
        device: torch device.
    """

    def sample(split: str) -> Cutouts:
        return data.sample(np.asarray(rows[split]), _SAMPLE, _SEED).select(bands)

    away = _taken_away(task.settings.normalisation)
    seen = input_numbers(sample("train"), centred=not task.layers)
    inputs = {number: values for number, values in seen.items() if number.what not in away}
    outputs = {}
    if not task.layers and task.columns() and len(rows["validation"]):
        stamps = to_scale(task.settings, sample("validation").to(device))
        with exact_float32():
            outputs = columns(task, network, recentred(stamps, task.settings.centring)[0])
    return {**Reference.of(inputs, plain_columns(outputs)).to_json(), "digest": data.digest}


def _taken_away(normalisation: Normalisation) -> set[str]:
    """Numbers about pixels that a network does not see."""
    level = {"level"} if normalisation.background == "border" else set()
    return level | ({"noise", "flux"} if normalisation.unit == "noise" else {"signal"})


def reference_of(model: ModelBundle) -> Reference | None:
    """The distributions that a bundle keeps; None of a bundle that was trained by a version that kept none.

    Raises:
        InputError: they are damaged.
    """
    told = model.card.training.get(KEY)
    return None if told is None else Reference.from_json(told, f"{KEY} of bundle {model.name}")
