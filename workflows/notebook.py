"""Progress in notebooks: a bar below the cell, without anything to install or to ask for."""

from __future__ import annotations

import functools
import html
import inspect
import sys
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TextIO, TypeVar

from workflows.at_work import AtWork, duration
from workflows.progress import Reporter, search_rows

P = ParamSpec("P")
T = TypeVar("T")

_PAUSE = 0.3
"""Seconds between two drawings of a bar."""


def in_notebook() -> bool:
    """Whether this code runs in a kernel that shows HTML: Jupyter, VS Code, Colab."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def shows_progress(by: str = "") -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Give a function a bar in notebooks, unless its caller passes a `progress`; else it says how long it goes on.

    Args:
        by: method of the reporter that the function calls; default: the reporter itself.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        takes = "progress" in inspect.signature(function).parameters

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if kwargs.get("progress") is not None or not in_notebook():
                return function(*args, **kwargs)
            with NotebookReporter() as report, NotebookAtWork(function.__name__.replace("_", " ")):
                if takes:
                    kwargs["progress"] = getattr(report, by) if by else report
                return function(*args, **kwargs)

        return call

    return decorate


class _Place:
    """A piece of HTML below a cell, which can be changed."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str) -> None:
        """Put HTML there, in place of what stands there."""
        from IPython.display import HTML, display

        if self._handle is None:
            self._handle = display(HTML(text), display_id=True)
        else:
            self._handle.update(HTML(text))


class NotebookReporter(Reporter):
    """Shows how far a long function is, below the cell that called it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream or sys.stdout)
        self.interactive = True
        self._place, self._drawn = _Place(), 0.0

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Say that `done` of `total` units are `what`."""
        if what != self.what:
            self._place, self._drawn = _Place(), 0.0
        super().__call__(what, done, total, note)

    def say(self, line: str) -> None:
        """A plain line."""
        AtWork.hush()
        print(line, file=self.stream, flush=True)

    def _draw(self, what: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if now - self._drawn < _PAUSE and done != total:
            return
        self._drawn = AtWork.spoken = now
        bar = f'<progress value="{done}" max="{max(total, 1)}" style="width: 20em"></progress>'
        told = ", ".join(part for part in (f"{done:,} of {total:,}", note) if part)
        self._place.show(f"<div>{html.escape(what)} {bar} {html.escape(told + self._left(done, total))}</div>")

    def _draw_search(self, progress: Any) -> None:
        AtWork.spoken = time.monotonic()
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in search_rows(progress)
        )
        self._place.show(f"<table><tbody>{rows}</tbody></table>")


class NotebookAtWork(AtWork):
    """Tells below a cell of work that says nothing itself."""

    def __init__(self, doing: str) -> None:
        super().__init__(doing, sys.stdout)
        self._place: _Place | None = None

    def say(self, line: str) -> None:
        """Show the line, in place of the one before."""
        if self._place is None:
            self._place = _Place()
        self._place.show(f"<div>{html.escape(line)}</div>")

    def __exit__(self, *reason: Any) -> None:
        super().__exit__(*reason)
        if self._place is not None:
            seconds = duration(time.monotonic() - self.started)
            self._place.show(f"<div>{html.escape(self.doing)}: {seconds}</div>")
