"""Run records: one JSON per run, and whether a run that says "running" still is."""

from __future__ import annotations

import os
import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from astroml_plugin.core import storage

Record = dict[str, Any]

RUNS = "runs"

_READERS = 16
"""Records read at once."""


def now() -> str:
    """UTC as ISO 8601 text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def start(url: str, record: Record) -> str:
    """Write a new record in state "running"; its id sorts by time."""
    run_id = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ") + "-" + secrets.token_hex(3)
    place = {"host": socket.gethostname(), "pid": os.getpid()}
    write(url, {"run_id": run_id, "state": "running", "started": now(), "finished": None, **place, **record})
    return run_id


def write(url: str, record: Record) -> None:
    """Write one record, and run.json when no later run has begun."""
    storage.write_json(storage.join(url, RUNS, record["run_id"] + ".json"), record)
    latest = storage.join(url, "run.json")
    if _latest_id(latest) <= record["run_id"]:
        storage.write_json(latest, record)


def _latest_id(url: str) -> str:
    """Id of the run that run.json is of; empty where there is none that can be read."""
    try:
        return str(checked(storage.read_json(url))["run_id"])
    except (FileNotFoundError, ValueError):
        return ""


def checked(record: Any) -> Record:
    """A run record; ValueError where it is none."""
    if not isinstance(record, dict) or not {"run_id", "state"} <= set(record):
        raise ValueError("it is no run record")
    kinds = {"run_id": str, "state": str, "host": str, "pid": int, "manifest": str, "absorbed": list}
    wrong = [name for name, kind in kinds.items() if not isinstance(record.get(name, kind()), kind)]
    if wrong or not all(isinstance(name, str) for name in record.get("absorbed", ())):
        raise ValueError(f"it is no run record: {', '.join(wrong) or 'absorbed'} is something else")
    return record


def read(url: str, run_id: str) -> Record:
    """One record."""
    try:
        return checked(storage.read_json(storage.join(url, RUNS, run_id + ".json")))
    except ValueError:  # damaged while the run goes on: the end of the run writes it anew
        return {"run_id": run_id, "state": "running", "started": now()}


def read_all(url: str) -> list[Record]:
    """All records that can be read, oldest first: they tell how rows came to be, and no row rests on them."""
    names = storage.list_files(storage.join(url, RUNS), ".json")
    with ThreadPoolExecutor(_READERS) as pool:  # on an object store each one is a request
        found = pool.map(lambda name: _read_one(storage.join(url, RUNS, name)), names)
        return [record for record in found if record is not None]


def _read_one(url: str) -> Record | None:
    try:
        return checked(storage.read_json(url))
    except ValueError:
        return None


def count(url: str) -> int:
    """Number of records, those that cannot be read included."""
    return len(storage.list_files(storage.join(url, RUNS), ".json"))


def is_over(record: Record, by: Record) -> bool:
    """Whether a record that says "running" belongs to a run that cannot be going on, seen from the run `by`.

    A run of the same kind and shard takes over what an earlier one left; a process of this host that is gone has ended.
    """
    if record["state"] != "running" or record["run_id"] >= by["run_id"]:
        return False
    same_work = record.get("kind") == by.get("kind") and record.get("shard") == by.get("shard")
    return same_work or not may_be_alive(record)


def may_be_alive(record: Record) -> bool:
    """False only when the record's process was on this host and is gone."""
    if record.get("host") != socket.gethostname() or "pid" not in record:
        return True
    try:
        os.kill(int(record["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
