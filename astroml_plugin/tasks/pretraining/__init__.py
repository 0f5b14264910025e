"""Networks that learn from stamps without labels, for others to begin with."""

__all__ = [
    "task",
    "views",
]
