"""Signals that end a command: one whose exception was raised where Python ignores it comes again."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys, time
from astroml_plugin.core.stopping import Terminated, raise_terminated, repeat_lost_signals

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(0.2)  # the signal is handled here, and its exception ignored

signal.signal(signal.SIGTERM, raise_terminated)
signal.signal(signal.SIGINT, signal.default_int_handler)
repeat_lost_signals()
try:
    Finalised()
    time.sleep(30)
    sys.exit(1)
except (Terminated, KeyboardInterrupt) as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(("name", "raised"), [("SIGTERM", "Terminated"), ("SIGINT", "KeyboardInterrupt")])
def test_a_signal_in_a_finaliser_is_not_lost(name: str, raised: str) -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT, name], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, raised, "")
