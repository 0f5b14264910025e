"""Signals that end a command: one whose exception was raised where Python ignores it comes again."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

import pytest

from workflows import cli

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


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_stopped_command_says_how_to_go_on(
    name: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: argparse.Namespace) -> int:
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(30)
        return 0

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(cli, "_parsed", lambda *given: argparse.Namespace(run=run))
    try:
        assert cli.main(["infer"]) == status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "run the same command to go on" in capsys.readouterr().err
