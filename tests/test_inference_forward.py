"""The device path of the engine on a CPU: overlapped, out of memory, compiled or not, the rows are the same."""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from astroml_plugin.catalog import Catalog, origins
from astroml_plugin.compute import device as dev
from astroml_plugin.compute.cluster import connect
from astroml_plugin.compute.device import device_name
from astroml_plugin.compute.forward import Forward
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference import RunProgress, forward, upload
from astroml_plugin.inference.meter import Meter, bottleneck
from tests import universe
from tests.test_infer import assert_same
from workflows.compact import compact
from workflows.infer import InferResult, infer
from workflows.progress import Reporter
from workflows.query import query

BUNDLES = ("kind", "shape")


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sky")
    universe.make_survey(str(folder / "survey.zarr"))
    universe.make_objects(folder / "objects.parquet")
    universe.make_stamps(str(folder / "stamps.zarr"))
    universe.make_bundle(str(folder / "kind"))
    universe.make_bundle(str(folder / "shape"), task="ellipticity", psf="required")
    return folder


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    with connect("local", threads=2) as client:
        yield client


def run(sky: Path, out: Path, client: object, source: str = "survey.zarr", **settings: Any) -> InferResult:
    objects = str(sky / "objects.parquet") if source == "survey.zarr" else None
    bundles = [str(sky / name) for name in BUNDLES]
    return infer(str(sky / source), bundle=bundles, out=str(out), objects=objects, client=client, **settings)


def rows(out: Path) -> pa.Table:
    return query(str(out), "SELECT * FROM catalog").to_arrow().sort_by("object_id")


def assert_identical(one: pa.Table, two: pa.Table) -> None:
    """Equal bit for bit."""
    assert one.schema.equals(two.schema)
    for name in one.schema.names:
        np.testing.assert_array_equal(one[name].to_numpy(), two[name].to_numpy(), err_msg=name)


@pytest.fixture(scope="module")
def plain(sky: Path, client: object, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    """Rows as a CPU gives them."""
    out = tmp_path_factory.mktemp("plain")
    for source in ("survey.zarr", "stamps.zarr"):
        run(sky, out / source, client, source)
    return {source: rows(out / source) for source in ("survey.zarr", "stamps.zarr")}


@pytest.mark.parametrize("source", ["survey.zarr", "stamps.zarr"])
def test_copies_and_answers_beside_the_network_change_no_bit(
    source: str, sky: Path, tmp_path: Path, client: object, plain: dict[str, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dev.Copier("cpu", 1000)
    for module in (forward, upload):
        monkeypatch.setattr(module, "overlaps", lambda device: True)
    monkeypatch.setattr(upload, "copier", lambda device: small)
    monkeypatch.setattr(
        forward, "pipelined", lambda *given, overlap, **more: dev.pipelined(*given, overlap=True, **more)
    )
    result = run(sky, tmp_path / "catalog", client, source)
    assert result.units_failed == 0
    assert_identical(rows(tmp_path / "catalog"), plain[source])
    assert small.bytes > 0
    record = json.loads((tmp_path / "catalog" / "run.json").read_text())
    assert record["bytes"]["copy"] >= small.bytes


class Cramped:
    """A network whose device holds no more than `room` objects at once."""

    def __init__(self, room: int) -> None:
        self.room, self.batches = room, []  # type: ignore[var-annotated]
        told = (
            torch.OutOfMemoryError("CUDA out of memory (so says the test)"),
            RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
        )
        self.errors = itertools.cycle(told)  # torch's own, and that of a library

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = Forward.__call__

        def call(this: Forward, inputs: Any, batch: int) -> torch.Tensor:
            if len(inputs[0]) > self.room:
                raise next(self.errors)
            self.batches.append(len(inputs[0]))
            return real(this, inputs, batch)

        monkeypatch.setattr(Forward, "__call__", call)


def test_without_memory_the_batch_is_halved_and_remembered(
    sky: Path, tmp_path: Path, plain: dict[str, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    cramped = Cramped(10)
    cramped.install(monkeypatch)
    told: list[str] = []
    monkeypatch.setattr(forward.warnings, "warn", lambda text, *_, **__: told.append(text))
    with connect("local", threads=1) as client:
        result = run(sky, tmp_path / "catalog", client, batch=32)
    assert (result.units_failed, result.rows) == (0, 200)
    assert_same(rows(tmp_path / "catalog"), plain["survey.zarr"])
    assert max(cramped.batches) == 8
    assert [text.split(": ")[1] for text in told] == ["16 from now on", "8 from now on"] * len(BUNDLES)


def test_a_device_without_memory_for_one_stamp_fails_its_units(
    sky: Path, tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cramped(0).install(monkeypatch)
    monkeypatch.setattr(forward.warnings, "warn", lambda *_, **__: None)
    result = run(sky, tmp_path / "catalog", client, batch=2)
    assert result.units_done < result.units_failed
    reasons = query(str(tmp_path / "catalog"), "SELECT DISTINCT reason FROM failures").to_arrow()["reason"].to_pylist()
    assert set(reasons) <= {
        "OutOfMemoryError: CUDA out of memory (so says the test)",
        "RuntimeError: CUBLAS_STATUS_ALLOC_FAILED",
    }
    assert reasons


def test_a_compiled_run_gives_the_same_rows_from_one_thread(
    sky: Path, tmp_path: Path, client: object, plain: dict[str, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    threads: set[int] = set()

    def compiled(network: torch.nn.Module, dynamic: bool) -> Any:
        def call(*inputs: torch.Tensor) -> torch.Tensor:
            threads.add(threading.get_ident())
            assert {len(item) for item in inputs} <= {1, 2, 4, 8, 16}
            return network(*inputs)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    run(sky, tmp_path / "catalog", client, compiling="always", batch=16)
    assert_same(rows(tmp_path / "catalog"), plain["survey.zarr"])
    assert len(threads) == 1


def test_compiling_and_batch_are_no_part_of_what_a_catalog_is(sky: Path, tmp_path: Path, client: object) -> None:
    run(sky, tmp_path / "catalog", client)
    again = run(sky, tmp_path / "catalog", client, compiling="never", batch=50, precision="float32")
    assert (again.units_done, again.rows) == (0, 0)


@pytest.mark.parametrize("setting", [{"precision": "float16"}, {"compiling": "sometimes"}])
def test_unknown_words_are_refused_before_anything_starts(
    setting: dict[str, str], sky: Path, tmp_path: Path, client: object
) -> None:
    with pytest.raises(InputError, match="must be one of"):
        run(sky, tmp_path / "catalog", client, **setting)
    assert not (tmp_path / "catalog").exists()


def test_the_run_record_says_what_each_stage_took(sky: Path, tmp_path: Path, client: object) -> None:
    run(sky, tmp_path / "catalog", client)
    record = json.loads((tmp_path / "catalog" / "run.json").read_text())
    assert {"read", "copy", "prepare", "forward", "encode", "write"} <= set(record["stages"])
    assert all(value >= 0 for value in record["stages"].values())
    parts = sum(path.stat().st_size for path in (tmp_path / "catalog" / "parts").rglob("*.parquet"))
    assert record["bytes"]["write"] == parts
    assert record["bytes"]["read"] > 4 * 2 * 192**2  # image and variance of every tile
    assert "copy" not in record["bytes"]  # a CPU's pixels stay where they are
    assert record["settings"]["precision"] == "float32"
    assert record["devices"] == {device_name("cpu"): 200}


def test_each_part_says_what_calculated_it_also_when_it_is_merged(sky: Path, tmp_path: Path, client: object) -> None:
    run(sky, tmp_path / "catalog", client, backend="torch")
    catalog = Catalog.open(str(tmp_path / "catalog"))
    known = {unit: told for path in catalog.listing()[0] for unit, told in origins.read(catalog.url, path).items()}
    assert len(known) == catalog.current().num_rows > 2
    assert {told["device"] for told in known.values()} == {device_name("cpu")}
    assert {told["torch"] for told in known.values()} == {torch.__version__}
    totals: Counter[str] = Counter()
    for told in known.values():
        totals.update(told["forms"])
    assert totals == {"kind torch float32": 200, "shape torch float32": 200}
    compact(catalog.url)
    merged = {unit: told for path in catalog.listing()[0] for unit, told in origins.read(catalog.url, path).items()}
    assert merged == known


def test_a_meter_counts_what_happens_inside() -> None:
    meter = Meter()
    with meter.stage("read"):
        pass
    assert list(meter.each("prepare", iter([1, 2, 3]))) == [1, 2, 3]
    assert meter.timed("forward", lambda a, b: a + b)(1, 2) == 3
    meter.add("copy", count=5)
    meter.add("copy", count=7)
    assert set(meter.seconds) == {"read", "prepare", "forward"}
    assert meter.bytes == {"copy": 12}


def test_the_bottleneck_is_what_units_stand_before() -> None:
    assert bottleneck({}) is None
    assert bottleneck({"read": 5.0, "forward": 2.0, "wait": 0.1}) == "read"
    assert bottleneck({"read": 5.0, "forward": 2.0, "wait": 9.0}) == "forward"
    assert bottleneck({"read": 5.0, "prepare": 3.0, "forward": 2.0, "wait": 9.0}) == "prepare"


def test_the_live_line_names_the_present_bottleneck() -> None:
    told = io.StringIO()
    with Reporter(told) as report:
        report.units(RunProgress(4, done=2, rows=100, seconds=2.0, stages={"forward": 9.0}, bottleneck="read"))
    assert told.getvalue().startswith("measured: 2/4 50 objects/s, mostly read")


def test_the_bottleneck_follows_the_last_units(sky: Path, tmp_path: Path, client: object) -> None:
    tallies: list[RunProgress] = []
    run(sky, tmp_path / "catalog", client, progress=tallies.append)
    assert {tally.bottleneck for tally in tallies if tally.done} <= set(forward_stages())
    assert tallies[-1].bytes["write"] > 0
    assert np.isfinite(list(tallies[-1].stages.values())).all()


def forward_stages() -> tuple[str, ...]:
    from astroml_plugin.inference.meter import STAGES

    return STAGES
