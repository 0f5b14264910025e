"""Probabilities to be taken at their word: temperature, class fractions of the survey, reliability, corrected counts.

A temperature divides the logits (Guo et al. 2017, arXiv:1706.04599). Probabilities learned where classes
had one set of fractions are shifted to another one by the ratio of the two (Saerens, Latinne & Decaestecker 2002,
Neural Computation 14, 21).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.evaluation import bootstrap

TEMPERATURES = (0.1, 10.0)
"""Limits of a fitted temperature."""

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

    from scipy.optimize import minimize_scalar  # here, as a run that fits nothing does without what it takes to load

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
    values: F64 = given / given.sum()
    return values


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
        values: I64 = p.argmax(1)
        return values
    return np.asarray((p / np.maximum(np.asarray(prior, np.float64), _RAREST) ** balance).argmax(1))


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


def widened(found: Mapping[str, float], count: float) -> dict[str, float]:
    """A fraction of counts with its bootstrap interval; at 0 and 1 with that of Wilson, as all bootstrap samples agree.

    Args:
        found: value, low and high of a fraction.
        count: objects that it is a fraction of, or their effective number.
    """
    if found["value"] not in (0.0, 1.0) or not count > 0:
        return dict(found)
    low, high = wilson(found["value"], count)
    ends = {"low": 0.0, "high": float(high)} if found["value"] == 0 else {"low": float(low), "high": 1.0}
    return {**found, **ends}


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
