"""Tasks and networks by name, ours and third-party ones, through the same entry points; optional packages."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points
from typing import Any

from astroml_plugin.core import formats
from astroml_plugin.core.errors import InputError

TASKS, NETWORKS = formats.TASK_ENTRY_POINTS, formats.NETWORK_ENTRY_POINTS


def names(group: str) -> list[str]:
    """The registered names of an entry-point group, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str) -> Any:
    """The object registered as `name` in an entry-point group.

    Raises:
        InputError: nothing of that name is installed; names the nearest.
    """
    for point in entry_points(group=group, name=name):
        return point.load()
    known = names(group)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    raise InputError(f"no {group.rpartition('.')[2].rstrip('s')} is registered as {name!r}: {hint}")


def optional(module: str, missing: str) -> Any:
    """A module of a package that may not be installed.

    Raises:
        InputError: the sentence `missing`, where it is not.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(missing) from None
