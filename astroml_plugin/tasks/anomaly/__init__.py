"""Odd objects."""

__all__ = [
    "injection",
    "signs",
    "tail_probability",
    "task",
]
