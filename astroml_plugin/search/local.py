"""Local search: each new configuration is a step away from one of the best so far (an evolution strategy: Beyer &
Schwefel 2002).

A recipe that is good already is rarely beaten by draws from the whole space. Few changes at a time find what is
better beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from astroml_plugin.search.objectives import Objective
from astroml_plugin.search.samplers import Sampler
from astroml_plugin.search.space import Configuration, Parameter, Space, frozen, name_of
from astroml_plugin.search.study import Trial, ranked

PARENTS = (0.7, 0.2, 0.1)
"""Probabilities of the best, the second and the third trial to be stepped away from."""
_CHANGED = (0.5, 0.3, 0.2)
"""Probabilities that one, two or three keys change."""
_STEP = 0.15
"""Standard deviation of a step, as a part of the range (of its logarithm, where values spread so)."""
_TRIES = 50


def local_sampler(space: Space, seed: int, objective: Objective) -> Sampler:
    """A sampler of steps away from the best trials; random where none has ended yet."""

    def sample(number: int, trials: Sequence[Trial]) -> Configuration | None:
        ended = ranked(trials, objective)
        if not ended:
            return space.drawn(seed, number)
        parents = ended[: len(PARENTS)]
        chances = np.array(PARENTS[: len(parents)])
        rng = np.random.default_rng([seed, number])
        tried = {name_of(one.configuration) for one in trials}
        for _ in range(_TRIES):
            parent = parents[rng.choice(len(parents), p=chances / chances.sum())]
            found = _step(space, parent.configuration, rng)
            if name_of(found) not in tried:
                return found
        return space.drawn(seed, number)  # a small space of choices is tried in full nearby

    return sample


def _step(space: Space, configuration: Configuration, rng: np.random.Generator) -> Configuration:
    """The configuration with one to three keys changed; keys whose condition holds only now are drawn."""
    keys = [one.key for one in space.parameters if one.key in configuration]
    count = min(len(keys), 1 + int(rng.choice(len(_CHANGED), p=_CHANGED)))
    changed = {keys[i] for i in rng.choice(len(keys), count, replace=False)}

    def choose(one: Parameter) -> Any:
        if one.key not in configuration:
            return one.at(float(rng.random()))
        value = configuration[one.key]
        return _beside(one, value, rng) if one.key in changed else value

    return space.configured(choose)


def _beside(one: Parameter, value: Any, rng: np.random.Generator) -> Any:
    """Another value near this one."""
    if one.kind == "choice":
        index, count = one.values.index(frozen(value)), len(one.values)
        if one.numeric:
            near = [place for place in (index - 1, index + 1) if 0 <= place < count]
        else:
            near = [place for place in range(count) if place != index]
        return one.values[near[rng.integers(len(near))]] if near else value
    place = one.place(value) + _STEP * rng.standard_normal()
    place = abs(place) if place < 1 else 2 - place  # reflected at the ends of the range
    found = one.at(float(min(max(place, 0.0), math.nextafter(1.0, 0.0))))
    if one.whole and found == value:
        low, high = one.values
        found = value + (1 if value == low or (value != high and rng.random() < 0.5) else -1)
    return found
