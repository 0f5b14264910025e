"""Whether a part or merged file is right: pages, footer, name and columns agree with one another and the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import parts
from astroml_plugin.catalog.merge import UNIT, merged_path
from astroml_plugin.catalog.parts import PartInfo
from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError


def refuse_exchanged(url: str, path: str) -> None:
    """Refuse a local file that is another one under its name, as after a wrong copy; damaged ones pass.

    Args:
        url: folder of the catalog.
        path: the file, relative to it.

    Raises:
        CorruptError: its footer tells other units than its name.
    """
    try:
        footer = parts.raw_footer(storage.local_path(storage.join(url, path)))
    except (OSError, ValueError):
        return  # who reads it will say what is wrong
    if parts.told_by(footer, path):
        return
    try:
        units_in(url, path)
    except CorruptError as error:
        raise CorruptError(
            f"{path} is not the file that its name tells ({error}): put the right one back, or run `astroml-plugin "
            f"verify CATALOG --repair`, then the same infer again"
        ) from error
    except FileNotFoundError:
        return  # merged or replaced meanwhile


def units_in(url: str, path: str) -> list[PartInfo]:
    """The units of a file, from its footer.

    Raises:
        CorruptError: they are others than its name says.
    """
    merged = parts.is_merged(path)
    infos = list(parts.read_merged(url, path).members) if merged else [parts.read_part_info(url, path)]
    if merged and merged_path(infos) != path:
        raise CorruptError("it holds other units than its name says")
    named = parts.parse_path(path)
    if not merged and (infos[0].unit, infos[0].digest) != named:
        raise CorruptError(
            f"it holds the rows of unit {infos[0].unit} ({infos[0].digest}), and its name says "
            f"{' '.join(named) if named else 'no unit'}"
        )
    return infos


def read_whole(url: str, path: str, declared: pa.Schema) -> list[PartInfo]:
    """The units of a file of which every page was read and compared with its checksum.

    Args:
        url: folder of the catalog.
        path: the file, relative to it.
        declared: columns that the file must have.

    Raises:
        CorruptError: it is readable and not right: it holds other rows, units or columns than it says.
        OSError, ValueError, KeyError, TypeError, ArrowException: it cannot be read.
    """
    merged, infos = parts.is_merged(path), units_in(url, path)
    held: Counter[str] = Counter()
    with parts.open_parquet(storage.join(url, path), check=True) as file:
        found, count = file.schema_arrow, len(declared)  # a merged file has the units' names behind
        if (found.names[:count], found.types[:count]) != (declared.names, declared.types):
            raise CorruptError("it has other columns than the catalog")
        for batch in file.iter_batches(parts.ROW_GROUP):
            if merged:
                for pair in pc.value_counts(batch.column(UNIT)).to_pylist():
                    held[pair["values"]] += pair["counts"]
            else:
                held[infos[0].unit] += batch.num_rows
    expected = {info.unit: info.rows for info in infos if info.rows}
    if +held != expected:
        raise CorruptError(f"it has {held.total()} rows and its footer says {sum(expected.values())}")
    return infos


def against_manifest(infos: list[PartInfo], size: int, named: Mapping[str, Mapping[str, Any]]) -> tuple[str, bool]:
    """How a right file and the manifest differ, in words ("": they do not), and whether the manifest is at fault.

    Args:
        infos: the units of the file, from its footer.
        size: bytes of the file.
        named: unit -> row of the manifest that names this file; units of which another file counts are left away.
    """
    by_unit = {info.unit: info for info in infos}
    for unit, row in named.items():
        if unit not in by_unit:
            return f"the manifest says that it holds unit {unit}", True
        for name, value in asdict(by_unit[unit]).items():
            if name not in ("path", "bytes") and row[name] != value:
                return f"{name} of unit {unit} is {value} in the file and {row[name]} in the manifest", True
    if not parts.is_merged(infos[0].path if infos else parts.COMPACT):
        for row in named.values():
            if row["bytes"] != size:
                return f"it has {size} bytes and the manifest says {row['bytes']}: something else has written it", False
    return "", False
