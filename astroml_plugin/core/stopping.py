"""Signals that end a command. They are not lost where Python ignores exceptions."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

_AGAIN = 0.05
"""Seconds after which a signal that was lost is sent again."""


class Terminated(BaseException):
    """SIGTERM."""


def raise_terminated(signum: int, frame: Any) -> None:
    """Handler of SIGTERM: raises `Terminated`."""
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
    again = threading.Timer(_AGAIN, os.kill, (os.getpid(), lost))
    again.daemon = True
    again.start()
