"""Writing a catalog as a HATS collection: partitions and margin by hats-import, resumable, in bounded memory."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from astroml_plugin.catalog.export.facts import facts, told_of
from astroml_plugin.catalog.hats.extension import Joined, Primary
from astroml_plugin.catalog.hats.library import check_name, hats, hats_import, quietly
from astroml_plugin.catalog.hats.reader import GroupReader
from astroml_plugin.catalog.primary.state import units_digest
from astroml_plugin.catalog.schema import COMMON_COLUMNS, HEALPIX
from astroml_plugin.catalog.streamed import CatalogRows, without_position
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.version import DISTRIBUTION, version

_PLAN = "astroml_export.json"
"""File of a collection that says what it is made of: the same export goes on, another one is refused."""

_ORDER = 29
_PLACED = f'"{HEALPIX}" IS NOT NULL'


@dataclass(frozen=True)
class HatsOptions:
    """How a HATS collection is laid out."""

    margin: float = 10.0
    """Width of the margin cache in arcsec: matches within it find neighbours across partitions; 0: none."""
    partition_rows: int = 1_000_000
    """Most rows of a partition."""
    extends: str | None = None
    """HATS catalogue that gets new columns: only ids and what it lacks are written, in its partitions."""
    extends_id: str = "object_id"
    """Its column of ids."""


@dataclass(frozen=True)
class HatsCollection:
    """A collection that was written."""

    url: str
    """Its folder."""
    rows: int
    """Rows."""
    left_out: int
    """Rows without a position on the sky, which HATS has no place for."""
    partitions: int
    """Partitions."""
    properties: str | None
    """Of an extension: the file by which `lsdb.Catalog.load_extension` finds it."""
    joined: Joined | None
    """Of an extension: how its rows meet those of the primary."""


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
    none, total = without_position(rows)
    if none == total:
        raise InputError(
            f"none of the {total} rows has a position on the sky (stamps without a WCS): HATS has no place for them, "
            f"use --to fits, votable or parquet"
        )
    primary = None if options.extends is None else Primary.open(options.extends, options.extends_id)
    rows = _written(rows, primary)
    _begin(folder, rows, options)
    reader = GroupReader.of(rows)
    arguments = _arguments(folder, reader, total - none, options, primary)
    with quietly():
        if arguments is not None:
            with client.as_current():
                hats_import().pipeline_with_client(arguments, client)
        made = hats().read_hats(folder)
    catalog = getattr(made, "main_catalog", made)
    count = int(catalog.catalog_info.total_rows)
    if count != total - none:
        raise InputError(
            f"{folder} has {count} rows of {total - none}: the catalog changed, delete it and export again"
        )
    joined = None if primary is None else primary.joined(catalog)
    properties = None if primary is None or joined is None else _describe(folder, rows, primary, joined)
    return HatsCollection(str(folder), count, none, len(catalog.get_healpix_pixels()), properties, joined)


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
    conditions = [_PLACED, *([f"({rows.where})"] if rows.where else [])]
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
    plan = json.loads(json.dumps(plan))
    file = folder / _PLAN
    if file.exists():
        if storage.read_json(str(file)) != plan:
            raise InputError(
                f"{folder} holds an export of other rows or in another layout: delete it, or choose another"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds something else: choose a new folder for the collection")
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_json(str(file), plan)


def _arguments(folder: Path, reader: GroupReader, count: int, options: HatsOptions, primary: Primary | None) -> Any:
    """What hats-import shall do, or None where all is done."""
    from hats_import.collection.arguments import CollectionArguments

    if (folder / "collection.properties").exists():
        return None
    deepest = max((order for order, _ in primary.pixels), default=0) if primary else 0
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
            expected_total_rows=count,
            pixel_threshold=options.partition_rows,
            highest_healpix_order=max(10, deepest),
            existing_pixels=list(primary.pixels) if primary else None,
        )
        if options.margin > 0:
            name = f"{folder.name}_margin"
            arguments.add_margin(margin_threshold=options.margin, output_artifact_name=name, is_default=True)
    return arguments


def properties(rows: CatalogRows) -> dict[str, str]:
    """Lines of `hats.properties` that tell where the rows come from, and what their flags mean."""
    told = told_of(rows.schema)
    lines = [f"{name} {value}" for name, value in facts(told) if name in ("source", "source_id", "run", "bundle")]
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
