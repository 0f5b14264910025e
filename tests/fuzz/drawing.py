"""Strategies that all kinds of inputs share: foreign values, changes of bytes, of JSON and of TOML."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

FOREIGN: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 10**9, 10**20, -(10**20), 2**63, 1.5, -0.5, 1e-300, 1e308),
    *(float("nan"), float("inf"), "", "x", "r", "../../etc/passwd", "file:///etc/passwd", "\x00", "\ud800", "a\nb"),
    *("ü", "a" * 5000, [], [None], [1, [2]], {}, {"a": 1}, {"": {}}, [10**9], [0], [-1], ["r", "r"], [8] * 200),
    *([16000, 16000], [[]], [{}], {"a": {"a": {"a": []}}}, "1", [0.5, 0.5], "nan", [1, 2, 3, 4]),
)
"""Values of every JSON type that stand where another is expected."""

NUMBERS = st.integers(0, 2**32 - 1)
"""Places within something whose size is not known yet; taken modulo it."""


def mostly(usual: Sequence[Any], foreign: Sequence[Any], share: int = 8) -> st.SearchStrategy[Any]:
    """Usual values, but for one in `share` that is foreign."""
    return st.integers(0, share - 1).flatmap(lambda n: st.sampled_from(usual if n else foreign))


@st.composite
def changes(draw: st.DrawFn, most: int = 6) -> list[tuple[int, int, bytes, int]]:
    """Changes of bytes for `changed`: what to do, where, with what, how many."""
    one = st.tuples(st.integers(0, 5), NUMBERS, st.binary(min_size=1, max_size=8), st.sampled_from((1, 2, 8, 80, 2880)))
    return draw(st.lists(one, min_size=1, max_size=most))


def changed(data: bytes, edits: list[tuple[int, int, bytes, int]]) -> bytes:
    """Bytes that are overwritten, deleted, inserted, cut off, copied to another place, or have one bit flipped."""
    made = bytearray(data)
    for what, where, new, count in edits:
        if not made:
            break
        at = where % len(made)
        if what == 0:
            made[at : at + len(new)] = new
        elif what == 1:
            del made[at : at + count]
        elif what == 2:
            made[at:at] = new * count if count < 80 else new
        elif what == 3:
            made = made[: max(at, len(made) // 8)]
        elif what == 4:
            start = (where >> 8) % len(made)
            made[at : at + count] = made[start : start + count]
        else:
            made[at] ^= 1 << new[0] % 8
    return bytes(made)


def paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where each value of nested tables and lists is."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, item in items for path in ((*before, key), *paths(item, (*before, key)))]


@st.composite
def json_changes(draw: st.DrawFn, most: int = 2) -> list[tuple[int, int, Any]]:
    """Changes of a JSON value for `json_changed`: what to do, where, with what."""
    return draw(st.lists(st.tuples(st.integers(0, 9), NUMBERS, st.sampled_from(FOREIGN)), min_size=1, max_size=most))


def json_changed(value: Any, edits: list[tuple[int, int, Any]]) -> Any:
    """A copy in which values are replaced, deleted, or joined by foreign ones."""
    made = copy.deepcopy(value)
    for what, where, new in edits:
        places = paths(made)
        if not places:
            return copy.deepcopy(new)
        *above, last = places[where % len(places)]
        holder = made
        for key in above:
            holder = holder[key]
        if what == 0:
            del holder[last]
        elif what == 1 and isinstance(holder, dict):
            holder[str(new)[:50]] = copy.deepcopy(new)
        else:
            holder[last] = copy.deepcopy(new)
    return made


def json_bytes(value: Any) -> bytes:
    """JSON as foreign programs write it: NaN and lone surrogates too."""
    return json.dumps(value).encode()


RAW = (
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"1",
    b"{",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"format":1}',
    b"\xff\xfe{}",
    b"\x00" * 40,
    b"\xef\xbb\xbf{}",
    b"9" * 5000,
    b"-" * 10,
    b"<html><body>404</body></html>",
)
"""Whole files that are none."""
