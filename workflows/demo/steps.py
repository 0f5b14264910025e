"""Result and steps of both modes of `demo`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from astroml_plugin.core import storage
from astroml_plugin.core.results import Result
from workflows.progress import Reporter

FINDER = "segmentation"
"""The shipped bundle that finds the objects."""


@dataclass(frozen=True, repr=False)
class DemoResult(Result):
    """Output of the demo."""

    out: str
    """Folder of everything."""
    catalogs: tuple[str, ...]
    pictures: tuple[str, ...]
    rows: int
    """Rows of the catalogs."""
    seconds: float
    summary: str
    """Text for a terminal: results, and commands to try next."""


class Steps:
    """Says which step of how many begins, and when."""

    def __init__(self, report: Reporter, total: int) -> None:
        self.report, self.total, self.number, self.started = report, total, 0, time.monotonic()

    def __call__(self, text: str) -> None:
        """Begin the next step."""
        self.number += 1
        self.report.say(f"[{self.number}/{self.total}] {text}  ({time.monotonic() - self.started:.0f} s)")

    @property
    def seconds(self) -> float:
        """Since the first step."""
        return time.monotonic() - self.started


def shown(url: str) -> str:
    """`url` as a person would type it: relative to the working folder where that is shorter."""
    if not storage.is_local(url):
        return url
    relative = os.path.relpath(storage.local_path(url))
    return relative if len(relative) < len(url) else url
