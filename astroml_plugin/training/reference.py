"""Distributions that a bundle keeps of its training: what its inputs and outputs look like where it was trained."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from astroml_plugin.compute.exact import exact_float32
from astroml_plugin.core.typing import I64
from astroml_plugin.cutouts import Cutouts, recentred
from astroml_plugin.evaluation.inputs import input_numbers
from astroml_plugin.evaluation.reference import Reference, plain_columns
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.scale import to_scale
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns
from astroml_plugin.training.plan import Plan

KEY = "reference"
"""Key of a card's training record."""

_SAMPLE = 512


def training_reference(plan: Plan, task: Task, network: nn.Module, device: str) -> dict[str, Any]:
    """Inputs of the training split and outputs on the validation split, as a card keeps them.

    Of tasks that learn pixels there are no outputs: their columns are of objects that they find.

    Args:
        plan: of the training.
        task: calibrated.
        network: in eval mode on the device.
        device: torch device.
    """
    inputs = input_numbers(_sample(plan, task, plan.rows["train"]), centred=not task.layers)
    outputs = {}
    if not task.layers and task.columns() and len(plan.rows["validation"]):
        stamps = to_scale(task.settings, _sample(plan, task, plan.rows["validation"]).to(device))
        with exact_float32():
            outputs = columns(task, network, recentred(stamps, task.settings.centring)[0])
    return Reference.of(inputs, plain_columns(outputs)).to_json()


def _sample(plan: Plan, task: Task, rows: I64) -> Cutouts:
    return plan.data.sample(np.asarray(rows), _SAMPLE, plan.recipe.training.seed).select(task.bands)


def reference_of(model: ModelBundle) -> Reference | None:
    """The distributions that a bundle keeps; None of a bundle that was trained by a version that kept none.

    Raises:
        InputError: they are damaged.
    """
    told = model.card.training.get(KEY)
    return None if told is None else Reference.from_json(told, f"{KEY} of bundle {model.name}")
