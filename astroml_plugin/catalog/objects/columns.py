"""From any table to objects: which columns are meant, ids kept exactly, positions in one frame."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog.objects.angles import degrees, factor, floats
from astroml_plugin.catalog.objects.carried import chosen, with_carried
from astroml_plugin.catalog.objects.raw import ARRAY, BYTES, RawTable, rechunk
from astroml_plugin.catalog.objects.readers import open_tables
from astroml_plugin.catalog.objects.settings import NAMES, ObjectSettings
from astroml_plugin.catalog.objects.sky_coords import WRITTEN_IN, to_icrs
from astroml_plugin.catalog.schema import without_dictionary
from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import InputError

FRAMES = ("icrs", "galactic", "pixel")

CHUNK_ROWS = 1_000_000
"""Rows read and placed at once."""

ROW_NUMBER = "#row"
"""Stands for the row number (from 0) where a table has no id column: `object_id=#row`."""

_OF_PHOTUTILS = {"xcentroid", "x_centroid"}
"""Columns beside which `label` is the number of an object; elsewhere it may be its class."""

_AXES = {"icrs": ("ra", "dec"), "galactic": ("l", "b"), "pixel": ("x", "y")}

OBJECT_SCHEMA = pa.schema(
    [
        ("object_id", pa.int64()),
        ("image", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
    ]
)
"""Objects as read: x, y (0-based pixels) or ra, dec (ICRS degrees) are given, the others null."""


@dataclass(frozen=True)
class _Choice:
    """The columns of one table that are used."""

    object_id: str | None
    frame: str
    first: str
    second: str
    image: str | None
    origin: int
    units: tuple[str | None, str | None]
    written_in: str = ""
    """Frame that is not ICRS, as `sky_coords.to_icrs` takes it."""


def read_chunks(
    url: str, settings: ObjectSettings | None = None, rows: int = CHUNK_ROWS, carry: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Objects of a table, at most `rows` at a time, with the columns of OBJECT_SCHEMA and those that come along.

    Args:
        url: path or URL.
        settings: how to read it.
        rows: at most so many at a time.
        carry: further columns, see `carried.chosen`.

    Raises:
        InputError: no such table, no rows, no positions, no ids, or ids that int64 cannot hold exactly.
    """
    settings = settings or ObjectSettings()
    place = storage.redact(url)
    found = False
    with open_tables(url, settings.format, settings.objects_table) as tables:
        for chunk in rechunk(_read(_usable(tables, settings, place), place, rows, carry), rows):
            found = True
            yield chunk
    if not found:
        raise InputError(f"the objects table {place} has no rows")


def objects_in(raw: RawTable, settings: ObjectSettings, place: str) -> pa.Table:
    """All objects of one table (OBJECT_SCHEMA); none where it has no rows.

    Raises:
        InputError: no positions, no ids, or ids that int64 cannot hold exactly; `place` names the table.
    """
    found = list(_read(_usable([raw], settings, place), place, CHUNK_ROWS, ()))
    return pa.concat_tables(found) if found else OBJECT_SCHEMA.empty_table()


def _read(
    tables: Sequence[tuple[RawTable, _Choice]], place: str, rows: int, carry: Sequence[str]
) -> Iterator[pa.Table]:
    start = 0
    for raw, choice in tables:
        wanted = [name for name in (choice.object_id, choice.first, choice.second, choice.image) if name is not None]
        along = chosen(raw, carry, wanted, place)
        for chunk in raw.chunks(list(dict.fromkeys([*wanted, *along])), rows):
            if chunk.num_rows:
                yield with_carried(_objects(chunk, choice, start, place), chunk, along, words=raw.words)
            start += chunk.num_rows


def _usable(tables: Sequence[RawTable], settings: ObjectSettings, place: str) -> list[tuple[RawTable, _Choice]]:
    """Tables that are objects: the only one, or all where their columns are equal."""
    found: list[tuple[RawTable, _Choice]] = []
    errors: list[tuple[int, InputError]] = []
    for raw in tables:
        where = f"{place}, table {raw.called}," if len(tables) > 1 else place
        try:
            found.append((raw, _choose(raw, settings, where)))
        except InputError as error:
            errors.append((len(raw.names), error))
    if not found:
        raise max(errors, key=lambda one: one[0])[1]
    titles = ", ".join(dict.fromkeys(raw.called for raw, _ in found))
    remedy = f"give one of {titles}" if found[0][0].file else f"choose one of {titles} with --objects-table NAME"
    if len({(frozenset(raw.names), choice) for raw, choice in found}) > 1:
        raise InputError(f"{place} has several tables that could be the objects, and their columns differ: {remedy}")
    if len(found) > 1 and found[0][1].frame == "pixel" and found[0][1].image is None:
        raise InputError(
            f"{place} has several tables of pixel positions and no column says on which image each lies: {remedy}, or "
            "give a column `image`"
        )
    return found


def _choose(raw: RawTable, settings: ObjectSettings, place: str) -> _Choice:
    mapping, units = _with_units(settings.mapping(), raw)
    absent = [
        f"{ours}={theirs}" for ours, theirs in mapping.items() if theirs not in raw.names and theirs != ROW_NUMBER
    ]
    if absent:
        raise InputError(f"{place} has no column for {', '.join(absent)}; it has {_some(raw.names)}")
    found = {ours: mapping.get(ours) or raw.hints.get(ours) or _by_name(ours, raw) for ours in NAMES}
    if found["object_id"] is None:
        raise InputError(
            f"{place} has no object id column (it has {_some(raw.names)}): name it with --columns object_id=NAME, "
            f"or number the rows with --columns object_id={ROW_NUMBER}"
        )
    frame = _frame(settings.frame, mapping, found, place, raw.names)
    first, second = (found[axis] for axis in _AXES[frame])
    assert first is not None
    assert second is not None
    number = found["object_id"] == ROW_NUMBER
    origin = settings.pixel_origin if settings.pixel_origin is not None else int(first.upper().endswith("_IMAGE"))
    if origin not in (0, 1):
        raise InputError(f"pixel origin {origin}: use 0 or 1")
    columns = (None if number else found["object_id"], first, second, found["image"])
    twice = [name for name in columns if name is not None and raw.names.count(name) > 1]
    if twice:
        raise InputError(f"{place} has two columns named {twice[0]}: rename one of them")
    if raw.doubt and frame != "pixel" and (lacking := [name for name in (first, second) if name not in units]):
        raise InputError(
            f"the units of {place} cannot be read ({raw.doubt}): say those of {' and '.join(lacking)}, as in --columns "
            f"ra={first}[deg],dec={second}[deg], or write the table again"
        )
    written_in = "galactic" if frame == "galactic" else ""
    if (first, second) == (raw.hints.get("ra"), raw.hints.get("dec")):
        written_in = raw.hints.get(WRITTEN_IN, "")
    units_of_axes = units.get(first), units.get(second)
    return _Choice(columns[0], frame, first, second, columns[3], origin, units_of_axes, written_in)


def _with_units(mapping: dict[str, str], raw: RawTable) -> tuple[dict[str, str], dict[str, str]]:
    """The mapping without units in brackets, and the units of columns."""
    plain, units = dict(mapping), dict(raw.units)
    for ours, theirs in mapping.items():
        named = re.fullmatch(r"(.+)\[([^\[\]]+)\]", theirs)
        if named and theirs not in raw.names and named[1] in raw.names:
            if factor(named[2]) is None:
                raise InputError(
                    f"'{named[2]}' in --columns {ours}={theirs} is no unit of angles: use deg, hourangle or rad"
                )
            plain[ours], units[named[1]] = named[1], named[2]
    return plain, units


def _by_name(ours: str, raw: RawTable) -> str | None:
    """The column of a name that is understood; one of arrays is none, and bytes name no image."""
    unfit = {ARRAY, BYTES} if ours == "image" else {ARRAY}
    names = [name for name in raw.names if raw.kinds.get(name) not in unfit]
    for known in NAMES[ours]:
        if known in names:
            return known
    if ours == "object_id" and "label" in names and _OF_PHOTUTILS & {*names}:
        return "label"
    lower = {name.lower(): name for name in names}
    return next((lower[known.lower()] for known in NAMES[ours] if known.lower() in lower), None)


def _frame(
    given: str | None, mapping: dict[str, str], found: dict[str, str | None], place: str, names: tuple[str, ...]
) -> str:
    if given is not None and given not in FRAMES:
        raise InputError(f"frame '{given}' is not known: use one of {', '.join(FRAMES)}")
    mapped = [frame for frame in FRAMES if set(_AXES[frame]) & set(mapping)]
    tried = [given] if given else [*mapped, *FRAMES]
    for frame in tried:
        if all(found[axis] for axis in _AXES[frame]):
            return frame
    axes = " or ".join(", ".join(_AXES[frame]) for frame in ([given] if given else FRAMES))
    raise InputError(
        f"{place} has no position columns {axes} (it has {_some(names)}): name them with --columns ra=NAME,dec=NAME"
    )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


def _objects(chunk: pa.Table, choice: _Choice, start: int, place: str) -> pa.Table:
    count = chunk.num_rows
    if choice.object_id is None:
        ids = np.arange(start, start + count, dtype=np.int64)
    else:
        ids = exact_ids(chunk[choice.object_id], choice.object_id, place)
    nothing = pa.nulls(count, pa.float64())
    columns: dict[str, Any] = {"object_id": ids, "image": pa.nulls(count, pa.string())}
    columns |= {"x": nothing, "y": nothing, "ra": nothing, "dec": nothing}
    if choice.image is not None:
        columns["image"] = _text(chunk[choice.image], choice.image, place)
    if choice.frame == "pixel":
        first, second = (floats(chunk[name], name, place) for name in (choice.first, choice.second))
        columns |= {"x": first - choice.origin, "y": second - choice.origin}
    else:
        axes = zip(_AXES[choice.frame], (choice.first, choice.second), choice.units, strict=True)
        first, second = (degrees(chunk[name], unit, axis, name, place) for axis, name, unit in axes)
        if choice.written_in:
            first, second = to_icrs(first, second, choice.written_in)
        columns |= {"ra": first, "dec": second}
    return pa.table(
        {field.name: pa.chunked_array([pa.array(columns[field.name], field.type)]) for field in OBJECT_SCHEMA}
    )


def _text(column: pa.ChunkedArray, name: str, place: str) -> pa.Array:
    column = without_dictionary(column)
    with foreign.refusing(f"column {name} of {place}", "it must hold names of images, as text"):
        return column.cast(pa.string()).combine_chunks()


def exact_ids(column: pa.ChunkedArray, name: str, place: str) -> np.ndarray:
    """(n,) int64 equal to the ids given: integers, text of digits, or floats without a fraction up to 2^53.

    Raises:
        InputError: an id that int64 cannot hold exactly; the sentence shows it.
    """
    column = without_dictionary(column)
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise InputError(
            f"column {name} of {place} has {column.null_count} rows without an id (row {row} of a chunk): leave them "
            f"out, or number the rows with --columns object_id={ROW_NUMBER}"
        )
    kind = column.type
    if pa.types.is_floating(kind):
        values = np.asarray(column.to_numpy(), np.float64)
        bad = (np.abs(values) > 2.0**53) | (values != np.floor(values))
        _refuse(column, bad, name, place, "is a float that int64 cannot hold exactly: give ids as integers or text")
        return values.astype(np.int64)
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind):
            bad = column.to_numpy() > np.uint64(2**63 - 1)
            _refuse(column, bad, name, place, "is beyond int64 (at most 9223372036854775807)")
        return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)
    with foreign.refusing(f"column {name} of {place}", "ids must be whole numbers, as integers or text"):
        words = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    words = _whole(words, name, place)
    digits = pc.match_substring_regex(words, r"^[+-]?[0-9]+$")
    _refuse(column, ~digits.to_numpy(), name, place, "is no whole number: ids must be integers")
    words = pc.replace_substring_regex(words, r"^\+", "")
    try:
        return np.asarray(pc.cast(words, pa.int64()).to_numpy(), np.int64)
    except pa.ArrowInvalid as error:
        bad = np.array([not -(2**63) <= int(word) < 2**63 for word in words.to_pylist()])
        _refuse(column, bad, name, place, "is beyond int64 (at most 9223372036854775807)")
        raise InputError(f"column {name} of {place} holds ids that are no int64: {error}") from error


def _whole(words: pa.ChunkedArray, name: str, place: str) -> pa.ChunkedArray:
    """Ids that are written as floats (1.0, 1.0e+03) as digits."""
    floating = pc.match_substring_regex(words, r"^[+-]?[0-9]+\.[0-9]*([eE][+-]?[0-9]+)?$")
    if not pc.any(floating).as_py():
        return words
    values = np.asarray(pc.cast(pc.if_else(floating, pc.replace_substring_regex(words, r"^\+", ""), "0"), pa.float64()))
    bad = (np.abs(values) > 2.0**53) | (values != np.floor(values))
    _refuse(words, bad, name, place, "is a float that int64 cannot hold exactly: give ids as integers or text")
    return pc.if_else(floating, pa.array(values.astype(np.int64)).cast(pa.large_string()), words)


def _refuse(column: pa.ChunkedArray, bad: np.ndarray, name: str, place: str, why: str) -> None:
    if bad.any():
        raise InputError(f"id {column[int(np.argmax(bad))].as_py()!r} in column {name} of {place} {why}")
