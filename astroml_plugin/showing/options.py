"""Options of a picture. Needs nothing that draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import refuse_below

SIDE = 128
"""Pixels of a view around an object."""


@dataclass(frozen=True)
class ShowOptions:
    """Choices of a picture."""

    image: str | None = None
    """Name of a parent image; default the first, or the one in which the cone lies deepest."""
    size: int = SIDE
    """Side in pixels of the picture of an object."""
    bands: tuple[str, ...] = ()
    """Bands to show; default all, of more than three g, r and i, else the longest, middle and shortest wavelength."""
    contrast: float = 1.0
    """Above 1 shows fainter light."""
    where: str | None = None
    """SQL condition on the objects that are marked."""
    names: bool = False
    """Write the ids of all objects; of up to 40 they are written anyway."""
    regions: Place | None = None
    """Also write the objects to this file of regions (.reg) for DS9 or Aladin."""
    source: Place | None = None
    """Survey with the pixels of a catalog; default the one that the run read."""

    def __post_init__(self) -> None:
        refuse_below(self, {"size": 1})
        if not 0 < self.contrast < math.inf:
            raise InputError(f"--contrast is {self.contrast:g}: give a number above 0, of which 1 changes nothing")
