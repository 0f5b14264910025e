"""Calibrated logits of a classification, and what of them can be explained: log odds and probabilities."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.evaluation import calibration
from astroml_plugin.tasks.base import Task

CALLED = "called"
"""Number of the class that each object is called, whichever that is."""


class ExplainedClasses(Task):
    """Log odds of each class, its probability, and the log odds of the class that an object is called.

    Log odds ln p / (1 - p) have no ceiling: what pixels add is the same for sure objects and unsure ones.
    """

    def logits(self, outputs: Tensor) -> Tensor:
        """(n, class) float32 logits of the probabilities."""
        offset = torch.tensor(self._log_shift() - self._log_weights(), dtype=torch.float32, device=outputs.device)
        logits: Tensor = outputs / self.settings.temperature + offset
        return logits

    def _log_weights(self) -> np.ndarray:
        """(class,) logarithms of the class weights, which the loss adds to the logits."""
        weights = self.settings.weights
        return np.log(np.asarray(weights, np.float64)) if weights else np.zeros(self.outputs)

    def _log_shift(self) -> np.ndarray:
        """(class,) shift of the logits to the survey's class fractions (Saerens et al. 2002)."""
        if not self.settings.prior:
            return np.zeros(self.outputs)
        several = self.settings.multi_label
        before, after = np.asarray(self.settings.training_prior, np.float64), self._fractions()
        if (before <= 0).any():
            raise InputError("a class without any training example cannot be given a fraction of the survey")
        shift = np.log(after) - np.log(before)
        return np.asarray(shift - np.log1p(-after) + np.log1p(-before) if several else shift)

    def _fractions(self) -> np.ndarray:
        """(class,) fractions that the probabilities hold for; 1 each where the training's are not known."""
        settings = self.settings
        if not settings.prior:
            return np.asarray(settings.training_prior or np.ones(self.outputs), np.float64)
        return calibration.full_prior(
            settings.prior, settings.classes, settings.training_prior, independent=settings.multi_label
        )

    def explained(self) -> dict[str, str]:
        """Log odds of the class that is searched for come first, where there is one."""
        settings = self.settings
        odds = {f"logit_{name}": f"Log odds ln p / (1 - p) of {name}" for name in settings.classes}
        chances = {f"p_{name}": f"Probability of {name}" for name in settings.classes}
        called = {CALLED: "Log odds of the most probable class of each object"}
        first = f"logit_{settings.positive}"
        return ({first: odds[first]} if first in odds else called) | called | odds | chances

    def explained_place(self, name: str, outputs: Tensor, at: Tensor) -> Tensor:
        """Number of the class."""
        if name == CALLED:
            return self.logits(outputs).argmax(1)
        number = list(self.settings.classes).index(name.partition("_")[2])
        return torch.full((len(outputs),), number, dtype=torch.int64, device=outputs.device)

    def explained_value(self, name: str, outputs: Tensor, place: Tensor) -> Tensor:
        """Log odds or probability of the class at `place`."""
        logits = self.logits(outputs)
        mine = logits.gather(1, place[:, None])[:, 0]
        if not self.settings.multi_label:
            others = torch.ones_like(logits, dtype=torch.bool).scatter(1, place[:, None], False)
            mine = mine - logits.masked_fill(~others, -torch.inf).logsumexp(1)
        return mine.sigmoid() if name.startswith("p_") else mine
