"""What one foreign input may end in: success, or one sentence with exit status 2. In time, and in bounded memory."""

from __future__ import annotations

import contextlib
import resource
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from astroml_plugin.core.errors import AstromlError
from astroml_plugin.core.storage import is_remote_failure

SECONDS = 240
"""An input that takes longer hangs; the slowest takes two, and thirty on a machine that many share."""

HEADROOM = 2 << 30
"""Bytes of address space that one input may ask for, beyond what the process has."""

READ, REFUSED = "read", "refused"


class Hung(BaseException):
    """An input took too long."""


class NoSentenceError(Exception):
    """An error of ours that is no sentence with exit status 2."""


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Time and memory of one input, in the main thread."""

    def stop(signum: int, frame: Any) -> None:
        raise Hung(f"longer than {SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + HEADROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)


def outcome(work: Callable[[], Any], *, remote: bool = False) -> str:
    """`READ` or `REFUSED`; everything else goes on as the exception that it is.

    Args:
        work: reads the input.
        remote: whether errors of a storage client count as a sentence, as the command line makes one of them.
    """
    with bounded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            work()
        except AstromlError as error:
            if error.exit_code != 2 or "Traceback" in str(error) or len(str(error)) < 10:
                raise NoSentenceError(str(error)) from error
            return REFUSED
        except Exception as error:
            if remote and (isinstance(error, OSError) or is_remote_failure(error)):
                return REFUSED
            raise
    return READ
