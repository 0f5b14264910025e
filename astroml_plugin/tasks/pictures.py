"""Bundles of 8-bit pictures on calibrated pixels: which stamps are shown to them as pictures, and what that needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Cutouts, shown
from astroml_plugin.tasks.settings import TaskSettings


def shows(settings: TaskSettings, bands: Sequence[str]) -> bool:
    """Whether stamps of a source with these bands are shown as pictures: it has the bands for it, and is none."""
    picture = settings.picture
    return bool(picture.bands) and not set(settings.bands) <= set(bands) and set(picture.bands) <= set(bands)


def seen_bands(settings: TaskSettings, available: Sequence[str], chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Bands of the stamps that `Task.prepare` gets of a source: those `chosen`, or of the pictures made of them."""
    return tuple(settings.bands) if shows(settings, available) else chosen


def as_pictures(settings: TaskSettings, stamps: Cutouts) -> Cutouts:
    """Stamps as pictures of the model's bands and size, where they are to be shown so; else as they are."""
    if not shows(settings, stamps.bands):
        return stamps
    return shown(stamps, settings.picture, settings.stamp_size, tuple(settings.bands))


def check(
    settings: TaskSettings,
    pixel_scale: float | None,
    zero_points: Sequence[float | None] | None,
) -> None:
    """Refuse a source whose pixels cannot be shown as pictures.

    Args:
        settings: of the task.
        pixel_scale: arcsec per pixel of the source, None where unknown.
        zero_points: of the picture's bands, None where unknown; None: not checked.

    Raises:
        InputError: says what is missing, and the remedy.
    """
    bands = ", ".join(settings.picture.bands)
    if pixel_scale is None:
        raise InputError(
            f"the model is shown bands {bands} as colour pictures, for which the arcsec per pixel must be known: "
            f"ingest again with a WCS (tiles) or --pixel-scale (stamps)"
        )
    missing = [band for band, zero in zip(settings.picture.bands, zero_points or ()) if zero is None]
    if missing:
        raise InputError(
            f"the model is shown bands {bands} as colour pictures, and band {', '.join(missing)} of the source has no "
            f"zero point: state it (infer --zero-point), or ingest again with --zero-point"
        )


def unsized_bits(cutouts: Cutouts) -> Tensor:
    """(n,) int32: OUT_OF_DOMAIN where an object has no size by which its picture could be scaled."""
    if cutouts.unsized is None:
        return torch.zeros(len(cutouts), dtype=torch.int32, device=cutouts.image.device)
    return cutouts.unsized.to(torch.int32) * int(ObjectFlag.OUT_OF_DOMAIN)
