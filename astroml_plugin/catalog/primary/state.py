"""primary/index.json: what is decided about overlapping images, of which parts, and where it stands.

The folder is there where images of a catalog overlap. It is derived: it can be made again from the parts at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from astroml_plugin.catalog import sql
from astroml_plugin.catalog.cones import Cone
from astroml_plugin.catalog.declared import damaged
from astroml_plugin.catalog.primary.cells import Cell
from astroml_plugin.core import storage
from astroml_plugin.sky.wcs import separation

FOLDER = "primary"
INDEX = "primary/index.json"
FORMAT = 1
"""Raised when other rows would be chosen: what is there is then made again."""

UNDECIDED = (
    "which rows are primary is not decided for all parts, as a run goes on or was killed: wait for its end, or run the "
    "same `infer` or `compact`"
)
"""Words about a catalog whose parts have changed since it was decided."""

MATCHED, GIVEN = "matched", "given"
"""Rules: detections are matched on the sky; objects that were given are known by their ids."""

SCHEMA = pa.schema(
    [
        ("object_id", pa.int64()),
        ("image", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("primary", pa.bool_()),
    ]
)
"""Rows whose `primary` is another than what stands in the part (given), or than true (matched)."""

KEY = ("object_id", "image", "x", "y")
"""Columns by which such a row is found."""


@dataclass(frozen=True)
class Decided:
    """Decision in one cell."""

    order: int
    """Order of the cell."""
    number: int
    """Number among those of the order."""
    key: str
    """Digest of the units that may have rows in it or near it."""
    file: str = ""
    """File of SCHEMA below `FOLDER`; empty where no row is named."""
    named: int = 0
    """Rows of the file."""
    told: dict[str, float] = field(default_factory=dict)
    """Counts for the record of the run."""

    def meets(self, cone: Cone | None) -> bool:
        """Whether the cell may reach into a cone."""
        cell = Cell(self.order, self.number)
        return cone is None or bool(separation(*cell.centre, cone[0], cone[1]) <= cell.reach + cone[2])


@dataclass(frozen=True)
class State:
    """Decision for a whole catalog."""

    rule: str
    """MATCHED or GIVEN."""
    units: str = ""
    """`units_digest` of the parts that it is made from; empty where nothing is decided yet."""
    cells: tuple[Decided, ...] = ()
    """Cells in which images overlap."""
    flags: str = "flags"
    """Column that tells which rows show an object badly: of several bundles, that of the one that found it."""
    format: int = FORMAT
    """Version of the rules."""

    def is_of(self, current: pa.Table) -> bool:
        """Whether it was made from these parts (MANIFEST_SCHEMA, one row per unit) by the present rules."""
        return self.format == FORMAT and self.units == units_digest(current)

    def files(self, cone: Cone | None = None) -> list[str]:
        """Files relative to the catalog, those that a cone needs."""
        return [f"{FOLDER}/{cell.file}" for cell in self.cells if cell.file and cell.meets(cone)]

    def source(self, scanned: str, folder: str, cone: Cone | None = None) -> str:
        """SQL of the rows of parts with the `primary` that was decided.

        Args:
            scanned: SQL of the rows as they stand in the parts.
            folder: DuckDB's name of the catalog's folder.
            cone: where no other rows are asked for.
        """
        files, otherwise = self.files(cone), "TRUE" if self.rule == MATCHED else 'part."primary"'
        if not files:
            return f'(SELECT * REPLACE ({otherwise} AS "primary") FROM {scanned} part)'  # noqa: S608
        same = " AND ".join(f"part.{sql.name(name)} = decided.{sql.name(name)}" for name in KEY)
        value = f'coalesce(decided."primary", {otherwise}) AS "primary"'
        named = sql.scan([f"{folder}/{name}" for name in files])
        return f"(SELECT part.* REPLACE ({value}) FROM {scanned} part LEFT JOIN {named} decided ON {same})"  # noqa: S608


def units_digest(current: pa.Table) -> str:
    """Digest of the units of a catalog and of what decides their rows."""
    hashed = hashlib.sha256()
    for name in ("unit", "digest"):
        hashed.update("\n".join(current[name].to_pylist()).encode())
    return hashed.hexdigest()


def begin(url: str, rule: str, flags: str = "flags") -> None:
    """Say that images of a catalog overlap, before its first rows are written; what is decided stays."""
    if not storage.exists(storage.join(url, INDEX)):
        write(url, State(rule, flags=flags))


def write(url: str, state: State) -> None:
    """Write the index of a catalog, whole or not at all."""
    storage.write_json(storage.join(url, INDEX), asdict(state))


def read(url: str, records: Sequence[Mapping[str, Any]] = ()) -> State | None:
    """Decision for a catalog; None where no images overlap.

    Args:
        url: the catalog.
        records: its run records: they know whether there must be something.

    Raises:
        CorruptError: it is damaged or gone; says what to do.
    """
    try:
        value = storage.read_json(storage.join(url, INDEX))
    except (FileNotFoundError, NotADirectoryError) as error:
        if any(record.get(FOLDER) for record in records):
            raise damaged(url, INDEX) from error
        return None
    except ValueError as error:
        raise damaged(url, INDEX) from error
    try:
        cells = tuple(_decided(cell) for cell in value["cells"])
        state = State(str(value["rule"]), str(value["units"]), cells, str(value["flags"]), int(value["format"]))
        if state.rule not in (MATCHED, GIVEN):
            raise ValueError(f"there is no rule {state.rule}")
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(url, INDEX) from error
    return state


def _decided(value: Any) -> Decided:
    cell = Decided(**value)
    plain = isinstance(cell.order, int) and isinstance(cell.number, int) and isinstance(cell.told, dict)
    if not plain or not isinstance(cell.file, str) or "/" in cell.file or not isinstance(cell.named, int):
        raise ValueError("it is no cell")
    return cell
