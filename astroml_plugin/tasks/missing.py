"""Objects that lack what a model needs: a band, or every pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.tasks.gaps import lost_bands
from astroml_plugin.tasks.normalisation import domain_flags, missing_bands


def needed_bands(spare: Sequence[str], stamps: Cutouts) -> Tensor | None:
    """(band,) bool on the stamps' device: bands that no object may lack; None: all."""
    if not spare:
        return None
    return torch.tensor([band not in spare for band in stamps.bands], device=stamps.image.device)


def lacking(
    bits: np.ndarray, cutouts: Cutouts, fitted: Callable[[Cutouts], Cutouts], spare: Sequence[str]
) -> np.ndarray:
    """(n,) int32 of `domain_flags`: OUT_OF_DOMAIN where a needed band is missing, NONFINITE where every pixel is.

    Asked of the pixels, since the same bits may also mean a single bad pixel or an odd object.

    Args:
        bits: (n,) int32 flags of `Task.prepare`: only what has one of the two is looked at.
        cutouts: the n stamps.
        fitted: gives the pixels that the model reads.
        spare: bands that may be missing.
    """
    found = np.zeros(len(bits), np.int32)
    suspects = np.flatnonzero(bits & int(ObjectFlag.NONFINITE | ObjectFlag.OUT_OF_DOMAIN))
    if len(suspects):
        stamps = fitted(cutouts.take(torch.from_numpy(suspects).to(cutouts.image.device)))
        missing = missing_bands(stamps.image, stamps.valid) | lost_bands(stamps)
        needed = needed_bands(spare, stamps)
        found[suspects] = domain_flags(missing, stamps.valid, needed).cpu().numpy()
    return found


def blanked(values: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Values (n,) or (n, k) without a value where the object failed, (n,) bool: None of text, else NaN."""
    if not failed.any():
        return values
    blank = values.copy()
    blank[failed] = None if values.dtype == object else np.nan
    return blank
