"""Parts that classical methods of classes and of numbers share: their inputs, and fits by epochs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import I64, Array

Table = Mapping[str, Array]
"""Kind of input, as in `features.INPUTS` -> (n, columns)."""

_COMPONENTS = 50
_PCA_SAMPLE = 20_000


@dataclass(frozen=True)
class Method:
    """One method and what it sees."""

    inputs: tuple[str, ...]
    """Kinds of input; "pixels" go through a principal component analysis."""
    make: Callable[[int], Any]
    """The estimator of scikit-learn, from a seed."""
    largest: int = 0
    """Training objects at most, a random part of more (time grows with their square); 0: all."""
    choices: tuple[tuple[str, float], ...] = ()
    """Settings of the estimator, of which the one that is best on the validation part is kept."""


def method_of(methods: Mapping[str, Method], name: str, what: str = "") -> Method:
    """A method by name.

    Args:
        methods: name -> method.
        name: of the wanted one.
        what: it answers, for the message.

    Raises:
        InputError: there is none of that name.
    """
    if name not in methods:
        raise InputError(f"no classical method {name!r}{what}: there are {', '.join(methods)}")
    return methods[name]


def part(count: int, largest: int, seed: int) -> I64:
    """All of `count` rows, or a random part, in order."""
    if not largest or count <= largest:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, largest, replace=False))


class InputColumns:
    """From inputs by kind to one matrix: components of pixels, blanks filled with medians, scaled and clipped."""

    def __init__(self, kinds: Sequence[str], table: Table, seed: int) -> None:
        self.kinds = kinds
        self._pca: Any = None
        if "pixels" in kinds:
            pixels = table["pixels"][part(len(table["pixels"]), _PCA_SAMPLE, seed)]
            count = min(_COMPONENTS, *pixels.shape)
            self._pca = PCA(count, svd_solver="randomized", random_state=seed).fit(pixels)
        raw = self._raw(table)
        blank = np.isnan(raw).all(0)
        self._middle = np.nanmedian(np.where(blank, np.float32(0), raw), axis=0)
        filled = self._filled(raw)
        self._mean, scatter = filled.mean(0, dtype=np.float64), filled.std(0, dtype=np.float64)
        self._mean, self._scatter = self._mean.astype(np.float32), np.where(scatter > 0, scatter, 1).astype(np.float32)

    def _raw(self, table: Table) -> Array:
        parts = [table[kind] if kind != "pixels" else self._pca.transform(table[kind]) for kind in self.kinds]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _filled(self, raw: Array) -> Array:
        return np.where(np.isfinite(raw), raw, self._middle)

    def __call__(self, table: Table, rows: I64 | None = None) -> Array:
        chosen = table if rows is None else {kind: table[kind][rows] for kind in self.kinds}
        scaled = (self._filled(self._raw(chosen)) - self._mean) / self._scatter
        values: Array = np.clip(scaled, -6, 6)
        return values


_EPOCHS, _PATIENCE = 200, 15


def best_epoch(
    estimator: Any,
    count: int,
    *,
    draw: Callable[[np.random.Generator], I64],
    learn: Callable[[Any, I64], None],
    loss: Callable[[Any], float],
    seed: int,
) -> Any:
    """The estimator after the epoch whose loss is least; it ends after 15 epochs without a better one.

    Args:
        estimator: of scikit-learn, with a batch size.
        count: training objects.
        draw: gives the rows of an epoch.
        learn: an epoch of the estimator on some rows.
        loss: of the estimator on the validation part.
        seed: of the rows that are drawn.
    """
    rng = np.random.default_rng(seed)
    best, lowest, age = estimator, np.inf, 0
    estimator.set_params(batch_size=min(estimator.batch_size, count))
    for _ in range(_EPOCHS):
        learn(estimator, draw(rng))
        value = loss(estimator)
        age += 1
        if value < lowest:
            best, lowest, age = copy.deepcopy(estimator), value, 0
        if age >= _PATIENCE:
            break
    return best
