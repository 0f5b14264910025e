"""The score and its signs as arithmetic of tensors: `tail_probability` for what is exported, in double precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from astroml_plugin.tasks.anomaly.tail_probability import FAR, LEVELS, Density, Expectation, Tail
from astroml_plugin.tasks.graph import interpolated

_FURTHEST = 700.0  # of an exponent


def tail(known: Tail, values: Tensor) -> Tensor:
    """(n,) -lg of the probability of larger values, as `Tail` gives it."""
    if not known.knots:
        return torch.zeros_like(values)
    knots = known.knots
    inner = interpolated(values, knots, LEVELS)
    width = max(knots[1] - knots[0], 1e-12)
    below = LEVELS[0] * (-((knots[0] - values) / width).clamp(0.0, _FURTHEST)).exp()
    excess = (values - knots[-1]).clamp_min(0.0) / known.scale
    grown = excess if known.shape < 1e-6 else (1 + known.shape * excess).log() / known.shape
    beyond = LEVELS[-1] + grown / math.log(10)
    return torch.where(values > knots[-1], beyond, torch.where(values < knots[0], below, inner))


def standard(known: Expectation, values: Tensor, conditions: Tensor) -> Tensor:
    """(n,) values less their expectation at conditions (n, 2), over the spread, as `Expectation` gives them."""
    if not known.mean:
        return values
    a = conditions[:, 0].clamp(known.limits[0], known.limits[1])
    b = conditions[:, 1].clamp(known.limits[2], known.limits[3])
    terms = torch.stack([torch.ones_like(a), a, b, a * a, a * b, b * b], dim=1)
    mean, spread = (
        terms * torch.tensor(item, dtype=terms.dtype, device=terms.device) for item in (known.mean, known.spread)
    )
    return (values - mean.sum(1)) / spread.sum(1).exp()


def improbability(known: Density, latent: Tensor) -> Tensor:
    """(n,) -ln density of latent vectors (n, d), as `Density` gives it."""
    if not known.weights:
        return torch.zeros_like(latent[:, 0])
    each = []
    for share, mean, factor in zip(known.weights, known.means, known.factors):
        matrix = latent.new_tensor(factor).reshape(len(mean), len(mean))
        offset = (latent - latent.new_tensor(mean)) @ matrix.T
        distance = FAR**2 * (1 + offset.square() / FAR**2).log()
        volume = sum(math.log(abs(factor[k * len(mean) + k])) for k in range(len(mean)))  # triangular
        each.append(share + volume - 0.5 * distance.sum(1))
    if len(each) == 1:
        return -each[0]
    return -torch.stack(each).logsumexp(0)


def raw_signs(known: Density, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sign -> (n,) double, from the numbers of the network by name, on scales on which populations are near normal."""
    rooted = {name: numbers[name].clamp_min(0.0).double().sqrt() for name in ("critic", "second_source", "residual")}
    plain = {name: numbers[name].double() for name in ("foreign", "reconstruction", "asymmetry", "line")}
    return {**plain, **rooted, "latent": improbability(known, numbers["latent"].double())}


def scored(
    settings: Any, numbers: Mapping[str, Tensor], conditions: Tensor, weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """Columns (n,) float32 of the score and its signs.

    Args:
        settings: of the task, calibrated.
        numbers: of the network, by name.
        conditions: (n, 2) lg S/N and lg radius.
        weights: in the score, of every sign that the network gives.
    """
    tails, raw = {}, raw_signs(settings.density, numbers)
    for name, values in ((name, raw[name]) for name in weights):
        known, expected = settings.tails.get(name, Tail()), settings.expectations.get(name, Expectation())
        tails[name] = tail(known, standard(expected, values, conditions.double()))
    total = torch.stack([weight * tails[name].pow(settings.power) for name, weight in weights.items()]).sum(0)
    score = tail(settings.score, total.pow(1 / settings.power))
    return {"anomaly_score": score.float()} | {f"anomaly_{name}": tails[name].float() for name in weights}
