"""Facts about the units of a part or merged file, kept in its footer: JSON, compressed, one entry per unit."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from astroml_plugin.catalog import parts
from astroml_plugin.core import foreign
from astroml_plugin.core.errors import CorruptError

Fact = TypeVar("Fact")


def packed(key: str, text: str) -> dict[str, str]:
    """Key-value metadata of a Parquet file that holds a JSON object of units."""
    return {key: base64.b64encode(zlib.compress(text.encode(), 6)).decode()}


def read(catalog: str, path: str, key: str, subject: str, build: Callable[[Any], Fact]) -> dict[str, Fact]:
    """Unit -> fact of a part or merged file; units whose writer did not say are not there.

    Args:
        catalog: URL of the catalog.
        path: the file, relative to it.
        key: name of the metadata.
        subject: of the facts, for messages.
        build: makes a fact of its plain value.

    Raises:
        CorruptError: the file cannot be read.
    """
    told = parts.key_values(catalog, path)[0].get(key.encode())
    if told is None:
        return {}
    with foreign.refusing(f"what {path} says of its {subject}", "delete it and run infer again", CorruptError):
        plain = json.loads(zlib.decompress(base64.b64decode(told)))
        return {str(unit): build(value) for unit, value in plain.items()}
