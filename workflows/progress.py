"""Progress for people: a bar on a terminal, plain lines in a log, both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

from workflows.at_work import PATIENCE, AtWork, duration, is_drawn_on
from workflows.searching import search_rows

__all__ = ["Reporter", "search_rows"]

LOG_SECONDS = 10.0
"""Distance of plain lines in a log."""

_LEAST = 3.0
"""Seconds of work before it is said how long the rest takes."""
_MANY_ROWS = 1_000_000


class Reporter:
    """Shows how far a long verb is: use it as a context and call it, or `units`, after every unit."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.interactive = is_drawn_on(self.stream)
        self.started = time.monotonic()
        self.spoke = -LOG_SECONDS
        self.what = ""
        self._bar: Any = None
        self._task: Any = None
        self._before = 0
        self._pages: Mapping[str, str] = {}
        self._connected = self.started

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            AtWork.drawing -= 1

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Say that `done` of `total` units are `what`."""
        if what != self.what:
            self.what, self.started, self.spoke, self._before = what, time.monotonic(), -LOG_SECONDS, done
        if self.interactive:
            self._draw(what, done, total, note)
        elif time.monotonic() - self.spoke >= LOG_SECONDS or done == total:
            self.spoke = time.monotonic()
            self.say(f"{what}: {done}/{total} {note}{self._left(done, total)}".rstrip())

    def say(self, line: str) -> None:
        """A plain line."""
        AtWork.hush()
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
            note += f", {progress.failed} failed"
        self._show_pages()
        self("measured", progress.done + progress.skipped + progress.failed, progress.units, note)

    def connected(self, pages: Mapping[str, str]) -> None:
        """Keep where Dask shows its work, to say it of a run that lasts."""
        self._pages, self._connected = pages, time.monotonic()

    def _show_pages(self) -> None:
        if self._pages and time.monotonic() - self._connected >= PATIENCE:
            for name, url in self._pages.items():
                self.say(f"Dask {name}: {url}")
            self._pages = {}

    def images(self, done: int) -> None:
        """Say how many images are done; how many there will be is not known."""
        self("images", done, done)

    def files(self, done: int, total: int) -> None:
        """Say how many files are done, of those that a catalog has."""
        self("files", done, total)

    def search(self, progress: Any) -> None:
        """A search's `SearchProgress`: on a terminal a table that is redrawn, in a log a line now and then."""
        if self.interactive:
            self._draw_search(progress)
        elif time.monotonic() - self.spoke >= LOG_SECONDS or progress.fraction == 1.0:
            self.spoke = time.monotonic()
            rows = [f"{name} {value}" for name, value in search_rows(progress)]
            self.say(f"search: {', '.join(rows)}")

    def _draw_search(self, progress: Any) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.table import Table

        table = Table(show_header=False)
        for name, value in search_rows(progress):
            table.add_row(name, value)
        if self._bar is None:
            self._begin(Live(console=Console(file=self.stream), auto_refresh=False))
        self._bar.update(table, refresh=True)

    def _left(self, done: int, total: int) -> str:
        """How long the rest takes; empty before some work is done that tells."""
        seconds, new = time.monotonic() - self.started, done - self._before
        if seconds < _LEAST or new < 1 or done >= total:
            return ""
        return f", about {duration(seconds * (total - done) / new)} left"

    def _begin(self, bar: Any) -> None:
        AtWork.hush()
        AtWork.drawing += 1
        self._bar = bar
        self._bar.start()

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
            self._begin(Progress(*columns, console=Console(file=self.stream)))
        if self._task is None or self._bar.tasks[self._task].description != what:
            self._task = self._bar.add_task(what, total=total, note="")
        self._bar.update(self._task, completed=done, total=total, note=note)
