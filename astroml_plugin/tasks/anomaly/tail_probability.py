"""How improbable a value is among those of a population: expectations, densities, and tails that never end.

Plain numbers in frozen dataclasses, so that all of it lives in a bundle's card.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.typing import F64

_KNOTS = (0.01, 0.02, 0.05, *(round(0.1 * k, 1) for k in range(1, 9)), 0.85, 0.9, 0.925, 0.95)
"""Parts of the population at which its distribution is kept; the last one is where the tail begins."""
LEVELS = tuple((-np.log10(1 - np.asarray(_KNOTS))).tolist())
"""-lg of the probability of larger values at each knot."""
_SHAPES = (0.0, 0.5)
"""Shape of the generalised Pareto distribution: an exponential at the least, so that no value is impossible."""
_ROUNDS, _OUTLYING = 4, 3.0
FAR = 12.0
"""Standardised latent values beyond which nothing is added: a stamp may be odd in one direction."""


@dataclass(frozen=True)
class Tail:
    """-lg of the probability that a value of the population is larger: continuous, strictly rising, never infinite.

    Between `knots` the logarithm of the probability is linear; beyond the last one a generalised Pareto distribution
    goes on (Pickands 1975, Ann. Stat. 3, 119), below the first one an exponential.
    """

    knots: tuple[float, ...] = ()
    """Values at `_KNOTS` of the population, rising. Empty: nothing is known, all values give 0."""
    shape: float = 0.0
    """Shape ξ of the generalised Pareto tail; 0 is an exponential."""
    scale: float = 1.0
    """Scale σ of the generalised Pareto tail, in units of the values."""

    def __call__(self, values: F64) -> F64:
        """(n,) float64, 0 or more."""
        if not self.knots:
            return np.zeros(len(values))
        knots, levels = np.asarray(self.knots), np.asarray(LEVELS)
        value = np.asarray(values, np.float64)
        tail = np.interp(value, knots, levels)
        below, above = knots[0] - value, value - knots[-1]
        width = max(knots[1] - knots[0], 1e-12)
        tail = np.where(below > 0, levels[0] * np.exp(-np.clip(below / width, 0, 700)), tail)
        excess = np.maximum(above, 0) / self.scale
        grown = excess if self.shape < 1e-6 else np.log1p(self.shape * excess) / self.shape
        result: F64 = np.where(above > 0, levels[-1] + grown / math.log(10), tail)
        return result


def fit_tail(values: F64) -> Tail:
    """The tail of a population (n,) of 20 or more; moments of Hosking & Wallis 1987 (Technometrics 29, 339)."""
    ranked = np.sort(np.asarray(values, np.float64))
    knots = np.quantile(ranked, _KNOTS)
    least = max(1e-9, 1e-6 * float(np.ptp(ranked)))
    for number in range(1, len(knots)):  # equal values must not make a step
        knots[number] = max(knots[number], knots[number - 1] + least)
    excess = ranked[ranked > knots[-1]] - knots[-1]
    if len(excess) < 5 or excess.mean() <= least:
        return Tail(tuple(knots.tolist()), 0.0, max(float(knots[-1] - knots[-3]), least))
    mean, count = float(excess.mean()), len(excess)
    weighted = float((excess * (1 - (np.arange(count) + 0.65) / count)).mean())
    shape = 2 - mean / max(mean - 2 * weighted, 1e-12)
    shape = float(np.clip(shape, *_SHAPES))
    return Tail(tuple(knots.tolist()), shape, max(mean * (1 - shape), least))


@dataclass(frozen=True)
class Expectation:
    """Mean and spread of a value in a population, as polynomials of second order in two other values."""

    mean: tuple[float, ...] = ()
    """Coefficients of 1, a, b, a², ab, b². Empty: 0 and 1."""
    spread: tuple[float, ...] = ()
    """Coefficients of the logarithm of the spread."""
    limits: tuple[float, ...] = ()
    """Least and greatest a, then b, of the population: beyond, those of the edge hold."""

    def __call__(self, values: F64, conditions: F64) -> F64:
        """(n,) standardised values from values (n,) and what they depend on (n, 2)."""
        if not self.mean:
            return np.asarray(values, np.float64)
        terms = _terms(conditions, self.limits)
        return (values - terms @ self.mean) / np.exp(terms @ self.spread)


def fit_expectation(values: F64, conditions: F64) -> Expectation:
    """From a population: values (n,), what they depend on (n, 2). Outliers of 3 sigma have no say."""
    low, high = np.quantile(conditions, [0.005, 0.995], axis=0)
    limits = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    terms = _terms(conditions, limits)
    inliers = np.ones(len(values), bool)
    mean = spread = np.zeros(terms.shape[1])
    for _ in range(_ROUNDS):
        mean = _solved(terms[inliers], values[inliers])
        offset = np.abs(values - terms @ mean)
        floor = max(1e-6, 1e-3 * float(np.median(offset)))
        spread = _solved(terms[inliers], np.log(np.maximum(offset[inliers], floor)))
        size = offset / np.exp(terms @ spread)
        width = float(np.median(size)) / 0.6745
        spread[0] += math.log(max(width, 1e-9))
        inliers = size <= max(_OUTLYING * width, float(np.quantile(size, 0.9)))  # many equal values have no width
    return Expectation(tuple(mean.tolist()), tuple(spread.tolist()), limits)


def _terms(conditions: F64, limits: tuple[float, ...]) -> F64:
    a = np.clip(conditions[:, 0], limits[0], limits[1])
    b = np.clip(conditions[:, 1], limits[2], limits[3])
    return np.stack([np.ones_like(a), a, b, a * a, a * b, b * b], axis=1)


def _solved(terms: F64, values: F64) -> F64:
    """Least squares with a small ridge, so that a population of one size is no trouble."""
    ridge = 1e-6 * len(values) * np.eye(terms.shape[1])
    return np.asarray(np.linalg.solve(terms.T @ terms + ridge, terms.T @ values))


@dataclass(frozen=True)
class Density:
    """A mixture of normal distributions of latent vectors."""

    weights: tuple[float, ...] = ()
    """(k,) logarithms of the shares. Empty: every density is 1."""
    means: tuple[tuple[float, ...], ...] = ()
    """(k, d)"""
    factors: tuple[tuple[float, ...], ...] = ()
    """(k, d²) matrices that turn offsets into unit normal ones."""

    def __call__(self, latent: Tensor) -> F64:
        """(n,) -ln density, but for a constant, of latent vectors (n, d)."""
        if not self.weights:
            return np.zeros(len(latent))
        vectors, each = latent.double(), []
        for share, mean, factor in zip(self.weights, self.means, self.factors):
            matrix = torch.tensor(factor, dtype=torch.float64).reshape(len(mean), len(mean))
            offset = (vectors - torch.tensor(mean, dtype=torch.float64)) @ matrix.T
            distance = FAR**2 * torch.log1p(offset.square() / FAR**2)
            each.append(share + float(torch.linalg.slogdet(matrix)[1]) - 0.5 * distance.sum(1))
        return np.asarray(-torch.logsumexp(torch.stack(each), dim=0).numpy())


def fit_density(latent: Tensor, components: int, seed: int = 0) -> Density:
    """From a population of latent vectors (n, d); several components are found by scikit-learn's expectation
    maximisation.
    """
    vectors = latent.double().numpy()
    size = vectors.shape[1]
    if components == 1 or len(vectors) < 20 * components:
        return _normal([0.0], vectors.mean(0)[None], np.cov(vectors.T).reshape(1, size, size))
    from sklearn.mixture import GaussianMixture  # a second that only trainings need to spend

    ridge = 1e-3 * float(vectors.var(0).mean()) + 1e-9
    mixture = GaussianMixture(components, reg_covar=ridge, random_state=seed, max_iter=200).fit(vectors)
    return _normal(np.log(mixture.weights_).tolist(), mixture.means_, mixture.covariances_)


def _normal(weights: list[float], means: F64, covariances: F64) -> Density:
    factors = []
    for covariance in covariances:
        ridge = 1e-3 * float(np.trace(covariance)) / len(covariance) + 1e-9
        lower = np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))
        factors.append(tuple(np.linalg.inv(lower).ravel().tolist()))
    return Density(tuple(weights), tuple(tuple(mean.tolist()) for mean in means), tuple(factors))
