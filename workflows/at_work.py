"""Work that says nothing itself says after some seconds what it is, and for how long it goes on."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import ClassVar, TextIO

PATIENCE = 5.0
"""Seconds of silence after which something is said."""

_LATER = 30.0
"""Seconds between further lines in a log; each is twice as far away, up to ten minutes."""


def is_drawn_on(stream: TextIO) -> bool:
    """Whether lines can be drawn anew on a stream: it is a terminal, and not one without a cursor."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


class AtWork:
    """Tells of the work while nobody else says anything; use it as a context.

    Args:
        doing: what goes on.
        stream: default stderr.
    """

    spoken: ClassVar[float] = 0.0
    """When something was last said, by anyone."""
    drawing: ClassVar[int] = 0
    """Bars and tables that are on the terminal and show that work goes on."""
    _shown: ClassVar[TextIO | None] = None
    """Where a line of this class stands now."""
    _lock: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, doing: str, stream: TextIO | None = None) -> None:
        self.doing, self.stream = doing, stream or sys.stderr
        self.started, self.pause = time.monotonic(), PATIENCE
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="at-work", daemon=True)

    def __enter__(self) -> AtWork:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self.hush()

    @classmethod
    def hush(cls) -> None:
        """Take the line away: somebody says something."""
        with cls._lock:
            cls.spoken = time.monotonic()
            if cls._shown is not None:
                cls._shown.write("\r\x1b[K")
                cls._shown.flush()
                cls._shown = None

    def _watch(self) -> None:
        while not self._end.wait(1.0):
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Say how long the work goes on, where nobody has said anything for a while."""
        with self._lock:
            if self._end.is_set() or AtWork.drawing or now - max(AtWork.spoken, self.started) < self.pause:
                return
            line = f"{self.doing}: {duration(now - self.started)} so far"
            try:
                self.say(line)
            except (OSError, ValueError):  # the stream was closed
                self._end.set()

    def say(self, line: str) -> None:
        """Write the line, in place of the one before where there is a cursor."""
        if is_drawn_on(self.stream):
            self.stream.write(f"\r\x1b[K{line}")
            AtWork._shown = self.stream
        else:
            self.stream.write(f"{line}\n")
            self.pause = min(600.0, max(_LATER, 2 * self.pause))
            AtWork.spoken = time.monotonic()
        self.stream.flush()


def duration(seconds: float) -> str:
    """Seconds in words: minutes from 90 s on, hours from 90 min on."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(1.0, seconds):.0f} s"
