"""The pass over overlapping images at the end of a run: cell after cell of the sky, what did not change is kept."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import exposures, sql
from astroml_plugin.catalog.cones import cone_sql
from astroml_plugin.catalog.exposures import Exposure
from astroml_plugin.catalog.primary import matching, state
from astroml_plugin.catalog.primary.cells import Cell, Placed
from astroml_plugin.catalog.primary.lacking import lacking, measured_fields
from astroml_plugin.catalog.primary.state import FOLDER, GIVEN, KEY, MATCHED, SCHEMA, Decided, State
from astroml_plugin.catalog.schema import HEALPIX
from astroml_plugin.catalog.store import Catalog
from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.typing import F64, I64, Bool
from astroml_plugin.sky.wcs import edge_distance

UNUSABLE = int(ObjectFlag.EDGE | ObjectFlag.MASKED | ObjectFlag.NONFINITE | ObjectFlag.SATURATED | ObjectFlag.TRUNCATED)
"""Flags of a detection that does not count where another image shows it without any of them."""

UNKNOWN_FWHM = 1.0
"""Arcsec taken for the PSF of parts that say nothing of their image: versions before did not."""

CUT = int(ObjectFlag.EDGE | ObjectFlag.TRUNCATED)
"""Flags of a detection of which a part is lost, so that its centre is off: its match radius is twice as large."""

_MARGIN = 20 / 3600
"""Degrees around a cell in which units are looked for at first."""

_CHAIN = 2
"""Match radii beyond one for each image that a decision may reach."""

_TRIES = 5
"""Times that all is decided again because another run has ended meanwhile."""

_READERS = 16
"""Footers read at once."""

_COLUMNS = ("object_id", "image", "tile", "x", "y", "ra", "dec", "primary", HEALPIX)
_ORDER = ("object_id", "image", "x", "y", "ra", "dec")


def decide(catalog: Catalog, *, again: bool = False) -> dict[str, Any] | None:
    """Decide which rows count where images overlap, and write it down; None where none do.

    A kill at any moment leaves what was decided before, and a later call goes on.

    Args:
        catalog: all of its parts are written; run records and manifests may come later.
        again: what is there is not trusted.

    Returns:
        What is to stand in the record of the run.

    Raises:
        CorruptError: parts are damaged or gone.
    """
    before = _before(catalog, again)
    if before is None:
        return None
    import duckdb  # here, as a run without overlaps does without what it takes to load

    for left in reversed(range(_TRIES)):
        current = catalog.current(reconcile=True)
        try:
            made = before if _stands(catalog, before, current) else _decided(catalog, before, current)
        except (duckdb.Error, FileNotFoundError, CorruptError) as error:
            if left:
                continue  # another run has merged or replaced parts meanwhile
            raise _unreadable(error) from error
        state.write(catalog.url, made)
        kept = set(made.files())
        catalog.drop_parts([name for name in before.files() if name not in kept])
        before = made
        if _stands(catalog, made, catalog.current(reconcile=True)):
            break
    return told(before)


def clean(catalog: Catalog) -> None:
    """Delete files that killed runs left; only where no other run goes on."""
    found = state.read(catalog.url)
    if found is not None:
        names = {f"{FOLDER}/{name}" for name in storage.list_files(storage.join(catalog.url, FOLDER), ".parquet")}
        catalog.drop_parts(sorted(names - set(found.files())))


def told(found: State) -> dict[str, Any]:
    """The rule of a catalog and how many rows it concerns, for people."""
    counts: Counter[str] = Counter()
    for cell in found.cells:
        counts.update({name: int(value) for name, value in cell.told.items() if name != "radius"})
    widest = max((cell.told.get("radius", 0.0) for cell in found.cells), default=0.0)
    if found.rule == GIVEN:
        return {"rule": "farthest from the edge, of the images that show the object", "flags": found.flags, **counts}
    return {
        "rule": "matched on the sky; usable first, then the deepest, then farthest from the edge, then by name",
        "match_radius": "half the larger PSF FWHM of the two images; all of it where one shows the object cut off",
        "match_radius_arcsec": round(widest, 4),
        "depth_step": matching.DEPTH_STEP,
        "flags": found.flags,
        **counts,
    }


def rule_of(catalog: Catalog) -> str:
    """The rule that holds for a catalog: those of detected objects have a number in a label map."""
    return MATCHED if "label_id" in catalog.schema.names else GIVEN


def _unreadable(error: Exception) -> CorruptError:
    told = storage.redact(" ".join(str(error).split())[:200])
    return CorruptError(
        f"overlapping images cannot be compared, as a part of the catalog cannot be read ({told}): run `astroml-plugin "
        f"verify CATALOG --repair`, then the same infer again"
    )


def _before(catalog: Catalog, again: bool) -> State | None:
    try:
        found = state.read(catalog.url, catalog.runs())
    except CorruptError:
        told_flags = [record[FOLDER].get("flags", "flags") for record in catalog.runs() if record.get(FOLDER)]
        return State(rule_of(catalog), flags=told_flags[-1] if told_flags else "flags")
    return State(found.rule, flags=found.flags) if found is not None and again else found


def _stands(catalog: Catalog, found: State, current: pa.Table) -> bool:
    return found.is_of(current) and all(storage.exists(storage.join(catalog.url, name)) for name in found.files())


def _decided(catalog: Catalog, before: State, current: pa.Table) -> State:
    known = {(cell.order, cell.number): cell for cell in before.cells if before.format == state.FORMAT}
    placed, cells = Placed(current), []
    for cell in placed.crowded(_MARGIN):
        one = _Cell(catalog, before, placed, cell)
        old = known.get((cell.order, cell.number))
        if old is not None and old.key == one.key and (not old.file or _exists(catalog, old.file)):
            cells.append(old)
        else:
            cells.append(one.decided())
    return replace(before, units=state.units_digest(current), cells=tuple(cells), format=state.FORMAT)


def _exists(catalog: Catalog, file: str) -> bool:
    return storage.exists(storage.join(catalog.url, FOLDER, file))


class _Cell:
    """One cell, with all units that what is decided in it may depend on."""

    def __init__(self, catalog: Catalog, before: State, placed: Placed, cell: Cell) -> None:
        self.catalog, self.rule, self.flags, self.cell = catalog, before.rule, before.flags, cell
        margin = _MARGIN
        while True:
            some = placed.near(cell, margin)
            units = placed.table.take(pa.array(some))
            self.exposures = _exposures(catalog, units)
            needed = (placed.images(some) + _CHAIN) * 2 * self._widest() / 3600
            if self.rule == GIVEN or needed <= margin:
                break
            margin = needed
        self.margin = margin
        self.paths: list[str] = sorted(set(units["path"].to_pylist()))
        pairs = sorted(zip(units["unit"].to_pylist(), units["digest"].to_pylist(), strict=True))
        self.key = storage.digest(state.FORMAT, self.rule, self.flags, cell.order, cell.number, pairs)[:24]

    def _widest(self) -> float:
        """Arcsec: the largest match radius of whole objects."""
        return max((one.fwhm or UNKNOWN_FWHM for one in self.exposures.values()), default=UNKNOWN_FWHM) / 2

    def decided(self) -> Decided:
        """Read the rows, decide, and write those that are to be named."""
        rows = self._rows()
        own: Bool = self.cell.holds(np.asarray(rows[HEALPIX]))
        choose = self._matched if self.rule == MATCHED else self._given
        value, named, counts = choose(rows, own)
        table = rows.select(list(KEY)).append_column("primary", pa.array(value)).filter(pa.array(named & own))
        table = _once(table).cast(SCHEMA)
        place = (self.cell.order, self.cell.number, self.key)
        if not table.num_rows:
            return Decided(*place, told=counts)
        file = f"{self.cell.order}-{self.cell.number}-{self.key}.parquet"
        storage.write_table(storage.join(self.catalog.url, FOLDER, file), table)
        return Decided(*place, file, table.num_rows, counts)

    def _matched(self, rows: pa.Table, own: Bool) -> tuple[Bool, Bool, dict[str, float]]:
        """Value of each row, whether it is to be named, and counts."""
        depth, fwhm, has_psf = (self._of_rows(rows, name) for name in ("depth", "fwhm", "has_psf"))
        flags = np.asarray(rows["told"])
        radius = np.nan_to_num(fwhm, nan=UNKNOWN_FWHM) / 2 * np.where(flags & CUT, 2, 1)
        detected = matching.Detected(
            ra=np.asarray(rows["ra"]),
            dec=np.asarray(rows["dec"]),
            image=_ranks(rows["image"]),
            unusable=(flags & UNUSABLE) != 0,
            depth=depth,
            edge=self._edges(rows),
            radius=radius,
        )
        counts = matching.counted(detected)
        found = {
            **{"rows": own.sum(), "matched_to_a_better_row": (own & ~counts).sum()},
            **{
                "rows_of_unknown_depth": (own & np.isnan(depth)).sum(),
                "rows_without_psf": (own & (has_psf != 1)).sum(),
            },
        }
        return counts, ~counts, {**{name: int(value) for name, value in found.items()}, "radius": self._widest()}

    def _given(self, rows: pa.Table, own: Bool) -> tuple[Bool, Bool, dict[str, float]]:
        """Value of each row, whether it is to be named, and counts."""
        lacks = lacking(np.asarray(rows["blank"]), np.asarray(rows["told"]))
        by_place, ids = np.asarray(rows["primary"]), np.asarray(rows["object_id"])
        some = np.isin(ids, ids[by_place & (lacks > 0)])  # all others keep their rows
        few = rows.filter(pa.array(some))
        given = matching.Given(
            source=_sources(few),
            image=_ranks(few["image"]),
            by_place=by_place[some],
            lacking=lacks[some],
            edge=self._edges(few),
        )
        value, moved = by_place.copy(), np.zeros(len(rows), bool)
        value[some], moved[some] = matching.shown(given)
        return value, moved, {"rows": int(own.sum()), "objects_moved": int((own & moved & value).sum())}

    def _of_rows(self, rows: pa.Table, name: str) -> F64:
        """(n,) what is known of the image of each row; NaN where nobody said."""
        coded = rows["tile"].combine_chunks().dictionary_encode()
        values = [getattr(self.exposures.get(tile), name, None) for tile in coded.dictionary.to_pylist()]
        of_rows: F64 = np.array(values, np.float64)[np.asarray(coded.indices)]
        return of_rows

    def _edges(self, rows: pa.Table) -> F64:
        """(n,) pixels to the edges of the images; NaN where their shapes are not known."""
        height, width = (self._of_rows(rows, side) for side in ("height", "width"))
        return edge_distance(height, width, np.asarray(rows["x"]), np.asarray(rows["y"]))

    def _rows(self) -> pa.Table:
        """Rows of the cell and its margin, in an order of their own."""
        names = [f"part.{sql.name(name)}" for name in _COLUMNS]
        names.append(f"part.{sql.name(self.flags)} AS told")
        if self.rule == GIVEN:
            names.append(f"{_blank(self.catalog.schema)} AS blank")
        with sql.connect() as database:
            folder = sql.root(database, self.catalog.url)
            scanned = sql.scan([f"{folder}/{path}" for path in self.paths])
            where = cone_sql((*self.cell.centre, min(self.cell.reach + self.margin, 180.0)))
            order = ", ".join(map(sql.name, _ORDER))
            text = f"SELECT {', '.join(names)} FROM {scanned} part WHERE {where} ORDER BY {order}"  # noqa: S608
            found: pa.Table = database.sql(text).to_arrow_table()
        return found


def _exposures(catalog: Catalog, units: pa.Table) -> dict[str, Exposure]:
    wanted = set(units["unit"].to_pylist())
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda path: exposures.read(catalog.url, path), sorted(set(units["path"].to_pylist())))
        return {unit: one for told_of in found for unit, one in told_of.items() if unit in wanted}


def _blank(schema: pa.Schema) -> str:
    """SQL of whether nothing was measured of a row."""
    terms = [
        f"({sql.name(item.name)} IS NULL OR isnan({sql.name(item.name)}))"
        if pa.types.is_floating(item.type)
        else f"{sql.name(item.name)} IS NULL"
        for item in measured_fields(schema)
    ]
    return f"({' AND '.join(terms)})" if terms else "FALSE"


def _ranks(names: pa.ChunkedArray) -> I64:
    """(n,) place of each name among those there are, in order."""
    coded = names.combine_chunks().dictionary_encode()
    place = np.argsort(np.argsort(np.array(coded.dictionary.to_pylist(), object), kind="stable"), kind="stable")
    return np.asarray(place[np.asarray(coded.indices)], np.int64)


def _sources(rows: pa.Table) -> I64:
    """(n,) number of the object of each row: its id and place, and how often both stood in the table before it."""
    seen: Counter[tuple[Any, ...]] = Counter()
    numbers: dict[tuple[Any, ...], int] = {}
    found = np.empty(len(rows), np.int64)
    columns = (rows[name].to_pylist() for name in ("object_id", "ra", "dec", "image"))
    for row, (object_id, ra, dec, image) in enumerate(zip(*columns, strict=True)):
        once = (object_id, ra, dec, image)
        key = (object_id, ra, dec, seen[once])
        seen[once] += 1
        found[row] = numbers.setdefault(key, len(numbers))
    return found


def _once(table: pa.Table) -> pa.Table:
    """Each row once: objects that stand twice in a table are told by nothing here."""
    names = list(KEY)
    found = table.group_by(names, use_threads=False).aggregate([("primary", "max")])
    return found.rename_columns([*names, "primary"])
