"""Number format of a catalog's rows where `--precision auto` leaves it open: decided once, before the first row.

The decision is part of the catalog's identity and travels with every unit. Later runs and other processes follow it, or
are refused.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from distributed import Client
from torch import Tensor

from astroml_plugin.catalog import Catalog
from astroml_plugin.compute.choices import RUNTIMES
from astroml_plugin.compute.device import PLAIN_BATCH, choose_device
from astroml_plugin.compute.forward import HALF_GAP, Forward, difference
from astroml_plugin.compute.memory import stamps_per_forward
from astroml_plugin.compute.precision import (
    COMPILED,
    FLOAT32,
    HALF_PAYS,
    TORCH,
    half_form,
    half_form_of,
    half_kind,
)
from astroml_plugin.compute.runtimes import RuntimeForward
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference.forward import choice_of
from astroml_plugin.inference.job import Job
from astroml_plugin.inference.models import RunModel, models_of
from astroml_plugin.inference.options import ExecutionOptions
from astroml_plugin.inference.resident import lanes_here, on_forward_thread, process_cache
from astroml_plugin.training.bundle import ModelBundle

Decide = Callable[[Job], Mapping[str, str]]
"""Gives the form of each bundle's rows, by its name."""


def with_forms(job: Job, decide: Decide) -> Job:
    """The job with the form of each bundle's rows: those of the catalog that is there, else what is decided now.

    Raises:
        InputError: other runtimes are asked for than the catalog's rows have.
    """
    if job.measure.precision == FLOAT32:
        return job
    there = recorded_forms(job.catalog) if job.catalog else None
    forms = decide(job) if there is None else there
    for name, form in forms.items():
        _refuse_contradiction(name, form, job)
    return replace(job, bundles=tuple(replace(ref, form=forms.get(ref.name, FLOAT32)) for ref in job.bundles))


def recorded_forms(catalog: str) -> dict[str, str] | None:
    """Forms of a catalog's rows by bundle, without those in float32; None where there is no catalog."""
    if not storage.exists(storage.join(catalog, "schema.json")):
        return None
    told = Catalog.open(catalog).identity.get("settings", {}).get("precision")
    return dict(told) if isinstance(told, dict) else {}


def _refuse_contradiction(name: str, form: str, job: Job) -> None:
    half, how = half_form(form), job.execution
    if half is None:
        return
    by_torch = half.runtime in (TORCH, COMPILED)
    other = (how.backend == "torch" and not by_torch) or (how.backend in RUNTIMES and how.backend != half.runtime)
    other |= how.compiling == "never" and half.runtime == COMPILED
    other |= how.compiling == "always" and half.runtime != COMPILED and name != job.detecting
    if other:
        raise InputError(
            f"rows of bundle {name} in this catalog are of {form}: leave --backend and --compile away, or choose "
            f"another --out"
        )


def check_forms(client: Client, job: Job) -> None:
    """Raise InputError where a worker's device cannot give rows of the forms that were decided."""
    forms = {ref.name: ref.form for ref in job.bundles if ref.form != FLOAT32}
    told = [one for one in client.run(_problems, forms, job.execution.device).values() if one] if forms else []
    if told:
        raise InputError(
            f"{told[0]}, and so it is on {len(told)} of the workers: run on others, or begin another catalog with "
            f"--precision float32"
        )


def _problems(forms: Mapping[str, str], device: str | None) -> str:
    here = torch.device(device or choose_device())
    for name, form in forms.items():
        half = half_form(form)
        if half is not None and (problem := half.problem(here)):
            return f"rows of bundle {name} are of {form} in this catalog, and {problem}"
    return ""


def decided_on(client: Client, job: Job) -> dict[str, str]:
    """Forms that one worker decides for all; float32 where their devices are of several kinds."""
    kinds = client.run(_kind, job.execution)
    if len({*kinds.values()}) != 1 or not next(iter(kinds.values())):
        return {ref.name: FLOAT32 for ref in job.bundles}
    first = min(kinds)
    forms: dict[str, str] = client.submit(
        forms_here, job, workers=[first], allow_other_workers=False, pure=False
    ).result()
    return forms


def _kind(how: ExecutionOptions) -> str:
    return half_kind(how.device or choose_device())


def forms_here(job: Job, loaded: Mapping[str, ModelBundle] = MappingProxyType({})) -> dict[str, str]:
    """Forms as this process finds them best; the same at every call.

    Args:
        job: the run.
        loaded: as for `models_of`.
    """
    if not _kind(job.execution):
        return {ref.name: FLOAT32 for ref in job.bundles}
    return {model.ref.name: _kept(model) for model in models_of(job, loaded)}


@dataclass
class _Kept:
    """A decision of this process."""

    form: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


def _kept(model: RunModel) -> str:
    how = (str(model.device), model.backend, model.compiling)
    kept: _Kept = process_cache(("form", model.ref.sha256, model.ref.options, *how), _Kept)
    with kept.lock:
        kept.form = kept.form or on_forward_thread(str(model.device), lambda: decided(model))
        return kept.form


def decided(model: RunModel) -> str:
    """Form of a model's rows, on drawn objects: half precision where it answers alike, and on a CPU is faster.

    On a CPU the fastest in half precision is compared with the fastest in float32, of the runtimes that are allowed, on
    a whole batch: on a few objects the time is that of the calls. It must be faster alone and with all lanes at work.
    """
    compiled = model.compiling == "always" and not model.finds_objects
    by_torch = half_form_of(model.device, COMPILED if compiled else TORCH)
    if by_torch is None or model.backend == "onnx":
        return FLOAT32
    halved = Forward(model.network, model.device, compiling="never", dtype=by_torch.dtype)
    drawn = tuple(item.to(model.device) for item in model.task.example_inputs(DRAWN))
    if model.device.type != "cpu":
        return str(by_torch) if answers_alike(halved, drawn) else FLOAT32
    task = model.task
    if model.finds_objects:
        batch = task.example_inputs(1, task.window)
    else:
        batch = task.example_inputs(model.batch or stamps_per_forward(model.network, task.input_shapes(), "cpu"))
    return _on_a_cpu(model, halved, _Drawn(drawn, batch), str(by_torch))


DRAWN = PLAIN_BATCH
"""Drawn objects on which half precision is compared with float32, faint and bright ones."""


@dataclass(frozen=True)
class _Drawn:
    """Inputs of a network for a decision."""

    objects: tuple[Tensor, ...]
    """Inputs of `DRAWN` objects, whose answers are compared."""
    batch: tuple[Tensor, ...]
    """Inputs as many, or as large, as go through the network at once in a run, which are timed."""


def _on_a_cpu(model: RunModel, halved: Forward, drawn: _Drawn, by_torch: str) -> str:
    choice, count = choice_of(replace(model, form=FLOAT32)), len(drawn.batch[0])
    forms: dict[str, tuple[float, Forward | RuntimeForward]] = {}

    def timed(form: Forward | RuntimeForward) -> tuple[float, Forward | RuntimeForward]:
        return choice.relative(form, drawn.batch, count), form

    if model.backend in ("auto", "torch") and answers_alike(halved, drawn.objects):
        forms[by_torch] = timed(halved)
    if model.backend == "openvino" or "openvino" in choice.candidates():
        made = choice.made("openvino", drawn.objects, DRAWN, half=True)
        if isinstance(made, RuntimeForward):
            forms[str(half_form_of(model.device, "openvino"))] = timed(made)
    if not forms:
        return FLOAT32
    best = min(forms, key=lambda name: forms[name][0])
    if model.backend == "openvino":  # it was asked for
        return best
    others = [choice.made(name, drawn.objects, DRAWN) for name in choice.candidates()]
    whole = [(1.0, choice.plain), *(timed(one) for one in others if isinstance(one, RuntimeForward))]
    (cost, half), (least, fastest) = forms[best], min(whole, key=lambda one: one[0])
    if cost > HALF_PAYS * least:
        return FLOAT32
    lanes, rivals = min(lanes_here(), MOST_LANES), {id(one): one for one in (choice.plain, fastest)}.values()
    pays = all(choice.relative_in_crowd(half, one, drawn.batch, lanes) <= HALF_PAYS for one in rivals)
    return best if pays else FLOAT32


MOST_LANES = 4
"""Threads that are tried at once where a process has more: each makes a session of its own, a matter of seconds."""


def answers_alike(halved: Forward, inputs: tuple[Tensor, ...]) -> bool:
    """Whether half precision changes a network's answers by no more than `HALF_GAP`; where not, a warning says so."""
    count = len(inputs[0])
    plain = Forward(halved.network, halved.device, compiling="never")
    gap = difference(plain(inputs, count), halved(inputs, count).float())
    if gap > HALF_GAP:
        name = type(halved.network).__name__
        warnings.warn(
            f"network {name} runs in float32: in {halved.dtype} its answers differ by {gap:.2g} of their range",
            RuntimeWarning,
            stacklevel=2,
        )
    return gap <= HALF_GAP
