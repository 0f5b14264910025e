"""Small files of strangers: recipes, files for --config, scores, records of catalogs, studies and stores."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import strategies as st

from astroml_plugin.catalog import Catalog, compact
from astroml_plugin.catalog.checking import verify
from astroml_plugin.core.errors import InputError
from astroml_plugin.labelling.scorefile import ScoreFile
from astroml_plugin.search.session import search_settings, search_space
from astroml_plugin.search.study import Study
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from tests import universe
from tests.catalogs import small_catalog
from tests.fuzz.drawing import NUMBERS, RAW, changed, changes, json_bytes, json_changed, json_changes
from workflows import cli
from workflows.query import query
from workflows.recipe import read_recipe, search_table, shipped
from workflows.verbs import arguments
from workflows.verbs.config_file import config_file

TOML = (
    *(
        "-1",
        "0",
        "3",
        "1e308",
        "nan",
        "inf",
        '"x"',
        '""',
        "[]",
        '[1,"a"]',
        "{}",
        "true",
        "99999999999999999999",
        "1979-05-27",
    ),
    *(
        "[[1]]",
        '"\\u0000"',
        '["../x"]',
        "1000000000",
        "07:32:00",
        "[0.5, 0.5]",
        "{a = 1}",
        '"""a\nb"""',
        "0x10",
        "[1, 2, 3]",
    ),
    *(
        '"' + "a" * 3000 + '"',
        "[" * 500,
        "= =",
        "1.5",
        '["r", "r"]',
        "{log_uniform = [1, 0]}",
        '{choice = [1, "a", [2]]}',
    ),
)
_LINES = (
    "x = 1",
    "[a]",
    "[[settings]]",
    'task = "os.system"',
    'network = "os:system"',
    '"" = 1',
    "[training.training]",
    "a.b.c = 2",
    "settings = 5",
    "[search]",
    'search = "x"',
    "[search.space]",
    "objectives = 3",
    "\x00",
    "[settings",
)


def toml_changed(text: str, edits: list[tuple[int, int, int]]) -> str:
    """TOML in which values are replaced and lines are added or doubled."""
    lines = text.split("\n")
    for what, where, number in edits:
        at = where % len(lines)
        if what < 4 and "=" in lines[at]:
            lines[at] = f"{lines[at].lstrip('# ').split('=')[0]}= {TOML[number % len(TOML)]}"
        elif what == 4:
            lines.insert(at, _LINES[number % len(_LINES)])
        elif what == 5:
            lines.insert(at, lines[number % len(lines)])
    return "\n".join(lines)


_toml_edits = st.lists(st.tuples(st.integers(0, 5), NUMBERS, NUMBERS), min_size=1, max_size=4)


class Recipes:
    """Recipes of training and search."""

    name = "recipes"
    strategy = st.tuples(NUMBERS, _toml_edits, st.none() | st.none() | changes(2))

    def __init__(self, folder: Path) -> None:
        self.file = folder / "recipe.toml"
        self.texts = [(Path(cli.__file__).parent / "recipes" / f"{name}.toml").read_text() for name in shipped()]

    def run(self, case: Any) -> None:
        """Read one, as `train` and `search` do before they look at data."""
        which, edits, byte_edits = case
        data = toml_changed(self.texts[which % len(self.texts)], edits).encode()
        self.file.write_bytes(data if byte_edits is None else changed(data, byte_edits))
        recipe, table = read_recipe(str(self.file)), search_table(str(self.file))
        task = recipe.build_task()
        if "space" in table:
            search_space(table, None)
            search_settings(table, {})
        numbers = re.findall(r"\d+", json.dumps(recipe.network_arguments, default=str))
        if all(len(number) < 4 for number in numbers):  # as large as it says: the recipe is one's own
            with torch.device("meta"):
                try:
                    task.build_network(recipe.network, recipe.network_arguments)
                except (RuntimeError, NotImplementedError) as error:
                    if "meta" not in str(error):
                        raise


class ConfigFiles:
    """Files for --config of every verb."""

    name = "files for --config"
    strategy = st.tuples(st.sampled_from(sorted(cli.VERBS)), _toml_edits, st.none() | st.none() | changes(2))

    def __init__(self, folder: Path) -> None:
        self.file = folder / "config.toml"
        self.catalog = small_catalog(folder / "config_catalog", 2, 5)[0].url

    def run(self, case: Any) -> None:
        """Read one; `query` runs too."""
        verb, edits, byte_edits = case
        data = toml_changed(config_file(verb, cli.VERBS[verb].parameters()), edits).encode()
        self.file.write_bytes(data if byte_edits is None else changed(data, byte_edits))
        try:
            options = cli._parsed(cli._parser(), [verb, "--config", str(self.file)])
            options.refuse = _refused
            found = arguments.settings(options)
        except SystemExit as error:
            raise InputError(f"refused with {error.code} while the command line was read") from None
        except argparse.ArgumentError as error:
            raise InputError(str(error)) from None
        if verb == "query" and not {"to", "memory"} & set(found):
            query(**{**found, "catalog": self.catalog})


def _refused(sentence: str) -> None:
    raise InputError(sentence)


_EVENTS = (
    '{"object_id":1,"score":Infinity,"who":"a"}',
    '{"object_id":Infinity,"score":1,"who":"a"}',
    '{"object_id":1e300,"score":1,"who":"a"}',
    '{"object_id":99999999999999999999,"score":1,"who":"a"}',
    '{"object_id":1,"score":1,"who":"a","note":"\\ud800"}',
    "[]",
    "null",
    "1",
    '{"object_id":1}',
    "[" * 100_000,
    '{"object_id":1,"score":"3","who":null}',
    '{"object_id":1,"undo":true,"who":"zz"}',
    "9" * 5000,
    '{"object_id":1,"score":3,"who":"a","time":5}',
    '{"object_id":1,"score":NaN,"who":"a"}',
    "\x00" * 50,
    '{"object_id":"1","score":true,"who":"a"}',
    '{"object_id":1,"score":[1],"who":"a"}',
    '{"a":' * 50_000,
    '{"object_id":1,"score":1e400,"who":"a"}',
    '{"object_id":1,"score":1,"who":["a"]}',
    '{"object_id":1,"score":3.0,"who":"b"}',
    '{"object_id":1,"score":1,"who":"\\udfff"}',
    '{"object_id":1,"score":1,"who":"a","time":"\\ud800"}',
)


class Scores:
    """Files of scores, into which others wrote."""

    name = "files of scores"
    strategy = st.tuples(
        st.sampled_from(("bytes", "line", "line", "event", "header", "raw", "torn")),
        NUMBERS,
        st.sampled_from(_EVENTS),
        json_changes(2),
        changes(),
        st.sampled_from(RAW),
    )

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scores.jsonl"
        made = ScoreFile(self.file, "id", "ana")
        for number in range(6):
            made.add(number, number % 6, "n")
        made.undo()
        self.data = self.file.read_bytes()

    def run(self, case: Any) -> None:
        """Read one, score, take back, read again."""
        what, where, event, edits, byte_edits, raw = case
        lines = self.data.split(b"\n")
        if what == "bytes":
            data = changed(self.data, byte_edits)
        elif what == "raw":
            data = raw
        elif what == "torn":
            data = self.data[: where % len(self.data)]
        elif what == "header":
            data = b"\n".join([json_bytes(json_changed(json.loads(lines[0]), edits)), *lines[1:]])
        else:
            line = event.encode() if what == "line" else json_bytes(json_changed(json.loads(lines[1]), edits))
            at = 1 + where % (len(lines) - 1)
            data = b"\n".join([*lines[:at], line, *lines[at:]])
        self.file.write_bytes(data)
        self.read()

    def read(self) -> None:
        """What a page does with the file."""
        scores = ScoreFile(self.file, "id", "ana")
        scores.table()
        scores.add(77, 3, "kept")
        again = ScoreFile(self.file, "id", "ana")
        assert again.mine()[77].score == 3, "a confirmed score is lost"
        assert again.table().num_rows == len(again)
        assert again.undo() == 77
        assert 77 not in ScoreFile(self.file, "id", "ana").mine()


_TABLES: tuple[Callable[[], pa.Table], ...] = (
    lambda: pa.table({}),
    lambda: pa.table({"a": [1]}),
    lambda: pa.table({"unit": [1], "path": [2.0]}),
    lambda: pa.table({"unit": ["x"], "path": ["../../etc/passwd"], "rows": [1]}),
)


class _Files:
    """A folder with one foreign file in it."""

    origin: Path
    place: Path

    def __init__(self, folder: Path) -> None:
        self.origin, self.place = folder / f"{type(self).__name__}", folder / f"{type(self).__name__}_damaged"
        self.make()
        self.files = sorted(path for path in self.origin.rglob("*") if path.is_file() and path.name != ".lock")

    def make(self) -> None:
        """Make the whole folder."""

    def read(self) -> None:
        """Read the damaged one."""

    def run(self, case: Any) -> None:
        """Damage a copy, then read it."""
        which, what, edits, byte_edits, raw, number = case
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.origin, self.place)
        file = self.place / self.files[which % len(self.files)].relative_to(self.origin)
        data = file.read_bytes()
        if what == "value" and file.suffix == ".json":
            data = json_bytes(json_changed(json.loads(data), edits))
        elif what == "value" and file.suffix == ".jsonl":
            data = b"\n".join(json_bytes(json_changed(json.loads(line), edits)) for line in data.splitlines()) + b"\n"
        elif what == "value" and file.suffix == ".parquet":
            table = _TABLES[number % len(_TABLES)]() if number % 2 else _retyped(pq.read_table(file), number)
            pq.write_table(table, file)
            data = file.read_bytes()
        elif what == "raw":
            data = raw
        else:
            data = changed(data, byte_edits)
        file.write_bytes(data)
        self.read()


def _retyped(table: pa.Table, number: int) -> pa.Table:
    """A table with one column of another type, renamed, or without it."""
    at = (number >> 4) % table.num_columns
    name, rows = table.column_names[at], table.num_rows
    how = (number >> 1) % 5
    if how == 0:
        return table.drop_columns([name])
    if how == 1:
        return table.rename_columns([*table.column_names[:at], "other", *table.column_names[at + 1 :]])
    foreign = (pa.array(["x"] * rows), pa.nulls(rows), pa.array([[1]] * rows))[how - 2]
    return table.set_column(at, name, foreign)


_files_strategy = st.tuples(
    NUMBERS,
    st.sampled_from(("value", "value", "value", "bytes", "raw")),
    json_changes(2),
    changes(),
    st.sampled_from(RAW),
    NUMBERS,
)


class Catalogs(_Files):
    """A file of a catalog: schema, run records, manifest, failures, parts."""

    name = "run records, manifests, parts"
    strategy = _files_strategy

    def make(self) -> None:
        """A finished run, and a part that a killed one wrote."""
        catalog, _ = small_catalog(self.origin, 3, 5)
        failures = pa.Table.from_pylist(
            [{"unit": "im_9", "reason": "x", "attempts": 1, "time": "t"}], catalog.failures().schema
        )
        catalog.write_failures(failures, catalog.runs()[0]["run_id"])
        catalog.write_unplaced(catalog.unplaced())

    def read(self) -> None:
        """Ask, start a run, merge, verify, repair, ask again. Each may be refused, with one sentence."""
        url = str(self.place)
        steps: list[Callable[[], Any]] = [
            lambda: query(url),
            lambda: query(url, "SELECT * FROM failures"),
            lambda: query(url, "SELECT * FROM unplaced"),
            lambda: Catalog.open(url).finish_run(Catalog.open(url).start_run({"kind": "infer"})),
            lambda: compact(Catalog.open(url)),
            lambda: verify(url),
            lambda: verify(url, repair=True),
            lambda: query(url),
        ]
        refused: InputError | None = None
        for step in steps:
            try:
                step()
            except Exception as error:
                if getattr(error, "exit_code", 1) != 2:
                    raise
                refused = error  # type: ignore[assignment]
        if refused is not None:
            raise refused


class Studies(_Files):
    """A file of a study of `search`."""

    name = "files of studies"
    strategy = _files_strategy
    record: dict[str, Any] = {  # noqa: RUF012
        "identity": "i",
        "space": {"training.learning_rate": {"log_uniform": [1e-4, 1e-2]}},
        "objectives": ["validation_loss:min"],
    }

    def make(self) -> None:
        """Two trials, one ended."""
        study = Study.opened(str(self.origin), self.record)
        for number in (0, 1):
            study.propose(number, {"training.learning_rate": 0.001})
            log = {"epoch": 1, "validation_loss": 0.5, "seconds": 1.0, "cpu_seconds": 1.0}
            (self.origin / "trials" / f"{number:05d}" / "log.jsonl").write_text(json.dumps(log) + "\n")
        study.end(0, "finished", node="n", setup_seconds=1.0)
        study.write_exchange(0, {"generation": 0, "moves": []})
        study.pulse(3.0)

    def read(self) -> None:
        """All that a search reads before it goes on."""
        study = Study.opened(str(self.place), self.record)
        trials = study.trials()
        study.table(trials)
        study.winner(trials)
        study.exchanges()
        assert study.spent >= 0


class Stores(_Files):
    """A file of a survey or of stamps: metadata, tables, records of what was ingested, shards."""

    name = "files of surveys and stamps"
    strategy = _files_strategy

    def make(self) -> None:
        """One of each."""
        universe.make_survey(str(self.origin / "survey.zarr"), shape=(60, 60), tile_size=48, halo=8)
        universe.make_stamps(str(self.origin / "stamps.zarr"), count=6, block=4, size=8)

    def read(self) -> None:
        """All units of both."""
        survey = Survey.open(str(self.place / "survey.zarr"))
        for tile in survey.iter_tiles():
            survey.read_tile(tile)
            tile.wcs()
        survey.index_table()
        stamps = Stamps.open(str(self.place / "stamps.zarr"))
        for unit in stamps.units():
            stamps.read_block(unit.index)
            stamps.read_objects(unit.index)


KINDS = {
    "recipes": Recipes,
    "config": ConfigFiles,
    "scores": Scores,
    "catalogs": Catalogs,
    "studies": Studies,
    "stores": Stores,
}
