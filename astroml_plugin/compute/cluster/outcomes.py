"""Outcomes of units of work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from astroml_plugin.core.errors import AstromlError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """Result or error of one unit of work."""

    item: Item
    """The unit, as given."""
    value: Any = None
    """Value that the function returned; None after an error."""
    error: BaseException | None = None
    """Why it failed; None when it did not."""
    attempts: int = 1
    """Number of times it was started."""


class WorkerDiedError(AstromlError):
    """A unit whose worker process died twice while it was being worked on."""


class UnitTimeoutError(AstromlError):
    """A unit that did not come to an end in the time it was given."""


@dataclass(frozen=True)
class Settled:
    """Outcomes of a task, and units without one."""

    outcomes: Sequence[Outcome[Any]] = ()
    orphans: Sequence[Any] = ()
    """Units whose worker died: they are tried again alone."""
