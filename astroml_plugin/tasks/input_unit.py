"""The unit of the pixels that a network was trained on, and how stamps of another one are brought to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from astroml_plugin.core.errors import InputError
from astroml_plugin.pixels import NANOJANSKY, refuse_implausible

if TYPE_CHECKING:
    from astroml_plugin.cutouts import Cutouts

ANY = "any"
"""A scale of the pixels does not matter: they are divided by their own noise."""

PICTURE = "picture"
"""8-bit pictures, as they are."""

UNCALIBRATED = "uncalibrated"
"""Pixels as they are, of training stamps without a zero point: nobody knows what one is."""

NJY = "nJy"
"""Nanojansky: AB magnitude 31.4."""

_AB = "AB "


def zero_point_of(unit: str) -> float | None:
    """AB magnitude of one of a unit, "nJy" or "AB 27.0"; None of the other units.

    Raises:
        InputError: no such unit.
    """
    if unit in ("", ANY, PICTURE, UNCALIBRATED):
        return None
    if unit == NJY:
        return NANOJANSKY
    try:
        zero = float(unit.removeprefix(_AB)) if unit.startswith(_AB) else _refuse(unit)
    except ValueError:
        return _refuse(unit)
    refuse_implausible([zero], f"input_unit {unit!r}", f"say {UNCALIBRATED}")
    return zero


def _refuse(unit: str) -> float:
    raise InputError(f"input_unit {unit!r} is none of nJy, AB ZERO_POINT, {ANY}, {PICTURE}, {UNCALIBRATED}")


def trained_unit(scale_free: bool, dtype: str, zero_points: Sequence[Sequence[float | None]]) -> str:
    """The unit that a network will be trained in.

    Args:
        scale_free: whether its output does not depend on a scale of the pixels.
        dtype: of the pixels.
        zero_points: of the bands that it reads, for each source. Where all are the same it is trained in their unit,
            else all are brought to nJy.

    Raises:
        InputError: some have a zero point and some have none.
    """
    if scale_free:
        return ANY
    if dtype == "uint8":
        return PICTURE
    known = [zero is not None for source in zero_points for zero in source]
    if not any(known):
        return UNCALIBRATED
    if not all(known):
        raise InputError(
            f"{known.count(False)} of {len(known)} zero points of the training data (one for each source and band) are "
            f"not known: ingest those stamps again with --zero-point, or set normalisation unit = 'noise'"
        )
    different = {zero for source in zero_points for zero in source if zero is not None}
    only = different.pop() if len(different) == 1 else NANOJANSKY
    return NJY if only == NANOJANSKY else f"{_AB}{only!r}"


def check_zero_points(unit: str, bands: Sequence[str], zero_points: Sequence[float | None]) -> None:
    """Refuse a source whose pixels cannot be brought to the unit of a model.

    Args:
        unit: of the model's input.
        bands: that it reads.
        zero_points: of these bands; None where no part of the source has one.

    Raises:
        InputError: says which bands, and the remedy.
    """
    target = zero_point_of(unit)
    if target is not None and (missing := [band for band, zero in zip(bands, zero_points) if zero is None]):
        raise InputError(
            f"the model takes pixels in {unit} and band {', '.join(missing)} of the source has no zero point: state it "
            f"(infer --zero-point; {target:g} where the pixels are in {unit}), or ingest again with --zero-point"
        )
    known = [f"{zero:g}" for zero in zero_points if zero is not None]
    if unit == UNCALIBRATED and known:
        raise InputError(
            f"the model was trained on stamps without a zero point, and the source has {', '.join(known)}: train it on "
            f"stamps ingested with --zero-point; or, if you know the unit of its training stamps, say it in the card, "
            f"`python -m astroml_plugin.training.card BUNDLE --input-unit nJy`"
        )


def in_unit(cutouts: Cutouts, unit: str) -> Cutouts:
    """Stamps in the unit of a model's input; as they are where that has no zero point."""
    target = zero_point_of(unit)
    return cutouts if target is None else cutouts.in_unit(target)
