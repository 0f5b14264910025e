"""Are attributions right? Pixels taken away and given back in their order, and networks whose weights are drawn anew.

Deletion and insertion: Petsiuk et al. 2018 (BMVC). Randomised weights: Adebayo et al. 2018 (NeurIPS).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from astroml_plugin.core.typing import F64
from astroml_plugin.explanation.attribution import Attribution
from astroml_plugin.explanation.baselines import generators
from astroml_plugin.explanation.target import Seen, Target, values
from astroml_plugin.explanation.trust import Score, bootstrapped

STEPS = 20
"""Parts of the pixels between two looks."""

Explain = Callable[[Target, Seen], Attribution]
"""A method with its baseline."""


@dataclass(frozen=True)
class Curves:
    """How the number of n objects changes as pixels are replaced by the baseline, and the other way round."""

    deletion: F64
    """(n, STEPS + 1) the number, pixels with most attribution taken away first."""
    insertion: F64
    """(n, STEPS + 1) the number, these pixels given first to the baseline."""


@dataclass(frozen=True)
class Faithfulness:
    """How an order of pixels compares with chance; all as parts of the objects' mean |difference from the baseline|."""

    deletion: Score
    """Area under the deletion curve of a random order less that of this one: above 0 is better than chance."""
    insertion: Score
    """Area under the insertion curve less that of a random order."""
    objects: int
    """Objects that it rests on."""


def curves(target: Target, seen: Seen, baseline: Tensor, order: Tensor) -> Curves:
    """Deletion and insertion of pixels (all channels of one together) in an order.

    Args:
        target: what is explained.
        seen: n stamps.
        baseline: (n, channel, h, w).
        order: (n, h * w) numbers of pixels, first the one that goes first.
    """
    count = order.shape[1]
    place = torch.empty_like(order).scatter_(1, order, torch.arange(count, device=order.device).expand_as(order))
    deletion, insertion = [], []
    for step in range(STEPS + 1):
        gone = (place < round(count * step / STEPS)).reshape(len(seen), 1, *seen.image.shape[2:])
        deletion.append(values(target, torch.where(gone, baseline, seen.image), *seen.given()))
        insertion.append(values(target, torch.where(gone, seen.image, baseline), *seen.given()))
    return Curves(*(torch.stack(one, 1).double().cpu().numpy() for one in (deletion, insertion)))


def ordered(maps: Tensor, difference: Tensor) -> Tensor:
    """(n, h * w) pixels of each object, those first that move the number most in the direction of its difference.

    Args:
        maps: (n, channel, h, w) attributions.
        difference: (n,) number of each object less that of its baseline.
    """
    signs = torch.where(difference < 0, -1.0, 1.0).to(maps)
    return (maps.sum(1).flatten(1) * signs[:, None]).argsort(stable=True, dim=1, descending=True)


def faithfulness(target: Target, seen: Seen, baseline: Tensor, found: Attribution, seed: int = 0) -> Faithfulness:
    """Deletion and insertion of the attributions against a random order of the same objects' pixels.

    Args:
        target, seen, baseline: as of the attributions.
        found: the attributions.
        seed: of random orders and of the bootstrap.
    """
    gained = gains(target, seen, baseline, found, np.arange(len(seen)), seed)
    size = max(float(gained.difference.mean()), 1e-12)
    deletion, insertion = (bootstrapped(one / size, seed) for one in (gained.deletion, gained.insertion))
    return Faithfulness(deletion, insertion, len(seen))


@dataclass(frozen=True)
class Gains:
    """Per object, how much an order of pixels is better than chance, in the unit of the number."""

    deletion: F64
    """(n,) area under the deletion curve of a random order less that of the attributions, in the direction of the
    difference from the baseline."""
    insertion: F64
    """(n,) area under the insertion curve less that of a random order."""
    difference: F64
    """(n,) |difference from the baseline|."""


def gains(
    target: Target, seen: Seen, baseline: Tensor, found: Attribution, object_id: np.ndarray, seed: int = 0
) -> Gains:
    """Deletion and insertion of each object against a random order of its pixels.

    Args:
        target, seen, baseline: as of the attributions.
        found: the attributions.
        object_id: (n,) int64, which random orders follow.
        seed: of random orders.
    """
    whole, empty = (values(target, image, *seen.given()) for image in (seen.image, baseline))
    order = ordered(found.maps, whole - empty)
    count = order.shape[1]
    drawn = torch.stack([torch.randperm(count, generator=one) for one in generators(object_id, seed)]).to(order.device)
    mine, chance = curves(target, seen, baseline, order), curves(target, seen, baseline, drawn)
    difference = mine.deletion[:, 0] - mine.deletion[:, -1]
    sign = np.where(difference < 0, -1.0, 1.0)
    fewer = sign * (_area(chance.deletion) - _area(mine.deletion))
    more = sign * (_area(mine.insertion) - _area(chance.insertion))
    return Gains(fewer, more, np.abs(difference))


def _area(curve: F64) -> F64:
    """(n,) mean height of curves (n, k)."""
    return np.asarray(np.trapezoid(curve, dx=1 / (curve.shape[1] - 1), axis=1), np.float64)


def randomised(target: Target, seen: Seen, explain: Explain, seed: int = 0) -> dict[str, Score]:
    """Rank correlation of maps with those of networks whose layers were drawn anew from the last one on.

    A method that shows what the network has learned gives other maps once the weights are gone.

    Args:
        target: what is explained.
        seen: stamps.
        explain: the method.
        seed: of the weights.

    Returns:
        Layer down to which all weights are drawn anew -> correlation, the last layer alone first, all layers last.
    """
    first = explain(target, seen).maps
    return {
        name: bootstrapped(rank_correlations(first, explain(changed, seen).maps), seed)
        for name, changed in drawn_anew(target, seed)
    }


def drawn_anew(target: Target, seed: int = 0) -> Iterator[tuple[str, Target]]:
    """Targets whose layers with weights are drawn anew, from the last one on: each has one more than that before it."""
    network = copy.deepcopy(target.network)
    layers = [(name, module) for name, module in network.named_modules() if _weights(module)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in reversed(layers):
            with torch.no_grad():
                for weight in _weights(module):  # of the same size as they were: numbers keep their scale
                    spread = weight.std() if weight.numel() > 1 else weight.abs()
                    weight.copy_((torch.randn(weight.shape) * spread.cpu()).to(weight))
            yield name, Target(target.task, copy.deepcopy(network), target.number)


def last_and_all(target: Target, seed: int = 0) -> tuple[Target, Target]:
    """Targets whose last layer with weights, and all of whose layers, are drawn anew."""
    drawn = drawn_anew(target, seed)
    _, last = next(drawn, ("", target))  # a network without weights stays as it is
    every = last
    for _, every in drawn:  # noqa: B007 - the last one is wanted
        pass
    return last, every


def _weights(module: nn.Module) -> list[nn.Parameter]:
    return [weight for name, weight in module.named_parameters(recurse=False) if weight.ndim > 1]


def rank_correlations(first: Tensor, second: Tensor) -> F64:
    """(n,) Spearman's correlation of maps (n, channel, h, w) with their signs, over pixels that either of both uses.

    Sizes alone would be alike whatever the weights are: where there is no light, no map has anything. 0 where one is
    constant.
    """
    pairs = zip(first.flatten(1).cpu().numpy(), second.flatten(1).cpu().numpy(), strict=True)
    found = []
    for one, other in pairs:
        used = (one != 0) | (other != 0)
        constant = not used.any() or np.ptp(one[used]) == 0 or np.ptp(other[used]) == 0
        found.append(0.0 if constant else float(stats.spearmanr(one[used], other[used]).statistic))
    return np.array(found)
