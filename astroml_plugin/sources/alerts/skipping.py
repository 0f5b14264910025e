"""Passing over Avro values by their schema: histories in packets are longer than what is read of them.

fastavro takes each number of a skipped field one by one. Here numbers that follow one another are one pattern, which
the regular expressions of Python match at once; texts, lists and choices between them stand in between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from astroml_plugin.core.errors import InputError

Skip = Callable[[bytes, int], int]
"""Gives the place behind a value that begins at a place of the data."""

_LONG = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_PATTERNS = {
    **{"null": b"", "boolean": rb"[\x00\x01]", "int": _LONG, "long": _LONG, "float": b".{4}", "double": b".{8}"},
    "enum": _LONG,
}
_DEEPEST = 16
_MOST_BRANCHES = 64


class UnknownTypeError(Exception):
    """A type that is left to fastavro."""


def skipper(types: Sequence[Any], named: Mapping[str, Any]) -> Skip:
    """Function that passes over values of these types, one behind the other.

    Args:
        types: in a parsed schema's form, names in full.
        named: definitions by name.

    Raises:
        UnknownTypeError: a type that is not known here, or that holds itself.
    """
    steps: list[bytes | Skip] = []
    for one in types:
        steps += _steps(one, named, 0)
    return _sequence(steps)


def _steps(given: Any, named: Mapping[str, Any], depth: int) -> list[bytes | Skip]:
    """Patterns, and functions where a pattern cannot tell the length."""
    if depth > _DEEPEST:
        raise UnknownTypeError("it is deep, or holds itself")
    if isinstance(given, str) and given in named:
        given = named[given]
    if isinstance(given, list):
        return [_choice([_steps(one, named, depth + 1) for one in given])]
    kind = given.get("type") if isinstance(given, dict) else given
    if isinstance(kind, dict | list) or (isinstance(kind, str) and kind in named):
        return _steps(kind, named, depth + 1)
    if kind in ("record", "error"):
        return [step for item in given["fields"] for step in _steps(item["type"], named, depth + 1)]
    if kind in ("array", "map"):
        key: list[bytes | Skip] = [_text] if kind == "map" else []
        inner = given["items" if kind == "array" else "values"]
        return [_repeated(_sequence([*key, *_steps(inner, named, depth + 1)]))]
    if kind in ("string", "bytes"):
        return [_text]
    if kind == "fixed":
        return [b".{%d}" % int(given["size"])]
    if kind in _PATTERNS:
        return [_PATTERNS[kind]]
    raise UnknownTypeError(str(kind))


def _choice(branches: list[list[bytes | Skip]]) -> bytes | Skip:
    """One of several types; its number stands before the value."""
    if len(branches) > _MOST_BRANCHES:
        raise UnknownTypeError("a choice of many types")
    if all(isinstance(step, bytes) for steps in branches for step in steps):
        options = [b"\\x%02x" % (2 * at) + b"".join(map(bytes, steps)) for at, steps in enumerate(branches)]  # type: ignore[arg-type]
        return b"(?:" + b"|".join(options) + b")"
    functions = [_sequence(steps) for steps in branches]

    def skip(data: bytes, place: int) -> int:
        number = data[place] if place < len(data) else 1
        if number % 2 or number // 2 >= len(functions):
            raise InputError("it is damaged: a choice of types has no such number")
        return functions[number // 2](data, place + 1)

    return skip


def _sequence(steps: Sequence[bytes | Skip]) -> Skip:
    """Values one behind the other; neighbouring patterns become one."""
    found: list[Skip] = []
    patterns: list[bytes] = []
    for step in [*steps, None]:
        if isinstance(step, bytes):
            patterns.append(step)
            continue
        if any(patterns):
            found.append(_matching(b"".join(patterns)))
        patterns = []
        if step is not None:
            found.append(step)
    if len(found) == 1:
        return found[0]

    def skip(data: bytes, place: int) -> int:
        for one in found:
            place = one(data, place)
        return place

    return skip


def _matching(pattern: bytes) -> Skip:
    match = re.compile(pattern, re.DOTALL).match

    def skip(data: bytes, place: int) -> int:
        found = match(data, place)
        if found is None:
            raise InputError("it is damaged, or cut short within a record")
        return found.end()

    return skip


def _number(data: bytes, place: int) -> tuple[int, int]:
    """An integer, and the place behind it."""
    value = shift = 0
    while shift < 64 and place < len(data):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), place
        shift += 7
    raise InputError("it is damaged, or cut short within a record")


def _text(data: bytes, place: int) -> int:
    if place < len(data) and (size := data[place]) < 0x80 and not size & 1 and place + (size >> 1) < len(data):
        return place + 1 + (size >> 1)  # most texts are short
    size, place = _number(data, place)
    if not 0 <= size <= len(data) - place:
        raise InputError("it is damaged: a text reaches beyond its end")
    return place + size


def _repeated(item: Skip) -> Skip:
    """A list of values, in blocks of a count that end with one of 0; a negative count is followed by its bytes."""

    def skip(data: bytes, place: int) -> int:
        while True:
            count, place = _number(data, place)
            if count == 0:
                return place
            if count < 0:
                size, place = _number(data, place)
                if not 0 <= size <= len(data) - place:
                    raise InputError("it is damaged: a list reaches beyond its end")
                place += size
                continue
            if count > len(data):
                raise InputError("it is damaged: a list has more values than bytes")
            for _ in range(count):
                place = item(data, place)

    return skip
