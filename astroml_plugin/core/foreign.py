"""Data of others: whatever their readers stumble over becomes one sentence, and records have the fields they need."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError

T = TypeVar("T")
Kinds = type | tuple[type, ...]
NOTHING: Mapping[str, Kinds] = {}
NUMBER = (int, float)

_LONGEST = 300
_OF_CONTENT = frozenset({None, errno.EINVAL, errno.EOVERFLOW})
"""Numbers of OSErrors that wrong offsets and sizes within a file give."""


@contextmanager
def refusing(what: str, remedy: str, kind: type[AstromlError] = InputError) -> Iterator[None]:
    """Read data of others inside; an error of the reader there becomes one of ours.

    Errors of this package pass, as do those that are no fault of the content: of the file system (no such file, no
    space) and of remote stores.

    Args:
        what: names the data, for example "objects.csv".
        remedy: says what to do, for example "save it as UTF-8".
        kind: error that is raised instead.
    """
    try:
        yield
    except AstromlError:
        raise
    except Exception as error:
        if (
            isinstance(error, storage.PERMANENT)
            or (isinstance(error, OSError) and error.errno not in _OF_CONTENT)
            or storage.is_remote_failure(error)
        ):
            raise
        raise kind(f"{what} cannot be read ({in_words(error)}): {remedy}") from error


def built(make: Callable[[], T], what: str, given: object) -> T:
    """Call `make`, whose arguments others chose, and give its result.

    Errors of the meta device pass: `training.building` builds without memory first, and knows what they mean.

    Raises:
        InputError: it cannot be made of these arguments.
    """
    try:
        return make()
    except AstromlError:
        raise
    except Exception as error:
        if "meta" in str(error):
            raise
        raise InputError(f"{what} cannot be built with {given} ({in_words(error)}): change these") from None


def in_words(error: BaseException) -> str:
    """Kind and words of an error on one line, without secrets, so that it can be printed anywhere."""
    words = " ".join(storage.redact(str(error)).split())[:_LONGEST].encode("utf-8", "replace").decode()
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def record(
    value: Any, fields: Mapping[str, Kinds], where: str, remedy: str, *, optional: Mapping[str, Kinds] = NOTHING
) -> dict[str, Any]:
    """A JSON object that has these fields with values of these types; others it may have too.

    Args:
        value: as read.
        fields: name -> type, or types; true and false are no numbers.
        where: names the file.
        remedy: says what to do.
        optional: the same of fields that may be missing or null.

    Raises:
        InputError: it is no object, or a field is missing or of another type.
    """
    if not isinstance(value, dict):
        raise InputError(f"{where} is damaged (it holds no record): {remedy}")
    wanted = {**{name: kind for name, kind in optional.items() if value.get(name) is not None}, **fields}
    for name, kind in wanted.items():
        found = value.get(name)
        if not isinstance(found, kind) or (isinstance(found, bool) and not _takes_bool(kind)):
            raise InputError(f"{where} is damaged (its field {name!r} is missing or of another type): {remedy}")
    return value


def _takes_bool(kind: Kinds) -> bool:
    return bool in (kind if isinstance(kind, tuple) else (kind,))
