"""Which objects of a source a bundle may be judged on: none that it was trained on, in whatever store they lie."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping
from astroml_plugin.core.typing import I64, Bool
from astroml_plugin.sources.labels import generated
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.known_objects import KnownObjects
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.splits import SplitSettings

TEST, ALL, UNSEEN = "test", "all", "unseen"
"""Splits that a bundle is judged on: its own test side, everything, everything but training objects."""


BEGUN, ADAPTED = "from", "adapted"
"""Key of a card's training record: the bundle that it began with, for other labels or for a survey without any."""

SEEN_WITHOUT_LABELS = "seen_without_labels"
"""Key of the record `BEGUN`: that bundle learned no labels."""


@dataclass(frozen=True)
class Unseen:
    """Objects to judge a bundle on."""

    rows: I64
    """(n,) sorted row numbers."""
    split: str
    """`TEST`, `ALL` or `UNSEEN`."""
    known: int = 0
    """Objects left out, since the bundle was trained on them."""
    unknown: int = 0
    """Objects left out, since the record names a part of the training objects and they are of the other part."""
    drawn: int = 0
    """Stamps left out, since a generator drew them."""

    @property
    def left_out(self) -> str:
        """The objects left out, in words; empty where there are none."""
        told = [f"{self.drawn} stamps that a generator drew"] if self.drawn else []
        told += [f"{self.known} objects that the bundle was trained on"] if self.known else []
        told += [f"{self.unknown} of which its record cannot tell"] if self.unknown else []
        return f"left out {' and '.join(told)}" if told else ""


def training_objects(data: LabelledStamps, bands: Sequence[str], rows: Mapping[str, I64]) -> KnownObjects:
    """The record of what a training learns from: its training and validation side, rows by split name, and what the
    generators of drawn stamps learned from."""
    learned = np.sort(np.concatenate([rows["train"], rows["validation"]]))
    ids = data.labels["object_id"].to_numpy()
    marks = data.centre_digests(bands)[learned], ids[learned], data.positions[learned], data.likeness(bands)[learned]
    found = KnownObjects.of(*marks)
    return found if data.behind_drawn is None else found.joined(data.behind_drawn)


def trained_on(model: ModelBundle, data: LabelledStamps) -> bool:
    """Whether the very stores, or stores of the same content, are those that a bundle was trained on."""
    training = model.card.training
    ids = {source.id for source in data.sources} & {source["id"] for source in training.get("sources", [])}
    return bool(ids) or training.get("digest") == data.digest


def refuse_trained_on(model: ModelBundle, data: LabelledStamps, bands: Sequence[str], remedy: str) -> None:
    """Refuse data of which a bundle has learned.

    Raises:
        InputError: the stores are those that it was trained on, or some objects are; ends with the remedy.
    """
    seen = {source["id"] for source in model.card.training.get("sources", [])}
    stores = [source for source in data.sources if source.id in seen]
    if stores:
        raise InputError(f"{storage.redact(stores[0].url)} was trained on: {remedy}")
    known = model.known_objects()
    count = 0 if known is None else int(_held(known, data, bands).sum())
    if count:
        raise InputError(f"{count} of these objects were trained on (bundle {model.called}): {remedy}")


def _held(known: KnownObjects, data: LabelledStamps, bands: Sequence[str]) -> Bool:
    """(n,) whether objects are training objects."""
    return known.holds(data.centre_digests(bands), data.positions, data.likeness(bands))


def learned_from(model: ModelBundle, data: LabelledStamps, usable: Bool, bands: Sequence[str]) -> Bool:
    """(n,) whether the weights of a bundle were fitted to objects, as far as its record tells.

    Args:
        model: the bundle.
        data: labelled stamps.
        usable: (n,) objects that the bundle's own split was drawn from, where it was trained on these data.
        bands: bands by whose pixels objects are known again.
    """
    if trained_on(model, data):
        found = np.zeros(data.labels.num_rows, bool)
        rows = data.split(own_split(model), usable)
        found[rows["train"]] = True
        if _begun_with_labels(model):  # what is known of the test side, the bundle before learned from
            found[rows["test"]] = _known_of(model, data, rows["test"], bands)
        return found
    known = model.known_objects()
    if known is None:
        _warn_of_no_record(model)
        return np.zeros(data.labels.num_rows, bool)
    return _held(known, data, bands)


def _begun_with_labels(model: ModelBundle) -> bool:
    """Whether a training began with a bundle that had learned labels, whose objects are among the known ones."""
    training = model.card.training
    return ADAPTED in training or SEEN_WITHOUT_LABELS not in training.get(BEGUN, {SEEN_WITHOUT_LABELS: {}})


def _known_of(model: ModelBundle, data: LabelledStamps, rows: I64, bands: Sequence[str]) -> Bool:
    known = model.known_objects()
    return np.zeros(len(rows), bool) if known is None else _held(known, data, bands)[rows]


def own_split(model: ModelBundle) -> SplitSettings:
    """How a bundle's training divided its objects."""
    return from_mapping(SplitSettings, model.card.training["split"], "the split of the card")


def _warn_of_no_record(model: ModelBundle) -> None:
    if model.card.training:
        warnings.warn(
            f"bundle {storage.redact(model.url)} keeps no record of its training objects: they are not told from "
            f"others here, judge it on data that it has never seen",
            stacklevel=3,
        )


def unseen_rows(
    model: ModelBundle, data: LabelledStamps, usable: Bool, bands: Sequence[str], *, learns_labels: bool = True
) -> Unseen:
    """Choose the objects that a bundle may be judged on.

    Args:
        model: the bundle.
        data: labelled stamps.
        usable: (n,) objects with labels that can be judged.
        bands: bands that the bundle reads of these data, in its order.
        learns_labels: False for a task that is judged on all objects, as it learns no labels.

    Raises:
        InputError: no object is left, or the bundle's record of training objects is damaged.
    """
    drawn = usable & generated(data.labels)
    found = _unseen(model, data, usable, np.flatnonzero(usable & ~drawn), bands, learns_labels)
    return _some(replace(found, drawn=int(drawn.sum())), data)


def _unseen(
    model: ModelBundle, data: LabelledStamps, usable: Bool, rows: I64, bands: Sequence[str], learns_labels: bool
) -> Unseen:
    """Choose among rows that no generator drew; arguments as of `unseen_rows`."""
    if not learns_labels:
        return Unseen(rows, ALL)
    if trained_on(model, data):
        test = data.split(own_split(model), usable)["test"]
        seen = _known_of(model, data, test, bands) if _begun_with_labels(model) else np.zeros(len(test), bool)
        return Unseen(test[~seen], TEST, int(seen.sum()))
    known = model.known_objects()
    if known is None:
        _warn_of_no_record(model)
        return Unseen(rows, ALL)
    return _without_known(model, known, data, rows, bands)


def _without_known(
    model: ModelBundle, known: KnownObjects, data: LabelledStamps, rows: I64, bands: Sequence[str]
) -> Unseen:
    digests, seen = data.centre_digests(bands)[rows], _held(known, data, bands)[rows]
    untold = ~known.covers(digests) & ~seen if seen.any() and known.fraction < 1 else np.zeros(len(rows), bool)
    ids = data.labels["object_id"].to_numpy()[rows]
    doubtful = int((known.shares_ids(ids) & ~seen & ~untold).sum())
    if doubtful:
        warnings.warn(
            f"{doubtful} objects have ids of training objects of bundle {model.called} and other pixels: if they are "
            f"the same objects, take them out, since figures are too good with them",
            stacklevel=3,
        )
    counts = int(seen.sum()), int(untold.sum())
    return Unseen(rows[~seen & ~untold], UNSEEN if counts[0] else ALL, *counts)


def _some(unseen: Unseen, data: LabelledStamps) -> Unseen:
    if len(unseen.rows) == 0:
        where = ", ".join(storage.redact(source.url) for source in data.sources)
        told = unseen.left_out
        why = f": {told}; give objects it has never seen" if told else f" (split {unseen.split})"
        raise InputError(f"no object of {where} is left to evaluate on{why}")
    return unseen
