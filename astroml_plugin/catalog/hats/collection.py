"""Writing a catalog as a HATS collection: partitions and margin by hats-import, resumable, in bounded memory."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.coverage import NO_ROWS
from astroml_plugin.catalog.export.facts import facts, told_of
from astroml_plugin.catalog.hats.extension import Joined, Primary
from astroml_plugin.catalog.hats.library import check_name, hats, hats_import, quietly
from astroml_plugin.catalog.hats.reader import GroupReader
from astroml_plugin.catalog.primary.state import units_digest
from astroml_plugin.catalog.schema import COMMON_COLUMNS, HEALPIX, is_text, is_vector
from astroml_plugin.catalog.streamed import CatalogRows, rows_by_cell
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, CorruptError, InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.typing import I64, Arcsec
from astroml_plugin.core.version import DISTRIBUTION, version

_PLAN = "astroml_export.json"
"""File of a collection that says what it is made of: the same export goes on, another one is refused."""

_ORDER = 29
_PARTITION = 1 << 30
_COARSEST, _FINEST = 6, 10
"""Orders among which that of the smallest partitions is chosen; hats-import holds all cells of it in memory."""

_ORIGIN = ("source", "source_id", "run", "bundle", "annotation")
_PLACED = f'"{HEALPIX}" IS NOT NULL'


@dataclass(frozen=True)
class HatsOptions:
    """How a HATS collection is laid out."""

    margin: Arcsec = 10.0
    """Width of the margin cache in arcsec: matches within it find neighbours across partitions; 0: none."""
    partition_rows: int | None = None
    """Most rows of a partition; default 1,000,000, fewer where rows are wide: a partition takes 1 GiB at most."""
    extends: Place | None = None
    """HATS catalogue that gets new columns: only ids and what it lacks are written, in its partitions."""
    extends_id: str = "object_id"
    """Column of ids of the catalogue that is extended."""


@dataclass(frozen=True)
class HatsCollection:
    """A collection that was written."""

    url: str
    """Folder of the collection."""
    rows: int
    """Rows."""
    left_out: int
    """Rows without a position on the sky, which HATS has no place for."""
    partitions: int
    """Partitions."""
    properties: str | None
    """File by which `lsdb.Catalog.load_extension` finds an extension; None for others."""
    joined: Joined | None
    """Rows of an extension beside those of its primary catalogue; None for others."""


def write_hats(rows: CatalogRows, out: str, client: Any, options: HatsOptions) -> HatsCollection:
    """Write the rows of a catalog that have a position on the sky as a HATS collection; a killed one goes on.

    Args:
        rows: with the columns that shall be written.
        out: local folder of the collection; its name is that of the catalogue.
        client: Dask client whose workers write; they must see `out`.
        options: layout.

    Raises:
        InputError: no row has a position, `out` holds something else, the extra `hats` is not installed.
    """
    hats_import()
    folder = _folder(out)
    primary = None if options.extends is None else Primary.open(text_of(options.extends), options.extends_id)
    given, rows = rows, _written(rows, primary)
    cells, counts, _ = rows_by_cell(rows, 2 * (_ORDER - _FINEST))
    none, placed = rows_by_cell(given, 2 * _ORDER)[2], int(counts.sum())
    if not placed and not none:
        raise InputError(NO_ROWS)
    if not placed:
        raise InputError(
            f"none of the {none} rows has a position on the sky (stamps without a WCS): HATS has no place for them, "
            f"use --to fits, votable or parquet"
        )
    _begin(folder, rows, options)
    reader = GroupReader.of(rows)
    most = options.partition_rows or partition_rows(reader.schema)
    deepest = [order for order, _ in primary.pixels] if primary else []
    order = max([_order(cells, counts, most), *deepest])
    layout = {"expected_total_rows": placed, "pixel_threshold": most, "highest_healpix_order": order}
    arguments = _arguments(folder, reader, options, primary, layout)
    if arguments is not None:
        _import(arguments, client)
    with quietly():
        made = hats().read_hats(folder)
    catalog = getattr(made, "main_catalog", made)
    count = int(catalog.catalog_info.total_rows)
    if count != placed:
        raise InputError(f"{folder} has {count} rows of {placed}: the catalog changed, delete it and export again")
    joined = None if primary is None else primary.joined(catalog)
    properties = None if primary is None or joined is None else _describe(folder, rows, primary, joined)
    return HatsCollection(str(folder), count, none, len(catalog.get_healpix_pixels()), properties, joined)


def _import(arguments: Any, client: Any) -> None:
    """Let hats-import write; what stops it is one sentence."""
    with quietly() as said, client.as_current():
        try:
            hats_import().pipeline_with_client(arguments, client)
        except AstromlError:
            raise
        except Exception as error:
            words = " ".join([str(error), *said.getvalue().split()[-60:]])
            raise CorruptError(
                f"hats-import stopped: run the same command again, what is done is kept ({words})"
            ) from error


def _folder(out: str) -> Path:
    url = storage.absolute(out)
    if not storage.is_local(url):
        raise InputError(f"HATS is written to a local folder, not to {storage.redact(out)}: copy it there afterwards")
    folder = storage.local_path(url)
    check_name(folder.name)
    return folder


def _written(rows: CatalogRows, primary: Primary | None) -> CatalogRows:
    """The rows that HATS gets, those with a position, their index first; of an extension primary ones, new columns."""
    names = [name for name in rows.schema.names if name != HEALPIX]
    conditions = [_PLACED, *([f"(\n{rows.where}\n)"] if rows.where else [])]
    if primary is not None:
        common = {column.name for column in COMMON_COLUMNS} - {"flags"}
        names = ["object_id", "ra", "dec", *(name for name in names if name not in common)]
        conditions.append('"primary"')
    names += [name for name in ("object_id", "ra", "dec") if name not in names]
    return replace(rows.having([HEALPIX, *names]), where="\nAND ".join(conditions))


def _begin(folder: Path, rows: CatalogRows, options: HatsOptions) -> None:
    """Write down what the collection is made of, or InputError where another one, or something else, is there."""
    plan = {
        "catalog": storage.digest(rows.catalog.identity, units_digest(rows.catalog.current())),
        "columns": rows.schema.names,
        "where": rows.where,
        "layout": asdict(options),
    }
    if rows.annotations:
        plan["annotations"] = [[one.name, one.head] for one in rows.annotations]
    plan = json.loads(json.dumps(plan))
    file = folder / _PLAN
    if file.exists():
        if storage.read_json(str(file)) != plan:
            raise InputError(
                f"{folder} holds an export of other rows or in another layout: delete it, or choose another"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(_is_file_of_others(path) for path in folder.iterdir())):
        raise InputError(f"{folder} holds something else: choose a new folder for the collection")
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_json(str(file), plan)


def _is_file_of_others(path: Path) -> bool:
    """Whether a file is none that a killed export left before it had begun."""
    return not path.name.startswith(f".{_PLAN}")


def _arguments(
    folder: Path, reader: GroupReader, options: HatsOptions, primary: Primary | None, layout: dict[str, int]
) -> Any:
    """Work for hats-import, or None where all is done."""
    from hats_import.collection.arguments import CollectionArguments

    if (folder / "collection.properties").exists():
        return None
    with quietly():
        arguments = CollectionArguments(
            output_path=str(folder.parent),
            output_artifact_name=folder.name,
            addl_hats_properties=properties(reader.rows),
            progress_bar=False,
        ).catalog(
            output_artifact_name=folder.name,
            input_file_list=reader.names,
            file_reader=reader,
            use_healpix_29=True,
            add_healpix_29=False,
            **layout,
            existing_pixels=list(primary.pixels) if primary else None,
        )
        if options.margin > 0:
            name = f"{folder.name}_margin"
            arguments.add_margin(margin_threshold=options.margin, output_artifact_name=name, is_default=True)
    return arguments


def _order(cells: I64, counts: I64, most: int) -> int:
    """Order of the smallest partitions: the coarsest one at which none has more than `most` rows, 6 to 10."""
    for order in range(_COARSEST, _FINEST):
        _, place = np.unique(cells >> (2 * (_FINEST - order)), return_inverse=True)
        if np.bincount(place, counts).max(initial=0) <= most:
            return order
    return _FINEST


def partition_rows(schema: pa.Schema) -> int:
    """Rows of a partition that takes 1 GiB in memory at most, and no more than a million."""
    return max(1, min(1_000_000, _PARTITION // sum(_width(kind) for kind in schema.types)))


def _width(kind: pa.DataType) -> int:
    """Bytes of a value; 32 of a text."""
    if is_vector(kind):
        return int(kind.list_size) * _width(kind.value_type)
    return 32 if is_text(kind) else max(1, kind.bit_width // 8)


def properties(rows: CatalogRows) -> dict[str, str]:
    """Lines of `hats.properties` that tell where the rows come from, and what their flags mean."""
    told = told_of(rows.schema)
    lines = [f"{name} {value}" for name, value in facts(told) if name in _ORIGIN]
    flags = [value for name, value in facts(told) if name == "flag"]
    return {
        "obs_title": f"Measurements by {DISTRIBUTION}",
        "obs_description": "Columns with units, UCDs and descriptions in the Parquet files (VOParquet header)",
        "hats_col_healpix": HEALPIX,
        "hats_col_healpix_order": str(_ORDER),
        "hats_cols_survey_id": "object_id",
        "hats_ext_provenance": "; ".join([f"{DISTRIBUTION} {version()}", *lines]),
        "astroml_flags": "; ".join(flags),
        "astroml_where": rows.where.replace("\n", " "),
    }


def _describe(folder: Path, rows: CatalogRows, primary: Primary, joined: Joined) -> str:
    """Write the file that names an extension and how it is joined; gives its path."""
    from hats.catalog.dataset.extension_properties import ExtensionProperties

    new = [name for name in rows.schema.names if name not in (HEALPIX, "object_id", "ra", "dec")]
    described = ExtensionProperties(
        name=folder.name,
        primary_catalog=primary.url,
        primary_column=primary.column,
        join_catalog=folder.name,
        join_column="object_id",
        extension_columns=new,
        extension_join_style="left",
        shares_primary_coordinates=joined.same_place,
        **{key: value for key, value in properties(rows).items() if key.startswith(("obs_", "hats_ext", "astroml"))},
    )
    with contextlib.suppress(FileNotFoundError):
        (folder.parent / f"{folder.name}.properties").unlink()
    described.to_properties_file(folder.parent)
    return str(folder.parent / f"{folder.name}.properties")
