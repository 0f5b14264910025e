"""Searches on one Ray that all tests of this module share (it takes seconds to start)."""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from training_samples import NETWORK, ellipticity_stamps

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.search import node_cache
from astroml_plugin.search.ray_cluster import Resources, connected
from astroml_plugin.search.session import warm_up_epochs
from astroml_plugin.search.space import Space
from astroml_plugin.search.trial import configured, own_configuration
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from workflows import cli
from workflows.infer import infer
from workflows.recipe import read_recipe, search_table, shipped
from workflows.search import SearchExecution, search
from workflows.train import TrainExecution, train

torch.set_num_threads(1)

RECIPE = (
    NETWORK
    + """\
[training]
epochs = 3
batch_size = 32
[split]
fractions = [0.6, 0.2, 0.2]
[search]
trials = 3
concurrent = 1
[search.space]
"training.learning_rate" = { log_uniform = [1e-4, 3e-2] }
"network_arguments.hidden" = { choice = [8, 16] }
training.optimizer = { choice = ["adamw", "sgd"] }
training.ema = { uniform = [0.0, 0.9], when = { "training.optimizer" = "adamw" } }
"""
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASTROML_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ellipticity_stamps(str(tmp_path_factory.mktemp("data") / "galaxies.zarr"), 200)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def ray_here(cache: None) -> Iterator[None]:
    with connected(Resources(limit=2)):
        yield


@pytest.fixture(scope="module")
def studied(recipe: Path, galaxies: str, ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random search, undisturbed."""
    folder = tmp_path_factory.mktemp("studies") / "random"
    told: list[Any] = []
    tracked = SearchExecution(track=("tensorboard",))
    result = search(recipe, data=galaxies, out=folder, algorithm="random", execution=tracked, progress=told.append)
    assert (result.trials, result.statuses["finished"], result.skipped) == (3, 3, False)
    assert told[-1].ended["finished"] == 3
    assert told[-1].fraction == 1.0
    assert told[-1].best.number == result.best
    return folder


def table(folder: Path) -> dict[str, list]:
    return pq.read_table(folder / "trials.parquet").to_pydict()


def test_study_holds_trials_recipe_bundle_and_pictures(studied: Path, galaxies: str, tmp_path: Path) -> None:
    trials = table(studied)
    assert trials["number"] == [0, 1, 2]
    assert trials["status"] == ["finished"] * 3
    assert trials["epochs"] == [3] * 3
    assert min(trials["cpu_seconds"]) > 0
    assert all(node for node in trials["node"])
    for optimizer, ema in zip(trials["param_training.optimizer"], trials["param_training.ema"]):
        assert (ema is None) == (optimizer == "sgd")
    best = int(np.argmin(trials["validation_loss"]))
    assert trials["pareto"] == [number == best for number in range(3)]
    for name in ("parallel_coordinates.png", "progress.png", "pareto.md", "best.toml", "study.json"):
        assert (studied / name).stat().st_size > 100, name
    assert not (studied / "ray").exists()  # Tune's own state, with pickles
    study = json.loads((studied / "study.json").read_text())
    assert (study["winner"], study["tried"], study["test_measurements"]) == (best, 3, 1)
    card = ModelBundle.load(studied / "best").card
    assert card.training["search"]["trials"] == 3
    assert card.metrics["validation"]["loss"] == pytest.approx(trials["validation_loss"][best], rel=1e-4)
    assert card.metrics["test"]["count"] > 20
    kept = [path.parent.name for path in studied.glob("trials/*/checkpoint.safetensors")]
    assert kept == [f"{best:05d}"]
    rows = infer(galaxies, bundle=str(studied / "best"), out=str(tmp_path / "catalog")).rows
    assert rows == 200


@pytest.mark.slow
def test_most_trials_see_a_part_of_the_objects_and_a_later_search_knows_the_best(
    recipe: Path, galaxies: str, studied: Path, ray_here: None, tmp_path: Path
) -> None:
    halving = {"fidelity": "stamps", "rungs": 2, "reduction": 1.5, "algorithm": "asha", "trials": 5}
    result = search(recipe, data=galaxies, out=tmp_path / "s", warm_start=(str(studied),), **halving)
    trials = table(tmp_path / "s")
    assert trials["status"] == ["finished"] * 5
    assert trials["training_objects"][:3] == [None, 77, 77]
    assert trials["training_objects"][3:].count(None) >= 1
    assert trials["training_objects"][result.best] is None
    earlier = table(studied)
    order = sorted((n for n in range(1, 3)), key=lambda n: earlier["validation_loss"][n])
    rates = [earlier["param_training.learning_rate"][n] for n in order]
    tried = trials["param_training.learning_rate"]
    assert tried[0] == tried[1] == earlier["param_training.learning_rate"][0]  # the recipe's own
    assert tried[2] == rates[0]
    assert rates[1] in tried[3:]
    card = ModelBundle.load(tmp_path / "s" / "best").card
    assert card.training["objects"]["train"] == 116
    again = search(recipe, data=galaxies, out=tmp_path / "s", warm_start=(str(studied),), **halving)
    assert again.skipped
    with pytest.raises(InputError, match=r"split\.limit itself"):
        search(recipe, data=galaxies, out=tmp_path / "t", space={"split.limit": {"choice": [70, 100]}}, **halving)
    with pytest.raises(InputError, match="warm_start helps"):
        search(recipe, data=galaxies, out=tmp_path / "t", warm_start=(str(studied),), algorithm="pbt")


def test_a_search_is_told_to_tensorboard_with_each_of_its_trials(studied: Path) -> None:
    """The curve of the best value, and for each trial a run with its configuration and its epochs."""
    (whole,) = (studied / "tensorboard").glob("events.*")
    told = whole.read_bytes()
    assert b"best_validation_loss" in told
    assert b"trials" in told
    runs = sorted(path.parent.parent.name for path in studied.glob("tracked/*/tensorboard/events.*"))
    assert runs == ["trial-0000", "trial-0001", "trial-0002"]
    one = next((studied / "tracked" / "trial-0001" / "tensorboard").glob("events.*")).read_bytes()
    assert one.count(b"validation_loss") == 3  # epochs
    assert b"network_arguments.hidden" in one
    words = ["search", "ellipticity", "--data", "x.zarr", "--out", "study", "--track", "tensorboard,mlflow"]
    assert cli._parsed(cli._parser(), words).track == ("tensorboard", "mlflow")


def test_best_recipe_trains_to_the_same_bundle(studied: Path, galaxies: str, tmp_path: Path) -> None:
    assert "search" not in tomllib.loads((studied / "best.toml").read_text())
    train(studied / "best.toml", data=galaxies, out=tmp_path / "b")
    again, best = ModelBundle.load(tmp_path / "b").card, ModelBundle.load(studied / "best").card
    assert again.weights_sha256 == best.weights_sha256
    assert again.metrics == best.metrics


def test_same_search_again_is_skipped_more_is_refused(studied: Path, recipe: Path, galaxies: str) -> None:
    before = {path: path.read_bytes() for path in studied.rglob("*.json")}
    assert search(recipe, data=galaxies, out=studied, algorithm="random").skipped
    assert {path: path.read_bytes() for path in studied.rglob("*.json")} == before
    with pytest.raises(InputError, match="closed: its winner was measured on the test split"):
        search(recipe, data=galaxies, out=studied, algorithm="random", trials=4)
    with pytest.raises(InputError, match="another study: its settings differ"):
        search(recipe, data=galaxies, out=studied, algorithm="random", seed=1)
    with pytest.raises(InputError, match="another study: its recipe"):
        search(recipe, data=galaxies, out=studied, algorithm="random", epochs=4)
    with pytest.raises(InputError, match="holds a store, catalog or bundle"):
        search(recipe, data=galaxies, out=studied / "best", algorithm="random")


@pytest.mark.slow
def test_search_repeats_and_goes_on_where_it_was_left(
    studied: Path, recipe: Path, galaxies: str, tmp_path: Path
) -> None:
    """A study of one trial grows to three, one of them found half trained, and equals the undisturbed one."""
    first = search(
        recipe,
        data=galaxies,
        out=tmp_path / "s",
        algorithm="random",
        trials=1,
        execution=SearchExecution(leave_open=True),
    )
    assert (first.trials, first.bundle, first.metrics) == (1, None, {})
    assert not (tmp_path / "s" / "best").exists()
    ended = (tmp_path / "s" / "trials" / "00000" / "outcome.json").read_bytes()
    search(
        recipe,
        data=galaxies,
        out=tmp_path / "s",
        algorithm="random",
        total_epochs=4,
        trials=2,
        execution=SearchExecution(leave_open=True),
    )
    assert len(table(tmp_path / "s")["number"]) == 2
    assert table(tmp_path / "s")["status"] == ["finished", "open"]
    search(recipe, data=galaxies, out=tmp_path / "s", algorithm="random")
    assert (tmp_path / "s" / "trials" / "00000" / "outcome.json").read_bytes() == ended
    measured = ("seconds", "cpu_seconds", "node")
    one, other = ({k: v for k, v in table(path).items() if k not in measured} for path in (tmp_path / "s", studied))
    assert one == other
    shas = {ModelBundle.load(path / "best").card.weights_sha256 for path in (tmp_path / "s", studied)}
    assert len(shas) == 1


def test_a_search_that_died_before_its_bundle_measures_the_frozen_winner(
    studied: Path, recipe: Path, galaxies: str, tmp_path: Path
) -> None:
    """The winner was written, then the process died: nothing is searched again, the same trial is measured."""
    again = tmp_path / "s"
    storage.local_path(str(again)).mkdir()
    for path in studied.rglob("*"):
        if path.is_file() and "best/" not in str(path):
            target = again / path.relative_to(studied)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    result = search(recipe, data=galaxies, out=again, algorithm="random")
    assert not result.skipped
    shas = {ModelBundle.load(path / "best").card.weights_sha256 for path in (again, studied)}
    assert len(shas) == 1


@pytest.mark.slow
def test_asha_stops_trials_and_several_objectives_make_a_table(
    recipe: Path, galaxies: str, ray_here: None, tmp_path: Path
) -> None:
    result = search(
        recipe, data=galaxies, out=tmp_path / "s", trials=5, objectives=("validation_loss", "objects_per_second")
    )
    trials = table(tmp_path / "s")
    assert result.statuses["stopped"] >= 1
    assert min(trials["epochs"]) == 1
    assert min(trials["inference_objects_per_second"]) > 100
    assert any(trials["pareto"])
    assert "inference_objects_per_second:max" in (tmp_path / "s" / "pareto.md").read_text()
    assert (tmp_path / "s" / "pareto.png").exists()
    assert trials["reason"][trials["status"].index("stopped")] == "by asha after 1 epochs"


@pytest.mark.slow
def test_failed_trials_are_recorded_and_only_failures_end_the_search(
    recipe: Path, galaxies: str, ray_here: None, tmp_path: Path
) -> None:
    space = {"training.learning_rate": {"choice": [0.003, 1e30]}}
    result = search(recipe, data=galaxies, out=tmp_path / "s", algorithm="grid", space=space)
    trials = table(tmp_path / "s")
    assert (result.best, trials["status"]) == (0, ["finished", "failed"])
    assert "lower learning_rate" in trials["reason"][1]
    space = {"training.learning_rate": {"choice": [1e30, 2e30, 3e30]}}
    with pytest.raises(InputError, match=r"all of the first 2 trials failed: the loss became (nan|inf)"):
        search(recipe, data=galaxies, out=tmp_path / "t", algorithm="grid", space=space, give_up=2)


@pytest.mark.parametrize(
    ("space", "settings", "said"),
    [
        ({"training.learning_rat": {"uniform": [0.1, 0.2]}}, {}, "did you mean 'learning_rate'"),
        ({"trainig.learning_rate": {"uniform": [0.1, 0.2]}}, {}, "did you mean 'training'"),
        ({"training.optimizer": {"choice": ["adamw", "adamx"]}}, {}, "'adamx': training optimizer must be one of"),
        ({"training.batch_size": {"uniform": [16, 32]}}, {}, "batch_size in .* must be a whole number, not 16.0"),
        ({"network_arguments.widths": {"choice": [[4, 8], "x"]}}, {}, "cannot be built"),
        ({"network_arguments.hiden": {"choice": [4]}}, {}, "did you mean 'hidden'"),
        ({"split.seed": {"integer": [0, 9]}}, {}, "same validation objects"),
        ({"training.epochs": {"integer": [1, 9]}}, {}, "--epochs"),
        ({"task": {"choice": ["classify"]}}, {}, "what the recipe is for"),
        (None, {"algorithm": "ahsa"}, "algorithm must be one of asha, random"),
        (None, {"trails": 3}, "did you mean 'trials'"),
        (None, {"trials": 0}, "search trials must be 1 or more, not 0"),
        (None, {"cpus": 1000.0}, "a trial asks for 1000 CPUs and 0 GPUs, and the largest node of the cluster has 2"),
        (None, {"objectives": ("validation_loss:big",)}, "must be NAME, NAME:min or NAME:max"),
        ({}, {}, "search space is empty"),
    ],
)
def test_bad_input_is_said_before_anything_starts(
    recipe: Path, galaxies: str, tmp_path: Path, space: dict | None, settings: dict, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        search(recipe, data=galaxies, out=tmp_path / "s", space=space, **settings)
    assert not (tmp_path / "s" / "trials").exists()


def test_another_network_starts_from_its_own_arguments(recipe: Path) -> None:
    base = read_recipe(recipe)
    other = configured(base, {"network": "mlp", "network_arguments.hidden": 32, "training.warp.shift": 2.0})
    assert other.network_arguments == {"hidden": 32}
    assert other.training.warp.shift == 2.0
    assert configured(base, {"network_arguments.hidden": 32}).network_arguments == {
        **base.network_arguments,
        "hidden": 32,
    }
    assert configured(base, {}) == base
    assert replace(base, network="x") != base


def test_the_first_trial_is_the_recipe_itself(studied: Path, recipe: Path) -> None:
    trials = table(studied)
    own = {key.removeprefix("param_"): column[0] for key, column in trials.items() if key.startswith("param_")}
    assert own == {
        "training.learning_rate": 2e-3,
        "network_arguments.hidden": 8,
        "training.optimizer": "adamw",
        "training.ema": 0.0,
    }
    record = ModelBundle.load(studied / "best").card.training["search"]
    assert record["baseline"] == pytest.approx(trials["validation_loss"][0])
    assert record["value"] <= record["baseline"]


def test_own_values_come_from_recipe_task_and_network_and_only_if_the_space_has_them() -> None:
    base = read_recipe("ellipticity")
    table = {
        "settings.members": {"integer": [1, 4]},
        "network_arguments.dropout": {"uniform": [0.0, 0.4]},
        "training.warp.shift": {"choice": [0.0, 1.0]},
        "training.batch_size": {"log_integer": [64, 512]},
    }
    own = {
        "settings.members": 2,
        "network_arguments.dropout": 0.0,
        "training.warp.shift": 0.0,
        "training.batch_size": 256,
    }
    assert own_configuration(base, Space.from_mapping(table)) == own
    assert own_configuration(base, Space.from_mapping({**table, "training.ema": {"uniform": [0.0, 0.9]}})) is None
    assert own_configuration(base, Space.from_mapping({**table, "network": {"choice": ["mlp"]}})) is None


def test_trials_are_not_stopped_before_they_havewarm_up_epochs(recipe: Path) -> None:
    base = read_recipe(recipe)
    for schedule, epochs, grace in (
        ("one_cycle", 3, 1),
        ("one_cycle", 27, 4),
        ("one_cycle", 100, 15),
        ("cosine", 100, 1),
    ):
        training = replace(base.training, schedule=schedule, epochs=epochs)
        assert warm_up_epochs(replace(base, training=training)) == grace


def test_ray_listens_on_the_loopback_only(ray_here: None) -> None:
    places = set()
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            places |= {one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN}
    assert places
    assert places <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
def test_a_killed_trial_is_tried_again(recipe: Path, galaxies: str, ray_here: None, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(standing: Any) -> None:
        if any(epochs == 1 for _, epochs in standing.running) and not killed:
            for one in psutil.Process().children(recursive=True):
                if "ImplicitFunc" in " ".join(one.cmdline()):
                    one.kill()
                    killed.append(one.pid)

    settings = {"algorithm": "random", "trials": 2}
    search(
        recipe, data=galaxies, out=tmp_path / "s", progress=kill, execution=SearchExecution(leave_open=True), **settings
    )
    assert killed
    trials = table(tmp_path / "s")
    assert (trials["status"], trials["epochs"]) == (["finished"] * 2, [3] * 2)


@pytest.mark.slow
def test_trials_train_data_parallel(recipe: Path, galaxies: str, ray_here: None, tmp_path: Path) -> None:
    result = search(recipe, data=galaxies, out=tmp_path / "s", trials=2, processes=2, algorithm="random")
    trials = table(tmp_path / "s")
    assert (result.statuses["finished"], trials["epochs"]) == (2, [3, 3])
    train(tmp_path / "s" / "best.toml", data=galaxies, out=tmp_path / "b", execution=TrainExecution(processes=2))
    again, best = ModelBundle.load(tmp_path / "b").card, ModelBundle.load(tmp_path / "s" / "best").card
    assert again.weights_sha256 == best.weights_sha256


def test_cached_stamps_are_the_stamps(galaxies: str, tmp_path: Path) -> None:
    other = ellipticity_stamps(str(tmp_path / "more.zarr"), 70, 5)
    plain, cached = LabelledStamps([galaxies, other]), node_cache.CachedStamps([galaxies, other], tmp_path / "cache")
    assert cached.mapped
    rows = np.sort(np.random.default_rng(0).choice(270, 100, replace=False))
    for one, two in zip(plain.blocks, cached.blocks):
        assert (plain.read(one, rows, ("r",)).image == cached.read(two, rows, ("r",)).image).all()
    assert (plain.sample(rows, 50, 3).image == cached.sample(rows, 50, 3).image).all()
    assert (plain.pixel_hashes == cached.pixel_hashes).all()
    assert len(list((tmp_path / "cache").glob("*/*.npy"))) == 3
    node_cache.forget(cached.digest, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_shipped_recipes_have_spaces_that_hold_valid_recipes() -> None:
    spaces = {name: search_table(name)["space"] for name in shipped() if search_table(name)}
    assert len(spaces) >= 4
    for name, table in spaces.items():
        space, recipe = Space.from_mapping(table), read_recipe(name)
        for _, configuration in space.corners():
            configured(recipe, configuration).build_task()
