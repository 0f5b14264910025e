"""One process at a time adds units to a store: two that number them at once would write over each other."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError

_BEAT = 4.0
"""Seconds after which a writer shows again that it lives."""

_SILENT = 20.0
"""Seconds without a sign after which a writer is taken to be dead."""

_SETTLE = 0.5
"""Seconds after which a mark in an object store is looked at again: another one may have been put over it."""

_TRIES = 5


@contextlib.contextmanager
def only_writer(url: str) -> Iterator[None]:
    """Be the only writer of a store, as long as the context lasts.

    The mark is a file beside the store, which the writer changes every few seconds. Clocks need not agree. Of a writer
    of this machine that has died the mark is taken over at once, of another one after a while. Where no file can be put
    beside the store, nobody is kept away.

    Args:
        url: of the store, which need not be there yet.

    Raises:
        InputError: another process is writing it.
        AstromlError: at the end, where another process has taken it meanwhile, as this one stood still for too long.
    """
    place = f"{storage.absolute(url).rstrip('/')}.writer"
    mark: dict[str, Any] = {"id": uuid.uuid4().hex, "machine": _machine(), "process": os.getpid(), "who": _who()}
    new = (
        [folder for folder in storage.local_path(place).parents if not folder.exists()]
        if storage.is_local(place)
        else []
    )
    try:
        _take(place, mark, url)
    except (OSError, NotImplementedError):  # a folder that is closed to us, a store that takes no such file
        yield
        return
    over, lost = threading.Event(), threading.Event()
    beating = threading.Thread(target=_beat, args=(place, mark, over, lost), name="writer", daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        if (_read(place) or {}).get("id") == mark["id"]:
            with contextlib.suppress(OSError):
                storage.remove(place)
                for folder in new:  # where nothing was written
                    folder.rmdir()
    if lost.is_set():
        raise AstromlError(
            f"another process took {storage.redact(url)} while this one stood still: run `astroml-plugin verify` on it"
        )


def _take(place: str, mark: dict[str, Any], url: str) -> None:
    """Put the mark there."""
    for _ in range(_TRIES):
        if _put(place, mark):
            return
        seen = _read(place)
        if seen is None:
            continue
        if not _is_dead(seen) and _changes(place, seen):
            raise InputError(
                f"another process is writing {storage.redact(url)} ({seen.get('who', 'unknown')}): wait for its end, "
                f"or give another output. Several nodes share one output by --scheduler, an array of jobs cannot"
            )
        if _read(place) == seen:
            storage.remove(place)
    raise InputError(f"several processes want to write {storage.redact(url)} at once: start one")


def _put(place: str, mark: dict[str, Any]) -> bool:
    """Whether the mark is there and ours; a file system lets one of several be first, an object store the last."""
    if storage.is_local(place):
        path = storage.local_path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_name(f".{path.name}-{mark['id']}.tmp")
        try:
            whole.write_text(json.dumps(mark))
            os.link(whole, path)
        except FileExistsError:
            return False
        finally:
            whole.unlink(missing_ok=True)
        return True
    if storage.exists(place):
        return False
    storage.write_json(place, mark)
    time.sleep(_SETTLE)
    return bool((_read(place) or {}).get("id") == mark["id"])


def _beat(place: str, mark: dict[str, Any], over: threading.Event, lost: threading.Event) -> None:
    count = 0
    while not over.wait(_BEAT):
        count += 1
        try:
            if (_read(place) or {}).get("id") != mark["id"]:
                lost.set()
                return
            storage.write_json(place, {**mark, "beat": count})
        except OSError:  # the next one may come through
            continue


def _read(place: str) -> dict[str, Any] | None:
    """The mark that is there; one that nobody understands is a mark, too."""
    try:
        data = storage.read_bytes(place)
    except FileNotFoundError:
        return None
    with contextlib.suppress(ValueError):
        if isinstance(found := json.loads(data), dict):
            return found
    return {"who": "unknown", "bytes": data.hex()}


def _changes(place: str, seen: dict[str, Any]) -> bool:
    """Whether whoever put the mark there shows that it lives, before long."""
    end = time.monotonic() + _SILENT
    while time.monotonic() < end:
        time.sleep(min(_BEAT, _SILENT) / 4)
        if _read(place) != seen:
            return True
    return False


def _is_dead(seen: dict[str, Any]) -> bool:
    """Whether the mark is of a process of this machine that is no more."""
    if not _machine() or seen.get("machine") != _machine() or not isinstance(seen.get("process"), int):
        return False
    try:
        os.kill(seen["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _machine() -> str:
    """This machine since it was started, and its table of processes: containers have tables of their own."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _who() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    return f"{socket.gethostname()}, process {os.getpid()}{f', Slurm job {job}' if job else ''}"
