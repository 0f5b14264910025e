"""Enumerated crash points: python -m tests.crash_points COMMAND FOLDER POINTS prints the counts as one line of JSON.

The k-th operation on files of a command (creating, fsync, rename, delete, making and removing folders) is found by
running it once. Then it runs again for each point and is ended by SIGKILL just before, just after, or with half of a
temporary file written. The same command runs once more, and the result is compared with that of an undisturbed run.
Every run is a process of its own, forked from one that has only imported what is needed.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import itertools
import json
import os
import pickle
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from astropy.io import fits

from astroml_plugin.core.errors import CorruptError
from astroml_plugin.inference.options import ObjectTable
from astroml_plugin.labelling.scorefile import ScoreFile
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from astroml_plugin.training.bundle import ModelBundle
from tests import universe
from tests.training_samples import NETWORK, ellipticity_stamps
from workflows.compact import compact
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.query import query
from workflows.search import search
from workflows.train import train
from workflows.verify import verify

_OPERATIONS = ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "fsync")
_SHAPE = (220, 300)
_MARK = "ASTROML_CRASH_POINT"

RECIPE = (
    NETWORK
    + """\
[training]
epochs = 2
batch_size = 32
[split]
fractions = [0.6, 0.2, 0.2]
[search]
trials = 2
concurrent = 1
[search.space]
"training.learning_rate" = { log_uniform = [1e-4, 3e-2] }
"""
)


@dataclass(frozen=True)
class Command:
    """A command whose crash points are tried."""

    prepare: Callable[[Path], None]
    """Makes what the command reads, and the state `base` that it starts from, if any."""
    job: Callable[[Path, Path], Any]
    """The command: folder, output."""
    content: Callable[[Path], pa.Table]
    """What it gives, one row per thing that may be lost, doubled or changed; the first column names the thing."""
    view: Callable[[pa.Table, pa.Table, pa.Table | None], bool] = lambda seen, final, base: True
    """Whether what is seen after the kill, and before the command runs again, is right."""


def catalog(out: Path) -> pa.Table:
    """All rows of a catalog."""
    rows = query(str(out), "SELECT * FROM catalog").to_arrow()
    return rows.sort_by([(name, "ascending") for name in ("object_id", "image", "tile", "x")])


def _survey(folder: Path) -> None:
    universe.make_survey(str(folder / "survey.zarr"), shape=_SHAPE, tile_size=140, halo=32)
    universe.make_bundle(str(folder / "kind"))
    universe.make_objects(folder / "objects.parquet", 120, _SHAPE)
    objects = pq.read_table(folder / "objects.parquet")
    pq.write_table(objects.slice(0, 90), folder / "older.parquet")
    pq.write_table(objects.slice(90), folder / "newer.parquet")


def _infer(folder: Path, out: Path, objects: str = "objects", *, extend: bool = False) -> None:
    given = ObjectTable(table=str(folder / f"{objects}.parquet"), extend=extend)
    infer(str(folder / "survey.zarr"), bundle=str(folder / "kind"), out=str(out), threads=1, objects=given)


def _extend(folder: Path, out: Path) -> None:
    _infer(folder, out, "newer", extend=True)


def _after_older(folder: Path) -> None:
    _survey(folder)
    _infer(folder, folder / "base", "older")


def _after_merging(folder: Path) -> None:
    _after_older(folder)
    compact(str(folder / "base"))


def _finished(folder: Path) -> None:
    _survey(folder)
    _infer(folder, folder / "base")


def _damaged(folder: Path) -> None:
    """A catalog with damage of many kinds, all of which `verify --repair` mends."""
    _finished(folder)
    base = folder / "base"
    for name in ("run.json", "failures.parquet", "index.json", "objects/tables.json"):
        (base / name).write_bytes(b"{")
    next((base / "manifest").glob("*.parquet")).write_bytes(b"PAR1")
    (base / "schema.json").write_bytes((base / "schema.json").read_bytes()[:-9])
    (base / "parts/000/x-y.parquet").mkdir(parents=True)


def _repair(out: Path) -> None:
    result = verify(str(out), repair=True)
    if not result.is_whole or verify(str(out)).damages:
        raise AssertionError(result.damages)


def _rows_or_refused(out: Path) -> pa.Table:
    """All rows; none where schema.json is still damaged, which is refused."""
    try:
        return catalog(out)
    except CorruptError:
        return pa.table({})


def _nothing_twice(seen: pa.Table, final: pa.Table, base: pa.Table | None) -> bool:
    ids = set(seen["object_id"].to_pylist())
    kept = set() if base is None else set(base["object_id"].to_pylist())
    return len(ids) == len(seen) and kept <= ids <= set(final["object_id"].to_pylist())


def _image(folder: Path) -> None:
    pixels = universe.field(200, 260, 1)[0]
    fits.PrimaryHDU(pixels, fits.Header.fromstring(universe.header(200, 260), sep="\n")).writeto(folder / "i.fits")


def _tiles(out: Path) -> pa.Table:
    survey = Survey.open(str(out))
    tiles = [(tile, survey.read_tile(tile, verify=True)) for tile in survey.iter_tiles()]
    boxes = [[*vars(tile.outer).values(), *vars(tile.inner).values()] for tile, _ in tiles]
    sums = [float(np.nansum(pixels.image, dtype=np.float64)) for _, pixels in tiles]
    names, digests = [tile.name for tile, _ in tiles], [tile.checksum for tile, _ in tiles]
    return pa.table({"name": names, "box": boxes, "digest": digests, "sum": sums}).sort_by("name")


def _archive(folder: Path) -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(size=(40, 1, 16, 16)).astype("f4")
    np.savez(folder / "a.npz", images=images, variance=np.ones_like(images), object_id=np.arange(40) + 7)


def _stamps(out: Path) -> pa.Table:
    stamps = Stamps.open(str(out))
    ids = [stamps.read_objects(unit.index)["object_id"].to_pylist() for unit in stamps.units()]
    pixels = [stamps.read_block(unit.index)[0].sum((1, 2, 3), dtype=np.float64) for unit in stamps.units()]
    return pa.table({"object_id": list(itertools.chain(*ids)), "sum": np.concatenate(pixels)}).sort_by("object_id")


def _training(folder: Path) -> None:
    (folder / "r.toml").write_text(RECIPE)
    ellipticity_stamps(str(folder / "galaxies.zarr"), 120)


def _bundle(out: Path) -> pa.Table:
    card = ModelBundle.load(out).card
    return pa.table({"weights": [card.weights_sha256], "metrics": [json.dumps(card.metrics, sort_keys=True)]})


def _score(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    scores = ScoreFile(out / "s.jsonl", "id", "ana")
    for number in range(6):
        if number not in scores.mine():  # as a person goes on after the last score that the page confirmed
            scores.add(number, number % 6, f"note {number}")
    if 0 in scores.mine():
        scores.undo(0)
    scores.add(0, 5)


def _scores(out: Path) -> pa.Table:
    return ScoreFile(out / "s.jsonl", "id", "ana").table().drop_columns(["time"])


def _searched(out: Path) -> pa.Table:
    trials = pq.read_table(out / "trials.parquet")
    kept = trials.select([n for n in trials.column_names if n not in ("seconds", "cpu_seconds", "node")])
    weights = ModelBundle.load(out / "best").card.weights_sha256
    return kept.append_column("weights", pa.array([weights] * len(kept)))


COMMANDS: dict[str, Command] = {
    "infer": Command(_survey, _infer, catalog, _nothing_twice),
    "infer with another objects table": Command(_after_older, _extend, catalog, _nothing_twice),
    "infer after compact": Command(_after_merging, _extend, catalog, _nothing_twice),
    "compact": Command(
        _finished, lambda folder, out: compact(str(out)), catalog, lambda seen, final, base: seen.equals(final)
    ),
    "verify --repair": Command(
        _damaged,
        lambda folder, out: _repair(out),
        _rows_or_refused,
        lambda seen, final, base: not seen.num_columns or seen.equals(final),
    ),
    "ingest of an image": Command(
        _image,
        lambda folder, out: ingest(
            str(folder / "i.fits"), out=str(out), bands="r", tile_size=140, halo=16, client="local"
        ),
        _tiles,
    ),
    "ingest of an archive": Command(
        _archive, lambda folder, out: ingest(str(folder / "a.npz"), out=str(out), block=16), _stamps
    ),
    "train": Command(
        _training,
        lambda folder, out: train(str(folder / "r.toml"), data=str(folder / "galaxies.zarr"), out=str(out)),
        _bundle,
    ),
    "label": Command(lambda folder: None, _score, _scores),
    "search": Command(
        _training,
        lambda folder, out: search(str(folder / "r.toml"), data=str(folder / "galaxies.zarr"), out=str(out)),
        _searched,
    ),
}


def forked(work: Callable[[], Any], mark: str = "") -> tuple[int, Any]:
    """Run `work` in a process of its own; its exit status (negative: the signal) and what it returned."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.environ[_MARK] = mark
        status = 9
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                found = work()
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(found, pipe)
            status = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, pickle.loads(data) if status == 0 else None


class Hooks:
    """Counts the operations on files below a folder; ends the process at one of them.

    Args:
        folder: operations elsewhere do not count.
        at: number of the operation, from 1; 0 for none.
        phase: "before", "after", or "torn": half of a temporary file is there when it ends.
    """

    def __init__(self, folder: Path, at: int = 0, phase: str = "") -> None:
        self.folder, self.at, self.phase = str(folder), at, phase
        self.names: list[str] = []
        self._lock = threading.RLock()

    def __enter__(self) -> Hooks:
        for name in _OPERATIONS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        self._open = builtins.open
        builtins.open = io.open = self._opened  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        """The process ends after it."""

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            place = self._place(arguments[0])
            if self.folder not in place:
                return function(*arguments, **keywords)
            return self._operation(name, place, lambda: function(*arguments, **keywords), arguments[0])

        return call

    def _opened(self, file: Any, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        work = lambda: self._open(file, mode, *arguments, **keywords)  # noqa: E731
        if not set("wxa") & set(mode) or isinstance(file, int) or self.folder not in str(file):
            return work()
        return self._operation("create", str(file), work, None)

    def _place(self, where: Any) -> str:
        if not isinstance(where, int):
            return os.fsdecode(where)
        try:
            return os.readlink(f"/proc/self/fd/{where}")
        except OSError:
            return ""

    def _operation(self, name: str, place: str, work: Callable[[], Any], handle: Any) -> Any:
        with self._lock:
            self.names.append("torn" if name == "fsync" and place.endswith(".tmp") else name)
            mine = len(self.names) == self.at
            if mine and self.phase == "torn":
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
            if mine and self.phase in ("before", "torn"):
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return work()
            finally:  # also where it fails, as making a folder does that is there
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)


def points(names: list[str], most: int) -> list[tuple[int, str]]:
    """Points of a run with these operations: all, or so many of them, evenly spread."""
    every: list[tuple[int, str]] = []
    for number, name in enumerate(names, 1):
        every += [(number, phase) for phase in ("before", "after", *(["torn"] if name == "torn" else []))]
    step = max(1.0, len(every) / most)
    return [every[int(i * step)] for i in range(min(most, len(every)))]


def tried(name: str, folder: Path, most: int) -> dict[str, int]:
    """Try the crash points of a command; counts."""
    command = COMMANDS[name]
    folder.mkdir(parents=True)
    assert forked(lambda: command.prepare(folder))[0] == 0
    base, out = folder / "base", folder / "out"

    def fresh() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if base.exists():
            shutil.copytree(base, out)

    def counted() -> list[str]:
        with Hooks(out) as hooks:
            command.job(folder, out)
        return hooks.names

    fresh()
    status, names = forked(counted)
    assert status == 0, "the undisturbed run failed"
    final = forked(lambda: command.content(out))[1]
    before = forked(lambda: command.content(base))[1] if base.exists() else None
    counts = dict.fromkeys(("points", "killed", "lost", "doubled", "changed", "bad"), 0)
    counts["operations"] = len(names)
    for at, phase in points(names, most):
        fresh()
        mark = uuid.uuid4().hex

        def disturbed(at: int = at, phase: str = phase) -> None:
            with Hooks(out, at, phase):
                command.job(folder, out)

        status, _ = forked(disturbed, mark)
        _end(mark)
        counts["points"] += 1
        counts["killed"] += status == -signal.SIGKILL
        if (out / "schema.json").exists():
            status, seen = forked(lambda: command.content(out))
            wrong = status != 0 or not command.view(seen, final, before)
            counts["changed"] += wrong
            if wrong:
                _say(f"{name}: seen after {phase} {names[at - 1]} {at} is wrong")
        status, _ = forked(lambda: command.job(folder, out), mark)
        _end(mark)
        status_of_content, found = forked(lambda: command.content(out))
        if status or status_of_content:
            counts["bad"] += 1
            _say(f"{name}: {phase} {names[at - 1]} {at}: ended with {status}")
            continue
        _compare(counts, found, final, f"{name}: {phase} {names[at - 1]} {at}")
    return counts


def _compare(counts: dict[str, int], found: pa.Table, final: pa.Table, where: str) -> None:
    """Add what was lost, doubled or changed."""
    key = final.column_names[0]
    ids, wanted = found[key].to_pylist(), final[key].to_pylist()
    counts["lost"] += len(set(wanted) - set(ids))
    counts["doubled"] += len(ids) - len(set(ids))
    if not found.equals(final):
        counts["changed"] += 1
        _say(f"{where}: the result differs")


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")


def _end(mark: str) -> None:
    """End processes that a killed command has left behind, as those of Ray."""
    for process in _marked(mark):
        with contextlib.suppress(psutil.Error):
            process.kill()


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(_MARK) == mark:
                yield process


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(tried(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))) + "\n")
