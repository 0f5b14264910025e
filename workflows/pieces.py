"""Methods on splits, piece by piece: a network trained by a recipe, finished bundles, classical classifiers.

A piece is one method on one split: the probabilities of its test side, in one Parquet file that is written whole. What
is there is not done again, so that comparisons and learning curves go on where they stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from astroml_plugin.compute.device import choose_device
from astroml_plugin.core import formats, storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import to_mapping
from astroml_plugin.evaluation.baselines import classical, features
from astroml_plugin.sky.duplicates import shared_places
from astroml_plugin.tasks.base import Task
from astroml_plugin.training.batches import BlockStream
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.checkpoint import LOG
from astroml_plugin.training.forward import outputs_of
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.plan import Plan, plan_training
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.run import TrainExecution
from astroml_plugin.training.splits import SplitSettings, split_record
from workflows.recipe import read_recipe
from workflows.train import train

NETWORK = "network"
"""The method that is the recipe's network."""


Float = NDArray[np.float64]
Progress = Callable[..., None]
"""Called as progress(what, done, total, note)."""


@dataclass(frozen=True)
class Piece:
    """One method on the test side of one split."""

    rows: NDArray[np.int64]
    """(n,) numbers of the objects that were measured."""
    truth: NDArray[np.int64]
    """(n,) their classes."""
    probabilities: Float
    """(n, class)"""
    about: dict[str, Any]
    """identity, classes, trained (objects), train_seconds, seconds (of the test side), objects (asked for)."""


class Pieces:
    """What methods give on splits of the same labelled stamps, kept in a folder.

    Args:
        recipe: of a task that classifies.
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
        recipe: str | Path | Recipe,
        data: str | Sequence[str],
        out: str | Path,
        *,
        test: Sequence[str] = (),
        bundles: Sequence[str | Path] = (),
        device: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.recipe = read_recipe(recipe)
        self.urls = [data] if isinstance(data, str) else list(data)
        self.out, self.progress = storage.absolute(str(out)), progress
        self.device = device or choose_device()
        _refuse_stores(self.out)
        _refuse_other_tasks(self.recipe.build_task(), self.recipe.task)
        self.data = LabelledStamps(self.urls)
        self.test = LabelledStamps(test) if test else None
        self.bundles = _by_name([ModelBundle.load(bundle) for bundle in bundles])
        self._plans: dict[str, Plan] = {}
        self._tables: dict[tuple[bool, str], _Table] = {}

    def check(self, methods: Sequence[str]) -> None:
        """Refuse unknown and repeated methods, or none, before any work.

        Raises:
            InputError: names those there are.
        """
        repeated = sorted({name for name in methods if list(methods).count(name) > 1})
        if repeated or not methods:
            told = f"{', '.join(repeated)} more than once" if repeated else "none"
            raise InputError(f"of methods to compare {told} was given: name each one once, such as {NETWORK},svm")
        for name in methods:
            if name == NETWORK or name in self.bundles:
                continue
            if name not in classical.METHODS:
                known = ", ".join([NETWORK, *self.bundles, *classical.METHODS])
                raise InputError(f"no method {name!r} to compare: there are {known}")
            classical.method(name)

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

    def _side(self, plan: Plan) -> tuple[NDArray[np.int64], torch.Tensor, tuple[str, ...]]:
        """Rows in `judged`, their targets and the bands to read."""
        source = self.judged.first
        bands = plan.task.check_source(
            bands=source.bands,
            pixel_scale=source.pixel_scale,
            size=source.size,
            dtype=source.dtype.name,
            has_psf=source.has_psf,
        )
        if self.test is None:
            return plan.rows["test"], plan.targets["test"], bands
        rows = np.flatnonzero(plan.task.usable(self.test.labels))
        targets = plan.task.targets(self.test.labels.take(pa.array(rows)))
        plan.task.check_splits({"test": targets})
        return rows, targets, bands

    def get(self, method: str, split: SplitSettings, name: str, seed: int = 0) -> Piece:
        """The piece of that name, made unless it is there.

        Args:
            method: "network", the name of a bundle, or one of `classical.METHODS`.
            split: which objects.
            name: of the piece in the folder, without suffix.
            seed: added to the recipe's.

        Raises:
            InputError: the folder holds a piece of another recipe, seed or data.
        """
        url = storage.join(self.out, "pieces", method, f"{name}.parquet")
        identity = self._identity(method, split, seed)
        if storage.exists(url):
            return _read(url, identity)
        plan = self.plan(split)
        make = self._network if method == NETWORK else self._bundle if method in self.bundles else self._classical
        piece = make(method, plan, name, seed)
        about = {"identity": identity, "classes": list(plan.task.settings.classes), **piece.about}
        _write(url, replace(piece, about=about))
        return _read(url, identity)

    def _identity(self, method: str, split: SplitSettings, seed: int) -> str:
        plain = {"split": split_record(split), "data": self.data.digest, "method": method, "seed": seed}
        if self.test is not None:
            plain["test"] = self.test.digest
        if method == NETWORK:
            whole = to_mapping(self.recipe)
            return storage.digest(plain, {name: value for name, value in whole.items() if name != "split"})
        if method in self.bundles:
            return storage.digest(plain, self.bundles[method].sha256)
        recipe = {"task": self.recipe.task, "settings": self.recipe.settings, "seed": self.recipe.training.seed}
        return storage.digest(plain, recipe, classical.VERSION)

    # ---- the kinds of methods ------------------------------------------------------------------------------------

    def _network(self, method: str, plan: Plan, name: str, seed: int) -> Piece:
        folder = storage.join(self.out, NETWORK, name)
        settings = replace(self.recipe.training, seed=self.recipe.training.seed + seed)
        recipe = replace(plan.recipe, training=settings)
        result = train(
            recipe, data=self.urls, out=folder, execution=TrainExecution(self.device), progress=self.progress
        )
        model = ModelBundle.load(result.bundle)
        log = [json.loads(line) for line in storage.read_bytes(storage.join(folder, LOG)).splitlines()]
        about = {"trained": result.objects, "train_seconds": sum(record["seconds"] for record in log)}
        return self._judged(model, plan, about)

    def _bundle(self, method: str, plan: Plan, name: str, seed: int) -> Piece:
        model = self.bundles[method]
        _refuse_seen(model, self.judged, None if self.test is not None else plan)
        return self._judged(model, plan, {"trained": model.card.training.get("objects", {}).get("train", 0)})

    def _judged(self, model: ModelBundle, plan: Plan, about: dict[str, Any]) -> Piece:
        task: Any = model.task()
        classes = tuple(plan.task.settings.classes)
        if tuple(getattr(task.settings, "classes", ())) != classes:
            raise InputError(f"bundle {model.name} does not have the classes {', '.join(classes)} in that order")
        rows, wanted, bands = self._side(replace(plan, task=task))
        memory = self.recipe.training.memory
        stream = BlockStream(self.judged, rows, wanted, bands=bands, batch_size=256, memory=memory)
        network = model.network(fused=True).to(self.device)
        started = time.perf_counter()
        outputs, targets, measured = outputs_of(task, network, stream, self.device)
        probabilities = task.probabilities(outputs).double().numpy()
        told = {**about, "seconds": time.perf_counter() - started, "objects": len(rows)}
        return Piece(measured, class_numbers(targets), probabilities, told)

    def _classical(self, method: str, plan: Plan, name: str, seed: int) -> Piece:
        kinds = classical.method(method).inputs
        learned = {kind: self._table(self.data, kind, plan.task) for kind in kinds}
        judged = {kind: self._table(self.judged, kind, plan.task) for kind in kinds}
        targets = {split: class_numbers(values) for split, values in plan.targets.items()}
        rows, wanted, _ = self._side(plan)
        each = sum(table.seconds for table in learned.values())
        started = time.perf_counter()
        fitted = classical.Classifier(
            method,
            _rows_of(learned, plan.rows["train"]),
            targets["train"],
            _rows_of(learned, plan.rows["validation"]),
            targets["validation"],
            classes=len(plan.task.settings.classes),
            weights=plan.task.settings.weights,
            seed=self.recipe.training.seed + seed,
        )
        trained = time.perf_counter() - started + each * (len(targets["train"]) + len(targets["validation"]))
        started = time.perf_counter()
        probabilities = fitted.probabilities(_rows_of(judged, rows))
        seconds = time.perf_counter() - started + sum(table.seconds for table in judged.values()) * len(rows)
        about = {"trained": fitted.trained, "train_seconds": trained, "seconds": seconds, "objects": len(rows)}
        return Piece(rows, class_numbers(wanted), probabilities, about)

    def _table(self, data: LabelledStamps, kind: str, task: Task) -> _Table:
        """One kind of input of all usable objects."""
        key = (data is self.data, kind)
        if key not in self._tables:
            usable = np.flatnonzero(task.usable(data.labels))
            parts, spent = [], 0.0
            for block in data.blocks:
                rows = usable[(usable >= block.start) & (usable < block.stop)]
                if len(rows) == 0:
                    continue
                cutouts = task.fitted_stamps(data.read(block, rows, task.bands))
                started = time.perf_counter()
                parts.append(features.INPUTS[kind](cutouts).values)
                spent += time.perf_counter() - started
                self._refuse_large(kind, len(usable), parts[0].shape[1])
            self._tables[key] = _Table(usable, np.concatenate(parts), spent / len(usable))
        return self._tables[key]

    def _refuse_large(self, kind: str, count: int, columns: int) -> None:
        size, most = 4.0 * count * columns, self.recipe.training.memory
        if size > most:
            without = ", ".join(name for name, method in classical.METHODS.items() if kind not in method.inputs)
            raise InputError(
                f"the {kind} of {count} objects take {size / 1e9:.1f} GB and memory in [training] of the recipe is "
                f"{most / 1e9:.1f} GB: raise it, or compare only methods without them, {without}"
            )


@dataclass(frozen=True)
class _Table:
    """One kind of input."""

    rows: NDArray[np.int64]
    """(n,) sorted numbers of the objects."""
    values: Float
    """(n, columns)"""
    seconds: float
    """That one object took."""


def _rows_of(tables: Mapping[str, _Table], rows: NDArray[np.int64]) -> dict[str, Float]:
    return {kind: table.values[np.searchsorted(table.rows, rows)] for kind, table in tables.items()}


def class_numbers(targets: torch.Tensor) -> NDArray[np.int64]:
    """(n,) classes; where the labels are votes, the one with most."""
    return np.asarray(targets.argmax(1) if targets.ndim == 2 else targets, np.int64)


def _by_name(models: Sequence[ModelBundle]) -> dict[str, ModelBundle]:
    """Bundles by name, each of its own and none that of a method."""
    names = [model.name for model in models]
    taken = sorted({name for name in names if names.count(name) > 1 or name == NETWORK or name in classical.METHODS})
    if taken:
        raise InputError(
            f"the table cannot tell bundles by the name {', '.join(taken)}, which is that of another bundle or of a "
            f"method: compare them one at a time, or train under another name"
        )
    return dict(zip(names, models))


def _refuse_other_tasks(task: Task, name: str) -> None:
    if not hasattr(task, "probabilities") or getattr(task.settings, "multi_label", False):
        raise InputError(
            f"a recipe of task {name!r} that does not give one class of several cannot be compared here: "
            f"use evaluate --baselines"
        )


def _refuse_stores(url: str) -> None:
    for name in ("zarr.json", "schema.json", "card.json"):
        if storage.exists(storage.join(url, name)):
            raise InputError(f"{storage.redact(url)} holds a store, catalog or bundle: choose another output")


def _refuse_seen(model: ModelBundle, data: LabelledStamps, plan: Plan | None) -> None:
    """A bundle that was trained on these data may only be judged on its own test side, that of the plan."""
    training = model.card.training
    ids = {source.id for source in data.sources} & {source["id"] for source in training.get("sources", [])}
    if not ids and training.get("digest") != data.digest:
        return
    same = plan is not None and training.get("split") == split_record(plan.recipe.split)
    if not same or training.get("digest") != data.digest:
        raise InputError(
            f"bundle {model.name} was trained on objects of these data with another split: judge it on other data, or "
            f"with the split of its recipe (--folds 0)"
        )


def _refuse_shared(plan: Plan, test: LabelledStamps) -> None:
    """No stamp to be judged on may have the pixels or the place on the sky of one that is learned from."""
    learned = np.concatenate([plan.rows["train"], plan.rows["validation"]])
    found = {}
    if plan.recipe.split.check_pixels:
        hashes = test.pixel_hashes
        found["the pixels"] = int(np.isin(hashes[hashes != 0], plan.data.pixel_hashes[learned]).sum())
    position = np.concatenate([plan.data.positions[learned], test.positions])
    side = np.repeat([0, 1], [len(learned), test.labels.num_rows])
    known = np.isfinite(position).all(1)
    found["the place on the sky"] = shared_places(position[known], side[known])
    for what, count in found.items():
        if count:
            raise InputError(
                f"{count} test objects have {what} of an object that is learned from, a leak: remove them from one side"
            )


# ---- files -------------------------------------------------------------------------------------------------------


def _write(url: str, piece: Piece) -> None:
    classes = piece.about["classes"]
    columns: dict[str, Any] = {"row": piece.rows, "truth": piece.truth}
    columns |= {f"p_{name}": piece.probabilities[:, number] for number, name in enumerate(classes)}
    table = pa.table(columns)
    storage.write_table(url, table.replace_schema_metadata({formats.PREDICTIONS: json.dumps(piece.about).encode()}))


def _read(url: str, identity: str) -> Piece:
    table = storage.read_table(url)
    about = json.loads((table.schema.metadata or {}).get(formats.PREDICTIONS.encode(), b"{}"))
    if about.get("identity") != identity:
        raise InputError(
            f"{storage.redact(url)} was made with another recipe, seed, split or data: "
            f"choose another output or remove it"
        )
    probabilities = np.stack([table[f"p_{name}"].to_numpy() for name in about["classes"]], axis=1)
    return Piece(table["row"].to_numpy(), table["truth"].to_numpy(), probabilities, about)
