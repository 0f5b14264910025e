"""The file schema.json: what a catalog declares, sealed with a digest, and what its files say of the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from astroml_plugin.catalog import parts
from astroml_plugin.catalog.merge import UNIT
from astroml_plugin.catalog.schema import FORMAT, Column, columns_of, schema_from_json
from astroml_plugin.core import formats, storage
from astroml_plugin.core.errors import AstromlError, CorruptError, InputError
from astroml_plugin.core.flags import OBJECT_FLAGS
from astroml_plugin.core.version import version

SCHEMA = "schema.json"

_SEAL = "sha256"
_READERS = 8


@dataclass(frozen=True)
class Declared:
    """Columns and flag bits."""

    columns: tuple[Column, ...]
    """Columns in order."""
    flags: tuple[tuple[str, int], ...]
    """Flag names and bits."""

    def differs(self, other: Declared) -> str:
        """How `other`, as the files have it, differs from this, as schema.json has it; "" where it does not."""
        if len(self.columns) != len(other.columns):
            return f"it has {len(self.columns)} columns, the files have {len(other.columns)}"
        for mine, theirs in zip(self.columns, other.columns, strict=True):
            for name, value in asdict(mine).items():
                if value != getattr(theirs, name):
                    return f"{name} of column {theirs.name} is '{value}', in the files '{getattr(theirs, name)}'"
        extra = [f"{name} = {bit}" for name, bit in self.flags if (name, bit) not in other.flags]
        return f"the flag {extra[0]} is in no file" if extra and other.flags else ""


def declaration(
    columns: Sequence[Column], identity: Mapping[str, Any], flags: Mapping[str, int] = OBJECT_FLAGS
) -> dict[str, Any]:
    """The value of schema.json."""
    told = {
        "format": FORMAT,
        "package_version": version(),
        "columns": [asdict(column) for column in columns],
        "flags": dict(flags),
        "identity": dict(identity),
    }
    return {**told, _SEAL: storage.digest(told)}


def is_sealed(value: Mapping[str, Any]) -> bool:
    """Whether the value of a schema.json is as it was written; those of older versions have no digest."""
    told = {key: item for key, item in value.items() if key != _SEAL}
    return _SEAL not in value or value[_SEAL] == storage.digest(told)


def read_schema(url: str) -> tuple[pa.Schema, dict[str, Any]]:
    """Columns and identity that the schema.json of a catalog declares.

    Raises:
        InputError: there is no catalog, its format is newer than this package, or the file is damaged.
    """
    try:
        value = storage.read_json(storage.join(url, SCHEMA))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"there is no catalog at {storage.redact(url)} (no schema.json): give the --out folder of an infer run"
        ) from error
    except ValueError as error:
        raise damaged(url, SCHEMA) from error
    if not isinstance(value, dict) or not {"format", "columns", "identity"} <= set(value):
        raise damaged(url, SCHEMA)
    if not isinstance(value["format"], int):
        raise damaged(url, SCHEMA)
    if value["format"] > FORMAT:
        raise InputError(
            f"{storage.redact(url)} has catalog format {value['format']}, this package knows {FORMAT}: "
            "update astroml-plugin"
        )
    if not is_sealed(value):
        raise damaged(url, SCHEMA)
    try:
        return schema_from_json(value["columns"]), dict(value["identity"])
    except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise damaged(url, SCHEMA) from error


def damaged(url: str, name: str) -> CorruptError:
    """The error for a small file of a catalog that cannot be read; it names the remedy."""
    return CorruptError(
        f"{name} of the catalog {storage.redact(url)} is damaged: run `astroml-plugin verify CATALOG --repair`, which "
        f"makes it again from what is there"
    )


def read(url: str) -> Declared:
    """Columns and flags that schema.json declares, of a catalog that can be opened."""
    value = storage.read_json(storage.join(url, SCHEMA))
    flags = value.get("flags")
    bits = tuple((str(name), bit) for name, bit in flags.items()) if isinstance(flags, dict) else ()
    return Declared(tuple(Column(**column) for column in value["columns"]), bits)


def of_most_files(url: str, paths: Sequence[str]) -> tuple[Declared, int, int] | None:
    """Columns and flags that more than half of the files agree on, how many do, of how many; None without that."""
    with ThreadPoolExecutor(_READERS) as pool:
        found = [one for one in pool.map(lambda path: _of_file(url, path), paths) if one is not None]
    for columns, count in Counter(one.columns for one in found).most_common(1):
        if 2 * count > len(found):
            agreeing = Counter(one.flags for one in found if one.columns == columns)
            return Declared(columns, agreeing.most_common(1)[0][0]), count, len(found)
    return None


def _of_file(url: str, path: str) -> Declared | None:
    """Columns and flags of a file of ours; None where it cannot be read."""
    try:
        with parts.open_parquet(storage.join(url, path)) as file:
            found = file.schema_arrow
            if not {formats.PART.encode(), formats.PART_MEMBERS.encode()} & set(file.metadata.metadata or {}):
                return None
        flags = json.loads((found.metadata or {}).get(formats.CATALOG_FLAGS.encode(), b"{}"))
        columns = tuple(column for column in columns_of(found) if column.name != UNIT)
        return Declared(columns, tuple((str(name), bit) for name, bit in flags.items()))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, AstromlError):
        return None
