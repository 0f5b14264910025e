"""One number format for all rows of a catalog: decided once, kept by its identity, followed or refused by others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from astroml_plugin.compute import precision
from astroml_plugin.compute.cluster import connect
from astroml_plugin.compute.forward import Forward
from astroml_plugin.compute.precision import FLOAT32, HalfForm, half_form
from astroml_plugin.compute.runtimes import RuntimeForward
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference import deciding, forward, prepare, resident
from astroml_plugin.inference.backends import ForwardChoice
from astroml_plugin.inference.deciding import decided, recorded_forms, with_forms
from astroml_plugin.inference.models import RunModel
from astroml_plugin.inference.resident import BundleRef
from astroml_plugin.training.bundle import ModelBundle
from tests import universe
from workflows.infer import InferResult, infer, plan, run_unit
from workflows.query import query

HALF = "torch bfloat16 on cpu with amx"


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sky")
    universe.make_stamps(str(folder / "stamps.zarr"))
    universe.make_bundle(str(folder / "kind"))
    return folder


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    with connect("local", workers=2, threads=1) as client:
        yield client


class Machine:
    """What this machine has, as the test says: bfloat16 or not, and how long it takes beside float32."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.half, self.takes, self.asked = True, 0.5, 0
        monkeypatch.setattr(precision, "cpu_bfloat16", lambda: "amx" if self.half else "")

        def relative(choice: ForwardChoice, made: Any, inputs: Any, batch: int) -> float:
            self.asked += 1
            return self.takes

        monkeypatch.setattr(ForwardChoice, "relative", relative)
        monkeypatch.setattr(ForwardChoice, "relative_in_crowd", lambda *_: self.takes)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield Machine(monkeypatch)
    resident.release()


def run(sky: Path, out: Path, client: object, **settings: Any) -> InferResult:
    settings = {"precision": "auto", "backend": "torch", **settings}
    return infer(str(sky / "stamps.zarr"), bundle=str(sky / "kind"), out=str(out), client=client, **settings)


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found


def rows(out: Path) -> pa.Table:
    return query(str(out), "SELECT * FROM catalog").to_arrow().sort_by("object_id")


def test_all_rows_are_of_the_form_that_the_first_run_found(
    sky: Path, tmp_path: Path, client: object, machine: Machine
) -> None:
    run(sky, tmp_path / "plain", client, precision="float32")
    begun = run(sky, tmp_path / "catalog", client, shard=(0, 2))
    assert record(tmp_path / "catalog")["identity"]["settings"]["precision"] == {"kind": HALF}
    assert record(tmp_path / "catalog")["backends"] == {"kind": {"torch bfloat16": begun.rows}}
    asked, machine.takes = machine.asked, 2.0  # by its own measure, this process would take float32
    rest = run(sky, tmp_path / "catalog", client)
    assert machine.asked == asked == 1
    assert record(tmp_path / "catalog")["backends"] == {"kind": {"torch bfloat16": rest.rows}}
    assert begun.rows + rest.rows == 100
    tables = [rows(tmp_path / name) for name in ("plain", "catalog")]
    name = next(name for name in tables[0].column_names if name.startswith("p_"))
    one, two = (table[name].to_numpy() for table in tables)
    assert 0 < np.abs(one - two).max() < 0.05


def test_machines_without_half_precision_are_refused_in_one_sentence(
    sky: Path, tmp_path: Path, client: object, machine: Machine
) -> None:
    done = run(sky, tmp_path / "catalog", client, shard=(0, 2))
    unit = next(
        iter(plan(str(sky / "stamps.zarr"), bundle=str(sky / "kind"), out=str(tmp_path / "catalog"), precision="auto"))
    )
    machine.half = False
    with pytest.raises(
        InputError, match=r"rows of bundle kind are of torch bfloat16 on cpu with amx in this cat.*, and "
    ):
        run(sky, tmp_path / "catalog", client)
    with pytest.raises(InputError, match="has no half precision: run on other machines, or begin another catalog"):
        run_unit(unit)  # of a worker that joined late
    assert rows(tmp_path / "catalog").num_rows == done.rows


@pytest.mark.parametrize(("half", "takes"), [(True, 0.9), (False, 0.5)])
def test_a_catalog_is_in_float32_where_half_precision_does_not_pay(
    half: bool, takes: float, sky: Path, tmp_path: Path, client: object, machine: Machine
) -> None:
    machine.half, machine.takes = half, takes
    run(sky, tmp_path / "catalog", client, shard=(0, 2))
    assert record(tmp_path / "catalog")["identity"]["settings"]["precision"] == FLOAT32
    machine.half, machine.takes = True, 0.1
    rest = run(sky, tmp_path / "catalog", client)
    assert record(tmp_path / "catalog")["backends"] == {"kind": {"torch float32": rest.rows}}
    assert run(sky, tmp_path / "catalog", client, precision="float32").units_done == 0


def test_float32_is_refused_for_a_catalog_in_half_precision(
    sky: Path, tmp_path: Path, client: object, machine: Machine
) -> None:
    run(sky, tmp_path / "catalog", client, shard=(0, 2))
    with pytest.raises(InputError, match=r"settings = .*bfloat16.*choose another --out"):
        run(sky, tmp_path / "catalog", client, precision="float32")


def test_workers_of_several_kinds_take_float32(
    sky: Path, tmp_path: Path, client: object, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = iter(["bfloat16 cpu", "bfloat16 cuda"])
    monkeypatch.setattr(deciding, "half_kind", lambda device: next(kinds))
    run(sky, tmp_path / "catalog", client)
    assert record(tmp_path / "catalog")["identity"]["settings"]["precision"] == FLOAT32
    assert machine.asked == 0


def test_what_another_run_decides_in_the_same_moment_holds(
    sky: Path, tmp_path: Path, client: object, machine: Machine
) -> None:
    def late(job: Any) -> dict[str, str]:
        run(sky, tmp_path / "catalog", client, shard=(0, 2))
        return {"kind": FLOAT32}

    ready = prepare(
        str(sky / "stamps.zarr"), bundle=str(sky / "kind"), out=str(tmp_path / "catalog"), decide=late, precision="auto"
    )
    assert [ref.form for ref in ready.job.bundles] == [HALF]
    assert recorded_forms(str(tmp_path / "catalog")) == {"kind": HALF}


@pytest.mark.parametrize(
    "settings", [{"backend": "openvino"}, {"backend": "onnx"}, {"compiling": "always"}], ids=lambda one: str(one)
)
def test_other_runtimes_than_the_catalogs_are_refused(
    settings: dict[str, str], sky: Path, tmp_path: Path, machine: Machine
) -> None:
    given = {"bundle": str(sky / "kind"), "out": str(tmp_path / "catalog"), "precision": "auto"}
    ready = prepare(str(sky / "stamps.zarr"), **given, backend="torch")
    assert ready.job.bundles[0].form == HALF
    with pytest.raises(InputError, match="are of torch bfloat16 on cpu with amx: leave --backend and --compile away"):
        prepare(str(sky / "stamps.zarr"), **given, **settings)


def test_compiled_rows_stay_compiled(sky: Path, tmp_path: Path, machine: Machine) -> None:
    given = {"bundle": str(sky / "kind"), "out": str(tmp_path / "catalog"), "precision": "auto"}
    ready = prepare(str(sky / "stamps.zarr"), **given, backend="torch", compiling="always")
    assert ready.job.bundles[0].form == "torch.compile bfloat16 on cpu with amx"
    assert prepare(str(sky / "stamps.zarr"), **given).job.bundles[0].form == "torch.compile bfloat16 on cpu with amx"
    with pytest.raises(InputError, match="leave --backend and --compile away"):
        prepare(str(sky / "stamps.zarr"), **given, compiling="never")


def model(sky: Path, **more: Any) -> RunModel:
    bundle = ModelBundle.load(str(sky / "kind"))
    ref = BundleRef("kind", bundle.url, bundle.sha256)
    return RunModel(ref, bundle.task(), bundle.network(fused=True), torch.device("cpu"), **more)


class Runtime:
    """OpenVINO as the test has it: bfloat16 of torch."""

    def install(self, monkeypatch: pytest.MonkeyPatch, costs: dict[str, float], crowded: float = 0.5) -> None:
        def made(this: ForwardChoice, runtime: str, inputs: Any, batch: int, *, half: bool = False) -> Any:
            return RuntimeForward(runtime, b"", half)

        def relative(this: ForwardChoice, form: Forward | RuntimeForward, inputs: Any, batch: int) -> float:
            return costs[form.form]

        monkeypatch.setattr(precision, "cpu_bfloat16", lambda: "amx")
        others = {"auto": ["onnx", "openvino"]}
        monkeypatch.setattr(ForwardChoice, "candidates", lambda this: others.get(this.backend, []))
        monkeypatch.setattr(ForwardChoice, "made", made)
        monkeypatch.setattr(ForwardChoice, "relative", relative)
        monkeypatch.setattr(ForwardChoice, "relative_in_crowd", lambda *_: crowded)


@pytest.mark.parametrize(
    ("backend", "openvino", "onnx", "form"),
    [
        ("auto", 0.4, 0.9, "openvino bfloat16 on cpu with amx"),
        ("auto", 0.7, 0.9, HALF),
        ("auto", 0.9, 0.7, FLOAT32),  # ONNX Runtime is fast in float32 too
        ("torch", 0.1, 0.9, HALF),
        ("onnx", 0.1, 0.9, FLOAT32),
        ("openvino", 3.0, 0.9, "openvino bfloat16 on cpu with amx"),
    ],
)
def test_the_fastest_in_half_precision_must_beat_the_fastest_in_float32(
    backend: str, openvino: float, onnx: float, form: str, sky: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = {"openvino bfloat16": openvino, "onnx float32": onnx, "openvino float32": 1.0, "torch bfloat16": 0.6}
    Runtime().install(monkeypatch, costs)
    monkeypatch.setattr("astroml_plugin.inference.backends.runtime_problem", lambda *_: "")
    assert decided(model(sky, backend=backend)) == form


@pytest.mark.parametrize(("crowded", "form"), [(0.7, HALF), (0.9, FLOAT32)])
def test_what_is_fast_alone_must_be_so_with_all_lanes_at_work(
    crowded: float, form: str, sky: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`morphology` in bfloat16 took 0.7 of the time alone, and 1.3 where two threads of one core ran it."""
    costs = {"openvino bfloat16": 0.9, "onnx float32": 1.0, "openvino float32": 1.0, "torch bfloat16": 0.6}
    Runtime().install(monkeypatch, costs, crowded)
    assert decided(model(sky)) == form


def test_threads_that_call_at_once_are_timed(sky: Path) -> None:
    class Slow(Forward):
        def __call__(self, inputs: Any, batch: int) -> Any:
            time.sleep(0.02)
            return super().__call__(inputs, batch)

    this = model(sky)
    choice, inputs = forward.choice_of(this), this.task.example_inputs(4)
    assert choice.relative_in_crowd(Slow(this.network, "cpu"), choice.plain, inputs, 3) > 1.5


def test_a_whole_batch_is_timed_and_as_many_answers_compared(sky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four objects calls take the time: ellipticity seemed faster in float32, and takes half in bfloat16."""
    seen: list[tuple[str, int]] = []

    def relative(this: ForwardChoice, form: Any, inputs: Any, batch: int) -> float:
        seen.append(("timed", len(inputs[0])))
        return 0.5

    def alike(halved: Forward, inputs: Any) -> bool:
        seen.append(("compared", len(inputs[0])))
        return True

    monkeypatch.setattr(precision, "cpu_bfloat16", lambda: "amx")
    monkeypatch.setattr(ForwardChoice, "relative", relative)
    monkeypatch.setattr(ForwardChoice, "relative_in_crowd", lambda *_: 0.5)
    monkeypatch.setattr(deciding, "answers_alike", alike)
    assert decided(model(sky, backend="torch")) == HALF
    assert seen == [("compared", 128), ("timed", 512)]  # its stamps are small


def test_workers_whose_cpus_multiply_otherwise_take_float32(
    sky: Path, tmp_path: Path, client: object, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows by AMX and by AVX-512 differ by up to what either differs from float32 (5e-3 of 7e-3 for `lens`)."""
    found = iter(["amx", "avx512"])
    monkeypatch.setattr(precision, "cpu_bfloat16", lambda: next(found, "amx"))
    monkeypatch.setattr(
        deciding, "half_kind", lambda device: str(precision.half_form_of(torch.device(device), "torch"))
    )
    run(sky, tmp_path / "catalog", client)
    assert record(tmp_path / "catalog")["identity"]["settings"]["precision"] == FLOAT32


def test_a_half_form_that_fails_here_gives_no_rows_of_another(sky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Forward(torch.nn.Flatten(), "cpu")
    choice = ForwardChoice(plain, "auto", bytes, tuple, "kind", half_form("openvino bfloat16 on cpu"))
    monkeypatch.setattr(ForwardChoice, "made", lambda *_, **__: "its answers differ")
    with pytest.raises(InputError, match=r"are of openvino bfloat16 on cpu .* that fails here \(its answ"):
        choice((torch.ones(2, 3),), 2)

    def broken(this: RuntimeForward, inputs: Any, batch: int) -> Tensor:
        raise ValueError("no memory")

    monkeypatch.setattr(RuntimeForward, "__call__", broken)
    monkeypatch.setattr(ForwardChoice, "made", lambda *_, **__: RuntimeForward("openvino", b"", True))
    with pytest.raises(InputError, match="begin another catalog with --precision float32"):
        choice((torch.ones(2, 3),), 2)


@pytest.mark.parametrize("name", [HALF, "torch.compile float16 on cuda", "openvino bfloat16 on cpu with avx512"])
def test_a_form_is_its_name(name: str) -> None:
    assert str(half_form(name)) == name
    assert half_form(FLOAT32) is None


def test_a_form_belongs_to_one_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_bfloat16", lambda: "amx")
    cpu = torch.device("cpu")
    assert HalfForm("cpu", "torch", "bfloat16").problem(cpu) == ""
    assert HalfForm("cuda", "torch", "bfloat16").problem(cpu) == "this is a cpu device"
    assert HalfForm("cpu", "torch", "float16").problem(cpu) == "this device has bfloat16"
    assert HalfForm("cpu", "torch", "bfloat16", "avx512").problem(cpu) == "this CPU multiplies in it with amx"
    monkeypatch.setattr(precision.importlib.util, "find_spec", lambda name: None)
    assert HalfForm("cpu", "openvino", "bfloat16").problem(cpu) == "openvino is not installed here"


def test_float32_asks_nobody(sky: Path, tmp_path: Path) -> None:
    ready = prepare(str(sky / "stamps.zarr"), bundle=str(sky / "kind"), out=str(tmp_path / "c"))

    def decide(job: Any) -> dict[str, str]:
        raise AssertionError("nobody is asked")

    assert with_forms(ready.job, decide) is ready.job
