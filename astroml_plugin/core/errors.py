"""The few errors. Each is one sentence that carries the numbers and the remedy, and survives pickling."""

from __future__ import annotations


class AstromlError(Exception):
    """Any error this package raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(AstromlError):
    """Wrong input or settings: the sentence says what is wrong and what to do about it (exit status 2)."""

    exit_code = 2


class CorruptError(AstromlError):
    """Stored data that cannot be trusted (missing or altered shard): a unit fails, the run goes on (exit status 2)."""

    exit_code = 2


class DamagedError(CorruptError, ValueError):
    """One of our own files whose bytes were changed: the sentence names it and says what to do (exit status 2)."""


class LostError(AstromlError):
    """Processes of others that the work needs are gone; what is finished is kept."""


class DivergedError(AstromlError):
    """A training run whose loss is no longer finite; the last good checkpoint is kept."""
