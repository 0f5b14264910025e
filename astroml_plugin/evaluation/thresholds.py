"""Thresholds on the probability of one class, and what each is expected to give.

Completeness C and false-positive rate F of a threshold do not depend on class fractions, purity does:
f C / (f C + (1 - f) F) at a fraction f of the class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64
from astroml_plugin.evaluation.calibration import wilson

RARE = (1e-3, 1e-4)
"""Class fractions at which the purity of a search for rare objects is quoted."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it is expected to give; an object passes where its probability is not below it."""

    threshold: float
    """Probability."""
    completeness: float
    """Fraction of the class that passes."""
    completeness_low: float
    """Lower end of its 95 % interval."""
    completeness_high: float
    """Upper end."""
    false_positive_rate: float
    """Fraction of the other objects that pass; of one object where none did."""
    false_positive_rate_low: float
    """Lower end of its 95 % interval, of the objects that did pass."""
    false_positive_rate_high: float
    """Upper end."""
    purity: float
    """Fraction of those that pass that belong to the class."""
    purity_low: float
    """Purity with the upper end of the 95 % interval of the false-positive rate."""
    purity_high: float
    """Purity with the lower end."""
    prior: float
    """Fraction of the class for which the purity holds."""


@dataclass(frozen=True)
class ThresholdCurve:
    """Completeness and false positives of every threshold on the probability of one class."""

    threshold: F64
    """(k,) falling."""
    true_positives: F64
    """(k,) positives that pass."""
    false_positives: F64
    """(k,) negatives that pass."""
    positives: int
    """Objects of the class."""
    negatives: int
    """Other objects."""

    @classmethod
    def of(cls, probabilities: ArrayLike, positive: ArrayLike) -> ThresholdCurve:
        """From probabilities (n,) and truth (n,) bool.

        Raises:
            InputError: no positive or no negative, or NaN.
        """
        p, true = np.asarray(probabilities, np.float64), np.asarray(positive, bool)
        if not true.any() or true.all() or np.isnan(p).any():
            raise InputError(
                f"a threshold needs objects of the class and others, and has {true.sum()} and {(~true).sum()} "
                f"({np.isnan(p).sum()} without probability): give labelled objects of both"
            )
        values, group = np.unique(-p, return_inverse=True)
        both = [np.cumsum(np.bincount(group, kind, len(values))).astype(np.float64) for kind in (true, ~true)]
        return cls(-values, both[0], both[1], int(true.sum()), int((~true).sum()))

    def to_json(self, most: int = 500) -> dict[str, Any]:
        """Plain values of at most about `most` thresholds, spread evenly over completeness and over false positives."""
        index = np.arange(len(self.threshold))
        if len(index) > most:
            found = [
                np.searchsorted(values, np.linspace(values[0], values[-1], most // 3))
                for values in (self.true_positives, np.log1p(self.false_positives), index)
            ]
            index = np.unique(np.minimum(np.concatenate(found), len(index) - 1))
        arrays = ("threshold", "true_positives", "false_positives")
        return {
            **{name: getattr(self, name)[index].tolist() for name in arrays},
            "positives": self.positives,
            "negatives": self.negatives,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ThresholdCurve:
        """The inverse of `to_json`."""
        arrays = ("threshold", "true_positives", "false_positives")
        try:
            threshold, true, false = (np.asarray(values[name], np.float64) for name in arrays)
            return cls(threshold, true, false, int(values["positives"]), int(values["negatives"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is no curve of thresholds ({error}): make the evaluation again") from None

    @property
    def completeness(self) -> F64:
        """(k,) fraction of the class that passes."""
        return np.asarray(self.true_positives / self.positives)

    @property
    def false_positive_rate(self) -> F64:
        """(k,) fraction of the others that pass; of one object where none did, since the sample cannot tell less."""
        return np.asarray(np.maximum(self.false_positives, 1) / self.negatives)

    def purity(self, prior: float | None = None) -> F64:
        """(k,) at a fraction `prior` of the class; that of the sample if not given."""
        f = self.positives / (self.positives + self.negatives) if prior is None else prior
        found = f * self.completeness
        return np.asarray(found / (found + (1 - f) * self.false_positive_rate))

    def at(self, threshold: float, prior: float | None = None) -> OperatingPoint:
        """Operating point of a threshold (that of the last tabulated one that is not below it)."""
        f = self.positives / (self.positives + self.negatives) if prior is None else prior
        passed = int(np.searchsorted(-self.threshold, -threshold, side="right")) - 1
        true, false = (float(v[passed]) if passed >= 0 else 0.0 for v in (self.true_positives, self.false_positives))
        complete, rate = true / self.positives, max(false, 1.0) / self.negatives
        low, high = (float(end) for end in wilson(complete, self.positives))
        fewest, most = (float(end) for end in wilson(false / self.negatives, self.negatives))
        most = max(most, rate)
        purity, least, best = (f * complete / max(f * complete + (1 - f) * r, 1e-300) for r in (rate, most, fewest))
        return OperatingPoint(float(threshold), complete, low, high, rate, fewest, most, purity, least, best, f)

    def for_purity(self, purity: float, prior: float | None = None) -> OperatingPoint:
        """The lowest threshold whose expected purity is at least `purity`.

        Raises:
            InputError: no threshold reaches it; says the highest purity.
        """
        found = self.purity(prior)
        enough = np.flatnonzero(found >= purity)
        if not len(enough):
            best = int(np.argmax(found))
            raise InputError(
                f"no threshold reaches a purity of {purity:g}: the highest is {found[best]:.3g} at "
                f"{self.threshold[best]:.4g} (a completeness of {self.completeness[best]:.3g}); ask for less, or "
                f"evaluate on more than {self.negatives} negatives"
            )
        return self.at(float(self.threshold[enough[-1]]), prior)


def choose_threshold(
    probabilities: ArrayLike,
    positive: ArrayLike,
    *,
    purity: float | None = None,
    top: int | None = None,
    prior: float | None = None,
) -> OperatingPoint:
    """A threshold on the probability of one class, from labelled objects.

    Args:
        probabilities: (n,) of the class.
        positive: (n,) bool, objects of the class.
        purity: at least this expected purity, with the highest completeness; or
        top: at most this many of these objects, the most probable ones (ties are left out together).
        prior: fraction of the class in the survey; that of the sample if not given.

    Raises:
        InputError: not exactly one of `purity` and `top`, no class to tell apart, or a purity that is not reached.
    """
    if (purity is None) == (top is None):
        raise InputError("choose a threshold by purity or by the number of objects: give one of purity and top")
    if prior is not None and not 0 < prior < 1:
        raise InputError(f"prior {prior}: a class fraction must lie between 0 and 1")
    curve = ThresholdCurve.of(probabilities, positive)
    if purity is not None:
        return curve.for_purity(purity, prior)
    return curve.at(top_threshold(probabilities, int(top or 0)), prior)


def top_threshold(probabilities: ArrayLike, count: int) -> float:
    """The lowest threshold that at most `count` of the probabilities (n,) pass.

    Raises:
        InputError: `count` is not above 0, or more than that many share the highest probability.
    """
    values, many = np.unique(-np.asarray(probabilities, np.float64), return_counts=True)
    fits = np.flatnonzero(np.cumsum(many) <= count)
    if count < 1 or not len(fits):
        told = f"{many[0]} objects share the highest probability" if len(many) else "there is no object"
        raise InputError(f"the {count} most probable objects cannot be told apart: {told}, ask for that many or more")
    return float(-values[fits[-1]])
