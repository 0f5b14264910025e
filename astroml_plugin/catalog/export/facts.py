"""An origin of rows as JSON in metadata, as INFO elements and as FITS cards: one shape for all formats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from astroml_plugin.core import formats

_KEYWORDS = {
    "creator": "CREATOR", "date": "DATE", "catalog": "CATALOG", "source": "SOURCE", "source_id": "SOURCEID",
    "made_by": "MADEBY", "sql": "SQL", "cone": "CONE", "limit": "LIMIT", "run": "RUN", "run_version": "RUNVER",
    "bundle": "BUNDLE", "flag": "FLAG", "annotation": "ANNOT",
}  # fmt: skip
_COMMENTS = {"date": "UTC, when this file was written", "cone": "ra, dec, radius in deg, ICRS"}
_MANY = ("run", "run_version", "bundle", "flag", "annotation")


def told_of(schema: pa.Schema) -> dict[str, Any]:
    """The origin that the metadata of an answer tell; empty where they tell none."""
    text = (schema.metadata or {}).get(formats.PROVENANCE.encode())
    return dict(json.loads(text)) if text else {}


def with_provenance(table: pa.Table, told: Mapping[str, Any]) -> pa.Table:
    """`table` whose metadata tell its origin."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata(told)})


def metadata(told: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Arrow schema metadata that tell an origin."""
    return {formats.PROVENANCE.encode(): json.dumps(dict(told), default=str).encode()}


def facts(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """An origin as (name, value), one for each run, bundle and flag: INFO elements of VOTable."""
    for key, value in told.items():
        if key == "bundles":
            yield from (("bundle", f"{name} sha256:{digest}") for name, digest in value.items())
        elif key == "annotations":
            yield from (("annotation", f"{name} sha256:{digest}") for name, digest in value.items())
        elif key == "flags":
            yield from (("flag", f"{item['bit']} {name}: {item['meaning']}") for name, item in value.items())
        elif key in ("runs", "run_versions"):
            yield from ((key.removesuffix("s"), str(item)) for item in value)
        else:
            yield key, value if isinstance(value, str) else json.dumps(value, default=str)


def cards(told: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """An origin as (keyword, value, comment) of a FITS header: RUN1, BUNDLE1, FLAG1, … where there may be several."""
    counts: dict[str, int] = {}
    found = []
    for name, value in facts(told):
        keyword = _KEYWORDS.get(name, name.upper()[:8])
        if name in _MANY:
            counts[name] = counts.get(name, 0) + 1
            keyword += str(counts[name])
        found.append((keyword, value, _COMMENTS.get(name, "")))
    return found
