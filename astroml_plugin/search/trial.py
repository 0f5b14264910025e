"""One trial of a search: a configuration becomes a recipe, and the recipe a training in its folder."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from astroml_plugin.compute.device import choose_device
from astroml_plugin.core import registry as plugins
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping, to_mapping
from astroml_plugin.search import node_cache
from astroml_plugin.search.objectives import SPEED
from astroml_plugin.search.running import Report
from astroml_plugin.search.space import Configuration, Parameter, Space
from astroml_plugin.training import distributed
from astroml_plugin.training.batches import Batches
from astroml_plugin.training.checkpoint import history_of
from astroml_plugin.training.forward import network_inputs
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.plan import Plan, initial_network, plan_training, training_identity
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.run import EpochWatch, fit_plan
from astroml_plugin.training.settings import TrainingRun
from astroml_plugin.training.stem_cache import StemCache

_SPEED_REPEATS = 5


def configured(base: Recipe, configuration: Configuration) -> Recipe:
    """The recipe with the values of a configuration; another network starts from its own default arguments.

    Raises:
        InputError: an unknown key or a value of the wrong type.
    """
    values: dict[str, Any] = to_mapping(base)
    if configuration.get("network", base.network) != base.network:
        values["network_arguments"] = {}
    for key, value in configuration.items():
        table = values
        *path, last = key.split(".")
        for name in path:
            below = table[name] = {} if table.get(name) is None else table[name]
            if not isinstance(below, dict):
                raise InputError(f"{name!r} of the recipe is no table, so it has no {last!r}")
            table = below
        table[last] = value
    return from_mapping(Recipe, values, "the recipe")


def own_configuration(base: Recipe, space: Space) -> Configuration | None:
    """The recipe's own values at the keys of a space; None where one lies outside of the space."""
    values: dict[str, Any] = to_mapping(base)
    values["settings"] = base.build_task().to_settings()
    signature = inspect.signature(plugins.load(plugins.NETWORKS, base.network))
    defaults = {name: one.default for name, one in signature.parameters.items()}
    values["network_arguments"] = {**defaults, **values["network_arguments"]}
    outside: list[str] = []

    def choose(one: Parameter) -> Any:
        value: Any = values
        for name in one.key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if not one.contains(value):
            outside.append(one.key)
        return value

    found = space.configured(choose)
    return None if outside else found


@dataclass(frozen=True)
class TrialWork:
    """Trains one configuration; travels to the trial's process, so it holds addresses only."""

    recipe: Recipe
    urls: tuple[str, ...]
    device: str | None
    processes: int
    speed: bool
    """Whether the network's speed is measured."""
    identity: str | None = None
    """Identity of all checkpoints, where trials go on from each other's; None: each trial has its own."""

    def __call__(self, configuration: Configuration, folder: str, report: Report, until: int | None = None) -> None:
        """Train in `folder`, going on from the checkpoint that may be there."""
        run = TrainingRun(folder, until=until, device=self.device or choose_device())
        if self.speed:
            plan = trial_plan(self.recipe, configuration, _opened(self.urls))
            report.note(SPEED, forward_speed(plan, initial_network(plan), run.device))
        for record in history_of(folder):
            report(record)
        if self.processes == 1:
            _train_trial(self, configuration, replace(run, report=report))
            return
        watch = EpochWatch(lambda: history_of(folder), report)
        distributed.spawn(self.processes, _train_trial, self, configuration, run, watch=watch)
        watch()


def _train_trial(work: TrialWork, configuration: Configuration, run: TrainingRun) -> None:
    """Train a trial in this process, alone or as one of a group."""
    plan = trial_plan(work.recipe, configuration, _opened(work.urls))
    network = initial_network(plan)
    with distributed.joined_group(run.device) as group:
        identity = work.identity or plan.identity
        run = replace(run, identity=identity, device=group.device, group=group)
        fit_plan(plan, network, run, _training_batches(plan, network, run))


@lru_cache(maxsize=1)
def _opened(urls: tuple[str, ...]) -> LabelledStamps:
    """The data, once per process: Ray gives a process one trial after another."""
    return node_cache.CachedStamps(urls)


def _training_batches(plan: Plan, network: nn.Module, run: TrainingRun) -> Batches:
    """The training split; features of a fixed stem are made once per process for all trials that share them."""
    stream, training = plan.batches("train", run.group), plan.recipe.training
    if not training.cache or run.group.size > 1:
        return stream
    stem = [(name, value.cpu().numpy().tobytes().hex()) for name, value in network.named_buffers()]
    parts = [plan.recipe.network, stem, plan.task.to_settings(), plan.data.split_identity(plan.rows), training.augment]
    key = storage.digest(*parts, run.device)
    if key not in _FEATURES:
        _FEATURES.clear()  # one at a time: they may be large
        network.to(torch.device(run.device))
        _FEATURES[key] = StemCache(plan.task, network, stream, training, run.device)
    return _FEATURES[key].under(training)


_FEATURES: dict[str, StemCache] = {}


def trial_plan(base: Recipe, configuration: Configuration, data: LabelledStamps) -> Plan:
    """Task, splits and targets of a configuration; validation and test objects are the base recipe's in every trial."""
    recipe = configured(base, configuration)
    plan = replace(_fitted(recipe, data), recipe=recipe, identity=training_identity(recipe, data))
    if recipe.split == base.split:
        return plan
    fixed = data.split(base.split, plan.task.usable(data.labels))
    rows = {**fixed, "train": plan.rows["train"]}
    targets = {name: plan.task.targets(data.labels.take(pa.array(chosen))) for name, chosen in rows.items()}
    return replace(plan, rows=rows, targets=targets)


def _fitted(recipe: Recipe, data: LabelledStamps) -> Plan:
    """The plan of a recipe that agrees in all that a plan depends on, made once per process: the network and how it is
    trained do not change the task, the splits and their targets, except that the seed draws the measured sample."""
    key = storage.digest(recipe.task, to_mapping(recipe)["settings"], asdict(recipe.split), recipe.training.seed)
    if _PLANS.get("key") != (key, id(data)):
        _PLANS.update(key=(key, id(data)), plan=plan_training(recipe, data))
    return cast(Plan, _PLANS["plan"])


_PLANS: dict[str, Any] = {}


def changeable(base: Recipe, space: Space, plan: Plan) -> frozenset[str]:
    """Keys that may change in the middle of a training: numbers of the optimisation, and of the network where its
    weights do not depend on them (dropout)."""
    return frozenset(
        one.key
        for one in space.parameters
        if one.numeric and (_of_optimisation(one) or _keeps_weights(base, space, plan, one))
    )


def _of_optimisation(one: Parameter) -> bool:
    if one.key == "training.ema":  # without an average there are no averaged weights to go on from
        return bool(min(one.values) > 0)
    return one.key.startswith("training.") and one.key not in ("training.seed", "training.patience")


def _keeps_weights(base: Recipe, space: Space, plan: Plan, one: Parameter) -> bool:
    """Whether networks at the ends of its range have the same weights; no memory is taken for them."""
    if not one.key.startswith("network_arguments."):
        return False
    shapes = set()
    for other, configuration in space.corners():
        if other.key == one.key:
            recipe = configured(base, configuration)
            with torch.device("meta"):
                network = plan.task.build_network(recipe.network, recipe.network_arguments)
            shapes.add(tuple((name, value.shape) for name, value in network.state_dict().items()))
    return len(shapes) == 1


def forward_speed(plan: Plan, network: nn.Module, device: str) -> float:
    """Objects per second of the network's forward pass over a batch of the validation split; median of five."""
    batch = next(iter(plan.batches("validation").ordered()))
    network.to(torch.device(device)).eval()
    inputs, _, rows = network_inputs(plan.task, batch, device)
    seconds = []
    with torch.inference_mode():
        for _ in range(_SPEED_REPEATS + 1):
            started = time.perf_counter()
            network(*inputs).float().cpu()
            seconds.append(time.perf_counter() - started)
    return round(len(rows) / float(np.median(seconds[1:])), 1)
