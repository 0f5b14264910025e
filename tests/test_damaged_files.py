"""Files that we write and read again, each damaged in every way: made again, or one sentence; never a wrong answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from astroml_plugin.catalog.objects import ObjectBuckets
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, DamagedError
from astroml_plugin.search.study import Study
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from astroml_plugin.training import checkpoint
from astroml_plugin.training.bundle import ModelBundle
from tests import universe
from tests.training_samples import class_stamps
from workflows.ingest import ingest

torch.set_num_threads(1)

JSON = [b"", b"\0" * 64, b"{", b"[]", b"{}", b"null", b"1", b'"x"', b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 50_000]


def ways(data: bytes) -> list[bytes]:
    """The content of a file after accidents."""
    half = len(data) // 2
    flipped = [data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :] for place in range(5, len(data), 97)]
    return [data[:half], data[:-1], bytes(len(data)), data[:half] + bytes(len(data) - half), *flipped[:40], *JSON]


def one_sentence(error: AstromlError, says: str = "") -> None:
    assert says in str(error)
    assert error.exit_code == 2
    assert "\n" not in str(error)
    assert len(str(error)) < 600


@pytest.mark.parametrize("content", JSON)
def test_json_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DamagedError, match=r"x\.json is damaged") as caught:
        storage.read_record(str(tmp_path / "x.json"), number=int)
    one_sentence(caught.value)


def test_tables_are_read_exactly_or_refused(tmp_path: Path) -> None:
    table = pa.table({"object_id": pa.array(range(2000), pa.int64()), "x": [i**0.5 for i in range(2000)]})
    path = tmp_path / "x.parquet"
    storage.write_table(str(path), table)
    whole, caught = path.read_bytes(), 0
    for content in ways(whole):
        path.write_bytes(content)
        try:
            found = storage.read_table(str(path), columns=["object_id", "x"])
            assert found.equals(table)
        except DamagedError as error:
            one_sentence(error)
            caught += 1
    assert caught > 20


def test_a_checkpoint_is_read_exactly_or_refused(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(300.0), "b": torch.ones(2, 3, dtype=torch.bfloat16), "c": torch.tensor(3)}
    url = str(tmp_path / checkpoint.CHECKPOINT)
    checkpoint.write_checkpoint(url, tensors, {"identity": "i", "history": [{"epoch": 0}]})
    whole, caught = Path(url).read_bytes(), 0
    for content in ways(whole):
        Path(url).write_bytes(content)
        try:
            found = checkpoint.read_checkpoint(str(tmp_path), checkpoint.CHECKPOINT, "i")
            assert found is not None
            assert found[1]["history"] == [{"epoch": 0}]
            assert all(torch.equal(found[0][name], value) for name, value in tensors.items())
        except AstromlError as error:
            one_sentence(error, "is damaged")
            caught += 1
    assert caught > 30


def test_a_sorted_objects_table_is_made_again(tmp_path: Path) -> None:
    universe.make_survey(str(tmp_path / "s.zarr"))
    universe.make_objects(tmp_path / "o.parquet")
    survey = Survey.open(str(tmp_path / "s.zarr"))

    def built() -> ObjectBuckets:
        return ObjectBuckets.build(str(tmp_path / "o.parquet"), survey, str(tmp_path / "w"))

    first = built()
    wanted = {unit: first.read(unit) for unit in first.units()}
    folder = Path(first.url)
    for name in ("index.json", "index.parquet", "unplaced.parquet"):
        whole = (folder / name).read_bytes()
        for content in [whole[: len(whole) // 2], b"", bytes(len(whole)), b"{}", b"[]"]:
            (folder / name).write_bytes(content)
            again = built()
            assert {unit: again.read(unit) for unit in again.units()} == wanted, name
            assert again.rows == first.rows
    bucket = next(folder.glob("units/*.parquet"))
    whole = bucket.read_bytes()
    for content in ways(whole):
        bucket.write_bytes(content)
        for unit, rows in wanted.items():
            try:
                assert again.read(unit).equals(rows)
            except AstromlError as error:
                one_sentence(error, "delete the folder")


def test_what_a_killed_build_left_is_made_again_where_it_is_damaged(tmp_path: Path) -> None:
    universe.make_survey(str(tmp_path / "s.zarr"))
    universe.make_objects(tmp_path / "o.parquet")
    survey = Survey.open(str(tmp_path / "s.zarr"))
    first = ObjectBuckets.build(str(tmp_path / "o.parquet"), survey, str(tmp_path / "w"))
    wanted = {unit: first.read(unit) for unit in first.units()}
    folder = Path(first.url)
    left = {
        "chunks.json": b"[]",
        "chunks/000000.json": b"{}",
        "chunks/000000.placed.parquet": b"PAR1",
        "index/000000.parquet": b"",
    }
    for name, content in left.items():
        (folder / "index.json").unlink()
        (folder / "chunks.json").unlink(missing_ok=True)
        (folder / "chunks").mkdir(exist_ok=True)
        if name.endswith("placed.parquet"):
            record = {"name": "chunks/000000", "rows": 200, "placed": 200, "unplaced": 0}
            (folder / "chunks/000000.json").write_text(json.dumps(record))
        (folder / name).write_bytes(content)
        again = ObjectBuckets.build(str(tmp_path / "o.parquet"), survey, str(tmp_path / "w"))
        assert {unit: again.read(unit) for unit in again.units()} == wanted, name


def damage_each(path: Path, read: Callable[[], object], same: Callable[[object], bool], contents: list[bytes]) -> int:
    """Damage one file in turns; counts the sentences, and what is read without one is what was written."""
    whole, caught = path.read_bytes(), 0
    for content in contents:
        path.write_bytes(content)
        try:
            assert same(read()), (path.name, content[:40])
        except AstromlError as error:
            one_sentence(error)
            caught += 1
    path.write_bytes(whole)
    return caught


@pytest.mark.filterwarnings("ignore:Array is unsupported by ZarrsCodecPipeline")
def test_stores_say_that_they_are_damaged(tmp_path: Path) -> None:
    source = class_stamps(str(tmp_path / "s.zarr"), 40)
    wanted = Stamps.open(source).labels()
    pixels = Stamps.open(source).read_block(0)[0]

    def read() -> object:
        stamps = Stamps.open(source)
        return stamps.labels(), stamps.read_block(0)[0]

    def same(found: object) -> bool:
        assert isinstance(found, tuple)
        return bool(found[0].equals(wanted) and (found[1] == pixels).all())

    for path in [tmp_path / "s.zarr/zarr.json", tmp_path / "s.zarr/image/zarr.json"]:
        document = json.loads(path.read_text())
        others: list[object] = [{}, [], None, {"astroml_plugin": 1}]
        odd = [json.dumps({**document, "attributes": value}).encode() for value in others]
        ours = document["attributes"].get("astroml_plugin", {})
        for name in ours:
            for value in (None, [], {}, "x", -1):
                changed = {"astroml_plugin": {**ours, name: value}}
                odd.append(json.dumps({**document, "attributes": changed}).encode())
        caught = damage_each(path, read, lambda found: True, [*JSON, path.read_bytes()[:-9], *odd])
        assert caught >= len(JSON), path
    for path in (tmp_path / "s.zarr/objects").glob("*.parquet"):
        assert damage_each(path, read, same, ways(path.read_bytes())) > 10


def test_records_of_ingest_are_refused(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "a.npz", images=np.ones((4, 1, 8, 8), np.float32))
    options = {"out": str(tmp_path / "s.zarr"), "bands": "r", "pixel_scale": 0.2}
    ingest([str(tmp_path / "a.npz")], **options)
    (record,) = (tmp_path / "s.zarr/sources").glob("*.json")
    again = lambda: ingest([str(tmp_path / "a.npz")], **options)  # noqa: E731
    assert damage_each(record, again, lambda found: True, JSON) == len(JSON)


def test_bundles_are_refused(tmp_path: Path) -> None:
    universe.make_bundle(str(tmp_path / "b"))
    url = str(tmp_path / "b")

    def load() -> object:
        model = ModelBundle.load(url)
        model.network()
        return model.sha256

    wanted = load()
    for name in ("card.json", "weights.safetensors"):
        path = tmp_path / "b" / name
        contents = ways(path.read_bytes())
        assert damage_each(path, load, lambda found: found == wanted, contents) > len(JSON)


STUDY = {"identity": "i", "space": {"training.learning_rate": {"log_uniform": [1e-4, 1e-2]}}}


def test_studies_are_refused_or_go_on(tmp_path: Path) -> None:
    record = {**STUDY, "objectives": ["validation_loss"]}
    study = Study.opened(str(tmp_path / "s"), record)
    study.propose(0, {"training.learning_rate": 1e-3})
    storage.write_atomic(storage.join(study.folder(0), checkpoint.LOG), b'{"epoch": 0, "validation_loss": 1.0}\n')
    study.end(0, "finished")
    study.pulse(5.0)
    wanted = study.trial(0)
    assert wanted.status == "finished"
    folder = tmp_path / "s" / "trials" / "00000"
    caught = damage_each(tmp_path / "s/study.json", lambda: Study.opened(study.url, record), lambda f: True, JSON)
    assert caught == len(JSON)
    assert damage_each(folder / "trial.json", lambda: study.trial(0), lambda f: f == wanted, JSON) == len(JSON)
    reopened = replace(wanted, status="open", extra={})
    assert damage_each(folder / "outcome.json", lambda: study.trial(0), lambda f: f == reopened, JSON) == 0
    odd = [content for content in JSON if content not in (b"", b"[]", b"{}", b"null", b"1", b'"x"')]
    assert damage_each(folder / checkpoint.LOG, lambda: study.trial(0), lambda f: False, odd) == len(odd)
    assert damage_each(tmp_path / "s/pulse.json", lambda: study.spent, lambda f: False, JSON) == len(JSON)
    shutil.rmtree(tmp_path / "s")
