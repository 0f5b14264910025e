"""Labels of objects that a table names by their ids alone: a catalog of the survey says where they are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.objects import ObjectSettings
from astroml_plugin.catalog.objects.carried import ALL, carried, chosen, typed, with_carried, word_kinds
from astroml_plugin.catalog.objects.columns import exact_ids
from astroml_plugin.catalog.objects.raw import RawTable
from astroml_plugin.catalog.objects.readers import open_tables
from astroml_plugin.catalog.objects.settings import NAMES
from astroml_plugin.catalog.query import query
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.sources.survey import Survey

_ROWS = 'SELECT object_id, image, x, y FROM catalog WHERE "primary"'
_PLACES = {name.lower() for name in (*NAMES["ra"], *NAMES["dec"], *NAMES["x"], *NAMES["y"], "image", "tile", "primary")}


def placed_by_id(url: str, settings: ObjectSettings, catalog: Place, survey: Survey) -> tuple[pa.Table, list[str]]:
    """Labels with the places that a catalog has of their ids, and a sentence about ids that it does not have.

    Args:
        url: path or URL of a table with ids and labels.
        settings: how to read it.
        catalog: path or URL of a catalog of the survey.
        survey: the survey.

    Raises:
        InputError: the catalog is of another survey or has none of the ids, or the table has no ids.
    """
    if Catalog.open(catalog).identity.get("source") != survey.id:
        raise InputError(
            f"{storage.redact(catalog)} was not made from {storage.redact(survey.url)}: its positions are of other "
            f"images"
        )
    found: pa.Table = query(catalog, _ROWS).to_arrow().sort_by([("object_id", "ascending")])
    with open_tables(url, settings.format, settings.objects_table) as tables:
        if len(tables) != 1:
            raise InputError(f"{storage.redact(url)} has {len(tables)} tables: choose one with --objects-table NAME")
        labels = _labels(tables[0], settings, storage.redact(url))
    known, ids = np.asarray(found["object_id"]), np.asarray(labels["object_id"])
    place = np.minimum(np.searchsorted(known, ids), max(0, len(known) - 1))
    there = known[place] == ids if len(known) else np.zeros(len(ids), bool)
    if not there.any():
        raise InputError(
            f"none of the {len(ids)} ids of {storage.redact(url)} is in {storage.redact(catalog)}: check the column "
            f"(--columns object_id=NAME), or give positions"
        )
    rows = found.take(pa.array(place[there]))
    placed = labels.filter(pa.array(there))
    for name in ("image", "x", "y"):
        placed = placed.append_column(name, rows[name])
    lost = int((~there).sum())
    return placed, [f"{lost} of the {len(ids)} ids of the table are not in the catalog"] if lost else []


def _labels(raw: RawTable, settings: ObjectSettings, place: str) -> pa.Table:
    """object_id int64 and the label columns."""
    lower = {name.lower(): name for name in raw.names}
    named = settings.mapping().get("object_id")
    ids = named or next((lower[name.lower()] for name in NAMES["object_id"] if name.lower() in lower), None)
    if ids is None or ids not in raw.names:
        raise InputError(f"{place} has no object id column: name it with --columns object_id=NAME")
    along = [name for name in chosen(raw, (ALL,), (ids,), place) if name.lower() not in _PLACES]
    parts = []
    for chunk in raw.chunks([ids, *along], 1_000_000):
        mine = pa.table({"object_id": exact_ids(chunk[ids], ids, place)})
        parts.append(with_carried(mine, chunk, along, words=raw.words))
    table = pa.concat_tables(parts, promote_options="permissive")
    table = typed(table, word_kinds(table))
    return pa.table({"object_id": table["object_id"], **{name: carried(table)[name] for name in along}})
