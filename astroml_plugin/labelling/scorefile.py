"""Scores that people give, in one append-only file of JSON lines beside a catalog.

The first line says which catalog the file belongs to, every other line is one event. Lines are appended whole, under a
lock and flushed to the disk, so that any number of processes can write at once and a killed one loses nothing that it
had confirmed; a line that a crash cut short is skipped, and the next writer begins a new one. Nothing is ever
rewritten: undoing is an event too.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from astroml_plugin.catalog import Catalog
from astroml_plugin.core import formats, storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.private import user_name

FORMAT = 1
LOWEST, HIGHEST = 0, 5
"""Whole numbers, 0 of no interest, 5 most interesting, as in Astronomaly (Lochner & Bassett 2021, A&C 36, 100481)."""

LONGEST_NOTE = 2000
_LONGEST_NAME = 100

_FIRST = f'{{"kind": "{formats.SCORES}", "format": '
"""First characters of every file."""

SCHEMA = pa.schema(
    [
        ("object_id", pa.int64()),
        ("score", pa.float64()),
        ("people", pa.int32()),
        ("notes", pa.large_string()),
        ("time", pa.large_string()),
    ]
)
"""`ScoreFile.table`: one row per scored object, `score` the mean over people, `time` of the last one."""


@dataclass(frozen=True)
class Score:
    """Score that one person gave one object."""

    object_id: int
    score: int
    """0 to 5."""
    who: str
    """The person."""
    note: str = ""
    time: str = ""
    """UTC, ISO 8601."""


class ScoreFile:
    """The scores of one catalog. Safe in threads; several processes may have the same file open.

    Args:
        path: the file; it is made with the first score.
        identity: what the catalog was made from: a file of another catalog is refused.
        who: the person who scores here.

    Raises:
        InputError: the file belongs to another catalog or is none of this kind.
    """

    def __init__(self, path: Path, identity: str, who: str | None = None, *, catalog: str = "") -> None:
        self.path, self.identity, self.catalog = path, identity, catalog
        self.who = _name(who or user_name())
        self._history: dict[tuple[int, str], list[Score]] = {}
        self._order: list[int] = []
        self._offset = 0
        self._lock = threading.RLock()
        self.headless = False
        """Whether no line tells which catalog the scores are of: a crash or an editor took the first line."""
        self.skipped = 0
        """Lines that are no events: torn by a crash, or written by someone else."""
        self.refresh()

    @classmethod
    def beside(cls, catalog: Catalog, path: Place | None = None, who: str | None = None) -> ScoreFile:
        """The file of a catalog: `path`, or <catalog>.scores.jsonl (here, for a catalog on an object store).

        Raises:
            InputError: see the class; `path` is a URL: appending needs a file system.
        """
        if path is not None and not storage.is_local(path):
            raise InputError(f"scores are appended to a local file, {storage.redact(path)} is none: give a path")
        if path is None:
            place = storage.local_path(catalog.url) if storage.is_local(catalog.url) else Path(catalog.url)
            folder = place.parent if storage.is_local(catalog.url) else Path.cwd()
            chosen = folder / f"{place.name}.scores.jsonl"
        else:
            chosen = storage.local_path(storage.absolute(path))
        identity = storage.digest(catalog.identity)
        return cls(chosen, identity, who, catalog=storage.redact(catalog.url))

    # Writing

    def add(self, object_id: int, score: int, note: str = "") -> Score:
        """Score an object; the last score of a person counts. It is on the disk when this returns.

        Raises:
            InputError: no whole number from 0 to 5, a note of more than 2000 characters.
        """
        if not _is_score(score):
            raise InputError(f"a score is a whole number from {LOWEST} to {HIGHEST}, not {score}")
        if len(note) > LONGEST_NOTE:
            raise InputError(f"the note has {len(note)} characters, {LONGEST_NOTE} at most")
        if not _is_text(note):
            raise InputError("the note holds half a character (a lone surrogate): type it again")
        given = Score(_identity(object_id), int(score), self.who, note, _now())
        event = {"object_id": given.object_id, "score": given.score, "who": given.who, "time": given.time}
        self._append({**event, "note": note} if note else event)
        return given

    def undo(self, object_id: int | None = None) -> int | None:
        """Take back this person's last score, or the last one of an object: the one before counts again.

        Returns:
            The object, None where there was nothing to take back.
        """
        with self._lock:
            self.refresh()
            if object_id is None:
                object_id = self._order[-1] if self._order else None
            if object_id is None or not self._history.get((int(object_id), self.who)):
                return None
            self._append({"object_id": int(object_id), "undo": True, "who": self.who, "time": _now()})
            return int(object_id)

    def _append(self, event: dict[str, Any]) -> None:
        with self._lock:
            with _appending(self.path) as file:
                self.refresh()  # a file that another catalog's page has made meanwhile is refused here
                if self._offset == 0 and file.seek(0, os.SEEK_END):
                    self._begin_anew(file)
                size = file.seek(0, os.SEEK_END)
                lines = [self._header()] if not size or self.headless else []
                torn = size and not _ends_well(file)
                lines.append(json.dumps(event, ensure_ascii=False))
                data = ("\n" if torn else "") + "\n".join(lines) + "\n"
                file.write(data.encode())
                file.flush()
                os.fsync(file.fileno())
            self.headless = False
            self.refresh()

    def _begin_anew(self, file: Any) -> None:
        """Empty a file that holds nothing but the beginning of a first line: a crash came with the first score.

        Raises:
            InputError: its one line is no such beginning.
        """
        file.seek(0)
        held, first = file.read().rstrip(b"\0"), _FIRST.encode()
        if not held.startswith(first[: len(held)]):
            raise InputError(f"{self.path} is no file of scores: give another --scores FILE")
        file.truncate(0)

    def _header(self) -> str:
        about = {"kind": formats.SCORES, "format": FORMAT, "identity": self.identity, "catalog": self.catalog}
        return json.dumps({**about, "scale": [LOWEST, HIGHEST], "made": _now()})

    # Reading

    def refresh(self) -> int:
        """Read what other processes have added; returns the number of new events."""
        with self._lock:
            try:
                with self.path.open("rb") as file:
                    if file.seek(0, os.SEEK_END) < self._offset:  # someone has begun it anew
                        self._history, self._order, self._offset = {}, [], 0
                    file.seek(self._offset)
                    data = file.read()
            except FileNotFoundError:
                return 0
            except IsADirectoryError as error:
                raise InputError(f"{self.path} is a folder: scores go to a file") from error
            events = 0
            lines = data.split(b"\n")[:-1]  # what follows the last line end is still being written, or torn
            if self._offset == 0 and lines:
                self._check_header(lines)
            for line in lines:
                events += self._apply(line)
                self._offset += len(line) + 1
            return events

    def _check_header(self, lines: list[bytes]) -> None:
        """Check the header, which is the first line; where that was lost, one may have been written behind scores."""
        about: dict[str, Any] = next(filter(_is_header, map(_parsed, lines)), {})
        self.headless = not about and any(_is_event(_parsed(line)) for line in lines)
        if self.headless:
            return
        if not about:
            raise InputError(f"{self.path} is no file of scores: give another --scores FILE")
        if about["format"] > FORMAT:
            raise InputError(
                f"{self.path} has format {about['format']} of scores, this package knows {FORMAT}: update it"
            )
        if about.get("identity") != self.identity:
            raise InputError(
                f"{self.path} holds scores of another catalog ({about.get('catalog') or 'unnamed'}; source, bundles or "
                "settings differ): give another --scores FILE"
            )

    def _apply(self, line: bytes) -> int:
        """Take one event into account; a torn or foreign line counts as skipped."""
        event = _parsed(line)
        if not _is_event(event):
            self.skipped += bool(line.strip()) and not _is_header(event)
            return 0
        fields: list[Any] = [event.get(name) for name in ("object_id", "who", "score")]
        object_id, who, score = fields
        note, time, undone = event.get("note", ""), event.get("time", ""), event.get("undo") is True
        key = (int(object_id), who)
        if undone:
            self._take_back(key)
            return 1
        self._history.setdefault(key, []).append(Score(key[0], int(score), who, note, time))
        if who == self.who:
            self._order.append(key[0])
        return 1

    def _take_back(self, key: tuple[int, str]) -> None:
        if not self._history.get(key):
            return
        self._history[key].pop()
        if key[1] == self.who:
            last = len(self._order) - 1 - self._order[::-1].index(key[0])
            del self._order[last]

    def all(self) -> list[Score]:
        """The score that counts of every person and object, in no order."""
        with self._lock:
            return [given[-1] for given in self._history.values() if given]

    def mine(self) -> dict[int, Score]:
        """This person's scores by object."""
        return {score.object_id: score for score in self.all() if score.who == self.who}

    def table(self) -> pa.Table:
        """One row per scored object (SCHEMA), sorted by object_id; several people's scores are averaged."""
        by_object: dict[int, list[Score]] = {}
        for score in self.all():
            by_object.setdefault(score.object_id, []).append(score)
        rows = [
            {
                "object_id": identity,
                "score": sum(score.score for score in given) / len(given),
                "people": len(given),
                "notes": "; ".join(score.note for score in given if score.note),
                "time": max(score.time for score in given),
            }
            for identity, given in sorted(by_object.items())
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def __len__(self) -> int:
        return len({score.object_id for score in self.all()})


@contextmanager
def _appending(path: Path) -> Iterator[Any]:
    """The file, locked against other processes; what is written goes to its end, wherever that is by then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file  # closing it unlocks it


def _ends_well(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _parsed(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; empty where it holds none."""
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_header(about: dict[str, Any]) -> bool:
    """Whether the object of a line tells what a file of scores is of."""
    return about.get("kind") == formats.SCORES and isinstance(about.get("format"), int)


def _is_event(event: dict[str, Any]) -> bool:
    """Whether the object of a line gives a score, or takes one back."""
    texts = (event.get("who"), event.get("note", ""), event.get("time", ""))
    scored = event.get("undo") is True or _is_score(event.get("score"))
    return _is_id(event.get("object_id")) and all(map(_is_text, texts)) and scored


def _is_id(value: Any) -> bool:
    """Whether it is a 64-bit integer."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_score(value: Any) -> bool:
    """Whether it is a whole number within the scale."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value in range(LOWEST, HIGHEST + 1)


def _is_text(value: Any) -> bool:
    """Whether it is a text that can be stored: half a character cannot."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _identity(object_id: int) -> int:
    value = int(object_id)
    if not _is_id(value):
        raise InputError(f"object_id {str(value)[:40]} is no 64-bit integer")
    return value


def _name(who: str) -> str:
    name = " ".join(who.split())
    if not _is_text(name):
        raise InputError("the name of who scores holds half a character (a lone surrogate): type it again")
    if not name or len(name) > _LONGEST_NAME:
        raise InputError(
            f"the name of who scores must have 1 to {_LONGEST_NAME} characters, {name[:20]!r}… has {len(name)}"
        )
    return name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
