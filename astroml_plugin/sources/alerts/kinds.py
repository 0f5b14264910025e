"""Kinds of alert packets: the names that surveys give to ids, positions, cutouts and candidates."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from astroml_plugin.core.errors import InputError

BANDS = ("science", "template", "difference")

AUTO = "auto"


@dataclass(frozen=True)
class AlertKind:
    """One family of schemas."""

    name: str
    """Word for the option --kind."""
    record: str
    """Field that holds the measurements of this detection."""
    identifier: str
    """Field of the alert's number, at the top or in `record`."""
    object_names: tuple[str, ...]
    """Spellings of the field that names the object, at the top or in `record`; the first one names the column."""
    cutouts: Mapping[str, tuple[str, ...]]
    """Band -> spellings of its field."""
    edge: tuple[str, str] | None = None
    """Fields with the position in the image, from which follows where a stamp at its border was cut short."""
    zero_point: str | None = None
    """Field with the AB magnitude of one unit of the science and difference images."""
    calibrated: str = ""
    """First letters of the objects' names where `zero_point` is AB; other surveys with the field have Vega's."""
    pixel_scale: float | None = None
    """Arcsec per pixel of those surveys."""


ZTF = AlertKind(
    name="ztf",
    record="candidate",
    identifier="candid",
    object_names=("objectId", "objectid"),
    cutouts={band: (f"cutout{band.title()}", f"cutout_{band}") for band in BANDS},
    edge=("xpos", "ypos"),
    zero_point="magzpsci",
    calibrated="ZTF",
    pixel_scale=1.01,
)
LSST = AlertKind(
    name="lsst",
    record="diaSource",
    identifier="diaSourceId",
    object_names=("diaObjectId",),
    cutouts={band: (f"cutout{band.title()}",) for band in BANDS},
)

KINDS = {kind.name: kind for kind in (ZTF, LSST)}
"""By name. ZTF's form is also that of Palomar Gattini-IR, WINTER and TURBO."""

CHOICES = (AUTO, *KINDS)

_TOP = frozenset(
    name
    for kind in KINDS.values()
    for name in (
        *(kind.record, kind.identifier, *kind.object_names),
        *(spelling for spellings in kind.cutouts.values() for spelling in spellings),
    )
)


def is_read(name: str) -> bool:
    """Whether a top field of a packet is read; the others, such as histories, are skipped."""
    return name in _TOP


def kind_of(fields: Collection[str], asked: str = AUTO) -> AlertKind:
    """Kind of a packet by its top fields.

    Raises:
        InputError: it is of no kind that is known, or not of the one that was asked for.
    """
    fitting = [kind for kind in KINDS.values() if kind.record in fields and asked in (AUTO, kind.name)]
    if fitting:
        return fitting[0]
    wanted = KINDS[asked].record if asked != AUTO else " nor ".join(kind.record for kind in KINDS.values())
    raise InputError(f"it is no alert of a kind that is known: it has no field {wanted}, but {', '.join(fields)[:200]}")
