"""Proposals for Tune, read from the study: whole trials one after another, or segments of a population's trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from ray.tune.search import Searcher

from astroml_plugin.core.errors import InputError
from astroml_plugin.search.population import Population, exchange, generations
from astroml_plugin.search.running import COST, TrialSegment
from astroml_plugin.search.samplers import Sampler
from astroml_plugin.search.study import OPEN, Study, Trial
from astroml_plugin.training.checkpoint import history_of


class Watch(Protocol):
    """State of a search while it runs."""

    trials: dict[int, Trial]
    """Trials as they are now, by number."""
    fatal: Exception | None
    """Error that ends the search; None while there is none."""

    @property
    def over(self) -> bool:
        """Whether nothing new may begin."""

    def full(self, proposed: int) -> bool:
        """Whether the budget has no room for a further trial."""


class Proposals(Searcher):
    """First the trials that had begun, then what the sampler gives, while budget is left."""

    def __init__(self, study: Study, sampler: Sampler, watch: Watch) -> None:
        super().__init__(metric=COST, mode="min")
        self.study, self.sampler, self.watch = study, sampler, watch
        self.begun = [one for one in watch.trials.values() if one.status == OPEN]

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration, with its trial's number."""
        if self.watch.over:
            return str(Searcher.FINISHED)
        trial = self.begun.pop(0) if self.begun else self.proposed()
        return str(Searcher.FINISHED) if trial is None else TrialSegment(trial.number).to_config(trial.configuration)

    def proposed(self) -> Trial | None:
        """A further trial of the study; None where there is none, or no disk to write it on."""
        number = len(self.watch.trials)
        configuration = None if self.watch.full(number) else self.sampler(number, list(self.watch.trials.values()))
        if configuration is None:
            return None
        try:
            self.watch.trials[number] = self.study.propose(number, configuration)
        except OSError as error:
            self.watch.fatal = error
            return None
        return self.watch.trials[number]

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the sampler looks at the trials themselves."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""


class SegmentProposals(Proposals):
    """Generation after generation of a population: every member's segment, then the exchange."""

    def __init__(self, study: Study, sampler: Sampler, watch: Watch, population: Population) -> None:
        super().__init__(study, sampler, watch)
        self.population, self.generation = population, generations(study)
        self.running: set[str] = set()
        for one in self.begun:  # of a log and its checkpoint the latter counts: the former may be an epoch ahead
            watch.trials[one.number] = replace(one, history=history_of(study.folder(one.number)))
        while len(watch.trials) < population.size and self.proposed() is not None:
            continue
        self.waiting = self._due()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next segment; None while others of its generation run."""
        if self.watch.over:
            return str(Searcher.FINISHED)
        if not self.waiting and self.running:
            return None
        if not self.waiting and not self._exchanged():
            return str(Searcher.FINISHED)
        one = self.watch.trials[self.waiting.pop(0)]
        self.running.add(trial_id)
        end = self.population.end(self.generation)
        until = None if end >= self.population.epochs else end
        return TrialSegment(one.number, until, len(one.history)).to_config(one.configuration)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """A segment came to its end."""
        self.running.discard(trial_id)

    def _due(self) -> list[int]:
        """Members that have not reached the end of this generation; of the last, those that did not say so."""
        end = self.population.end(self.generation)
        last = end >= self.population.epochs
        every = self.watch.trials.values()
        return [one.number for one in every if one.status == OPEN and (last or len(one.history) < end)]

    def _exchanged(self) -> bool:
        """Go to the next generation that has something to train; False at the end of the last."""
        while not self.waiting and self.population.end(self.generation) < self.population.epochs:
            try:
                exchange(self.study, self.population, self.generation, list(self.watch.trials.values()))
            except (InputError, OSError) as error:
                self.watch.fatal = error
                return False
            self.watch.trials.update({one.number: one for one in self.study.trials()})
            self.generation += 1
            self.waiting = self._due()
        return bool(self.waiting)
