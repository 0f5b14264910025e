"""What tests send to worker processes: each of them imports this file, so it is small."""

from __future__ import annotations

import os
import threading
from typing import Any

from astroml_plugin.compute.cluster.starting import check_can_spawn
from astroml_plugin.core.errors import InputError


def unpacked(_: int) -> PickyFunction:
    if "WITHOUT_THIS_PACKAGE" in os.environ:
        raise ModuleNotFoundError("No module named 'astroml_plugin'")
    return PickyFunction()


def lose_the_package() -> None:
    os.environ["WITHOUT_THIS_PACKAGE"] = "1"


def have_the_package() -> None:
    os.environ.pop("WITHOUT_THIS_PACKAGE", None)


class PickyFunction:
    """A function that some workers cannot even load."""

    def __reduce__(self) -> tuple[Any, ...]:
        return unpacked, (0,)

    def __call__(self, value: int) -> int:
        return 2 * value


def unsendable(value: int) -> object:
    return threading.Lock() if value == 3 else value


def spawn_here() -> str:
    try:
        check_can_spawn("processes")
    except InputError as error:
        return str(error)
    return ""
