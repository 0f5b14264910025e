"""Origin of the rows of a unit: device, torch, compiled or not; kept in the footers of parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from astroml_plugin.catalog import unit_facts
from astroml_plugin.core import formats

Origin = dict[str, Any]
"""Plain values: `device`, `torch` (its version), `forms` (bundle, runtime and number format -> objects)."""


def packed(origins: Mapping[str, Origin]) -> dict[str, str]:
    """Key-value metadata of a Parquet file: what calculated each of its units; none where nothing is known."""
    if not origins:
        return {}
    plain = json.dumps(dict(sorted(origins.items())), sort_keys=True)
    return unit_facts.packed(formats.PART_ORIGINS, plain)


def read(catalog: str, path: str) -> dict[str, Origin]:
    """Unit -> what calculated its rows, of a part or merged file; units whose writer did not say are not there.

    Args:
        catalog: URL of the catalog.
        path: the file, relative to it.

    Raises:
        CorruptError: the file cannot be read.
    """
    return unit_facts.read(catalog, path, formats.PART_ORIGINS, "devices", dict)
