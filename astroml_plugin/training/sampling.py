"""How often objects are drawn while a network learns: by weights of their labels, and alike for each domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.sources.labels import label_column, label_texts, numbers


@dataclass(frozen=True)
class SamplingSettings:
    """How often a training object is drawn in an epoch; objects to validate and test on count once each."""

    weight: str = ""
    """Label column of weights: an object of weight 2 is drawn twice as often as one of weight 1, one of 0 never. For
    labels of unequal trust. "" for none."""
    balance: str = ""
    """Label column whose values are drawn equally often altogether, such as "domain", the survey that an object is
    from. "" for none."""


def expected_draws(settings: SamplingSettings, table: pa.Table) -> F64 | None:
    """(n,) draws per epoch to expect of each training object, their mean 1; None: each is drawn once.

    Raises:
        InputError: weights that are missing, negative or all 0, or a column that is not there.
    """
    if not settings.weight and not settings.balance:
        return None
    share = np.ones(table.num_rows)
    if settings.weight:
        share = numbers(table, [settings.weight])[:, 0].astype(np.float64)
        wrong = ~np.isfinite(share) | (share < 0)
        if wrong.any() or not share.any():
            raise InputError(
                f"label column {settings.weight!r} gives no weight (a number of 0 or more) for {int(wrong.sum())} of "
                f"{len(share)} training objects, or only zeros: correct it, or leave `weight` away"
            )
    if settings.balance:
        label_column(table, settings.balance)
        words = np.array([str(word) for word in label_texts(table, settings.balance)])
        _, group = np.unique(words, return_inverse=True)
        total = np.bincount(group, share)
        if (total == 0).any():
            raise InputError(f"all objects of a value of {settings.balance!r} have weight 0: it cannot be balanced")
        share = share / total[group]
    return np.asarray(share * (len(share) / share.sum()))


class Draws:
    """Systematic draws over the pools of one epoch: each object as often as expected, rounded up or down.

    Args:
        expected: (n,) draws to expect of all objects of the epoch.
        random: of the epoch.
    """

    def __init__(self, expected: F64, random: np.random.Generator) -> None:
        self.expected, self.random = expected, random
        self.passed = float(random.random())

    def of(self, members: I64) -> I64:
        """Places within a pool, shuffled, some several times: `members` are its objects' numbers."""
        order = self.random.permutation(len(members))
        ends = self.passed + np.cumsum(self.expected[members[order]])
        counts = np.diff(np.floor(np.concatenate([[self.passed], ends])).astype(np.int64))
        self.passed = float(ends[-1]) if len(ends) else self.passed
        return np.asarray(self.random.permutation(np.repeat(order, counts)))
