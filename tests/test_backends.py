"""Networks in ONNX Runtime and OpenVINO: the rows of torch, or torch itself and a sentence with the numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from astroml_plugin.compute import onnx_graph, precision, runtimes
from astroml_plugin.compute.choices import RUNTIMES
from astroml_plugin.compute.cluster import connect
from astroml_plugin.compute.device import place_network
from astroml_plugin.compute.forward import Forward, difference
from astroml_plugin.compute.runtimes import RuntimeForward, cached_graph
from astroml_plugin.core import tracing
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.tracing import calling, exporting, is_traced
from astroml_plugin.inference import backends, forward
from astroml_plugin.inference.backend_record import by_bundle
from astroml_plugin.inference.backends import ROUNDING, ForwardChoice
from astroml_plugin.training.bundle import ModelBundle
from tests import universe
from workflows.infer import InferResult, infer
from workflows.query import query

pytestmark = [  # of torch's exporter
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SHIPPED = ("ellipticity", "lens", "morphology", "objects", "segmentation", "anomaly")


def needs(runtime: str) -> None:
    """Skip where the packages of a runtime are not installed."""
    if problem := runtimes.runtime_problem(runtime, "cpu"):
        pytest.skip(problem)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTROML_CACHE", str(tmp_path / "cache"))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(1), nn.Linear(400, 3)).eval().requires_grad_(False)


def stamps(count: int) -> tuple[Tensor, ...]:
    return (torch.randn(count, 2, 12, 12, generator=torch.Generator().manual_seed(count)),)


@pytest.fixture(scope="module")
def graph() -> bytes:
    needs("onnx")
    return onnx_graph.graph_of(small(), stamps(4))


def choice(backend: str, graph: bytes, network: nn.Module | None = None, **more: Any) -> ForwardChoice:
    plain = Forward(network or small(), "cpu")
    return ForwardChoice(plain, backend, lambda: graph, lambda: stamps(4), "small", **more)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_any_number_of_objects_from_any_thread_is_answered_as_by_torch(runtime: str, graph: bytes) -> None:
    needs(runtime)
    made, network, gaps = RuntimeForward(runtime, graph), small(), {}

    def work(count: int) -> None:
        torch.set_num_threads(1)
        inputs = stamps(count)
        gaps[count] = [difference(network(*inputs), made(inputs, 128)) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(count,)) for count in (1, 2, 7, 64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(gaps) == [1, 2, 7, 64]
    assert max(max(found) for found in gaps.values()) <= ROUNDING


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_other_memory_orders_and_answers_that_stay(runtime: str, graph: bytes) -> None:
    needs(runtime)
    made, network = RuntimeForward(runtime, graph), small()
    (image,) = stamps(5)
    first = made([image.contiguous(memory_format=torch.channels_last)], 5)
    kept = first.clone()
    made([image + 1], 5)
    assert torch.equal(first, kept)  # a session does not write over what it gave
    assert difference(network(image), kept) <= ROUNDING


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_other_numbers_are_refused_with_the_numbers(runtime: str, graph: bytes) -> None:
    needs(runtime)
    other = small()
    with torch.no_grad():
        other[0].weight[0] *= 1.01  # type: ignore[index, operator, union-attr]
    made = choice(runtime, graph, other)
    inputs = stamps(6)
    found, form = made(inputs, 128)
    assert form == "torch float32"
    assert torch.equal(found, other(*inputs))
    (sentence,) = made.refused
    assert sentence.startswith(f"bundle small ran on torch, not on {runtime}: its answers differ by 0.0")
    assert sentence.endswith("of their range, and 3e-05 is allowed")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_that_fails_later_gives_way_to_torch(runtime: str, graph: bytes) -> None:
    needs(runtime)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(10), *list(small())[2:])  # takes any side; the graph does not
    made, inputs = choice(runtime, graph, small()), stamps(3)
    assert made(inputs, 128)[1] == f"{runtime} float32"
    made.plain.network = network
    larger = (torch.randn(3, 4, 15, 15),)
    found, form = made(larger, 128)
    assert form == "torch float32"
    assert torch.equal(found, network(*larger))
    assert made.refused[0].startswith(f"bundle small ran on torch after {runtime} failed (")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_windows_have_any_side_that_the_stride_allows(runtime: str) -> None:
    needs(runtime)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(4), nn.Upsample(scale_factor=4)).eval()
    made = RuntimeForward(runtime, onnx_graph.graph_of(network, [torch.randn(4, 1, 16, 16)], stride=4))
    for shape in ((2, 1, 16, 16), (1, 1, 32, 20), (5, 1, 8, 64)):
        image = torch.randn(shape)
        assert difference(network(image), made([image], 8)) <= ROUNDING


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_no_graph_can_be_made_of_runs_on_torch(runtime: str) -> None:
    needs(runtime)

    class Foreign(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.from_numpy(np.sort(image.numpy().reshape(len(image), -1), axis=1))[:, :3]

    network = Foreign().eval()
    plain = Forward(network, "cpu")
    made = ForwardChoice(plain, runtime, lambda: onnx_graph.graph_of(network, stamps(4)), lambda: stamps(4), "foreign")
    found, form = made(stamps(3), 128)
    assert (form, found.shape) == ("torch float32", (3, 3))
    assert made.refused[0].startswith(f"bundle foreign ran on torch, not on {runtime}: it cannot run there (")


def test_a_nan_that_only_one_of_both_gives_is_no_rounding(graph: bytes) -> None:
    broken = small()
    with torch.no_grad():
        broken[3].bias[1] = torch.nan  # type: ignore[index, operator, union-attr]
    made = choice("onnx", graph, broken)
    made(stamps(3), 128)
    assert "differ by inf" in made.refused[0]


class Timed:
    """A clock that goes on by what each call costs: torch 10 s, another runtime as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, costs: dict[str, float]) -> None:
        self.now, self.calls = 0.0, []  # type: ignore[var-annotated]
        monkeypatch.setattr(backends.time, "thread_time", lambda: self.now)
        monkeypatch.setattr(backends.time, "perf_counter", lambda: self.now)
        for kind, cost in ((Forward, lambda _: 10.0), (RuntimeForward, lambda item: costs[item.runtime])):
            self._count(monkeypatch, kind, cost)

    def _count(self, monkeypatch: pytest.MonkeyPatch, kind: Any, cost: Any) -> None:
        real = kind.__call__

        def call(this: Any, inputs: Sequence[Tensor], batch: int) -> Tensor:
            self.now += cost(this)
            self.calls.append(this.form)
            return real(this, inputs, batch)

        monkeypatch.setattr(kind, "__call__", call)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ({"onnx": 6.0, "openvino": 7.0}, "onnx float32"),
        ({"onnx": 8.0, "openvino": 5.0}, "openvino float32"),
        ({"onnx": 9.5, "openvino": 12.0}, "torch float32"),
    ],
)
def test_by_itself_the_fastest_is_chosen_once_the_work_is_long(
    costs: dict[str, float], expected: str, graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for runtime in RUNTIMES:
        needs(runtime)
    clock = Timed(monkeypatch, costs)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    made = choice("auto", graph)
    forms = [made(stamps(8), 128)[1] for _ in range(6)]
    assert forms == ["torch float32"] * 4 + [expected] * 2  # 30 s are spent by the fourth
    assert clock.calls[:3] == ["torch float32"] * 3
    assert made.refused == ()


def test_a_short_run_makes_no_graph(graph: bytes) -> None:
    needs("onnx")

    def graph_of() -> bytes:
        raise AssertionError("nobody asked for it")

    made = ForwardChoice(Forward(small(), "cpu"), "auto", graph_of, lambda: stamps(4))
    for _ in range(5):
        assert made(stamps(9), 128)[1] == "torch float32"


def test_nothing_is_tried_where_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(backends, "PATIENCE", -1.0)
    made = choice("auto", b"")
    assert [made(stamps(2), 4)[1] for _ in range(3)] == ["torch float32"] * 3


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_package_that_is_missing_is_named_with_its_extra(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf'backend {runtime} needs .*pip install "astroml-plugin\[{runtime}\]"$'):
        choice(runtime, b"")
    assert runtimes.runtime_problem(runtime, "cuda:0").endswith("add --device cpu, or leave --backend away")


def test_a_graph_is_made_once_and_damage_is_no_graph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needs("onnx")
    made: list[bytes] = []

    def graph_of(network: nn.Module, inputs: Sequence[Tensor], stride: int) -> bytes:
        made.append(f"graph {len(made)}".encode())
        return made[-1]

    monkeypatch.setattr(onnx_graph, "graph_of", graph_of)
    assert [cached_graph(small(), stamps(4), ["one"]) for _ in range(3)] == [b"graph 0"] * 3
    assert cached_graph(small(), stamps(4), ["two"]) == b"graph 1"
    (first, *_) = sorted((tmp_path / "cache" / "graphs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    first.write_bytes(first.read_bytes()[:-1])
    assert cached_graph(small(), stamps(4), ["one"]) == b"graph 2"


# ---- bfloat16 on CPUs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"), [("fma avx512_bf16 x", "avx512"), ("avx512_bf16 amx_bf16", "amx"), ("avx512f", "")]
)
def test_the_cpu_says_how_it_multiplies_in_bfloat16(flags: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"processor : 0\nflags\t\t: fpu {flags}\nbugs : none\n"
    monkeypatch.setattr(precision.Path, "read_text", lambda self: text)
    precision.cpu_bfloat16.cache_clear()
    try:
        assert precision.cpu_bfloat16() == expected
    finally:
        precision.cpu_bfloat16.cache_clear()


def test_an_export_of_one_thread_changes_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert is_traced()
    with ThreadPoolExecutor(1) as pool, exporting():
        assert is_traced()
        assert not pool.submit(is_traced).result()


@pytest.mark.slow
def test_networks_are_called_by_other_threads_while_one_is_exported() -> None:
    """torch's exporter takes calls of all threads for its own: units failed by its assertions or fake numbers."""
    needs("onnx")
    torch.manual_seed(1)
    blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(12)]
    network = nn.Sequential(*blocks, nn.Flatten(1), nn.LazyLinear(3)).eval()
    inputs = [torch.randn(8, 4, 16, 16)]
    with torch.no_grad():
        wanted = network(*inputs).numpy()
    plain, over, answers = Forward(network.requires_grad_(False), "cpu"), threading.Event(), 0

    def answer() -> int:
        count = 0
        while not over.is_set():
            np.testing.assert_allclose(plain(inputs, 8).numpy(), wanted, atol=1e-5)
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(answer) for _ in range(3)]
        try:
            for _ in range(2):
                onnx_graph.graph_of(network, inputs)
        finally:
            over.set()
        answers = sum(caller.result() for caller in callers)
    assert answers > 0


def test_what_is_kept_is_marked_as_torch_marks_it() -> None:
    """Without the call of torch, which would load its compiler into every process that measures."""

    @torch.compiler.assume_constant_result
    def marked() -> int:
        return 1

    assert vars(marked).items() <= vars(tracing.constant(lambda: 1)).items()
    assert vars(marked)


def test_what_is_kept_is_made_of_real_numbers_also_while_a_network_is_exported() -> None:
    """Made by the exporting thread it would be of stand-ins, for ever: the next export, and torch, failed with them."""

    @tracing.constant
    def ramp(side: int, device: torch.device) -> Tensor:
        return torch.arange(side, dtype=torch.float32, device=device)

    class Weighted(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return (image * ramp(4, image.device)).sum(1, keepdim=True)

    inputs = [torch.ones(3, 4)]
    with torch.inference_mode():
        needs("onnx")
        graphs = [onnx_graph.graph_of(Weighted().eval(), inputs) for _ in range(2)]
        assert type(ramp(4, torch.device("cpu"))) is Tensor
        np.testing.assert_array_equal(Weighted()(*inputs).numpy(), [[6.0]] * 3)
    for graph in graphs:
        np.testing.assert_array_equal(RuntimeForward("onnx", graph)(inputs, 3).numpy(), [[6.0]] * 3)
    assert not ramp(4, torch.device("cpu")).is_inference()


def test_an_export_waits_for_calls_and_calls_for_it() -> None:
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def call() -> None:
        with calling(), calling():
            begun.set()
            go_on.wait(10)
            order.append("called")

    def export() -> None:
        with exporting():
            order.append("exported")

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(call)
        begun.wait(10)
        second = pool.submit(export)
        while tracing._door.exporter is None:
            time.sleep(0.001)
        third = pool.submit(call)
        time.sleep(0.05)
        assert order == []
        go_on.set()
        for one in (first, second, third):
            one.result(10)
    assert order == ["called", "exported", "called"]
    with calling(), pytest.raises(RuntimeError, match="while it is called"), exporting():
        pass


# ---- whole runs --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sky")
    universe.make_stamps(str(folder / "stamps.zarr"))
    universe.make_bundle(str(folder / "kind"))
    return folder


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    with connect("local", threads=2) as client:
        yield client


def run(sky: Path, out: Path, client: object, **settings: Any) -> InferResult:
    return infer(str(sky / "stamps.zarr"), bundle=str(sky / "kind"), out=str(out), client=client, **settings)


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found


def rows(out: Path) -> pa.Table:
    return query(str(out), "SELECT * FROM catalog").to_arrow().sort_by("object_id")


def largest_gap(one: pa.Table, two: pa.Table) -> float:
    """Largest difference of a column's numbers as a part of its largest size."""
    assert one.schema.equals(two.schema)
    gaps = [0.0]
    for name in one.schema.names:
        if pa.types.is_floating(one[name].type) and name not in ("ra", "dec"):
            first, second = (table[name].to_numpy(zero_copy_only=False) for table in (one, two))
            np.testing.assert_array_equal(np.isnan(first), np.isnan(second))
            first, second = np.nan_to_num(first), np.nan_to_num(second)
            gaps.append(float(np.abs(first - second).max() / max(np.abs(first).max(), 1e-9)))
        else:
            assert one[name].equals(two[name]), name
    return max(gaps)


def test_a_run_is_resumed_with_another_backend_and_says_what_ran(sky: Path, tmp_path: Path, client: object) -> None:
    needs("onnx")
    run(sky, tmp_path / "plain", client, backend="torch")
    assert record(tmp_path / "plain")["backends"] == {"kind": {"torch float32": 100}}
    half = run(sky, tmp_path / "catalog", client, backend="onnx", shard=(0, 2))
    assert half.notes == ()
    assert record(tmp_path / "catalog")["backends"] == {"kind": {"onnx float32": half.rows}}
    rest = run(sky, tmp_path / "catalog", client, backend="torch")
    assert 0 < half.rows < 100
    assert (rest.rows, rest.units_skipped, rest.notes) == (100 - half.rows, half.units_done, ())
    assert record(tmp_path / "catalog")["backends"] == {"kind": {"torch float32": rest.rows}}
    assert record(tmp_path / "catalog")["settings"]["backend"] == "torch"
    assert "backend" not in record(tmp_path / "catalog")["identity"]["settings"]
    assert 0 < largest_gap(rows(tmp_path / "plain"), rows(tmp_path / "catalog")) <= ROUNDING


def test_a_refused_backend_is_told_and_the_rows_are_those_of_torch(
    sky: Path, tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("onnx")
    run(sky, tmp_path / "plain", client, backend="torch")

    def other(network: nn.Module, inputs: Sequence[Tensor], key: Any, stride: int) -> bytes:
        import copy

        broken = copy.deepcopy(network)
        with torch.no_grad():
            next(broken.parameters()).mul_(1.05)
        return onnx_graph.graph_of(broken, inputs)

    monkeypatch.setattr(forward, "cached_graph", other)
    result = run(sky, tmp_path / "catalog", client, backend="onnx")
    (note,) = result.notes
    assert note.startswith("bundle kind ran on torch, not on onnx: its answers differ by 0.0")
    assert record(tmp_path / "catalog")["result"]["notes"] == [note]
    assert record(tmp_path / "catalog")["backends"] == {"kind": {"torch float32": 100}}
    assert largest_gap(rows(tmp_path / "plain"), rows(tmp_path / "catalog")) == 0


def test_workers_without_the_package_stop_the_run_before_its_first_unit(
    sky: Path, tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install \"astroml-plugin\[openvino\]\""):
        run(sky, tmp_path / "catalog", client, backend="openvino")
    assert not list((tmp_path / "catalog" / "parts").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backend": "tensorrt"}, "must be one of auto, torch"),
        ({"backend": "onnx", "compiling": "always"}, "choose one"),
    ],
)
def test_choices_that_cannot_be_are_refused(settings: dict[str, str], said: str, sky: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        run(sky, tmp_path / "catalog", None, **settings)
    assert not (tmp_path / "catalog").exists()


def test_the_record_counts_by_bundle_runtime_and_number_format() -> None:
    assert by_bundle({"a b onnx float32": 3, "a b torch bfloat16": 2}) == {
        "a b": {"onnx float32": 3, "torch bfloat16": 2}
    }


# ---- shipped bundles ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_bundle_is_answered_alike(name: str) -> None:
    """Or refused in words: nobody gets other numbers."""
    bundle = ModelBundle.load(name)
    task = bundle.task()
    network = task.inference_network(place_network(bundle.network(fused=True), "cpu"))
    inputs, wanted = task.example_inputs(9), {}
    made: dict[str, ForwardChoice] = {}
    graphs: list[bytes] = []

    def graph() -> bytes:
        if not graphs:
            graphs.append(onnx_graph.graph_of(network, task.example_inputs(), getattr(task, "stride", 0)))
        return graphs[0]

    for runtime in RUNTIMES:
        needs(runtime)
        made[runtime] = ForwardChoice(Forward(network, "cpu"), runtime, graph, task.example_inputs, name)
        found, form = made[runtime](inputs, 128)
        wanted[runtime] = form
        with torch.inference_mode():
            assert difference(network(*inputs), found) <= ROUNDING
    assert wanted == {runtime: f"{runtime} float32" for runtime in RUNTIMES}, [one.refused for one in made.values()]


@pytest.mark.slow
def test_openvino_tells_nobody_that_it_was_imported() -> None:
    """Its telemetry forks a process and sends it to a server: not from a survey's nodes."""
    needs("openvino")
    script = (
        "import sys, threading; from astroml_plugin.compute import runtimes; runtimes._openvino().Core();"
        "assert 'openvino_telemetry' not in sys.modules and 'openvino_telemetry.main' not in sys.modules;"
        "print([thread.name for thread in threading.enumerate()])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['MainThread']"


def test_first_calls_of_threads_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within OpenVINO two of them wait for each other for ever, now and then."""
    there: list[int] = []

    def session(inputs: Sequence[Tensor]) -> Tensor:
        there.append(1)
        time.sleep(0.02)
        assert len(there) == 1
        there.pop()
        return inputs[0]

    monkeypatch.setattr(runtimes, "_openvino_session", lambda *given: session)
    made, answers = RuntimeForward("openvino", b""), []
    threads = [threading.Thread(target=lambda: answers.append(made([torch.ones(2)], 2))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
