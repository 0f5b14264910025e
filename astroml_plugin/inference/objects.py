"""Objects of a run: tables sorted to their units, added to those of the catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.objects import ObjectBuckets, ObjectSettings, given
from astroml_plugin.catalog.objects.given import GivenTable, TableRecord
from astroml_plugin.catalog.objects.in_memory import file_of
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference.options import ObjectTable
from astroml_plugin.sources.survey import Survey

ObjectsProgress = Callable[[str, int, int | None], None]
"""Called with (stage, rows done, rows in all or None) while objects are brought to their units."""


@dataclass(frozen=True)
class BroughtObjects:
    """Objects at their units."""

    url: str | None
    """Where units find them, or what they need to detect them; None where there is nothing to say."""
    unplaced: int = 0
    """Objects that no unit owns."""
    changed_tables: tuple[str, ...] = ()
    """Sentences about tables that have changed."""
    overlaps: bool = False
    """Whether objects have rows on several images, or may have."""


def bring_objects(
    objects: ObjectTable, survey: Survey, catalog: Catalog, progress: ObjectsProgress | None
) -> BroughtObjects:
    """Sort the objects of a run, with those of the catalog's other tables, to the units that own them.

    Raises:
        InputError: the table cannot be read, or is another one than the catalog's and is not to extend it.
    """
    folder = storage.join(catalog.url, "objects")
    known = given.read_record(folder)
    mine = GivenTable(file_of(objects.table, folder), _settings(objects))
    if not known:
        _refuse_other(mine, catalog)
    tables = given.chosen_tables(mine, known, extend=objects.extend, catalog=catalog.url)
    buckets = ObjectBuckets.build(tables, survey, folder, progress=progress)
    now = [TableRecord.of(table, *told) for table, told in zip(tables, buckets.contents(), strict=True)]
    given.write_record(folder, now)
    unplaced = buckets.unplaced()
    catalog.write_unplaced(unplaced)
    several = buckets.placed > buckets.rows - buckets.unplaced_rows
    return BroughtObjects(buckets.url, unplaced.num_rows, tuple(given.changes(known, now)), several)


def _settings(objects: ObjectTable) -> ObjectSettings:
    return ObjectSettings(**{one.name: getattr(objects, one.name) for one in fields(ObjectSettings)})


def _refuse_other(mine: GivenTable, catalog: Catalog) -> None:
    """Refuse a catalog with rows that does not say which tables they are of, where its last run had another one."""
    if not catalog.listed():
        return
    names = [record["objects"] for record in catalog.runs() if isinstance(record.get("objects"), str)]
    last = names[-1] if names else ""
    if "." in last and last.rpartition("/")[2] != mine.name.rpartition("/")[2]:
        raise InputError(
            f"the catalog {storage.redact(catalog.url)} was made from the objects table {last} by a version that could "
            f"not add to it; this run has {mine.name}: choose another --out"
        )
