"""Origin of the rows of a unit: device, torch, compiled or not; kept in the footers of parts."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

from astroml_plugin.catalog import parts
from astroml_plugin.core import foreign, formats
from astroml_plugin.core.errors import CorruptError

Origin = dict[str, Any]
"""Plain values: `device`, `torch` (its version), `forms` (bundle, runtime and number format -> objects)."""


def packed(origins: Mapping[str, Origin]) -> dict[str, str]:
    """Key-value metadata of a Parquet file: what calculated each of its units; none where nothing is known."""
    if not origins:
        return {}
    plain = json.dumps(dict(sorted(origins.items())), sort_keys=True)
    return {formats.PART_ORIGINS: base64.b64encode(zlib.compress(plain.encode(), 6)).decode()}


def read(catalog: str, path: str) -> dict[str, Origin]:
    """Unit -> what calculated its rows, of a part or merged file; units whose writer did not say are not there.

    Args:
        catalog: URL of the catalog.
        path: the file, relative to it.

    Raises:
        CorruptError: the file cannot be read.
    """
    told = parts.key_values(catalog, path)[0].get(formats.PART_ORIGINS.encode())
    if told is None:
        return {}
    with foreign.refusing(f"what {path} says of its devices", "delete it and run infer again", CorruptError):
        plain = json.loads(zlib.decompress(base64.b64decode(told)))
        return {str(unit): dict(origin) for unit, origin in plain.items()}
