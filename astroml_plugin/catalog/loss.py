"""Units whose rows no file holds any more: told until they are measured again, or until someone forgets them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog.manifest import resolve
from astroml_plugin.catalog.parts import MANIFEST_SCHEMA
from astroml_plugin.core.errors import CorruptError

TOTALS = "totals"
"""Field of a run record: units and rows of the catalog when the run ended."""

FORGETS = "forgets_lost"
"""Field of a run record: what was lost before does not count any more."""


@dataclass(frozen=True)
class Lost:
    """Rows and units that a catalog has lost."""

    named: pa.Table
    """(n units) of MANIFEST_SCHEMA: units with rows whose files are gone."""
    unnamed: int = 0
    """Further units that run records count: no manifest and no file names them."""
    unnamed_rows: int = 0
    """Rows of these, as far as run records tell."""

    @property
    def units(self) -> int:
        """Units that are lost."""
        return int(self.named.num_rows) + self.unnamed

    @property
    def rows(self) -> int:
        """Rows that are lost, as far as known."""
        return int(pc.sum(self.named["rows"]).as_py() or 0) + self.unnamed_rows

    def refuse(self) -> None:
        """Raise CorruptError where anything is lost."""
        if not self.units:
            return
        such = f"such as {self.named['path'][0]}" if self.named.num_rows else "the run records count them"
        raise CorruptError(
            f"{self.rows or 'the'} rows of {self.units} units have no file any more ({such}): put the files back, or "
            f"run the same infer again to measure them anew, or give them up with `astroml-plugin verify CATALOG "
            f"--forget-lost`"
        )


NOTHING = Lost(MANIFEST_SCHEMA.empty_table())


def totals(entries: pa.Table) -> dict[str, int]:
    """Units and rows that manifest entries name, for the record of a run that ends."""
    current = resolve(entries)
    return {"units": current.num_rows, "rows": int(pc.sum(current["rows"]).as_py() or 0)}


def absent(entries: pa.Table, there: pa.Table) -> pa.Table:
    """The newest entries of units that `there` (MANIFEST_SCHEMA) has no file of: a new manifest keeps them."""
    named = resolve(entries)
    return named.filter(pc.invert(pc.is_in(named["unit"], value_set=there["unit"].combine_chunks())))


def lost(entries: pa.Table, there: pa.Table, records: Iterable[Mapping[str, Any]]) -> Lost:
    """Compare the manifest, the files that are there, and run records.

    Args:
        entries: all that the manifest says.
        there: the files that are there, one row per unit.
        records: run records, oldest first, read before the files were listed.
    """
    gone = absent(entries, there)
    units, rows = _expected(records)
    lacking = max(units - there.num_rows - gone.num_rows, 0)
    held = int(pc.sum(there["rows"]).as_py() or 0) + int(pc.sum(gone["rows"]).as_py() or 0)
    return Lost(gone.filter(pc.greater(gone["rows"], 0)), lacking, max(rows - held, 0) if lacking else 0)


def _expected(records: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """The most units that a record counts, and its rows: no run takes a unit out of a catalog."""
    most = (0, 0)
    for record in records:
        if record.get(FORGETS):
            most = (0, 0)
        counted = _counted(record)
        if counted[0] >= most[0]:
            most = counted
    return most


def _counted(record: Mapping[str, Any]) -> tuple[int, int]:
    counted = record.get(TOTALS)
    if isinstance(counted, Mapping):
        units, rows = counted.get("units"), counted.get("rows")
        return (units, rows) if isinstance(units, int) and isinstance(rows, int) else (0, 0)
    result = record.get("result")  # of a version that kept no totals
    if not isinstance(result, Mapping) or record.get("shard") is not None:
        return 0, 0
    done, skipped, rows = (result.get(name) for name in ("units_done", "units_skipped", "rows"))
    if not (isinstance(done, int) and isinstance(skipped, int) and isinstance(rows, int)):
        return 0, 0
    return done + skipped, rows if not skipped else 0
