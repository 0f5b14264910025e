"""Shapes and shear responses."""

__all__ = [
    "metacalibration",
    "readout",
    "response",
    "task",
]
