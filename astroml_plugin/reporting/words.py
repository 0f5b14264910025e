"""Texts of others made safe for a page: no secrets, no markup, no control letters."""

from __future__ import annotations

import html
import math
from typing import Any

from astroml_plugin.core.redaction import redact

_LONGEST = 2000
"""Letters of a text at most."""


def clean(text: Any, longest: int = _LONGEST) -> str:
    """A text without secrets and control letters, cut to `longest`."""
    plain = "".join(letter if letter.isprintable() else " " for letter in str(text)[: 4 * longest])
    safe = redact(plain.encode("utf-8", "replace").decode())
    return safe if len(safe) <= longest else f"{safe[: longest - 1]}…"


def escaped(text: Any, longest: int = _LONGEST) -> str:
    """`clean`, and safe between the tags and within the quotes of HTML."""
    return html.escape(clean(text, longest), quote=True)


def label(text: Any, longest: int = 32) -> str:
    """A short text for an axis, a legend or a title."""
    return clean(text, longest)


def number(value: Any) -> str:
    """A number for people: integers with commas, floats with four digits; a dash for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and 1000 <= abs(value) < 1e12 else f"{value:.4g}"
    return str(value)


def many(count: int, one: str, several: str = "") -> str:
    """A count and its noun: "1 tile", "2 tiles"."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def share(part: float, whole: float) -> str:
    """A part in percent; a dash where there is no whole."""
    return f"{100 * part / whole:.3g} %" if whole else "–"
