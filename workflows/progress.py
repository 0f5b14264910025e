"""Progress for people: a bar on a terminal, plain lines in a log, both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

LOG_SECONDS = 10.0
"""Distance of plain lines in a log."""

_FAILURES_SHOWN = "failed"
_MANY_ROWS = 1_000_000


class Reporter:
    """Shows how far a long verb is: use it as a context and call it, or `units`, after every unit."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.interactive = self.stream.isatty()
        self.started = time.monotonic()
        self.spoke = -LOG_SECONDS
        self.what = ""
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Say that `done` of `total` units are `what`."""
        if what != self.what:
            self.what, self.started, self.spoke = what, time.monotonic(), -LOG_SECONDS
        if self.interactive:
            self._draw(what, done, total, note)
        elif time.monotonic() - self.spoke >= LOG_SECONDS or done == total:
            self.spoke = time.monotonic()
            print(f"{what}: {done}/{total} {note}{self._left(done, total)}".rstrip(), file=self.stream, flush=True)

    def say(self, line: str) -> None:
        """A plain line."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=self.stream, flush=True)

    def objects(self, stage: str, done: int, total: int | None) -> None:
        """Rows of an objects table on their way to their units; how many there are may not be known."""
        if total is not None or done >= _MANY_ROWS:
            self(f"objects: {stage}", done, total or done)

    def units(self, progress: Any) -> None:
        """Units, objects per second and the stage that holds up the others now, from a `RunProgress` of inference."""
        rate = progress.rows / progress.seconds if progress.seconds > 0 else 0.0
        note = f"{rate:,.0f} objects/s"
        if progress.bottleneck:
            note += f", mostly {progress.bottleneck}"
        if progress.failed:
            note += f", {progress.failed} {_FAILURES_SHOWN}"
        self("measured", progress.done + progress.skipped + progress.failed, progress.units, note)

    def connected(self, pages: Mapping[str, str]) -> None:
        """Say where Dask shows its work."""
        for name, url in pages.items():
            self.say(f"Dask {name}: {url}")

    def search(self, progress: Any) -> None:
        """A search's `SearchProgress`: on a terminal a table that is redrawn, in a log a line now and then."""
        if self.interactive:
            self._draw_search(progress)
        elif time.monotonic() - self.spoke >= LOG_SECONDS or progress.fraction == 1.0:
            self.spoke = time.monotonic()
            rows = [f"{name} {value}" for name, value in search_rows(progress)]
            print(f"search: {', '.join(rows)}", file=self.stream, flush=True)

    def _draw_search(self, progress: Any) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.table import Table

        table = Table(show_header=False)
        for name, value in search_rows(progress):
            table.add_row(name, value)
        if self._bar is None:
            self._bar = Live(console=Console(file=self.stream), auto_refresh=False)
            self._bar.start()
        self._bar.update(table, refresh=True)

    def _left(self, done: int, total: int) -> str:
        if not 0 < done < total:
            return ""
        return f", {_duration((time.monotonic() - self.started) * (total - done) / done)} left"

    def _draw(self, what: str, done: int, total: int, note: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self._bar is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Progress(*columns, console=Console(file=self.stream))
            self._bar.start()
        if self._task is None or self._bar.tasks[self._task].description != what:
            self._task = self._bar.add_task(what, total=total, note="")
        self._bar.update(self._task, completed=done, total=total, note=note)


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
        rows += [("left", f"about {_duration(progress.seconds_left)}")]
    return rows


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
