"""Numbers with intervals."""

__all__ = [
    "task",
]
