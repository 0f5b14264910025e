"""Restored galaxies."""

__all__ = [
    "task",
]
