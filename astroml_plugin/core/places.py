"""Where something is: a path or a URL, as text or as an object of `pathlib`."""

from __future__ import annotations

import os
import re

from astroml_plugin.core.errors import InputError

Place = str | os.PathLike[str]
"""A path or a URL, as text or as an object that stands for a path."""

_LOST_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)(.*)", re.DOTALL)
"""A URL of which `pathlib` has taken a slash for a repetition."""


def text_of(place: Place) -> str:
    """A path or URL as text.

    Raises:
        InputError: no path at all, or a URL that was made a `Path`, which is the name of something else.
    """
    if isinstance(place, str):
        return place
    if not isinstance(place, os.PathLike):
        raise InputError(f"a path or a URL is needed, as text or as a Path, not {_shown(place)}")
    text = os.fsdecode(place)
    if lost := _LOST_SLASH.match(text):
        raise InputError(
            f"a Path has taken one of two slashes out of the URL {lost[1]}://{lost[2]}: give URLs as text, "
            f"only paths as Path"
        )
    return text


def _shown(value: object) -> str:
    """A wrong value in few words."""
    text = repr(value)
    return text if len(text) <= 40 and "\n" not in text else f"something of type {type(value).__name__}"
