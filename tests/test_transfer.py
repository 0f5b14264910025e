"""Fine-tuning: a training that begins with the weights of a bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import class_stamps, write_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.plan import initial_network, plan_training
from astroml_plugin.training.recipe import Recipe, TransferSettings
from astroml_plugin.training.run import TrainExecution
from astroml_plugin.training.settings import TrainingSettings
from astroml_plugin.training.transfer import take_weights, transferred_plan
from astroml_plugin.training.typicality_fit import TypicalitySettings
from workflows.cli import main
from workflows.train import train

torch.set_num_threads(1)
RECIPE = Recipe(
    "classify",
    settings={"label": "kind", "names": {"1": "galaxy", "2": "star"}},
    network_arguments={"widths": [4, 8], "hidden": 8},
    training=TrainingSettings(epochs=3, batch_size=32, learning_rate=5e-3),
    typicality=TypicalitySettings(fit=False),
)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ModelBundle]:
    """Stamps of two bands and a bundle that learned from them."""
    folder = tmp_path_factory.mktemp("first")
    data = class_stamps(str(folder / "a.zarr"), 240)
    train(RECIPE, data=data, out=folder / "start")
    return data, ModelBundle.load(folder / "start")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> str:
    return class_stamps(str(tmp_path_factory.mktemp("second") / "b.zarr"), 160, seed=5)


def begun(recipe: Recipe, data: str, start: ModelBundle) -> tuple[torch.nn.Module, torch.nn.Module, object]:
    """The network as it would begin alone, as it begins with a bundle, and what it took."""
    plan = plan_training(recipe, LabelledStamps([data]))
    fresh, network = initial_network(plan), initial_network(plan)
    return fresh, network, take_weights(network, plan, start)


def test_all_but_the_head_comes_from_the_bundle(first: tuple[str, ModelBundle], second: str) -> None:
    fresh, network, made = begun(RECIPE, second, first[1])
    theirs, alone = first[1].network().state_dict(), fresh.state_dict()
    for name, value in network.state_dict().items():
        wanted = alone if name.startswith("head.5") else theirs
        assert torch.equal(value, wanted[name]), name
    assert made.fresh == ("head.5.weight", "head.5.bias")
    assert made.rates["head.5.weight"] == 1
    assert made.rates["head.3.weight"] == pytest.approx(0.85)
    assert made.rates["features.0.weight"] < made.rates["features.3.weight"] < 0.85
    wider = begun(replace(RECIPE, transfer=TransferSettings(head=2)), second, first[1])[2]
    assert {name.rpartition(".")[0] for name in wider.fresh} == {"head.3", "head.5"}
    frozen = replace(RECIPE, transfer=TransferSettings(frozen=True))
    rates = begun(frozen, second, first[1])[2].rates
    assert {name for name, rate in rates.items() if rate} == {"head.5.weight", "head.5.bias"}


def test_bands_are_left_out_and_added(first: tuple[str, ModelBundle], second: str) -> None:
    theirs = first[1].network().state_dict()["features.0.weight"]
    one = replace(RECIPE, settings={**RECIPE.settings, "bands": ["r"]})
    assert torch.equal(begun(one, second, first[1])[1].state_dict()["features.0.weight"], theirs[:, 1:])
    plan = plan_training(one, LabelledStamps([second]))
    other = replace(plan, task=plan.task.with_settings(bands=("L",)))
    network = initial_network(plan)
    take_weights(network, other, first[1])
    assert torch.allclose(network.state_dict()["features.0.weight"], theirs.sum(1, keepdim=True))


def test_fine_tuning_trains_and_its_card_tells(first: tuple[str, ModelBundle], second: str, tmp_path: Path) -> None:
    begin = TrainExecution(from_bundle=first[1].url)
    gentle = replace(RECIPE, training=replace(RECIPE.training, epochs=1), transfer=TransferSettings(frozen=True))
    result = train(gentle, data=second, out=tmp_path / "tuned", execution=begin)
    bundle = ModelBundle.load(tmp_path / "tuned")
    record = bundle.card.training["from"]
    assert (record["name"], record["sha256"]) == ("start", first[1].sha256)
    assert record["new"] == ["head.5.weight", "head.5.bias"]
    theirs, tuned = first[1].network().state_dict(), bundle.network().state_dict()
    assert torch.equal(tuned["features.3.weight"], theirs["features.3.weight"])
    assert not torch.equal(tuned["head.5.weight"], theirs["head.5.weight"])
    assert result.objects == bundle.card.training["objects"]["train"]
    assert train(gentle, data=second, out=tmp_path / "tuned", execution=begin).skipped
    with pytest.raises(InputError, match="another recipe, seed or data"):
        train(gentle, data=second, out=tmp_path / "tuned")


def test_objects_that_the_bundle_has_seen_are_not_judged(first: tuple[str, ModelBundle], tmp_path: Path) -> None:
    data, start = first
    other = replace(RECIPE, split=replace(RECIPE.split, seed=3))
    plan = plan_training(other, LabelledStamps([data]))
    with pytest.raises(InputError, match=r"\d+ of \d+ validation objects were trained on by bundle start"):
        transferred_plan(plan, start)
    dropping = replace(other, split=replace(other.split, leaks="drop", fractions=(0.4, 0.3, 0.3)))
    plan = plan_training(dropping, LabelledStamps([data]))
    left = transferred_plan(plan, start)
    learned = plan_training(RECIPE, LabelledStamps([data])).rows["train"]
    for name in ("validation", "test"):
        assert set(left.rows[name]) == set(plan.rows[name]) - set(learned)
        assert len(left.targets[name]) == len(left.rows[name])
    assert np.array_equal(left.rows["train"], plan.rows["train"])
    assert left.identity != plan.identity
    same = plan_training(RECIPE, LabelledStamps([data]))
    assert transferred_plan(same, start).rows.keys() == same.rows.keys()  # the split of the bundle itself


def test_objects_are_known_again_in_another_store(first: tuple[str, ModelBundle], tmp_path: Path) -> None:
    stamps = Stamps.open(first[0])
    image = stamps.read_rows(np.arange(stamps.count))[0]
    kind = stamps.labels()["kind"].to_numpy()
    again = write_stamps(str(tmp_path / "c.zarr"), image[::-1], {"kind": kind[::-1]}, bands=("g", "r"))
    with pytest.raises(InputError, match="were trained on by bundle start"):
        transferred_plan(plan_training(RECIPE, LabelledStamps([again])), first[1])


def test_starts_that_do_not_fit_are_one_sentence(
    first: tuple[str, ModelBundle], second: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"has a network 'strided_cnn' and the recipe 'mlp': set"):
        begun(replace(RECIPE, network="mlp", network_arguments={"hidden": [4]}), second, first[1])
    with pytest.raises(InputError, match="no layer of bundle start fits"):
        begun(replace(RECIPE, network_arguments={"widths": [5, 9], "hidden": 7, "batch_norm": False}), second, first[1])
    with pytest.raises(InputError, match=r"decay \(0\) must be above 0"):
        TransferSettings(decay=0)
    with pytest.raises(InputError, match=r"head \(-1\) 0 or more"):
        TransferSettings(head=-1)
    recipe = tmp_path / "r.toml"
    recipe.write_text('task = "classify"\nnetwork = "mlp"\n[settings]\nlabel = "kind"\n[training]\nepochs = 1\n')
    given = ["train", str(recipe), "--data", second, "--out", str(tmp_path / "t"), "--from", first[1].url]
    assert main(given) == 2
    assert "the recipe 'mlp'" in capsys.readouterr().err


def test_a_recipe_without_a_start_keeps_its_identity(second: str) -> None:
    """What was made before there was such a table is found again."""
    plan = plan_training(RECIPE, LabelledStamps([second]))
    other = plan_training(replace(RECIPE, transfer=TransferSettings(decay=0.5)), LabelledStamps([second]))
    assert other.identity != plan.identity
    assert "transfer" not in json.dumps(ModelBundle.load("morphology").card.training["settings"])
