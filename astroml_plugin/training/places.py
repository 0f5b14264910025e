"""Where bundles are: by path, URL, or the name of one that ships with the package. Needs no torch."""

from __future__ import annotations

import re
from pathlib import Path

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.training.card import CARD

_SHIPPED = Path(__file__).parents[1] / "bundles"
_PINNED = re.compile(r"(?P<source>.+)@(?P<sha256>[0-9a-f]{12,64})")
"""A source with the beginning of the SHA-256 that it must have: twelve digits or more."""


def shipped() -> list[str]:
    """Names of the bundles that ship with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{CARD}"))


def locate(source: str) -> str:
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
    raise InputError(f"no bundle at {storage.redact(where)} (no {CARD} there); bundles that ship: {names}")


def split_pin(source: str) -> tuple[str, str]:
    """A source without its pin, and the digits of the pin; empty where there is none."""
    pinned = _PINNED.fullmatch(source)
    return (pinned["source"], pinned["sha256"]) if pinned else (source, "")
