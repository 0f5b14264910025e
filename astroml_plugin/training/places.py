"""Where bundles are: by path, URL, or the name of one that ships with the package. Needs no torch."""

from __future__ import annotations

import re
from pathlib import Path

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.training.card import CARD

_SHIPPED = Path(__file__).parents[1] / "bundles"
_PINNED = re.compile(r"(?P<source>.+)@(?P<sha256>[0-9a-fA-F]{12,64})")
"""A source with the beginning of the SHA-256 that it must have: twelve digits or more, small letters or capitals."""


def shipped() -> list[str]:
    """Names of the bundles that ship with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{CARD}"))


def shipped_name(url: str) -> str | None:
    """Name of the bundle at `url` among those that ship with the package; None for any other."""
    place = Path(url)
    return place.name if place.parent == _SHIPPED else None


def place_of_change(url: str, out: Place | None) -> str:
    """Where a bundle that is changed is written: `out`, else in place.

    Raises:
        InputError: in place, and it is one that ships: whoever names it would get another.
    """
    if out is not None:
        return text_of(out)
    if name := shipped_name(url):
        raise InputError(f"{name} ships with the package and stays as it is: write the new one elsewhere (--out)")
    return url


def locate(source: Place) -> str:
    """Find the URL of a bundle given by path, URL or shipped name, pinned or not.

    Raises:
        InputError: there is none; lists those that ship.
    """
    where, _ = split_pin(source)
    if storage.exists(storage.join(where, CARD)):
        return where
    if where in shipped():
        return str(_SHIPPED / where)
    names = ", ".join(shipped()) or "none"
    pin = "; a pin is @ and 12 to 64 digits of the SHA-256" if "@" in where.rpartition("/")[2] else ""
    raise InputError(f"no bundle at {storage.redact(where)} (no {CARD} there); bundles that ship: {names}{pin}")


def split_pin(source: Place) -> tuple[str, str]:
    """A source without its pin, and the digits of the pin in small letters; empty where there is none."""
    source = text_of(source)
    pinned = _PINNED.fullmatch(source)
    return (pinned["source"], pinned["sha256"].lower()) if pinned else (source, "")
