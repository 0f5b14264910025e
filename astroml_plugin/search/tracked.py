"""Searches told to MLflow, TensorBoard or Weights & Biases: the best value as it falls, and at the end each trial."""

from __future__ import annotations

import math

from astroml_plugin.core import storage
from astroml_plugin.search.session import Conclusion
from astroml_plugin.search.tuning import Progress, SearchProgress
from astroml_plugin.training.tracking import Tracking

_MOST = 1000
"""Trials that are told of one by one."""


class TrackedSearch:
    """Tells of a search; use it as a context.

    Args:
        names: of the trackers.
        out: folder or URL of the study.
        progress: of the caller; called first.

    Raises:
        InputError: no such tracker, or its package is not installed.
    """

    def __init__(self, names: tuple[str, ...], out: str, progress: Progress | None) -> None:
        self.names, self.out, self._given = names, out, progress
        self._tracking = Tracking(names, out, {"study": storage.absolute(out).rpartition("/")[2]})
        self._epochs = -1

    def __enter__(self) -> TrackedSearch:
        return self

    def __exit__(self, *reason: object) -> None:
        self._tracking.close()

    @property
    def progress(self) -> Progress | None:
        """Hears of the search; nothing does where nobody asks."""
        return self._tell if self.names else self._given

    def _tell(self, told: SearchProgress) -> None:
        if self._given is not None:
            self._given(told)
        if told.epochs > self._epochs:
            self._epochs = told.epochs
            best = {} if math.isnan(told.value) else {f"best_{told.objective}": told.value}
            self._tracking.figures(told.epochs, {**best, "trials": told.trials, **told.ended})

    def conclude(self, found: Conclusion) -> None:
        """Tell of every trial, with its configuration and its epochs."""
        if not self.names:
            return
        self._tracking.close()
        for trial in found.trials[:_MOST]:
            place = storage.join(found.study.url, "tracked", f"trial-{trial.number:04d}")
            facts = {**trial.configuration, "status": trial.status, "winner": trial.number == found.winner.number}
            with Tracking(self.names, place, facts) as one:
                one.epochs(list(trial.history))
