"""A ranking that learns from the scores that people give (active learning), and trials of how much it helps.

Pure functions of arrays; scikit-learn is imported where a learner is fitted. A fitted learner is never saved.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import with_changes
from astroml_plugin.core.typing import F64, I64

DEFAULT = "astronomaly"
"""The learner where none is named."""

HIGHEST = 5.0
FEWEST = 5
"""Scored objects below which nothing is learned."""

_LEAST_WEIGHT = 0.1
_LARGEST_EXPONENT = 50.0
_MOST_FOR_PROCESS = 2000
_FARTHEST, _STEEPNESS, _AMPLITUDE, _DOUBT, _NOISE, _CHUNK = 5.0, 8.0, 0.1, 0.5, 0.05, 10_000
"""Constants of the score's process: standardised values beyond which nothing is farther, power of the score's rank,
variance of what is learned, doubt (standard deviation) in the score, variance of labels; objects that are judged
together."""


@dataclass(frozen=True)
class Learner:
    """A way to rank by what people say."""

    about: str
    """One line for people, with its source."""
    value: Callable[[F64, F64, I64, F64, int], F64]
    """(inputs (n, k), score (n,), labelled rows (m,), their scores (m,), seed) -> (n,) higher is more interesting."""


def relearned(
    space: ArrayLike,
    score: ArrayLike,
    labelled: ArrayLike,
    given: ArrayLike,
    *,
    learner: str = DEFAULT,
    seed: int = 0,
) -> F64:
    """Worth of a look at each object, from a few that people scored.

    Args:
        space: (n, k) latent vectors or features.
        score: (n,) the unsupervised score, higher is more anomalous; an input too, and what decides between equals.
        labelled: (m,) rows that people scored.
        given: (m,) their scores, 0 to 5.
        learner: one of `LEARNERS`.
        seed: of the learner.

    Returns:
        (n,) float64, higher is more interesting; -inf where an object has no finite vector or score.

    Raises:
        InputError: fewer than 5 scored objects with a vector, or all scores equal; scikit-learn is not installed.
    """
    if learner not in LEARNERS:
        raise InputError(f"no learner {learner!r}: there are {', '.join(LEARNERS)}")
    vectors, unsupervised = np.asarray(space, np.float64), np.asarray(score, np.float64)
    rows, values = np.asarray(labelled, np.int64), np.asarray(given, np.float64)
    usable = np.isfinite(vectors).all(1) & np.isfinite(unsupervised)
    values, rows = values[usable[rows]], rows[usable[rows]]
    if len(rows) < FEWEST or np.ptp(values) == 0:
        raise InputError(
            f"{len(rows)} scored objects with {len(np.unique(values))} different scores: learning needs at least "
            f"{FEWEST} objects and two different scores, so score a few dull ones too"
        )
    order = np.full(len(vectors), -1)
    order[usable] = np.arange(usable.sum())
    ranks = _ranks(unsupervised[usable])
    inputs = np.column_stack([_standardised(vectors[usable]), _standardised(ranks[:, None])])
    found = LEARNERS[learner].value(inputs, unsupervised[usable], order[rows], values, seed)
    worth = np.full(len(vectors), -np.inf)
    worth[usable] = found + 1e-6 * ranks  # between equals the unsupervised score decides
    return worth


def _ranks(values: F64) -> F64:
    """(n,) in (0, 1), higher for higher values; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(middle[place] / (len(values) + 1))


def _standardised(values: F64) -> F64:
    spread = values.std(0)
    return np.asarray((values - values.mean(0)) / np.where(spread > 0, spread, 1.0))


# Learners


def _forest(inputs: F64, score: F64, rows: I64, given: F64, seed: int) -> F64:
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(100, max_features=1 / 3, random_state=seed)
    return np.asarray(model.fit(inputs[rows], given).predict(inputs), np.float64)


def _astronomaly(inputs: F64, score: F64, rows: I64, given: F64, seed: int) -> F64:
    """Lochner & Bassett (2021), equations 2 to 4: trust the forest near what was scored, the score far from it."""
    from sklearn.neighbors import NearestNeighbors

    predicted = np.clip(_forest(inputs, score, rows, given, seed), 0, HIGHEST)
    neighbours = NearestNeighbors(n_neighbors=1).fit(inputs[rows])
    distance = neighbours.kneighbors(inputs)[0][:, 0]
    mean = distance.mean()
    weight = _LEAST_WEIGHT + (1 - _LEAST_WEIGHT) * predicted / HIGHEST
    penalty = np.exp(np.minimum(distance / mean if mean > 0 else distance, _LARGEST_EXPONENT))
    span = np.ptp(score)
    scaled = HIGHEST * (score - score.min()) / (span if span > 0 else 1.0)
    return np.asarray(scaled * np.tanh(penalty - 1 + np.arctanh(np.minimum(weight, 1 - 1e-9))))


def _score_process(inputs: F64, score: F64, rows: I64, given: F64, seed: int) -> F64:
    """A Gaussian process whose mean is learned too (Rasmussen & Williams 2006, section 2.7): what the score puts first
    is wanted, until labels say that it is not; near labels the process takes over. No hyperparameter is fitted."""
    rows, given = _some(rows, given, seed)
    near = np.clip(inputs, -_FARTHEST, _FARTHEST)
    wanted = _ranks(score) ** _STEEPNESS
    known, mean = near[rows], wanted[rows]
    covariance = _AMPLITUDE * _likeness(known, known) + _DOUBT**2 * np.outer(mean, mean) + _NOISE * np.eye(len(rows))
    weights = np.linalg.solve(covariance, given / HIGHEST - mean)
    slope = 1 + _DOUBT**2 * (mean @ weights)
    learned = np.concatenate([_likeness(part, known) @ weights for part in _parts(near)])
    return HIGHEST * (slope * wanted + _AMPLITUDE * learned)


def _some(rows: I64, given: F64, seed: int) -> tuple[I64, F64]:
    """Scored objects, no more than a process can learn from: its time grows with their cube."""
    if len(rows) <= _MOST_FOR_PROCESS:
        return rows, given
    chosen = np.random.default_rng(seed).permutation(len(rows))[:_MOST_FOR_PROCESS]
    return rows[chosen], given[chosen]


def _parts(inputs: F64) -> list[F64]:
    """Inputs cut into parts that a process judges at once."""
    return np.array_split(inputs, max(1, len(inputs) // _CHUNK))


def _likeness(some: F64, others: F64) -> F64:
    """(n, m) squared-exponential kernel of vectors (n, k) and (m, k), its length the square root of k."""
    squared = (some**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * some @ others.T
    return np.asarray(np.exp(-np.maximum(squared, 0) / (2 * some.shape[1])))


def _gaussian_process(inputs: F64, score: F64, rows: I64, given: F64, seed: int) -> F64:
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    rows, given = _some(rows, given, seed)
    length = np.sqrt(inputs.shape[1])
    kernel = kernels.ConstantKernel(1.0, (0.05, 20.0)) * kernels.RBF(length, (length / 10, length * 10))
    kernel += kernels.WhiteKernel(0.1, (1e-3, 1.0))
    model = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=0, random_state=seed)
    with warnings.catch_warnings(action="ignore"):  # a length scale at its bound is no news to who scores galaxies
        model.fit(inputs[rows], given)
    return np.concatenate([model.predict(part) for part in _parts(inputs)])


LEARNERS: Mapping[str, Learner] = {
    "forest": Learner("random forest of the given scores", _forest),
    "astronomaly": Learner(
        "random forest near scored objects, the unsupervised score far from them (Lochner & Bassett 2021)", _astronomaly
    ),
    "score_process": Learner(
        "Gaussian process of the given scores about the unsupervised one, as far as that is right", _score_process
    ),
    "gaussian_process": Learner("Gaussian process of the given scores (Lochner & Rudnick 2025)", _gaussian_process),
}


# Trials


@dataclass(frozen=True)
class Trial:
    """Anomalies found by one way of choosing what is labelled, over seeds."""

    strategy: str
    """`active`: batches of the highest ranked, learning after each; `random`: labelled at random; `unsupervised`: the
    score alone, nothing is learned."""
    labelled: F64
    """(seeds,) anomalies among the labelled."""
    following: F64
    """(seeds,) anomalies among the next that the ranking proposes."""

    @property
    def mean(self) -> float:
        """Mean of `following`."""
        return float(self.following.mean())

    @property
    def error(self) -> float:
        """Standard error of that mean over the seeds (of choices and learner: the objects stay the same)."""
        return float(self.following.std(ddof=1) / np.sqrt(len(self.following))) if len(self.following) > 1 else 0.0


@dataclass(frozen=True)
class TrialOptions:
    """Size and learner of trials of active learning."""

    labels: int = 100
    """Objects that are labelled."""
    following: int = 100
    """Unlabelled objects that are then looked at."""
    batch: int = 10
    """Labels between two trainings of the active arm."""
    learner: str = DEFAULT
    """One of `LEARNERS`."""
    seeds: int = 20
    """Repetitions."""
    mistakes: float = 0.0
    """Fraction of labels that are wrong."""


def trials(
    space: ArrayLike, score: ArrayLike, anomalous: ArrayLike, options: TrialOptions | None = None, **changes: Any
) -> dict[str, Trial]:
    """How many anomalies the next objects hold after some were labelled: actively, at random, or not used at all.

    Someone who knows the truth gives 5 to anomalies and 0 to the rest. All three start from the same objects and
    propose the same number of unlabelled ones; what active learning has already labelled is no longer there to be
    found, hence `labelled` beside `following`.

    Args:
        space: (n, k) latent vectors.
        score: (n,) unsupervised score.
        anomalous: (n,) truth.
        options: size and learner.
        changes: single fields of the options by name.

    Returns:
        Strategy -> its figures.

    Raises:
        InputError: fewer objects than are labelled and looked at.
    """
    trial = with_changes(TrialOptions, options, changes, "the options of trials")
    truth = np.asarray(anomalous, bool)
    values = np.asarray(score, np.float64)
    if len(truth) < trial.labels + trial.following or trial.batch < 1:
        raise InputError(f"{len(truth)} objects are too few for {trial.labels} labels and {trial.following} to look at")
    arms = {"active": _active, "random": _at_random, "unsupervised": _by_score}
    counts: dict[str, list[tuple[int, int]]] = {name: [] for name in arms}
    for seed in range(trial.seeds):
        rng = np.random.default_rng([seed, 7])
        answers = np.where(truth ^ (rng.random(len(truth)) < trial.mistakes), HIGHEST, 0.0)
        for name, choose in arms.items():
            chosen, after = choose(_Pool(np.asarray(space), values, answers), trial, seed)
            counts[name].append((int(truth[chosen].sum()), int(truth[after[: trial.following]].sum())))
    return {name: Trial(name, *np.array(pairs, np.float64).T) for name, pairs in counts.items()}


class _Pool(NamedTuple):
    """Objects that may be labelled, and what their labels would be."""

    space: F64
    score: F64
    answers: F64


Chosen = tuple[I64, I64]


def _active(pool: _Pool, trial: TrialOptions, seed: int) -> Chosen:
    chosen = np.zeros(0, np.int64)
    while len(chosen) < trial.labels:
        ranking = _next(pool, chosen, trial, seed)
        chosen = np.concatenate([chosen, ranking[: min(trial.batch, trial.labels - len(chosen))]])
    return chosen, _next(pool, chosen, trial, seed)


def _at_random(pool: _Pool, trial: TrialOptions, seed: int) -> Chosen:
    chosen = np.random.default_rng([seed, 8]).permutation(len(pool.score))[: trial.labels]
    return chosen, _next(pool, chosen, trial, seed)


def _by_score(pool: _Pool, trial: TrialOptions, seed: int) -> Chosen:
    order = np.argsort(-pool.score, kind="stable")
    return order[: trial.labels], order[trial.labels :]


def _next(pool: _Pool, chosen: I64, trial: TrialOptions, seed: int) -> I64:
    """Unlabelled rows, the most promising first; by the score as long as nothing can be learned."""
    worth, answers = pool.score, pool.answers[chosen]
    if len(chosen) >= FEWEST and np.ptp(answers) > 0:
        worth = relearned(pool.space, pool.score, chosen, answers, learner=trial.learner, seed=seed)
    order = np.argsort(-worth, kind="stable")
    return order[~np.isin(order, chosen)]
