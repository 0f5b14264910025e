"""Where the rows of an answer come from, as plain values that go into every file that can hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astroml_plugin.catalog import runs
from astroml_plugin.catalog.store import Catalog
from astroml_plugin.core import storage
from astroml_plugin.core.flags import FLAG_MEANINGS, OBJECT_FLAGS
from astroml_plugin.core.version import DISTRIBUTION, version


def provenance(catalog: Catalog, records: Sequence[Mapping[str, Any]] | None = None, **asked: Any) -> dict[str, Any]:
    """Origin of rows that were read from a catalog.

    Args:
        catalog: the catalog.
        records: its run records, where they are read already.
        asked: what was asked for: `sql`, `cone`, `made_by`, …; None is left out.

    Returns:
        creator (package and version), date (UTC), catalog, source, source_id, runs (run ids), run_versions, bundles
        (name: SHA-256), flags (name: bit and meaning), then `asked`.
    """
    records = catalog.runs() if records is None else records
    records = [record for record in records if record.get("kind", "infer") == "infer"]
    identity = catalog.identity
    bundles = identity.get("bundles")
    sources = list(dict.fromkeys(str(record["source"]) for record in records if record.get("source")))
    versions = list(dict.fromkeys(str(_code(record)) for record in records if _code(record)))
    told = {
        "creator": f"{DISTRIBUTION} {version()}",
        "date": runs.now().partition(".")[0],
        "catalog": storage.redact(catalog.url),
        "source": ", ".join(storage.redact(source) for source in sources) or None,
        "source_id": identity.get("source"),
        "runs": [str(record["run_id"]) for record in records],
        "run_versions": versions,
        "bundles": {str(k): str(v) for k, v in bundles.items()} if isinstance(bundles, Mapping) else {},
        "flags": {name: {"bit": bit, "meaning": FLAG_MEANINGS[name]} for name, bit in OBJECT_FLAGS.items()},
        **asked,
    }
    return {key: value for key, value in told.items() if value is not None}


def _code(record: Mapping[str, Any]) -> str | None:
    versions = record.get("versions")
    return versions.get(DISTRIBUTION) if isinstance(versions, Mapping) else None
