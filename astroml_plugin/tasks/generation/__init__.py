"""Drawn galaxies."""

__all__ = [
    "drawing",
    "task",
]
