"""Predictions of methods on splits: a network trained by a recipe, finished bundles, classical methods.

Each prediction, one method on the test side of one split, is a Parquet file that is written whole. What is there is not
made again, so that comparisons and learning curves go on where they stopped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin.compute.device import usable_device
from astroml_plugin.core import storage
from astroml_plugin.core.errors import DamagedError, InputError
from astroml_plugin.core.typing import I64, Columns
from astroml_plugin.evaluation.baselines import classical, regressors
from astroml_plugin.sky.duplicates import shared_places
from astroml_plugin.sources.labels import generated
from astroml_plugin.tasks.base import Task
from astroml_plugin.training.batches import StampBatches, at_scale
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.checkpoint import read_log
from astroml_plugin.training.classical_predictions import ClassicalMethods
from astroml_plugin.training.feature_tables import methods_of
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.measure_labelled import measure
from astroml_plugin.training.method_prediction import MethodPrediction, finite, number_columns, read, write
from astroml_plugin.training.plan import Plan, plan_training
from astroml_plugin.training.recipe import Recipe, plain_recipe
from astroml_plugin.training.run import TrainExecution, train_bundle
from astroml_plugin.training.splits import SplitSettings, split_record
from astroml_plugin.training.unseen import trained_on, unseen_rows

NETWORK = "network"
"""The method that is the recipe's network."""

Progress = Callable[..., None]
"""Called as progress(what, done, total, note)."""

_FORMAT = 2
"""Version of the files: those of another one are not read."""


class PredictionCache:
    """Predictions of methods on splits of the same labelled stamps, kept in a folder.

    Args:
        recipe: of a task that has scalar scores.
        data: sources of labelled stamps.
        out: folder or URL.
        test: sources to judge on, none of whose objects may be among the data; default the test side of the split.
        bundles: finished bundles to judge beside the methods, by name.
        device: torch device of the network.
        progress: told of the network's epochs.

    Raises:
        InputError: a recipe, data or bundles that cannot be compared.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: str | Sequence[str],
        out: str,
        *,
        test: Sequence[str] = (),
        bundles: Sequence[str] = (),
        device: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.recipe = recipe
        self.urls = [data] if isinstance(data, str) else list(data)
        self.out, self.progress = storage.absolute(out), progress
        self.device = usable_device(device)
        _refuse_stores(self.out)
        task = recipe.build_task()
        self.data = LabelledStamps(self.urls)
        _refuse_without_scores(task, recipe.task, self.data)
        self.test = LabelledStamps(test) if test else None
        self.bundles = _by_name([ModelBundle.load(bundle) for bundle in bundles])
        self._plans: dict[str, Plan] = {}
        self._classical = ClassicalMethods(self.data, self.judged, recipe.training.memory)

    def check(self, methods: Sequence[str], task: Task) -> None:
        """Refuse methods that are unknown, repeated or no use for a task, or none, before any work.

        Raises:
            InputError: names those there are.
        """
        repeated = sorted({name for name in methods if list(methods).count(name) > 1})
        if repeated or not methods:
            told = f"{', '.join(repeated)} more than once" if repeated else "none"
            raise InputError(f"of methods to compare {told} was given: name each one once, such as {NETWORK},svm")
        known = [NETWORK, *self.bundles, *methods_of(task)]
        for name in methods:
            if name in {*classical.METHODS, *regressors.METHODS} and name not in known:
                does = "tells classes apart" if name in classical.METHODS else "measures numbers"
                raise InputError(
                    f"method {name!r} {does}, and the recipe's task {self.recipe.task!r} has none to learn: "
                    f"there are {', '.join(known)}"
                )
            if name not in known:
                raise InputError(f"no method {name!r} to compare: there are {', '.join(known)}")

    def plan(self, split: SplitSettings) -> Plan:
        """Task, rows and targets of a split."""
        key = storage.digest(split_record(split))
        if key not in self._plans:
            self._plans[key] = plan_training(replace(self.recipe, split=split), self.data)
            if self.test is not None:
                _refuse_shared(self._plans[key], self.test)
        return self._plans[key]

    def refuse_seen(self, plan: Plan) -> None:
        """Refuse bundles that were trained on what they are to be judged on.

        Raises:
            InputError: names the bundle.
        """
        for model in self.bundles.values():
            _refuse_seen(model, self.judged, None if self.test is not None else plan)

    @property
    def judged(self) -> LabelledStamps:
        """Where the objects that methods are judged on lie."""
        return self.data if self.test is None else self.test

    def _side(self, plan: Plan) -> tuple[I64, torch.Tensor, tuple[str, ...]]:
        """Rows in `judged`, their targets and the bands to read."""
        bands = plan.task.check_source(**self.judged.first.facts)
        if self.test is None:
            return plan.rows["test"], plan.targets["test"], bands
        rows = np.flatnonzero(plan.task.usable(self.test.labels) & ~generated(self.test.labels))
        targets = plan.task.targets(self.test.labels.take(pa.array(rows)))
        plan.task.check_splits({"test": targets})
        return rows, targets, bands

    def get(self, method: str, split: SplitSettings, name: str, seed: int = 0) -> MethodPrediction:
        """The prediction of that name, made unless it is there.

        Args:
            method: "network", the name of a bundle, or one of `methods_of` the task.
            split: which objects.
            name: of the file in the folder of the method, without suffix.
            seed: added to the recipe's.

        Raises:
            InputError: the folder holds a prediction of another recipe, seed or data.
        """
        url = storage.join(self.out, "pieces", method, f"{name}.parquet")
        identity = self._identity(method, split, seed)
        with contextlib.suppress(FileNotFoundError, DamagedError):  # made, or made again
            return read(url, identity)
        plan = self.plan(split)
        make = self._network if method == NETWORK else self._bundle if method in self.bundles else self._by_features
        made = make(method, plan, name, seed)
        write(url, replace(made, about={"identity": identity, **made.about}))
        return read(url, identity)

    def _identity(self, method: str, split: SplitSettings, seed: int) -> str:
        plain = {
            "format": _FORMAT,
            "split": split_record(split),
            "data": self.data.digest,
            "method": method,
            "seed": seed,
        }
        if self.test is not None:
            plain["test"] = self.test.digest
        if method == NETWORK:
            whole = plain_recipe(self.recipe)
            return storage.digest(plain, {name: value for name, value in whole.items() if name != "split"})
        if method in self.bundles:
            return storage.digest(plain, self.bundles[method].sha256)
        recipe = {"task": self.recipe.task, "settings": self.recipe.settings, "seed": self.recipe.training.seed}
        return storage.digest(plain, recipe, classical.VERSION)

    # ---- the kinds of methods ------------------------------------------------------------------------------------

    def _network(self, method: str, plan: Plan, name: str, seed: int) -> MethodPrediction:
        folder = storage.join(self.out, NETWORK, name)
        settings = replace(self.recipe.training, seed=self.recipe.training.seed + seed)
        recipe = replace(plan.recipe, training=settings)
        model, _ = train_bundle(recipe, self.urls, folder, TrainExecution(self.device), self.progress)
        log = read_log(folder)
        trained = model.card.training["objects"]["train"]
        about = {"trained": trained, "train_seconds": sum(record["seconds"] for record in log)}
        return self._predicted(model, plan, about)

    def _bundle(self, method: str, plan: Plan, name: str, seed: int) -> MethodPrediction:
        model = self.bundles[method]
        _refuse_seen(model, self.judged, None if self.test is not None else plan)
        about = {"trained": model.card.training.get("objects", {}).get("train", 0)}
        return self._predicted(model, plan, about, foreign=True)

    def _unseen(
        self, model: ModelBundle, side: tuple[I64, torch.Tensor, tuple[str, ...]], about: dict[str, Any]
    ) -> tuple[I64, torch.Tensor, dict[str, Any]]:
        """Rows and targets of a side without the training objects of a finished bundle, and how many those were."""
        rows, wanted, bands = side
        asked = np.zeros(self.judged.labels.num_rows, bool)
        asked[rows] = True
        if trained_on(model, self.judged):  # its own test side, see `_refuse_seen`, divided as it was
            asked = model.task().usable(self.judged.labels)
        unseen = unseen_rows(model, self.judged, asked, bands, learns_labels=model.task().learns_labels)
        kept = torch.from_numpy(np.isin(rows, unseen.rows))
        return rows[kept.numpy()], wanted[kept], {**about, "trained_on": unseen.known + unseen.unknown}

    def _predicted(
        self, model: ModelBundle, plan: Plan, about: dict[str, Any], *, foreign: bool = False
    ) -> MethodPrediction:
        task = model.task()
        _refuse_other_columns(model.name, task, plan.task)
        rows, wanted, bands = self._side(replace(plan, task=task))
        if foreign:
            rows, wanted, about = self._unseen(model, (rows, wanted, bands), about)
        memory = self.recipe.training.memory
        stream = StampBatches(self.judged, rows, wanted, bands=bands, batch_size=256, memory=memory, layers=task.layers)
        network = task.inference_network(model.network(fused=True)).to(self.device)
        started = time.perf_counter()
        measured, kept = measure(task, network, at_scale(stream.ordered(), task), device=self.device)
        told = {**about, "seconds": time.perf_counter() - started, "objects": len(rows)}
        columns = {name: np.asarray(measured.own[name], np.float64) for name in number_columns(task)}
        return finite(MethodPrediction(kept, self._truth(task, kept), columns, told))

    def _truth(self, task: Task, rows: I64) -> Columns:
        return task.truth(self.judged.labels.take(pa.array(rows)))

    def _by_features(self, method: str, plan: Plan, name: str, seed: int) -> MethodPrediction:
        return self._classical.predict(method, plan, self._side(plan)[0], self.recipe.training.seed + seed)


def _refuse_other_columns(name: str, task: Task, wanted: Task) -> None:
    if number_columns(task) == number_columns(wanted) and task.classes == wanted.classes:
        return
    if wanted.classes:
        raise InputError(f"bundle {name} does not have the classes {', '.join(wanted.classes)} in that order")
    raise InputError(f"bundle {name} does not give the columns {', '.join(number_columns(wanted))}")


def _by_name(models: Sequence[ModelBundle]) -> dict[str, ModelBundle]:
    """Bundles by name, each of its own and none that of a method."""
    names = [model.name for model in models]
    others = {NETWORK, *classical.METHODS, *regressors.METHODS}
    taken = sorted({name for name in names if names.count(name) > 1 or name in others})
    if taken:
        raise InputError(
            f"the table cannot tell bundles by the name {', '.join(taken)}, which is that of another bundle or of a "
            f"method: compare them one at a time, or train under another name"
        )
    return dict(zip(names, models))


def _refuse_without_scores(task: Task, name: str, data: LabelledStamps) -> None:
    if not task.scores(data.labels):
        raise InputError(
            f"a recipe of task {name!r} has no scalar score on these labels to compare methods by: use evaluate"
        )


def _refuse_stores(url: str) -> None:
    for name in ("zarr.json", "schema.json", "card.json"):
        if storage.exists(storage.join(url, name)):
            raise InputError(f"{storage.redact(url)} holds a store, catalog or bundle: choose another output")


def _refuse_seen(model: ModelBundle, data: LabelledStamps, plan: Plan | None) -> None:
    """A bundle that was trained on these data may only be judged on its own test side, that of the plan."""
    training = model.card.training
    if not trained_on(model, data):
        return
    same = plan is not None and training.get("split") == split_record(plan.recipe.split)
    if not same or training.get("digest") != data.digest:
        raise InputError(
            f"bundle {model.called} was trained on objects of these data with another split: judge it on other data, "
            f"or with the split of its recipe (--folds 0)"
        )


def _refuse_shared(plan: Plan, test: LabelledStamps) -> None:
    """No stamp to be judged on may have the pixels or the place on the sky of one that is learned from."""
    learned = np.concatenate([plan.rows["train"], plan.rows["validation"]])
    found = {}
    if plan.recipe.split.check_pixels:
        bands = plan.bands
        digests = test.centre_digests(plan.task.check_source(**test.first.facts))
        found["the pixels"] = int(np.isin(digests[digests != 0], plan.data.centre_digests(bands)[learned]).sum())
    position = np.concatenate([plan.data.positions[learned], test.positions])
    side = np.repeat([0, 1], [len(learned), test.labels.num_rows])
    known = np.isfinite(position).all(1)
    found["the place on the sky"] = shared_places(position[known], side[known])
    for what, count in found.items():
        if count:
            raise InputError(
                f"{count} test objects have {what} of an object that is learned from, a leak: remove them from one side"
            )
