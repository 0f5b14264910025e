"""Asynchronous successive halving in the number of training objects (Li et al. 2020): most configurations are judged on
a part of the data, and the best of each size are trained anew on more.

Which configuration comes next depends on the trials so far alone, so a search that was interrupted needs no state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from astroml_plugin.core.errors import InputError
from astroml_plugin.search.objectives import Objective
from astroml_plugin.search.space import Configuration, name_of
from astroml_plugin.search.study import PART, Trial, ranked

_LEAST = 64
"""Training objects below which nothing is judged."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of training objects that trials see, rising; the last one, 0, is all of them."""

    limits: tuple[int, ...]
    reduction: float
    """One configuration of so many goes on to the next size."""

    @classmethod
    def of(cls, objects: int, rungs: int, reduction: float) -> Sizes:
        """Sizes for so many training objects: all of them, and `rungs - 1` parts, each smaller by `reduction`.

        Raises:
            InputError: the smallest part has too few objects to judge anything.
        """
        parts = tuple(round(objects / reduction**step) for step in range(rungs - 1, 0, -1))
        if parts and parts[0] < _LEAST:
            raise InputError(
                f"{rungs} sizes, each smaller by {reduction:g}, leave {parts[0]} of {objects} training objects for the "
                f"smallest ({_LEAST} are needed): give fewer rungs, or fidelity = 'epochs'"
            )
        return cls((*parts, 0), reduction)

    def sized(self, configuration: Configuration, rung: int) -> Configuration:
        """A configuration that trains on the objects of a rung."""
        plain = {key: value for key, value in configuration.items() if key != PART}
        limit = self.limits[rung]
        return {**plain, PART: limit} if limit else plain

    def rung(self, trial: Trial) -> int:
        """The place of a trial's size."""
        return self.limits.index(int(trial.configuration.get(PART, 0)))

    def promoted(self, trials: Sequence[Trial], objective: Objective) -> Configuration | None:
        """The next configuration that earns more objects; None where none does yet.

        At each size it is the best of those among the first `1 / reduction` of all that ended there, and that has not
        been tried on more objects. Larger sizes are asked first.
        """
        there = {name_of(one.configuration) for one in trials}
        for rung in range(len(self.limits) - 2, -1, -1):
            ended = ranked([one for one in trials if self.rung(one) == rung], objective)
            for one in ended[: math.floor(len(ended) / self.reduction)]:
                larger = self.sized(one.configuration, rung + 1)
                if name_of(larger) not in there:
                    return larger
        return None
