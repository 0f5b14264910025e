"""Every CUDA branch on a pretended device: rows of a CPU, no race, no stop of the host within a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from astroml_plugin import cutouts as cut
from astroml_plugin.compute.device import Copier, copier, pipelined, place_network, streams
from astroml_plugin.compute.forward import Forward
from astroml_plugin.explanation.store import ExplanationStore
from astroml_plugin.inference import resident, upload
from astroml_plugin.networks.polar_cnn import PolarCNN
from astroml_plugin.pixels import Tile
from astroml_plugin.training.batches import StampBatches
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.fit import fit
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.places import shipped
from astroml_plugin.training.settings import TrainingRun, TrainingSettings
from tests import pretended_cuda, spotter, universe
from workflows.explain import explain
from workflows.infer import infer, plan, run_unit


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The device; nothing that was made for it is left afterwards."""
    resident.release()
    for cached in (copier, streams):
        cached.cache_clear()
    with pretended_cuda.pretending(monkeypatch) as state:
        yield state
        resident.release()
    for cached in (copier, streams):
        cached.cache_clear()


def test_what_cuda_refuses_is_refused(gpu: Any) -> None:
    there = torch.ones(3).to("cuda")
    assert (there.device, there.is_cuda, (there + 1).device) == (torch.device("cuda", 0), True, torch.device("cuda", 0))
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(3)
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()
    assert (there + 1).cpu().numpy().tolist() == [2, 2, 2]
    assert (there * torch.tensor(2.0)).cpu().tolist() == [2, 2, 2]
    assert nn.Linear(3, 2).to("cuda")(there).is_cuda


def test_races_are_seen_and_order_is_not_a_race(gpu: Any) -> None:
    one, two = torch.cuda.Stream(), torch.cuda.Stream()
    with torch.cuda.stream(one):
        made = torch.zeros(5, device="cuda") + 1
        event = torch.cuda.Event()
        event.record()
    with torch.cuda.stream(two):
        two.wait_event(event)
        seen = made + 1
    assert not gpu.reports
    with torch.cuda.stream(one):
        made.add_(1)
    assert [text.split(",")[0] for text in gpu.reports] == ["written while it may be read"]
    gpu.reports.clear()
    with torch.cuda.stream(two):
        seen = seen + made
    assert [text.split(",")[0] for text in gpu.reports] == ["used while it may be written"]
    gpu.reports.clear()
    with torch.cuda.stream(one):
        one.wait_stream(two)
        seen + 1
    del seen
    assert [text.split(",")[0] for text in gpu.reports] == ["let go while stream 2 may use it"] or gpu.reports
    gpu.reports.clear()
    with torch.cuda.stream(two):
        last = torch.zeros(3, device="cuda") + 1
        two.synchronize()
    del last
    assert not gpu.reports


def test_a_pinned_buffer_that_is_filled_too_early_is_seen(gpu: Any) -> None:
    buffer = torch.empty(8, pin_memory=True)
    target = torch.empty(8, device="cuda")
    target.copy_(buffer, non_blocking=True)
    assert not gpu.reports
    buffer.copy_(torch.ones(8))
    assert len(gpu.reports) == 1


def test_copies_through_two_buffers_are_in_order(gpu: Any) -> None:
    move = Copier("cuda", 1000)
    arrays = [np.random.default_rng(number).normal(size=999).astype(np.float32) for number in range(5)]
    assert all(np.array_equal(move(array).cpu().numpy(), array) for array in arrays)
    assert not gpu.reports
    careless = Copier("cuda", 1000)
    careless._free = _Forgetful()  # type: ignore[assignment]
    careless(arrays[0])
    assert [text.split(" while")[0] for text in gpu.reports] == ["a pinned buffer filled"]


class _Forgetful(list):  # type: ignore[type-arg]
    """Remembers no event."""

    def __getitem__(self, number: Any) -> None:
        return None

    def __setitem__(self, number: Any, event: Any) -> None:
        """Forget."""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def test_the_pipeline_runs_three_streams_without_a_race(gpu: Any) -> None:
    net, move = network(), Copier("cuda", 512)
    arrays = [np.full((4, 1, 8, 8), number, np.float32) for number in range(6)]
    expected = [net(torch.from_numpy(array)).detach() for array in arrays]
    forward = Forward(net.to("cuda"), "cuda", compiling="never")
    gpu.stops.clear()
    found = pipelined(
        (move(array) + 0 for array in arrays), lambda item: forward([item], 4), lambda _, out: out.cpu(), device="cuda"
    )
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one, two)
    assert not gpu.reports
    assert gpu.launches["feed"] > 0
    assert not [text for text in gpu.stops if text.startswith("MainThread")]


def test_a_polar_network_never_stops_the_gpu(gpu: Any) -> None:
    net = PolarCNN(2, 3, rings=8, directions=8, widths=(2, 2, 2), hidden=4).to("cuda")
    image = torch.randn(4, 2, 16, 16).to("cuda")
    for training in (True, False):
        gpu.stops.clear()
        net.train(training)(image)
        assert not gpu.stops


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped())
def test_no_shipped_network_stops_the_gpu_while_it_runs(name: str, gpu: Any) -> None:
    bundle = ModelBundle.load(name)
    inputs = bundle.task().example_inputs()
    expected = Forward(bundle.network(fused=True), "cpu")(inputs, len(inputs[0]))
    there = [item.to("cuda") for item in inputs]
    forward = Forward(place_network(bundle.network(fused=True), "cuda"), "cuda", compiling="never")
    forward(there, len(there[0]))  # tables that are made once
    gpu.stops.clear()
    found = forward(there, len(there[0]))
    assert not gpu.stops
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)
    assert not gpu.reports


def test_stamps_are_cut_alike(gpu: Any) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 60, 70)).astype(np.float32)
    image[0, 10, 10] = np.nan
    tile = Tile(image, np.ones_like(image), rng.choice(np.array([0, 1, 2, 1 << 31], np.uint32), image.shape))
    x, y, jacobian = rng.uniform(-5, 75, 30), rng.uniform(-5, 65, 30), np.full((30, 2, 2), np.nan)
    plain, there = (
        cut.around(
            cut.to_device(tile, "gr", device, move=move), x, y, 16, origin=(0, 0), jacobian=jacobian, padded=True
        )
        for device, move in (("cpu", None), ("cuda", Copier("cuda", 999)))
    )
    for name in ("image", "variance", "valid", "flags"):
        assert torch.equal(getattr(there, name).cpu(), getattr(plain, name)), name
    assert not gpu.reports


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sky")
    with spotter.small_sky(folder):
        universe.make_stamps(str(folder / "stamps.zarr"))
        universe.make_bundle(str(folder / "shape"), task="ellipticity", psf="required")
        yield folder


def rows(sky: Path, out: Path, source: str, bundles: list[str], device: str, units: int = 2) -> Any:
    """Rows of the first units, by `run_unit` alone."""
    objects = str(sky / "objects.parquet") if source == "survey.zarr" and "spots" not in bundles else None
    given = {"bundle": [str(sky / name) for name in bundles], "out": str(out), "objects": objects}
    for _, unit in zip(range(units), plan(str(sky / source), **given, device=device, batch=16)):
        run_unit(unit)
    return pq.read_table(str(out / "parts")).sort_by([("object_id", "ascending")])


def same(one: Any, two: Any) -> None:
    """Equal to float32 rounding."""
    assert one.schema.equals(two.schema)
    assert one.num_rows == two.num_rows > 0
    for name in one.column_names:
        left, right = (table[name].to_numpy() for table in (one, two))
        if left.dtype.kind == "f":
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.mark.parametrize(
    ("source", "bundles"),
    [
        ("stamps.zarr", ["kind"]),
        pytest.param("survey.zarr", ["kind", "shape"], marks=pytest.mark.slow),
        pytest.param("stamps.zarr", ["kind", "shape"], marks=pytest.mark.slow),
        pytest.param("survey.zarr", ["spots"], marks=pytest.mark.slow),
        pytest.param("survey.zarr", ["spots", "kind"], marks=pytest.mark.slow),
    ],
)
def test_units_give_the_rows_of_a_cpu(source: str, bundles: list[str], sky: Path, tmp_path: Path, gpu: Any) -> None:
    plain = rows(sky, tmp_path / "cpu", source, bundles, "cpu")
    assert not gpu.launches
    same(rows(sky, tmp_path / "gpu", source, bundles, "cuda"), plain)
    assert not gpu.reports
    assert gpu.launches["feed"] > 0
    stops = {text: count for text, count in gpu.stops.items() if text.startswith("forward: ")}
    assert all("detecting.py" in text for text in stops), stops  # is there a usable pixel? once per tile, before it
    assert sum(stops.values()) <= 2
    assert upload._tiles._value == upload.TILES_AT_ONCE


@pytest.mark.slow
def test_training_sends_stamps_from_pinned_memory_and_learns_what_a_cpu_does(
    sky: Path, tmp_path: Path, gpu: Any
) -> None:
    bundle = ModelBundle.load(str(sky / "kind"))
    data, rows = LabelledStamps([str(sky / "stamps.zarr")]), np.arange(100)
    targets = torch.from_numpy(rows % 2)
    batches = StampBatches(data, rows, targets, bands=bundle.task().bands, batch_size=25)
    settings = TrainingSettings(epochs=2, ema=0.9, augment=False)
    losses = {}
    for device in ("cpu", "cuda"):
        gpu.stops.clear()
        run = TrainingRun(str(tmp_path / device), device=device)
        network = bundle.network(fused=False).requires_grad_(True)
        made = fit(bundle.task(), network, batches, batches, settings, run)
        losses[device] = [record["train_loss"] for record in made.history]
        assert not gpu.reports
        assert not [text for text in gpu.stops if "pageable" in text]
    np.testing.assert_allclose(losses["cpu"], losses["cuda"], rtol=1e-4)
    assert gpu.launches["MainThread"] > 100


@pytest.mark.slow
def test_explanations_are_those_of_a_cpu(sky: Path, tmp_path: Path, gpu: Any) -> None:
    catalog = str(tmp_path / "catalog")
    given = {"top": 6, "by": "p_star", "faithfulness": 2, "forwards": 17, "maps": "float32"}
    infer(str(sky / "stamps.zarr"), bundle=str(sky / "kind"), out=catalog, device="cpu")
    told = {name: explain(catalog, name=name, device=name, **given) for name in ("cpu", "cuda")}
    assert told["cuda"].words == told["cpu"].words
    stores = {name: ExplanationStore.of(catalog, name) for name in told}
    for column in ("completeness_error", "value", "outline_fraction", "forwards"):
        one, two = (stores[name].read(0)[column].to_numpy() for name in told)
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3, err_msg=column)
    np.testing.assert_allclose(*(stores[name].maps()[:] for name in told), rtol=1e-3, atol=1e-4)
    same(*(stores[name].judged() for name in told))
    assert not gpu.reports
    assert gpu.launches.total() > 100
