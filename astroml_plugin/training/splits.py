"""Train, validation and test: how objects are divided, so that none leaks from one split into another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.hashing import id_fractions
from astroml_plugin.core.settings import refuse_choices, to_mapping
from astroml_plugin.sky.duplicates import leaked_rows, place_groups
from astroml_plugin.sky.wcs import HEALPIX_ORDER, healpix29
from astroml_plugin.sources.labels import GENERATED, generated, label_column

SPLITS = ("train", "validation", "test")
_UNUSED = len(SPLITS)
"""Split number of an object that is in no split."""
_ONCE_DEFAULT = "split"
"""Name of the column in cards of bundles whose data had no such column."""
_FOLD_SEED, _LIMIT_SEED = 1_000_003, 2_000_003
_REMEDY = "a leak: remove the repeats, or let leaks = 'drop' in [split] keep each on its first side"
_LEAKS = {
    "id": "{count} objects are in more than one split of column {column!r}, " + _REMEDY,
    "place": "{count} places on the sky have objects in more than one split (the same object under several ids), "
    + _REMEDY
    + ", or split by = 'sky'",
    "pixels": "{count} stamps have the very pixels of a stamp in another split, " + _REMEDY,
}


@dataclass(frozen=True)
class SplitSettings:
    """How objects are divided. All rows of one object id are in one split, in whatever source they are."""

    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Fractions of the objects in train, validation and test; they sum to 1."""
    seed: int = 0
    """Another seed gives another division."""
    column: str = ""
    """A label column with train, validation or test, which goes first; "" for none: a column never divides unasked."""
    by: str = "object"
    """"object" hashes ids; "sky" hashes regions of the sky, so that neighbours, and whatever varies slowly over a
    survey, are in one split."""
    region_order: int = 6
    """HEALPix order of the regions: 6 is 0.9 degrees, each step up halves it."""
    folds: int = 0
    """Cross-validation: the test side is one of so many equal parts; the fraction of validation, relative to that of
    train, holds within the rest. 0: the fractions alone."""
    fold: int = 0
    """Which part is the test side, from 0."""
    limit: int = 0
    """Objects of the train side at most, and of validation in proportion: nested subsets. 0: all."""
    limit_seed: int = 0
    """Another seed draws other subsets."""
    leaks: str = "refuse"
    """Action where one object (by id, place on the sky or pixels) is in two splits: "refuse"; "drop" keeps it in the
    first of train, validation, test only."""
    check_pixels: bool = True
    """Whether stamps are compared by their pixels, at the cost of reading every block once."""

    def __post_init__(self) -> None:
        refuse_choices(self, {"by": ("object", "sky"), "leaks": ("refuse", "drop")}, "split")
        if self.folds and not (self.folds > 1 and 0 <= self.fold < self.folds):
            raise InputError(f"split folds ({self.folds}) must be 0 or 2 and more, and fold ({self.fold}) one of them")
        if self.limit < 0 or self.limit_seed < 0:
            raise InputError(f"split limit ({self.limit}) and limit_seed ({self.limit_seed}) must be 0 or more")
        if not 0 <= self.region_order <= 29:
            raise InputError(f"split region_order ({self.region_order}) is a HEALPix order of 0 to 29")
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise InputError(f"split fractions must be 0 or more and sum to 1, not {list(self.fractions)}")


_FIRST_FIELDS = ("fractions", "seed", "column", "by", "region_order")


def split_record(settings: SplitSettings) -> dict[str, Any]:
    """Plain settings for cards and identities: those added later appear where they are not the default, so that what
    was made before they existed keeps its identity."""
    defaults = {item.name: item.default for item in fields(SplitSettings)}
    plain = to_mapping(settings)
    return {name: value for name, value in plain.items() if name in _FIRST_FIELDS or value != defaults[name]}


class Objects(Protocol):
    """The n objects to divide; `LabelledStamps` are some."""

    labels: pa.Table
    """Label columns, and object_id, ra, dec."""

    @property
    def source_numbers(self) -> np.ndarray:
        """(n,) number of each object's source: the same id in two sources may be two objects."""

    @property
    def positions(self) -> np.ndarray:
        """(n, 2) float64 ra and dec in degrees, NaN where unknown."""

    @property
    def pixel_hashes(self) -> np.ndarray:
        """(n,) uint64 hash of each stamp's pixels, 0 where they are constant."""


def divide(objects: Objects, settings: SplitSettings, usable: np.ndarray) -> dict[str, np.ndarray]:
    """Divide the usable objects, (n,) bool: split name -> sorted row numbers.

    Stamps that a generator drew are of the train split whatever the settings say, and `limit` does not count them.

    Raises:
        InputError: all were drawn by a generator, the split column has other words, regions are asked of objects
            without positions, or (unless leaks are dropped) one object is in two splits: by its id within a source, by
            its place on the sky, or by its pixels.
    """
    drawn = generated(objects.labels)
    if drawn.any() and not (usable & ~drawn).any():
        raise InputError(
            f"all {int(drawn.sum())} stamps were drawn by a generator (column {GENERATED!r}), and such stamps "
            "are never judged on: add observed or simulated ones"
        )
    number = np.full(len(usable), SPLITS.index("train"))
    number[~drawn] = _split_numbers(objects, settings, np.flatnonzero(~drawn))
    number = _without_leaks(objects, np.where(usable, number, _UNUSED), settings)
    rows = {name: np.flatnonzero((number == index) & ~drawn) for index, name in enumerate(SPLITS)}
    rows = _limited(rows, _ids(objects), settings)
    return {**rows, "train": np.union1d(rows["train"], np.flatnonzero(drawn & (number != _UNUSED)))}


def without_learned(
    rows: Mapping[str, np.ndarray], learned: np.ndarray, settings: SplitSettings, who: str
) -> dict[str, np.ndarray]:
    """Rows by split, without those of validation and test that something was trained on.

    Args:
        rows: split name -> row numbers.
        learned: (n,) bool, objects that it was trained on.
        settings: of the split.
        who: was trained on them, for the message.

    Raises:
        InputError: there are some, and `leaks` is "refuse".
    """
    found = dict(rows)
    for name in SPLITS[1:]:
        found[name] = rows[name][~learned[rows[name]]]
        gone = len(rows[name]) - len(found[name])
        if gone and settings.leaks == "refuse":
            raise InputError(
                f"{gone} of {len(rows[name])} {name} objects were trained on by {who}, so that figures would be too "
                f"good: take them out, or let leaks = 'drop' in [split] leave them out"
            )
    return found


def _ids(objects: Objects) -> np.ndarray:
    values: np.ndarray = objects.labels["object_id"].to_numpy()
    return values


def _split_numbers(objects: Objects, settings: SplitSettings, rows: np.ndarray) -> np.ndarray:
    """(n,) number of the split of the objects in some rows (n,)."""
    if settings.column in objects.labels.column_names:
        if settings.folds:
            raise InputError(
                f"label column {settings.column!r} divides the data already: for folds, name another split column "
                f'(column = "" for none)'
            )
        return _numbers_in_column(objects.labels[settings.column].take(pa.array(rows)), settings.column)
    if settings.column not in ("", _ONCE_DEFAULT):
        label_column(objects.labels, settings.column)  # says which columns there are
    by_id = settings.by == "object"
    keys = _ids(objects)[rows] if by_id else _regions(objects.positions[rows], settings.region_order)
    fraction = id_fractions(keys, settings.seed)
    if not settings.folds:
        return np.searchsorted(np.cumsum(settings.fractions)[:2], fraction, side="right")
    train, validation, _ = settings.fractions
    again = id_fractions(keys, _FOLD_SEED * (settings.seed + 1) + settings.fold)
    inner = (again < validation / max(train + validation, 1e-12)).astype(np.int64)
    return np.where((fraction * settings.folds).astype(np.int64) == settings.fold, SPLITS.index("test"), inner)


def _numbers_in_column(values: pa.ChunkedArray, column: str) -> np.ndarray:
    words = np.array([{"val": "validation"}.get(word, word) for word in values.to_pylist()], object)
    unknown = ~np.isin(words, np.array(SPLITS, object))
    if unknown.any():
        raise InputError(
            f"label column {column!r} has {int(unknown.sum())} values other than {', '.join(SPLITS)}, "
            f"such as {words[unknown][0]!r}: correct them or name another split column"
        )
    return np.array([SPLITS.index(word) for word in words])


def _regions(position: np.ndarray, order: int) -> np.ndarray:
    """(n,) int64 HEALPix cells of positions (n, 2) in degrees."""
    unknown = int((~np.isfinite(position)).any(1).sum())
    if unknown:
        raise InputError(
            f"{unknown} of {len(position)} objects have no ra and dec: split them by = 'object', not by sky region"
        )
    return healpix29(position[:, 0], position[:, 1]) >> 2 * (HEALPIX_ORDER - order)


def _limited(rows: dict[str, np.ndarray], ids: np.ndarray, settings: SplitSettings) -> dict[str, np.ndarray]:
    """The nested subset of train and validation that the settings ask for."""
    count = len(rows["train"])
    if not settings.limit:
        return rows
    if settings.limit > count:
        raise InputError(f"split limit ({settings.limit}) is more than the {count} objects of the train split")
    wanted = {"train": settings.limit, "validation": -(-settings.limit * len(rows["validation"]) // count)}
    for name, number in wanted.items():
        order = np.argsort(id_fractions(ids[rows[name]], _LIMIT_SEED + settings.limit_seed), kind="stable")
        rows = {**rows, name: np.sort(rows[name][order[:number]])}
    return rows


def _without_leaks(objects: Objects, number: np.ndarray, settings: SplitSettings) -> np.ndarray:
    """Split numbers (n,), with repeats of an object in a later split taken out, or refused."""
    for what, rows, group in _repeats(objects, number, settings):
        late, count = leaked_rows(group, number[rows])
        if count and settings.leaks == "refuse":
            raise InputError(_LEAKS[what].format(count=count, column=settings.column))
        number[rows[late]] = _UNUSED
    return number


def _repeats(
    objects: Objects, number: np.ndarray, settings: SplitSettings
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name of a mark that tells objects apart, rows in a split that have it, and their group numbers by it."""
    rows = np.flatnonzero(number != _UNUSED)
    if settings.column in objects.labels.column_names:
        keys = np.stack([objects.source_numbers[rows], _ids(objects)[rows]])
        yield "id", rows, np.unique(keys, axis=1, return_inverse=True)[1].ravel()
    position = objects.positions
    rows = np.flatnonzero((number != _UNUSED) & np.isfinite(position).all(1))
    if len(rows):
        yield "place", rows, place_groups(position[rows])
    if settings.check_pixels:
        hashes = objects.pixel_hashes
        rows = np.flatnonzero((number != _UNUSED) & (hashes != 0))
        yield "pixels", rows, hashes[rows]
