"""index.json: names of the files that a web server does not list, so that a catalog can be asked over HTTP.

Written when a run ends. While a run goes on, or after one was killed, rows may be in files that it does not name: a
reader over HTTP is then told so, one with a listing looks for them.
"""

from __future__ import annotations

from typing import Any

from astroml_plugin.catalog import runs
from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError

INDEX = "index.json"
FORMAT = 1
MANIFEST = "manifest"
_KEPT = ("run_id", "kind", "state", "source", "versions", "primary")
_REMEDY = "run `astroml-plugin compact CATALOG` where the catalog is stored"


def made(url: str) -> dict[str, Any]:
    """The index of a catalog, from what is there."""
    records = [{key: record[key] for key in _KEPT if key in record} for record in runs.read_all(url)]
    names = storage.list_files(storage.join(url, MANIFEST), ".parquet")
    return {"format": FORMAT, "manifests": names, "runs": records}


def write(url: str) -> None:
    """Write the index; again where another run has ended meanwhile."""
    for _ in range(5):
        value = made(url)
        storage.write_json(storage.join(url, INDEX), value)
        if made(url) == value:
            return


def read(url: str) -> dict[str, Any]:
    """The index of a catalog on a web server.

    Raises:
        InputError: there is none, or it may not name all files.
        CorruptError: it cannot be read.
    """
    place = storage.redact(url)
    try:
        value = storage.read_json(storage.join(url, INDEX))
        latest = runs.checked(storage.read_json(storage.join(url, "run.json")))
        names = {record["run_id"] for record in value["runs"]}
        running = [latest, *value["runs"]]
        manifests = list(map(str, value["manifests"]))
    except FileNotFoundError as error:
        raise InputError(
            f"{place} has no {INDEX} or run.json, which name the files that a web server does not list: {_REMEDY}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{INDEX} or run.json of {place} is damaged: {_REMEDY}") from error
    if any(record.get("state") == "running" for record in running):
        raise InputError(
            f"a run on {place} goes on or was killed, and over HTTP its rows cannot be told: wait for its end, or "
            f"{_REMEDY}"
        )
    if latest["run_id"] not in names:
        raise InputError(f"{INDEX} of {place} is older than its last run: copy it anew, or {_REMEDY}")
    return {**value, "manifests": manifests}
