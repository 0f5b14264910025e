"""Population-based training: who goes on from whom, with what, and what remains of it after an interruption."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_samples import ellipticity_stamps

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.search.population import Population, exchange, generations, latest
from astroml_plugin.search.proposals import SegmentProposals
from astroml_plugin.search.ray_cluster import Resources, connected
from astroml_plugin.search.running import TrialSegment
from astroml_plugin.search.samplers import random_sampler
from astroml_plugin.search.space import Configuration, Space
from astroml_plugin.search.study import FAILED, FINISHED, OPEN, Study, Trial
from astroml_plugin.search.trial import changeable
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.checkpoint import CHECKPOINT, LOG, history_of
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.plan import plan_training
from tests.test_search import RECIPE, table
from workflows.infer import infer
from workflows.recipe import read_recipe
from workflows.search import SearchExecution, search

torch.set_num_threads(1)

SPACE = Space.from_mapping(
    {
        "training.learning_rate": {"log_uniform": [1e-4, 1e-1]},
        "training.batch_size": {"choice": [32, 64, 128]},
        "network_arguments.hidden": {"log_integer": [16, 512]},
    }
)
POPULATION = Population(
    SPACE, seed=3, size=8, interval=2, epochs=7, changed=frozenset({"training.learning_rate", "training.batch_size"})
)
RATES = {"training.learning_rate": {"log_uniform": [1e-7, 3e-2]}, "network_arguments.hidden": {"choice": [8, 16]}}


def member(number: int, loss: float, status: str = OPEN) -> Trial:
    history = [{"epoch": epoch, "validation_loss": loss + 1 - epoch} for epoch in range(2)]
    return Trial(number, SPACE.drawn(0, number), status, "its process died" if status == FAILED else "", history)


def opened(folder: Path) -> Study:
    record = {"identity": "i", "space": SPACE.to_mapping(), "objectives": ["validation_loss:min"], "settings": {}}
    return Study.opened(str(folder), record)


def test_generations_end_where_they_should() -> None:
    assert [POPULATION.end(generation) for generation in range(4)] == [2, 4, 6, 7]


def test_the_worst_and_the_failed_go_on_from_the_best(tmp_path: Path) -> None:
    objective = opened(tmp_path).main
    members = [member(number, loss) for number, loss in enumerate([5, 1, 2, 3, 0, 8, 4, 9])]
    moves = POPULATION.moves(0, members, objective)
    assert [one.member for one in moves] == [5, 7]
    assert {one.parent for one in moves} <= {1, 4}
    assert moves[1].reason == "validation_loss 9"
    assert POPULATION.moves(0, members[::-1], objective) == moves
    assert POPULATION.moves(1, members, objective) != moves
    members[1] = member(1, 1, FAILED)
    moves = POPULATION.moves(0, members, objective)
    assert [(one.member, one.reason) for one in moves] == [(1, "its process died"), (7, "validation_loss 9")]
    assert {one.parent for one in moves} <= {2, 4}


def test_one_survivor_is_the_parent_of_all_and_none_ends_the_search(tmp_path: Path) -> None:
    objective = opened(tmp_path).main
    members = [member(number, number, OPEN if number == 5 else FAILED) for number in range(8)]
    assert {one.parent for one in POPULATION.moves(0, members, objective)} == {5}
    assert len(POPULATION.moves(0, members, objective)) == 7
    members[5] = member(5, 1, FAILED)
    with pytest.raises(InputError, match="all 8 members of the population failed: its process died"):
        POPULATION.moves(0, members, objective)


def test_changed_values_stay_near_and_in_range_and_weights_keep_their_shape() -> None:
    start = {"training.learning_rate": 9e-2, "training.batch_size": 32, "network_arguments.hidden": 100}
    found = [POPULATION.explored(start, np.random.default_rng(number)) for number in range(300)]
    assert {one["network_arguments.hidden"] for one in found} == {100}
    rates = np.array([one["training.learning_rate"] for one in found])
    assert rates.min() >= 1e-4
    assert rates.max() <= 1e-1
    stepped = np.isclose(rates, 9e-2 * 0.8) | (rates == 1e-1)
    assert 0.65 < stepped.mean() < 0.85  # the rest is drawn anew
    assert {one["training.batch_size"] for one in found} == {32, 64, 128}
    whole = Space.from_mapping({"training.batch_size": {"integer": [2, 5]}})
    small = Population(whole, 0, 4, 1, 5, frozenset(whole.keys))
    drawn = [small.explored({"training.batch_size": 3}, np.random.default_rng(number)) for number in range(99)]
    assert {one["training.batch_size"] for one in drawn} == {2, 3, 4, 5}


def filled(folder: Path) -> Study:
    """Eight members after their first generation."""
    study = opened(folder)
    for number in range(8):
        study.propose(number, SPACE.drawn(0, number))
        lines = "".join(json.dumps(record) + "\n" for record in member(number, number).history)
        place = Path(study.folder(number))
        (place / LOG).write_text(lines)
        (place / CHECKPOINT).write_text(f"weights of {number}")
    study.end(6, FAILED, "its process died")
    return study


def test_an_exchange_that_was_interrupted_is_carried_out_as_it_was_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = filled(tmp_path / "whole"), filled(tmp_path / "torn")
    exchange(whole, POPULATION, 0, whole.trials())
    take_over, done = Study.take_over, []

    def dies(study: Study, number: int, *more: Any) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(number)
        take_over(study, number, *more)

    monkeypatch.setattr(Study, "take_over", dies)
    with pytest.raises(KeyboardInterrupt):
        exchange(torn, POPULATION, 0, torn.trials())
    monkeypatch.setattr(Study, "take_over", take_over)
    assert generations(torn) == 0
    exchange(torn, POPULATION, 0, torn.trials())  # the trials are not what they were: the decision holds
    assert generations(torn) == generations(whole) == 1
    assert torn.trials() == whole.trials()
    assert torn.exchanges() == whole.exchanges()
    moves = {one["member"]: one["parent"] for one in whole.exchanges()[0]["moves"]}
    assert set(moves) == {6, 7}
    for number, one in enumerate(whole.trials()):
        weights = (Path(whole.folder(number)) / CHECKPOINT).read_text()
        assert weights == f"weights of {moves.get(number, number)}"
        assert one.status == OPEN
        assert latest(one, whole.main) == moves.get(number, number)
        assert [change["trial"] for change in one.schedule] == ([moves[number], number] if number in moves else [])


class Watched:
    """A search without processes."""

    def __init__(self, study: Study) -> None:
        self.trials = {one.number: one for one in study.trials()}
        self.fatal: Exception | None = None
        self.over = False

    def full(self, proposed: int) -> bool:
        return proposed >= POPULATION.size


def loss(configuration: Configuration, weights: float) -> float:
    """The better the learning rate, the faster the weights go down."""
    return weights - 1 / (1 + abs(math.log10(configuration["training.learning_rate"]) + 2))


def run(study: Study, order: np.random.Generator, most: int = 1000, fails: int | None = None) -> Exception | None:
    """SegmentProposals in any order, three at once, as Tune would: each adds epochs to its log and checkpoint."""
    watch = Watched(study)
    legs = SegmentProposals(study, random_sampler(SPACE, POPULATION.seed), watch, POPULATION)
    running: dict[str, dict[str, Any]] = {}
    for number in range(most):
        while len(running) < 3 and isinstance(given := legs.suggest(f"t{number}-{len(running)}"), dict):
            running[f"t{number}-{len(running)}"] = given
        if not running:
            return watch.fatal
        ended = sorted(running)[int(order.integers(len(running)))]
        segment, configuration = TrialSegment.from_config(running.pop(ended))
        folder = study.folder(segment.number)
        history = history_of(folder)
        assert len(history) == segment.known
        for epoch in range(segment.known, segment.until or POPULATION.epochs):
            weights = history[-1]["validation_loss"] if history else 0.0
            history.append({"epoch": epoch, "validation_loss": loss(configuration, weights)})
        header = json.dumps({"__metadata__": {"state": json.dumps({"history": history})}}).encode()
        storage.write_atomic(storage.join(folder, LOG), "".join(json.dumps(one) + "\n" for one in history).encode())
        storage.write_atomic(storage.join(folder, CHECKPOINT), len(header).to_bytes(8, "little") + header)
        if segment.number == fails and segment.known == 2:
            study.end(segment.number, FAILED, "its process died")
        elif segment.until is None:
            study.end(segment.number, FINISHED)
        watch.trials[segment.number] = study.trial(segment.number)
        legs.on_trial_complete(ended)
    return watch.fatal


@pytest.mark.parametrize("legs", [0, 3, 8, 11, 17, 24])
def test_a_population_ends_the_same_in_any_order_and_after_any_interruption(tmp_path: Path, legs: int) -> None:
    one, other = opened(tmp_path / "one"), opened(tmp_path / "other")
    assert run(one, np.random.default_rng(0), fails=5) is None
    run(other, np.random.default_rng(1), legs, fails=5)
    assert run(other, np.random.default_rng(2), fails=5) is None
    assert other.exchanges() == one.exchanges()
    ended = [replace(trial, extra={}) for trial in one.trials()]
    assert [replace(trial, extra={}) for trial in other.trials()] == ended
    assert [len(trial.history) for trial in ended] == [7] * 8
    assert {trial.status for trial in ended} == {FINISHED}
    assert [move["reason"] for move in one.exchanges()[1]["moves"] if move["member"] == 5] == ["its process died"]
    alone = [7 * loss(SPACE.drawn(POPULATION.seed, number), 0.0) for number in range(8)]
    assert np.mean([trial.history[-1]["validation_loss"] for trial in ended]) < np.mean(alone) - 0.2


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ellipticity_stamps(str(tmp_path_factory.mktemp("data") / "galaxies.zarr"), 200)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def ray_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASTROML_CACHE", str(tmp_path_factory.mktemp("cache")))
        with connected(Resources(limit=2)):
            yield


def test_only_what_weights_do_not_depend_on_may_change(recipe: Path, galaxies: str) -> None:
    space = {
        "training.learning_rate": {"log_uniform": [1e-4, 1e-2]},
        "training.ema": {"uniform": [0.0, 0.9]},
        "training.optimizer": {"choice": ["adamw", "sgd"]},
        "training.warp.shift": {"uniform": [0.0, 1.0]},
        "training.seed": {"integer": [1, 9]},
        "network_arguments.hidden": {"integer": [8, 16]},
        "network_arguments.dropout": {"uniform": [0.0, 0.4]},
        "settings.stamp_size": {"choice": [16, 24]},
        "split.limit": {"choice": [50, 100]},
    }
    base = read_recipe(recipe)
    plan = plan_training(base, LabelledStamps([galaxies]))
    found = changeable(base, Space.from_mapping(space), plan)
    assert found == {"training.learning_rate", "training.warp.shift", "network_arguments.dropout"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trials": 1}, "a population needs 2 or more trials, not 1"),
        ({"interval": 0}, "search interval must be 1 or more, not 0"),
        ({"execution": SearchExecution(retrain=True)}, "cannot be retrained: its settings changed while it trained"),
        ({"space": {"training.optimizer": {"choice": ["adamw", "sgd"]}}}, "of training.optimizer it can change none"),
    ],
)
def test_what_a_population_cannot_do_is_said_at_once(
    recipe: Path, galaxies: str, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        search(recipe, data=galaxies, out=tmp_path / "s", algorithm="pbt", **settings)
    assert not (tmp_path / "s").exists()


@pytest.fixture(scope="module")
def trained(recipe: Path, galaxies: str, ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A population of four, undisturbed, two members at a time."""
    folder = tmp_path_factory.mktemp("population")
    told: list[Any] = []
    settings: dict[str, Any] = {"trials": 4, "interval": 1, "space": RATES, "concurrent": 2, "cpus": 1}
    result = search(recipe, data=galaxies, out=folder, algorithm="pbt", progress=told.append, **settings)
    assert result.statuses == {FINISHED: 4, "stopped": 0, FAILED: 0, OPEN: 0}
    assert (told[-1].epochs, told[-1].fraction) == (12, 1.0)
    return folder


@pytest.mark.slow
def test_members_learn_from_each_other(trained: Path, galaxies: str, tmp_path: Path) -> None:
    study = Study(str(trained), json.loads((trained / "study.json").read_text()))
    trials, exchanges = study.trials(), study.exchanges()
    assert [(one["epoch"], len(one["moves"]), one["done"]) for one in exchanges] == [(1, 1, True), (2, 1, True)]
    assert [len(one.history) for one in trials] == [3] * 4
    last = exchanges[-1]["moves"][0]
    child, parent = trials[last["member"]], trials[last["parent"]]
    assert child.history[:2] == parent.history[:2]
    assert child.history[2] != parent.history[2]
    assert child.configuration["network_arguments.hidden"] == parent.configuration["network_arguments.hidden"]
    assert child.configuration["training.learning_rate"] != parent.configuration["training.learning_rate"]
    assert child.schedule[-1]["configuration"] == child.configuration
    alone = float(last["reason"].rpartition(" ")[2])
    assert child.history[2]["validation_loss"] < alone - 0.01
    card = ModelBundle.load(trained / "best").card
    assert (card.training["search"]["algorithm"], card.training["search"]["trials"]) == ("pbt", 4)
    assert card.training["search"].get("schedule", []) == list(trials[card.training["search"]["winner"]].schedule)
    assert (trained / "population.png").stat().st_size > 1000
    assert infer(galaxies, bundle=str(trained / "best"), out=str(tmp_path / "catalog")).rows == 200


@pytest.mark.slow
def test_a_population_that_was_cut_ends_like_an_undisturbed_one(
    trained: Path, recipe: Path, galaxies: str, ray_here: None, tmp_path: Path
) -> None:
    """Ended in the middle of the second generation, and one at a time instead of two."""
    settings: dict[str, Any] = {"algorithm": "pbt", "trials": 4, "space": RATES, "concurrent": 1}
    search(recipe, data=galaxies, out=tmp_path, total_epochs=6, execution=SearchExecution(leave_open=True), **settings)
    assert table(tmp_path)["status"] == [OPEN] * 4
    assert sorted(table(tmp_path)["epochs"]) == [1, 1, 2, 2]
    search(recipe, data=galaxies, out=tmp_path, **settings)
    measured = ("seconds", "cpu_seconds", "node")
    one, other = ({k: v for k, v in table(path).items() if k not in measured} for path in (tmp_path, trained))
    assert one == other
    shas = {ModelBundle.load(path / "best").card.weights_sha256 for path in (tmp_path, trained)}
    assert len(shas) == 1
    with pytest.raises(InputError, match="another study: its settings differ"):
        search(recipe, data=galaxies, out=tmp_path, **{**settings, "trials": 5})
