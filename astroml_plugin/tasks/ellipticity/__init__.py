"""Ellipticity e and shear response R of each object: everything about shear that needs a network or pixels.

`task` measures; `response` fits R after the training, from pairs of sheared stamps or from what `metacalibration` makes
of any stamps; `readout` has the linear algebra of that fit. Means over objects belong to `evaluation.shear`.
"""

__all__ = [
    "metacalibration",
    "readout",
    "response",
    "task",
]
