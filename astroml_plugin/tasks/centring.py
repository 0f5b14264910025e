"""Centring of the stamps of a task: what a run may change, and the flag."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Centring, Cutouts


def centring_changes(centring: Centring, recentre: bool | None) -> dict[str, Any]:
    """Settings that the run option `recentre` changes.

    Raises:
        InputError: the bundle cannot move stamps.
    """
    if recentre and centring.tolerance <= 0:
        raise InputError("this bundle does not know how its training stamps were centred: leave recentre away")
    if recentre is None or recentre == centring.recentre:
        return {}
    return {"centring": replace(centring, recentre=recentre)}


def off_centre_bits(cutouts: Cutouts) -> Tensor:
    """(n,) int32: OUT_OF_DOMAIN where the light was found to lie too far from the centre."""
    if cutouts.off_centre is None:
        return torch.zeros(len(cutouts), dtype=torch.int32, device=cutouts.image.device)
    return cutouts.off_centre.to(torch.int32) * int(ObjectFlag.OUT_OF_DOMAIN)
