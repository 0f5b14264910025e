"""Description of a catalog."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from astroml_plugin.catalog.store import Catalog
from astroml_plugin.core import storage
from astroml_plugin.core.description import Description, shown

_COLUMNS = ("column", "type", "unit", "what it is")


def describe_catalog(catalog: Catalog) -> Description:
    """Rows, parts, runs and columns of a catalog."""
    entries = catalog.entries()
    rows = 0 if not len(entries) else pc.sum(entries["rows"]).as_py()
    facts = {
        "rows": f"{rows} in {len(entries)} parts",
        "failed units": str(len(catalog.failures())),
        "unplaced objects": str(len(catalog.unplaced())),
        "runs": str(len(catalog.runs())),
        **{name: _short(value) for name, value in catalog.identity.items()},
    }
    columns = tuple(
        (field.name, str(field.type), _told(field, "unit"), _told(field, "description")) for field in catalog.schema
    )
    return Description(storage.redact(catalog.url), "catalog", facts, _COLUMNS, columns)


def _told(field: Any, key: str) -> str:
    return str((field.metadata or {}).get(key.encode(), b"").decode())


def _short(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
