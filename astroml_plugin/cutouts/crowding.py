"""Objects of a table that lie beside each other."""

from __future__ import annotations

import numpy as np

from astroml_plugin.cutouts.centring import REACH

CROWDED = REACH + 2.5
"""Pixels within which another object of a table keeps a stamp where it is, for its light is not this one's."""


def crowded(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) bool: another object of a table lies within `CROWDED` pixels, half a pixel or more away.

    What lies nearer is taken for the same object: nothing can tell two apart there.
    """
    places = np.stack([x, y], axis=1)
    answer = np.zeros(len(places), bool)
    known = np.isfinite(places).all(1)
    different, which = np.unique(places[known], axis=0, return_inverse=True)
    if len(different) > 1:
        from scipy.spatial import cKDTree  # here, as a run that compares nothing does without what it takes to load

        apart, _ = cKDTree(different).query(different, k=_NEAREST, distance_upper_bound=CROWDED)
        answer[known] = ((apart >= _ONE) & np.isfinite(apart)).any(1)[which.ravel()]
    return answer


_NEAREST = 6  # places that are looked at, with the object's own
_ONE = 0.5  # pixels within which two places are of one object
