"""The libraries hats and hats-import, which are an extra."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

from astroml_plugin.core.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def hats() -> Any:
    """The library hats; InputError where it is not installed."""
    try:
        import hats as library
    except ImportError as error:
        raise _missing() from error
    return library


def hats_import() -> Any:
    """The library hats-import; InputError where it is not installed."""
    try:
        import hats_import as library
    except ImportError as error:
        raise _missing() from error
    return library


def _missing() -> InputError:
    return InputError("HATS needs the extra `hats`: pip install 'astroml-plugin[hats]'")


def check_name(name: str) -> str:
    """The name of a collection; InputError where HATS does not allow it."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot name a HATS collection: use letters, digits, '.', '_' and '-' for the folder"
        )
    return name


@contextlib.contextmanager
def quietly() -> Iterator[io.StringIO]:
    """Within it warnings and prints of the libraries are kept back."""
    said = io.StringIO()
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said):
            warnings.simplefilter("ignore")
            yield said
    finally:
        root.setLevel(level)
