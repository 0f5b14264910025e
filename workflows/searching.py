"""How far a search is, for people."""

from __future__ import annotations

from typing import Any

from workflows.at_work import duration


def search_rows(progress: Any) -> list[tuple[str, str]]:
    """Rows (name, text) about a search, for a person."""
    running = ", ".join(f"{number} (epoch {epochs})" for number, epochs in progress.running)
    ended = progress.ended
    rows = [("best", "none yet")]
    if progress.best is not None:
        rows = [("best", f"{progress.objective} {progress.value:.5g} in trial {progress.best.number}")]
    rows += [("running", running or "none"), ("finished", str(ended["finished"])), ("stopped", str(ended["stopped"]))]
    rows += [("failed", str(ended["failed"]))] if ended["failed"] else []
    rows += [("epochs", f"{progress.epochs:,}")]
    if progress.seconds_left is not None:
        rows += [("left", f"about {duration(progress.seconds_left)}")]
    return rows
