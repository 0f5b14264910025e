"""On the path of Python, this makes every unit of a run take SLOW_UNITS seconds longer: time enough to disturb it.

The file UNITS_LOG, where it is named, gets a line when a unit begins and ends: process, unit, what, Unix time.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import sys
import time
from typing import Any

SECONDS = float(os.environ.get("SLOW_UNITS", 0))
UNIT = "astroml_plugin.inference.unit"


class Slow(importlib.abc.MetaPathFinder):
    """Wraps `run_unit` when its module is imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """The spec of the one module, whose loader wraps the function."""
        if name != UNIT:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            plain = module.run_unit

            @functools.wraps(plain)
            def run_unit(unit: Any) -> Any:
                _note(unit, "begun")
                time.sleep(SECONDS)
                result = plain(unit)
                _note(unit, "ended")
                return result

            module.run_unit = run_unit

        spec.loader.exec_module = exec_module
        return spec


def _note(unit: Any, what: str) -> None:
    if log := os.environ.get("UNITS_LOG"):
        with open(log, "a") as file:
            file.write(f"{os.getpid()} {unit.name} {what} {time.time()}\n")


if SECONDS:
    sys.meta_path.insert(0, Slow())
