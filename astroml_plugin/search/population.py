"""Population-based training (Jaderberg et al. 2017): trials train side by side, and after every few epochs the worst
go on from the weights of the best, with changed hyperparameters.

An exchange waits for all members. Who takes over from whom then depends on the losses alone, not on which process was
faster: a search repeats exactly, also after an interruption, and more members than fit at once take turns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.search.objectives import Objective
from astroml_plugin.search.space import Configuration, Parameter, Space
from astroml_plugin.search.study import FAILED, Study, Trial

SHARE = 0.25
"""Fraction of the members that each exchange replaces by as many of the best (truncation selection)."""
_REDRAWN = 0.25
"""Probability that a changed value is drawn anew instead of moved."""
_FACTORS = (0.8, 1.25)


@dataclass(frozen=True)
class Move:
    """One member goes on from another's weights."""

    member: int
    parent: int
    configuration: Configuration
    reason: str


@dataclass(frozen=True)
class Population:
    """How members are exchanged.

    Args:
        space, seed: of the search.
        size: members.
        interval: epochs between exchanges.
        epochs: of a whole training.
        changed: keys that may change while weights stay; the others are taken over with the weights.
    """

    space: Space
    seed: int
    size: int
    interval: int
    epochs: int
    changed: frozenset[str]

    def end(self, generation: int) -> int:
        """Epochs that a member has trained at the end of a generation; the first is 0."""
        return min(self.epochs, (generation + 1) * self.interval)

    def moves(self, generation: int, members: Sequence[Trial], objective: Objective) -> list[Move]:
        """Exchanges after a generation: failed and worst members go on from the weights of the best.

        Raises:
            InputError: every member failed.
        """
        failed = [one for one in members if one.status == FAILED]
        ranked = sorted((one for one in members if one.status != FAILED), key=lambda one: _rank(one, objective))
        if not ranked:
            reasons = list(dict.fromkeys(one.reason for one in failed))[:3]
            raise InputError(f"all {len(failed)} members of the population failed: {'; '.join(reasons)}")
        count = max(1, int(SHARE * len(members)))
        best, worst = ranked[:count], ranked[count:][::-1][: max(0, count - len(failed))]
        found = []
        for one in sorted([*failed, *worst], key=lambda one: one.number):
            rng = np.random.default_rng([self.seed, generation, one.number])
            parent = best[int(rng.integers(len(best)))]
            reason = one.reason if one.status == FAILED else f"{objective.name} {latest(one, objective):.6g}"
            found.append(Move(one.number, parent.number, self.explored(parent.configuration, rng), reason))
        return found

    def explored(self, configuration: Configuration, rng: np.random.Generator) -> Configuration:
        """A configuration near another: every key that may change does, the others keep their values."""

        def choose(one: Parameter) -> Any:
            if one.key in configuration and one.key not in self.changed:
                return configuration[one.key]
            if one.key not in configuration or rng.random() < _REDRAWN:
                return one.at(float(rng.random()))
            return moved(one, configuration[one.key], rng)

        return self.space.configured(choose)


def moved(one: Parameter, value: Any, rng: np.random.Generator) -> Any:
    """A value a step away, inside the range: by a factor, whole numbers by one at least, choices to a neighbour."""
    up = bool(rng.integers(2))
    if one.kind == "choice":
        place = one.values.index(value) + (1 if up else -1)
        return one.values[min(max(place, 0), len(one.values) - 1)]
    found = value * _FACTORS[up]
    if one.whole:
        found = round(found) if round(found) != value else value + (1 if up else -1)
    return min(max(found, one.values[0]), one.values[1])


def latest(one: Trial, objective: Objective) -> float:
    """The objective after the newest epoch, whose weights would be taken over; NaN where there is none."""
    newest = one.history[-1] if one.history else {}
    return float(newest.get(objective.name, one.extra.get(objective.name, math.nan)))


def _rank(one: Trial, objective: Objective) -> tuple[float, int]:
    cost = objective.cost(latest(one, objective))
    return (cost if math.isfinite(cost) else math.inf, one.number)


def exchange(study: Study, population: Population, generation: int, members: Sequence[Trial]) -> None:
    """Decide, write that down, then carry it out: a search that dies in between finds what was decided."""
    found = study.exchanges()
    if len(found) <= generation:
        moves = [asdict(one) for one in population.moves(generation, members, study.main)]
        found.append({"generation": generation, "epoch": population.end(generation), "moves": moves, "done": False})
        study.write_exchange(generation, found[-1])
    for move in found[generation]["moves"]:
        study.take_over(move["member"], study.trial(move["parent"]), move["configuration"])
    study.write_exchange(generation, {**found[generation], "done": True})


def generations(study: Study) -> int:
    """Exchanges that were carried out."""
    return sum(bool(one["done"]) for one in study.exchanges())
