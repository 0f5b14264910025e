"""The bundles of a run as its units apply them: the run's options set, the network resident in the process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from astroml_plugin.compute.device import choose_device
from astroml_plugin.compute.precision import FLOAT32, half_form
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference.job import Job
from astroml_plugin.inference.resident import BundleRef, resident
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.tasks.run_options import run_options
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.typicality import Typicality


@dataclass(frozen=True)
class RunModel:
    """One bundle of a run, ready to run."""

    ref: BundleRef
    """The bundle, with the run options that it takes."""
    task: Any
    """The science with these options: see `tasks.base.Task`."""
    network: nn.Module
    """In eval mode, on the device."""
    device: torch.device
    """Device of the network."""
    form: str = FLOAT32
    """`precision.FLOAT32`, or the name of a `precision.HalfForm`."""
    compiling: str = "auto"
    """One of `choices.COMPILING`."""
    backend: str = "torch"
    """One of `choices.BACKENDS`."""
    batch: int | None = None
    """Stamps per forward; None: 128 on a CPU, of small ones up to 512; on CUDA what memory holds."""
    typicality: Typicality | None = None
    """Typicality of the training set: the network's last number tells it then; None where it is not known."""

    @property
    def finds_objects(self) -> bool:
        """Whether it detects the objects that the others measure."""
        return isinstance(self.task, DetectingTask)


def task_for(job: Job, ref: BundleRef, task: Task) -> Task:
    """The bundle's task with the run's options.

    Raises:
        InputError: run options that the task refuses.
    """
    if isinstance(task, DetectingTask) and job.field_bands:
        task = task.for_bands(job.field_bands)
    return task.for_run(run_options(task, ref.run_options, ref.name))


def models_of(job: Job, loaded: Mapping[str, ModelBundle] = MappingProxyType({})) -> tuple[RunModel, ...]:
    """The models of a run in column order; each is loaded at its first use in this process.

    Args:
        job: the run.
        loaded: SHA-256 -> bundle that is in memory already; others are read from where they are.

    Raises:
        InputError: a bundle is not what the run was planned with, or its rows are of a form that the device has not.
    """
    return tuple(_model(job, ref, loaded.get(ref.sha256)) for ref in job.bundles)


def _model(job: Job, ref: BundleRef, loaded: ModelBundle | None) -> RunModel:
    how = job.execution
    resident_model = resident(ref, how.device or choose_device(), loaded)
    task = task_for(job, ref, resident_model.task)
    network = task.inference_network(resident_model.network)
    device, form = resident_model.device, half_form(ref.form)
    if form is not None and (problem := form.problem(device)):
        raise InputError(
            f"rows of bundle {ref.name} are of {form} in this catalog, and {problem}: run on other machines, or begin "
            f"another catalog with --precision float32"
        )
    typicality = resident_model.bundle.typicality()
    if typicality is not None and resident_model.taps is not None:
        network = typicality.around(network, resident_model.taps, task.input_shapes())
    return RunModel(ref, task, network, device, ref.form, how.compiling, how.backend, how.batch, typicality)
