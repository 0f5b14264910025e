"""Probabilities to be taken at their word: temperature, class fractions of the survey, thresholds, corrected counts.

A temperature divides the logits (Guo et al. 2017, arXiv:1706.04599). Probabilities learned where classes
had one set of fractions are shifted to another one by the ratio of the two (Saerens, Latinne & Decaestecker 2002,
Neural Computation 14, 21). Completeness and false-positive rate of a threshold do not depend on class fractions, purity
does: purity = f C / (f C + (1 - f) F).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.evaluation import bootstrap

TEMPERATURES = (0.1, 10.0)
"""Limits of a fitted temperature."""

RARE = (1e-3, 1e-4)
"""Class fractions at which the purity of a search for rare objects is quoted."""

_RAREST = 1e-9
"""Fraction of a class that has none."""

_Z95 = 1.959963984540054


# ---- temperature -------------------------------------------------------------------------------------------------


def fit_temperature(
    logits: ArrayLike, targets: ArrayLike, *, offset: ArrayLike = 0.0, independent: bool = False
) -> float:
    """The temperature within `TEMPERATURES` at which logits / temperature + offset describe the targets best.

    Args:
        logits: (n, class).
        targets: (n, class): how much each object belongs to each class: 0 and 1, fractions, or numbers of votes.
        offset: (class,) what is added to the scaled logits.
        independent: classes do not exclude each other: targets are 0 to 1, NaN where unknown.

    Returns:
        The maximum of the likelihood, which has no other (it is concave in 1 / temperature).
    """
    z, t = np.asarray(logits, np.float64), np.asarray(targets, np.float64)

    def surprise(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature) + offset
        if independent:
            return float(np.nansum(np.logaddexp(0, scaled) - t * scaled))
        top = scaled.max(1, keepdims=True)
        normal = top + np.log(np.exp(scaled - top).sum(1, keepdims=True))
        return float((t * (normal - scaled)).sum())

    found = minimize_scalar(surprise, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


# ---- class fractions of the survey -------------------------------------------------------------------------------


def full_prior(
    prior: Mapping[str, float],
    classes: Sequence[str],
    training_prior: Sequence[float],
    *,
    independent: bool = False,
) -> F64:
    """A fraction for every class from those that are given.

    Args:
        prior: class name -> fraction of the survey's objects.
        classes: all class names.
        training_prior: their fractions in the training split.
        independent: classes do not exclude each other.

    Returns:
        (class,): classes that are not given share what is left as in training; independent ones keep their fraction of
        training.

    Raises:
        InputError: unknown class, a fraction that is not between 0 and 1, a sum that is not 1, or nothing known of the
            training's fractions.
    """
    if len(training_prior) != len(classes):
        raise InputError(
            "the bundle does not say which class fractions it was trained on, so no prior can be set: train it again"
        )
    unknown = [name for name in prior if name not in classes]
    if unknown:
        raise InputError(f"prior for {', '.join(unknown)}: the classes are {', '.join(classes)}")
    bad = {name: value for name, value in prior.items() if not 0 < value < 1}
    if bad:
        told = ", ".join(f"{name}={value:g}" for name, value in bad.items())
        raise InputError(f"prior {told}: a class fraction must lie between 0 and 1")
    trained = np.asarray(training_prior, np.float64)
    given = np.array([prior.get(name, np.nan) for name in classes], np.float64)
    if independent:
        return np.where(np.isnan(given), trained, given)
    left, missing = 1 - np.nansum(given), np.isnan(given)
    if (not missing.any() and abs(left) > 0.01) or (missing.any() and left <= 0):
        raise InputError(
            f"the class fractions of the prior sum to {1 - left:.4g}: they must sum to 1 over {', '.join(classes)}"
        )
    rest = trained[missing]
    given[missing] = left * (rest / rest.sum() if rest.sum() > 0 else 1 / max(1, missing.sum()))
    return given / given.sum()


def shift_prior(probabilities: ArrayLike, training_prior: ArrayLike, prior: ArrayLike) -> F64:
    """Probabilities under other class fractions: p'_c proportional to p_c prior_c / training_prior_c.

    Args:
        probabilities: (n, class), rows that sum to 1.
        training_prior: (class,) fractions where they are right.
        prior: (class,) fractions where they shall be right.

    Raises:
        InputError: a class that occurs now and did not occur in training.
    """
    p, before, after = (np.asarray(values, np.float64) for values in (probabilities, training_prior, prior))
    if ((before <= 0) & (after > 0)).any():
        raise InputError("a class without any training example cannot be given a fraction of the survey")
    shifted = p * np.divide(after, before, out=np.zeros_like(after), where=before > 0)
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def labels(probabilities: ArrayLike, prior: ArrayLike, balance: float) -> I64:
    """The class that each object is called (logit adjustment, Menon et al. 2021, ICLR).

    Args:
        probabilities: (n, class), rows that sum to 1.
        prior: (class,) class fractions that they hold for.
        balance: 0 for the most probable class, which most objects are right with; 1 for the one that would be most
            probable were all classes equally frequent, which every class fares alike with (highest mean recall).
            Between them, where few objects change, much mean recall costs little accuracy.

    Returns:
        (n,) class numbers.
    """
    p = np.asarray(probabilities, np.float64)
    if balance == 0:
        return p.argmax(1)
    return np.asarray((p / np.maximum(np.asarray(prior, np.float64), _RAREST) ** balance).argmax(1))


def shift_odds(probability: ArrayLike, training_fraction: ArrayLike, fraction: ArrayLike) -> F64:
    """The same for one class that excludes no other: the odds change by the ratio of the odds of the fractions."""
    p, before, after = (np.asarray(values, np.float64) for values in (probability, training_fraction, fraction))
    ratio = after * (1 - before) / (before * (1 - after))
    return np.asarray(p * ratio / (p * ratio + 1 - p))


# ---- reliability -------------------------------------------------------------------------------------------------


def reliability(
    probability: ArrayLike, happened: ArrayLike, bins: int = 15, weight: ArrayLike | None = None
) -> dict[str, Any]:
    """How often what was given a probability happened, in equal-width bins.

    Args:
        probability: (n,) said.
        happened: (n,) bool.
        bins: number of bins.
        weight: (n,) how much each object counts; the same for all if not given.

    Returns:
        Lists over the bins that hold objects: low, high (edges), count, weight (sum), said (mean probability), found
        (fraction that happened), found_low, found_high (95 %, Wilson 1927, for the effective number of objects).
    """
    p, true = np.asarray(probability, np.float64), np.asarray(happened, np.float64)
    w = np.ones(len(p)) if weight is None else np.asarray(weight, np.float64)
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    count, total = np.bincount(place, minlength=bins), np.bincount(place, w, bins)
    seen = np.flatnonzero((count > 0) & (total > 0))
    found = np.bincount(place, w * true, bins)[seen] / total[seen]
    effective = total[seen] ** 2 / np.bincount(place, w**2, bins)[seen]
    low, high = wilson(found, effective)
    return {
        "low": (seen / bins).tolist(),
        "high": ((seen + 1) / bins).tolist(),
        "count": count[seen].tolist(),
        "weight": total[seen].tolist(),
        "said": (np.bincount(place, w * p, bins)[seen] / total[seen]).tolist(),
        "found": found.tolist(),
        "found_low": low.tolist(),
        "found_high": high.tolist(),
    }


def wilson(fraction: ArrayLike, count: ArrayLike) -> tuple[F64, F64]:
    """95 % interval of a fraction found among `count` objects (Wilson 1927).

    `count` need not be whole, as the effective number of weighted objects is not: astropy's function rounds it.
    """
    f, n = np.asarray(fraction, np.float64), np.asarray(count, np.float64)
    middle = (f + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 * np.sqrt(f * (1 - f) / n + _Z95**2 / (4 * n**2)) / (1 + _Z95**2 / n)
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


# ---- thresholds --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
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
    purity: float
    """Fraction of those that pass that belong to the class."""
    purity_low: float
    """The same with the upper end of the 95 % interval of the false-positive rate."""
    prior: float
    """Fraction of the class for which the purity holds."""


@dataclass(frozen=True)
class Curve:
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
    def of(cls, probabilities: ArrayLike, positive: ArrayLike) -> Curve:
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
    def from_json(cls, values: Mapping[str, Any]) -> Curve:
        """What `to_json` gave."""
        arrays = ("threshold", "true_positives", "false_positives")
        try:
            threshold, true, false = (np.asarray(values[name], np.float64) for name in arrays)
            return cls(threshold, true, false, int(values["positives"]), int(values["negatives"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is no curve of thresholds ({error}): make the evaluation again") from None

    @property
    def completeness(self) -> F64:
        """(k,)"""
        return np.asarray(self.true_positives / self.positives)

    @property
    def false_positive_rate(self) -> F64:
        """(k,): of one object where none passed, since the sample cannot tell less."""
        return np.asarray(np.maximum(self.false_positives, 1) / self.negatives)

    def purity(self, prior: float | None = None) -> F64:
        """(k,) at a fraction `prior` of the class; that of the sample if not given."""
        f = self.positives / (self.positives + self.negatives) if prior is None else prior
        found = f * self.completeness
        return np.asarray(found / (found + (1 - f) * self.false_positive_rate))

    def at(self, threshold: float, prior: float | None = None) -> Choice:
        """What passing `threshold` gives (the last tabulated threshold that is not below it)."""
        f = self.positives / (self.positives + self.negatives) if prior is None else prior
        passed = int(np.searchsorted(-self.threshold, -threshold, side="right")) - 1
        true, false = (float(v[passed]) if passed >= 0 else 0.0 for v in (self.true_positives, self.false_positives))
        complete, rate = true / self.positives, max(false, 1.0) / self.negatives
        low, high = wilson(complete, self.positives)
        worst = max(float(wilson(false / self.negatives, self.negatives)[1]), rate)
        purity, least = (f * complete / max(f * complete + (1 - f) * r, 1e-300) for r in (rate, worst))
        return Choice(float(threshold), complete, float(low), float(high), rate, purity, least, f)

    def for_purity(self, purity: float, prior: float | None = None) -> Choice:
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
) -> Choice:
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
    curve = Curve.of(probabilities, positive)
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


# ---- counts ------------------------------------------------------------------------------------------------------


def class_fractions(counts: ArrayLike, confusion: ArrayLike, repeats: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Class fractions of a catalog, corrected for the objects that its labels confuse.

    The most likely true fractions for which the confusion matrix gives the labels found; errors draw both the labels
    and each row of the confusion matrix anew from multinomials.

    Args:
        counts: (class,) objects of the catalog with each label.
        confusion: (class, class) labelled objects, row true, column label, from a sample whose classes look like those
            of the catalog.
        repeats: draws of the errors.
        seed: of the draws.

    Returns:
        raw, value, error (standard deviation), low and high (95 %), each a list over the classes.

    Raises:
        InputError: no object, a class without labelled examples, or classes that the labels do not tell apart.
    """
    found, matrix = np.asarray(counts, np.float64), np.asarray(confusion, np.float64)
    if matrix.shape != (len(found), len(found)) or found.sum() <= 0:
        raise InputError(f"class fractions need counts of {len(matrix)} classes, not {found.tolist()}")
    examples = matrix.sum(1)
    if (examples <= 0).any():
        raise InputError(
            f"the evaluation has no example of {int((examples <= 0).sum())} of {len(found)} classes, so that its "
            f"confusion matrix corrects nothing: evaluate on objects of every class"
        )
    rows = matrix / examples[:, None]
    if np.linalg.cond(rows) > 1e6:
        raise InputError("the labels do not tell the classes apart (the confusion matrix is singular): no correction")
    rng = np.random.default_rng(seed)
    total = round(float(found.sum()))
    labels = rng.multinomial(total, found / found.sum(), size=repeats) / total
    draws = [rng.multinomial(round(n), row, size=repeats) / round(n) for n, row in zip(examples.tolist(), rows)]
    value = _true_fractions(found[None] / found.sum(), rows[None])[0]
    drawn = _true_fractions(labels, np.stack(draws, axis=1))
    low, high = bootstrap.ends(drawn)
    return {
        "raw": (found / found.sum()).tolist(),
        "value": value.tolist(),
        "error": drawn.std(0, ddof=1).tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
    }


def _true_fractions(labels: F64, rows: F64) -> F64:
    """(m, class) most likely true fractions from label fractions (m, class) and P(label | true) (m, true, label)."""
    try:
        fractions = np.linalg.solve(np.swapaxes(rows, 1, 2), labels[..., None])[..., 0]
    except np.linalg.LinAlgError:
        fractions = np.full_like(labels, np.nan)
    outside = ~(fractions >= 0).all(1)
    if outside.any():
        fractions[outside] = _expectation_maximisation(labels[outside], rows[outside])
    return np.asarray(fractions / fractions.sum(1, keepdims=True))


def _expectation_maximisation(labels: F64, rows: F64, steps: int = 500) -> F64:
    """Fractions that cannot be negative, where the plain solution is."""
    fractions = np.full_like(labels, 1 / labels.shape[1])
    for _ in range(steps):
        expected = np.einsum("mt,mtl->ml", fractions, rows)
        ratio = np.divide(labels, expected, out=np.zeros_like(labels), where=expected > 0)
        fractions = fractions * np.einsum("mtl,ml->mt", rows, ratio)
    return np.asarray(fractions)
