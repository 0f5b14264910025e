"""Result of an ingest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from astroml_plugin.core.results import Result

Progress = Callable[[str, int, int], None]
"""Called with ("ingest", units done, units known of)."""


@dataclass(frozen=True, repr=False)
class IngestResult(Result):
    """Summary of one ingest."""

    source: str
    """URL of the Survey or Stamps."""
    kind: str
    """"survey" or "stamps"."""
    units_done: int
    """Tiles or blocks written by this run."""
    units_skipped: int
    """Tiles or blocks that were there already."""
    rows: int
    """Tiles or stamps written by this run."""
    bytes: int
    """Decoded bytes written by this run."""
    seconds: float
    """Wall time."""
    failed: tuple[tuple[str, str], ...] = ()
    """(unit, reason) of what could not be read; the next run tries it again."""
    left_out: tuple[str, ...] = ()
    """Arrays of an archive that are no part of its stamps, with their shapes."""
    warnings: tuple[str, ...] = ()
    """Planes of FITS files left out, what cannot be used and what is guessed, one sentence each."""

    notes: tuple[str, ...] = ()
    """Changes of the pixels beyond reading them, one sentence each: sky that was taken off."""

    @property
    def units_failed(self) -> int:
        """Number of failed units."""
        return len(self.failed)
