"""Methods on splits, piece by piece: a network trained by a recipe, finished bundles, classical classifiers.

A piece is one method on one split: the probabilities of its test side, in one Parquet file that is written whole. What
is there is not done again, so that comparisons and learning curves go on where they stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from astroml_plugin import storage
from astroml_plugin.baselines import classical, features
from astroml_plugin.bundle import ModelBundle
from astroml_plugin.errors import InputError
from astroml_plugin.settings import to_mapping
from astroml_plugin.stream import BlockStream, LabelledStamps, SplitSettings, split_record
from astroml_plugin.tasks.base import Task
from astroml_plugin.training import LOG, outputs_of
from workflows.recipe import Recipe, read_recipe
from workflows.train import Plan, planned, train

NETWORK = "network"
"""The method that is the recipe's network."""

_KEY = b"astroml_plugin_piece"

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
        bundles: Sequence[str | Path] = (),
        device: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.recipe = read_recipe(recipe)
        self.urls = [data] if isinstance(data, str) else list(data)
        self.out, self.progress = storage.absolute(str(out)), progress
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        _refuse_stores(self.out)
        _refuse_other_tasks(self.recipe.build_task(), self.recipe.task)
        self.data = LabelledStamps(self.urls)
        self.bundles = {model.name: model for model in (ModelBundle.load(bundle) for bundle in bundles)}
        self._plans: dict[str, Plan] = {}
        self._tables: dict[str, tuple[Float, float]] = {}

    def check(self, methods: Sequence[str]) -> None:
        """Refuse unknown methods before any work.

        Raises:
            InputError: names those there are.
        """
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
            self._plans[key] = planned(replace(self.recipe, split=split), self.data)
        return self._plans[key]

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
        result = train(recipe, data=self.urls, out=folder, device=self.device, progress=self.progress)
        model = ModelBundle.load(result.bundle)
        log = [json.loads(line) for line in storage.read_bytes(storage.join(folder, LOG)).splitlines()]
        about = {"trained": result.objects, "train_seconds": sum(record["seconds"] for record in log)}
        return self._judged(model, plan, about)

    def _bundle(self, method: str, plan: Plan, name: str, seed: int) -> Piece:
        model = self.bundles[method]
        _refuse_seen(model, self.data, plan)
        return self._judged(model, plan, {"trained": model.card.training.get("objects", {}).get("train", 0)})

    def _judged(self, model: ModelBundle, plan: Plan, about: dict[str, Any]) -> Piece:
        task: Any = model.task()
        classes = tuple(plan.task.settings.classes)
        if tuple(getattr(task.settings, "classes", ())) != classes:
            raise InputError(f"bundle {model.name} does not have the classes {', '.join(classes)} in that order")
        source = self.data.first
        bands = task.check_source(
            bands=source.bands,
            pixel_scale=source.pixel_scale,
            size=source.size,
            dtype=source.dtype.name,
            has_psf=source.has_psf,
        )
        rows = plan.rows["test"]
        memory = self.recipe.training.memory
        stream = BlockStream(self.data, rows, plan.targets["test"], bands=bands, batch_size=256, memory=memory)
        network = model.network(fused=True).to(self.device)
        started = time.perf_counter()
        outputs, targets, measured = outputs_of(task, network, stream, self.device)
        probabilities = task.probabilities(outputs).double().numpy()
        told = {**about, "seconds": time.perf_counter() - started, "objects": len(rows)}
        return Piece(measured, class_numbers(targets), probabilities, told)

    def _classical(self, method: str, plan: Plan, name: str, seed: int) -> Piece:
        kinds = classical.method(method).inputs
        tables = {kind: self._table(kind, plan.task) for kind in kinds}

        def part(split: str) -> dict[str, Float]:
            return {kind: tables[kind][0][self._place[plan.rows[split]]] for kind in kinds}

        targets = {split: class_numbers(values) for split, values in plan.targets.items()}
        started = time.perf_counter()
        fitted = classical.Classifier(
            method,
            part("train"),
            targets["train"],
            part("validation"),
            targets["validation"],
            classes=len(plan.task.settings.classes),
            weights=plan.task.settings.weights,
            seed=self.recipe.training.seed + seed,
        )
        trained = time.perf_counter() - started
        trained += sum(tables[kind][1] for kind in kinds) * (len(targets["train"]) + len(targets["validation"]))
        started = time.perf_counter()
        probabilities = fitted.probabilities(part("test"))
        rows = plan.rows["test"]
        seconds = time.perf_counter() - started + sum(tables[kind][1] for kind in kinds) * len(rows)
        about = {"trained": fitted.trained, "train_seconds": trained, "seconds": seconds, "objects": len(rows)}
        return Piece(rows, targets["test"], probabilities, about)

    @cached_property
    def _place(self) -> NDArray[np.int64]:
        """(all objects,) place in the tables of those that are usable."""
        usable = self.recipe.build_task().usable(self.data.labels)
        return np.cumsum(usable) - 1

    def _table(self, kind: str, task: Task) -> tuple[Float, float]:
        """One kind of input of all usable objects, and the seconds that one object took."""
        if kind not in self._tables:
            usable = np.flatnonzero(task.usable(self.data.labels))
            parts, spent = [], 0.0
            for block in self.data.blocks:
                rows = usable[(usable >= block.start) & (usable < block.stop)]
                if len(rows) == 0:
                    continue
                cutouts = task.fitted_stamps(self.data.read(block, rows, task.bands))
                started = time.perf_counter()
                parts.append(features.INPUTS[kind](cutouts).values)
                spent += time.perf_counter() - started
                self._refuse_large(kind, len(usable), parts[0].shape[1])
            self._tables[kind] = np.concatenate(parts), spent / len(usable)
        return self._tables[kind]

    def _refuse_large(self, kind: str, count: int, columns: int) -> None:
        size, most = 4.0 * count * columns, self.recipe.training.memory
        if size > most:
            without = ", ".join(name for name, method in classical.METHODS.items() if kind not in method.inputs)
            raise InputError(
                f"the {kind} of {count} objects take {size / 1e9:.1f} GB and memory in [training] of the recipe is "
                f"{most / 1e9:.1f} GB: raise it, or compare only methods without them, {without}"
            )


def class_numbers(targets: torch.Tensor) -> NDArray[np.int64]:
    """(n,) classes; where the labels are votes, the one with most."""
    return np.asarray(targets.argmax(1) if targets.ndim == 2 else targets, np.int64)


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


def _refuse_seen(model: ModelBundle, data: LabelledStamps, plan: Plan) -> None:
    """A bundle that was trained on these data may only be judged on its own test side."""
    training = model.card.training
    ids = {source.id for source in data.sources} & {source["id"] for source in training.get("sources", [])}
    seen = bool(ids) or training.get("digest") == data.digest
    if seen and (training.get("digest") != data.digest or training.get("split") != split_record(plan.recipe.split)):
        raise InputError(
            f"bundle {model.name} was trained on objects of these data with another split: judge it on other data, or "
            f"with the split of its recipe (--folds 0)"
        )


# ---- files -------------------------------------------------------------------------------------------------------


def _write(url: str, piece: Piece) -> None:
    classes = piece.about["classes"]
    columns: dict[str, Any] = {"row": piece.rows, "truth": piece.truth}
    columns |= {f"p_{name}": piece.probabilities[:, number] for number, name in enumerate(classes)}
    table = pa.table(columns)
    storage.write_table(url, table.replace_schema_metadata({_KEY: json.dumps(piece.about).encode()}))


def _read(url: str, identity: str) -> Piece:
    table = storage.read_table(url)
    about = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    if about.get("identity") != identity:
        raise InputError(
            f"{storage.redact(url)} was made with another recipe, seed, split or data: "
            f"choose another output or remove it"
        )
    probabilities = np.stack([table[f"p_{name}"].to_numpy() for name in about["classes"]], axis=1)
    return Piece(table["row"].to_numpy(), table["truth"].to_numpy(), probabilities, about)
