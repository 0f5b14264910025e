"""Run records: one JSON per run, and whether a run that says "running" still is."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import UTC, datetime
from typing import Any

from astroml_plugin.core import storage

Record = dict[str, Any]

RUNS = "runs"


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
    if not storage.exists(latest) or storage.read_json(latest)["run_id"] <= record["run_id"]:
        storage.write_json(latest, record)


def read(url: str, run_id: str) -> Record:
    """One record."""
    record: Record = storage.read_json(storage.join(url, RUNS, run_id + ".json"))
    return record


def read_all(url: str) -> list[Record]:
    """All records, oldest first."""
    return [
        storage.read_json(storage.join(url, RUNS, name))
        for name in storage.list_files(storage.join(url, RUNS), ".json")
    ]


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
    if record.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(record["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
