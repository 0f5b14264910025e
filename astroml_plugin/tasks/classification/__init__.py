"""Classes."""

__all__ = [
    "labels",
    "losses",
    "settings",
    "task",
]
