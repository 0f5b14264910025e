"""Networks that learn without labels, and trainings that begin with them."""

from __future__ import annotations

import math
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from training_samples import class_stamps, write_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.networks.layers import ACTIVATIONS
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks.pretraining.task import PretrainTask, filled
from astroml_plugin.tasks.pretraining.views import Views
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.checkpoint import read_log
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.plan import initial_network, plan_training
from astroml_plugin.training.recipe import Recipe, TransferSettings
from astroml_plugin.training.run import TrainExecution
from astroml_plugin.training.settings import TrainingSettings
from astroml_plugin.training.transfer import take_weights
from astroml_plugin.training.typicality_fit import TypicalitySettings
from tests import universe
from workflows.evaluate import evaluate
from workflows.infer import infer
from workflows.recipe import read_recipe
from workflows.train import train

torch.set_num_threads(1)
SMALL = {"widths": [4, 8], "hidden": 8}
CLASSES = Recipe(
    "classify",
    settings={"label": "kind"},
    network_arguments=SMALL,
    training=TrainingSettings(epochs=2, batch_size=32, learning_rate=5e-3),
    typicality=TypicalitySettings(fit=False),
)
STILL = Views(turn=False, size=0, shift=0, gain=0, colour=0, blur=0, noise=0, drop_band=0)


def pretrain(epochs: int = 3, **changes: object) -> Recipe:
    recipe = read_recipe("pretrain_contrast")
    training = replace(recipe.training, epochs=epochs, batch_size=64)
    small = {"network": "strided_cnn", "network_arguments": SMALL, "training": training}
    small["typicality"] = TypicalitySettings(fit=False)
    return replace(recipe, **{**small, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return class_stamps(str(tmp_path_factory.mktemp("data") / "a.zarr"), 300)


@pytest.fixture(scope="module")
def backbone(data: str, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    out = tmp_path_factory.mktemp("backbone") / "start"
    train(pretrain(), data=data, out=out)
    return ModelBundle.load(out)


def seen(views: Views, image: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return views.second(image, 4, torch.Generator().manual_seed(seed))


def stamp(count: int = 64, bands: int = 1, side: int = 32) -> torch.Tensor:
    """A round source off the centre, on background 0."""
    y, x = torch.meshgrid(torch.arange(side) - 16.0, torch.arange(side) - 19.0, indexing="ij")
    return torch.exp(-0.5 * (x**2 + y**2) / 4).expand(count, bands, side, side).contiguous()


def test_each_view_changes_what_it_says() -> None:
    image = stamp()
    assert torch.equal(seen(STILL, image), image)
    turned = seen(replace(STILL, turn=True), image)
    assert not torch.allclose(turned, image, atol=0.1)
    torch.testing.assert_close(turned.sum((1, 2, 3)), image.sum((1, 2, 3)), rtol=0.02, atol=0)
    sizes = seen(replace(STILL, size=0.3), image).sum((1, 2, 3)) / image.sum((1, 2, 3))
    assert 0.4 < sizes.log().std() < 0.8  # an area: twice the logarithm of a length
    ratio = seen(replace(STILL, gain=0.3), image) / image
    assert ratio.flatten(1).std(1).max() < 1e-5
    assert 0.2 < ratio[:, 0, 0, 0].log().std() < 0.4
    blurred = seen(replace(STILL, blur=1.0), image)
    torch.testing.assert_close(blurred.sum((1, 2, 3)), image.sum((1, 2, 3)), rtol=1e-3, atol=0)
    assert (blurred.amax((1, 2, 3)) < 1).all()
    assert blurred.amax((1, 2, 3)).min() < 0.85  # 4 / (4 + 1), the widest
    shifted = seen(replace(STILL, shift=0.1), image)
    places = shifted.flatten(1).argmax(1)
    assert {int(place) // 32 for place in places} == {13, 14, 15, 16, 17, 18, 19}


def test_noise_is_in_units_of_the_stamp_s_own_and_differs() -> None:
    rng = torch.Generator().manual_seed(3)
    image = torch.randn(64, 2, 32, 32, generator=rng) * torch.tensor([1.0, 5.0])[:, None, None]
    added = seen(replace(STILL, noise=1.0), image) - image
    spread = added.flatten(2).std(2)
    assert 4 < float(spread[:, 1].mean() / spread[:, 0].mean()) < 6
    assert 0.4 < float(spread[:, 0].mean()) < 0.6
    rows = added.flatten(1) / added.flatten(1).norm(dim=1, keepdim=True)
    assert float((rows @ rows.T).fill_diagonal_(0).abs().max()) < 0.2


def test_bands_are_left_out_but_never_all() -> None:
    image = torch.ones(400, 3, 16, 16)
    kept = seen(replace(STILL, drop_band=0.5), image)[:, :, 0, 0]
    assert 0.4 < float(kept.mean()) < 0.65
    assert kept.sum(1).min() == 1
    assert torch.equal(seen(replace(STILL, drop_band=0.5), image[:, :1]), image[:, :1])
    for wrong in ({"noise": -1.0}, {"drop_band": 1.0}):
        with pytest.raises(InputError, match="views"):
            Views(**wrong)  # type: ignore[arg-type]


def test_loss_is_that_of_finding_the_other_view() -> None:
    task = PretrainTask.from_settings({"bands": ["r"], "stamp_size": 16, "features": 2, "projection": 4})
    targets = torch.arange(4).repeat(2)
    alike = torch.cat([torch.zeros(8, 2), torch.eye(4).repeat(2, 1)], dim=1)
    wanted = -math.log(math.exp(5) / (math.exp(5) + 6))
    assert float(task.loss(alike, targets)) == pytest.approx(wanted, abs=1e-5)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    assert float(task.loss(alike[order], targets[order])) == pytest.approx(wanted, abs=1e-5)
    same = torch.cat([torch.zeros(8, 2), torch.ones(8, 4)], dim=1)
    assert float(task.loss(same, targets)) == pytest.approx(math.log(7), abs=1e-5)
    assert task.metrics(alike, targets)["found"] == 1
    assert set(task.metrics(alike[:4], targets[:4])) == {"dimensions"}
    assert filled(torch.eye(5).repeat(9, 1)) == pytest.approx(4)
    assert filled(torch.arange(9.0)[:, None] * torch.ones(1, 5)) == pytest.approx(1)


def test_settings_that_cannot_be_are_one_sentence(data: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="psf = 'none'"):
        PretrainTask.from_settings({"psf": "optional"})
    with pytest.raises(InputError, match="temperature"):
        PretrainTask.from_settings({"temperature": 0.0})
    few = class_stamps(str(tmp_path / "few.zarr"), 60)
    with pytest.raises(InputError, match="pretraining"):
        train(pretrain(), data=few, out=tmp_path / "b")


def test_pretraining_learns_to_tell_objects_apart(backbone: ModelBundle, data: str, tmp_path: Path) -> None:
    figures = backbone.card.metrics["validation"]
    assert figures["loss"] < math.log(2 * 17)  # below chance of so many views
    assert figures["dimensions"] >= 1
    assert backbone.card.training["objects"]["train"] > 200
    made = infer(data, bundle=backbone.url, out=tmp_path / "catalog")
    latent = pq.read_table(str(next((tmp_path / "catalog" / "parts").rglob("*.parquet"))))["latent"]
    assert made.rows == 300
    assert len(latent[0].as_py()) == backbone.card.settings["features"] == 64
    assert evaluate(data, bundle=backbone.url, out=tmp_path / "figures").metrics["dimensions"] >= 1


def test_a_training_begins_with_it(backbone: ModelBundle, data: str, tmp_path: Path) -> None:
    plan = plan_training(CLASSES, LabelledStamps([data]))
    network = initial_network(plan)
    made = take_weights(network, plan, backbone)
    theirs, ours = backbone.network().state_dict(), network.state_dict()
    assert {name.rpartition(".")[0] for name in made.fresh} == {"head.0", "head.3", "head.5"}
    assert torch.equal(ours["features.3.weight"], theirs["network.features.3.weight"])
    frozen = replace(CLASSES, transfer=TransferSettings(frozen=True))
    train(frozen, data=data, out=tmp_path / "kinds", execution=TrainExecution(from_bundle=backbone.url))
    tuned = ModelBundle.load(tmp_path / "kinds")
    record = tuned.card.training["from"]
    seen = record["seen_without_labels"]  # told, not refused: no label was read
    assert record["sha256"] == backbone.sha256
    assert 0 < seen["validation"] <= tuned.card.training["objects"]["validation"]
    assert torch.equal(tuned.network().state_dict()["features.3.weight"], theirs["network.features.3.weight"])
    assert set(read_log(tuned.url)[-1]["gradients"]) == {
        "head.0",
        "head.3",
        "head.5",
    }  # nothing is computed for what stays


def test_it_goes_on_with_other_stamps_and_bands(backbone: ModelBundle, data: str, tmp_path: Path) -> None:
    stamps = Stamps.open(data)
    image = stamps.read_rows(np.arange(200))[0][:, :1]
    other = write_stamps(str(tmp_path / "r.zarr"), image, {"kind": np.ones(200)}, bands=("r",))
    plan = plan_training(pretrain(), LabelledStamps([other]))
    network = initial_network(plan)
    made = take_weights(network, plan, backbone)
    theirs = backbone.network().state_dict()["network.features.0.weight"]
    assert torch.equal(network.state_dict()["network.features.0.weight"], theirs[:, 1:])
    assert all(name.startswith(("network.head.5", "projector")) for name in made.fresh)


def test_a_survey_and_places_are_enough(tmp_path: Path) -> None:
    universe.make_survey(str(tmp_path / "survey.zarr"), bands=("g", "r"))
    places = universe.make_objects(tmp_path / "places.parquet", 260)
    train(pretrain(1), data=str(tmp_path / "survey.zarr"), labels=places, size=24, out=tmp_path / "start")
    bundle = ModelBundle.load(tmp_path / "start")
    assert bundle.bands == ("g", "r")
    assert bundle.stamp_size == 24
    assert bundle.card.training["objects"]["train"] > 200


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("residual_cnn", "strided_cnn", "equivariant_cnn")]


@pytest.mark.parametrize("network", ["polar_cnn", *OTHERS])
def test_networks_of_the_house_are_pretrained(network: str, data: str, tmp_path: Path) -> None:
    arguments = {"strided_cnn": {"widths": [4, 8]}, "residual_cnn": {"widths": [4, 8]}}.get(network, {})
    if network == "polar_cnn":
        arguments = {"rings": 4, "directions": 8, "core": 4.0, "radius": 9.0, "widths": [4, 4, 4], "hidden": 8}
    recipe = pretrain(1, network=network, network_arguments=arguments)
    train(recipe, data=data, out=tmp_path / "start")
    begun = replace(CLASSES, network=network, network_arguments=arguments, training=TrainingSettings(epochs=1))
    train(begun, data=data, out=tmp_path / "kinds", execution=TrainExecution(from_bundle=tmp_path / "start"))
    assert ModelBundle.load(tmp_path / "kinds").card.training["from"]["taken"] > 1


class _Backbone(torch.nn.Module):
    """What timm gives for num_classes = 0: features."""

    num_features = 6

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(bands, 6, 5, 2)
        self.act = ACTIVATIONS["relu"]()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.act(self.stem(image)).mean((2, 3))


def test_backbones_of_timm_are_pretrained(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = types.SimpleNamespace(
        list_models=lambda: ["resnet18"], create_model=lambda name, **given: _Backbone(given["in_chans"])
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    arguments = {"name": "resnet18"}
    train(pretrain(1, network="timm", network_arguments=arguments), data=data, out=tmp_path / "start")
    begun = replace(CLASSES, network="timm", network_arguments=arguments)
    plan = plan_training(begun, LabelledStamps([data]))
    network = initial_network(plan)
    start = ModelBundle.load(tmp_path / "start")
    assert take_weights(network, plan, start).fresh == ("head.weight", "head.bias")
    theirs = start.network().state_dict()["network.backbone.stem.weight"]
    assert torch.equal(network.state_dict()["backbone.stem.weight"], theirs)
