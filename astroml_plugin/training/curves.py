"""Pictures of a training while it goes on: losses, and what reaches its layers."""

from __future__ import annotations

import time
from collections.abc import Sequence

from astroml_plugin.core import storage
from astroml_plugin.evaluation.figures import write_figure
from astroml_plugin.evaluation.training_figures import layer_curves, training_curves
from astroml_plugin.training.checkpoint import read_log
from astroml_plugin.training.settings import EpochRecord

_PAUSE = 20.0
"""Seconds to the first drawing and between two: hundreds of short epochs would otherwise mostly be drawn."""


class Curves:
    """training.png and gradients.png in the folder or at the URL of a training."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._next = time.monotonic() + _PAUSE

    def now_and_then(self) -> None:
        """Draw the epochs in the log, unless that was done or the training begun a moment ago."""
        if time.monotonic() >= self._next:
            self.draw(read_log(self._url))
            self._next = time.monotonic() + _PAUSE

    def draw(self, history: Sequence[EpochRecord]) -> None:
        """Draw these epochs."""
        write_figure(storage.join(self._url, "training.png"), training_curves(history))
        if history[-1].get("gradients"):
            write_figure(storage.join(self._url, "gradients.png"), layer_curves(history))
