"""Signals that end a command. They are not lost where Python ignores exceptions."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

_AGAIN = 0.05
"""Seconds after which a signal that was lost is sent again."""

_SAME = 5.0
"""Seconds in which another SIGTERM says nothing new."""

_came = float("-inf")
"""When SIGTERM came last."""


class Terminated(BaseException):
    """SIGTERM."""


def raise_terminated(signum: int, frame: Any) -> None:
    """Handler of SIGTERM: raises `Terminated`. A second one in the next seconds is the same: it interrupts no clean-up.

    Batch systems send SIGTERM to all processes of a job, and its script hands it on.
    """
    global _came
    before, _came = _came, time.monotonic()
    if _came - before > _SAME:
        raise Terminated


def repeat_lost_signals() -> None:
    """Send SIGINT and SIGTERM again whose exceptions were raised where Python ignores them, such as in finalisers.

    Signals may come at any line. In a finaliser the exception ends nothing but the finaliser, and the command went on.
    """
    sys.unraisablehook = partial(_repeat, sys.unraisablehook)


def _repeat(before: Callable[[Any], Any], ignored: Any) -> None:
    lost = {Terminated: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(ignored.exc_type)
    if lost is None:
        before(ignored)
        return
    global _came
    _came = float("-inf")
    again = threading.Timer(_AGAIN, os.kill, (os.getpid(), lost))
    again.daemon = True
    again.start()
