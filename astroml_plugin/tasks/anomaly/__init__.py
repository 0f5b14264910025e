"""Odd objects."""

__all__ = [
    "injection",
    "tail_probability",
    "task",
]
