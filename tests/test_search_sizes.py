"""Parts of the training set for most trials, and what earlier searches have learned."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.search.local import local_sampler
from astroml_plugin.search.objectives import Objective
from astroml_plugin.search.samplers import beginning_with, halving_sampler, random_sampler, tpe_sampler
from astroml_plugin.search.settings import SearchSettings
from astroml_plugin.search.sizes import Sizes
from astroml_plugin.search.space import Space
from astroml_plugin.search.study import FAILED, FINISHED, OPEN, PART, Study, Trial, write_outcome
from astroml_plugin.search.warm_start import FIRST, first_of, learned
from astroml_plugin.training.checkpoint import LOG

TABLE: dict[str, Any] = {
    "training.learning_rate": {"log_uniform": [1e-4, 1e-2]},
    "training.optimizer": {"choice": ["adamw", "sgd"]},
    "training.ema": {"uniform": [0.0, 0.9], "when": {"training.optimizer": "adamw"}},
}
LOSS = Objective.parse("validation_loss")


def ended(number: int, configuration: dict[str, Any], cost: float, status: str = FINISHED) -> Trial:
    history = [{"epoch": 0, "validation_loss": cost, "seconds": 1.0, "cpu_seconds": 2.0}]
    return Trial(number, configuration, status, history=history if math.isfinite(cost) else [])


def cost(configuration: dict[str, Any]) -> float:
    """Best at a rate of 10^-3; a part of the objects tells it with a bias, as real ones do."""
    away = abs(math.log10(configuration["training.learning_rate"]) + 3)
    return away + (1000 / configuration[PART] if PART in configuration else 0.0)


def study_of(folder: Path, trials: list[Trial]) -> Study:
    record = {"identity": "x", "space": TABLE, "objectives": [str(LOSS)], "settings": {}}
    study = Study.opened(str(folder), record)
    for one in trials:
        study.propose(one.number, one.configuration)
        lines = "".join(f"{json.dumps(record)}\n" for record in one.history)
        storage.write_atomic(storage.join(study.folder(one.number), LOG), lines.encode())
        if one.status != OPEN:
            write_outcome(study.folder(one.number), one.status)
    return study


def test_sizes_grow_by_the_reduction_to_all_objects() -> None:
    assert Sizes.of(9000, 3, 3.0).limits == (1000, 3000, 0)
    assert Sizes.of(600, 2, 4.0).limits == (150, 0)
    with pytest.raises(InputError, match="leave 56 of 500 training objects"):
        Sizes.of(500, 3, 3.0)


def run(count: int) -> list[Trial]:
    """A search of so many trials, one after another."""
    space = Space.from_mapping(TABLE)
    own = {"training.learning_rate": 5e-4, "training.optimizer": "sgd"}
    sampler = halving_sampler(Sizes.of(9000, 3, 3.0), beginning_with([own, own], random_sampler(space, 4)), 1, LOSS)
    trials: list[Trial] = []
    for number in range(count):
        configuration = sampler(number, trials)
        assert configuration is not None
        trials.append(ended(number, configuration, cost(configuration)))
    return trials


def test_the_best_of_each_size_are_tried_again_on_more_objects() -> None:
    trials = run(41)
    assert PART not in trials[0].configuration  # the recipe's own values, on all objects
    sizes = [one.configuration.get(PART, 0) for one in trials[1:]]
    assert [sizes.count(limit) for limit in (1000, 3000, 0)] == [26, 11, 3]
    best = sorted(trials[1:], key=lambda one: abs(math.log10(one.configuration["training.learning_rate"]) + 3))
    whole = [one.configuration["training.learning_rate"] for one in trials[1:] if PART not in one.configuration]
    assert best[0].configuration["training.learning_rate"] in whole
    asked = [tuple(sorted(one.configuration.items())) for one in trials]
    assert len(set(asked)) == len(asked)  # nothing is promoted twice
    assert run(41) == trials


def test_failed_and_running_trials_are_not_promoted() -> None:
    sizes = Sizes.of(9000, 2, 3.0)
    rows = [sizes.sized({"training.learning_rate": 10.0 ** -(2 + 0.1 * n)}, 0) for n in range(3)]
    trials = [ended(n, row, 1.0 + n) for n, row in enumerate(rows)]
    assert sizes.promoted(trials, LOSS) == {"training.learning_rate": 10.0**-2}
    for status in (FAILED, OPEN):
        assert sizes.promoted([replace(trials[0], status=status), *trials[1:]], LOSS) is None
    assert sizes.promoted([*trials, ended(3, sizes.sized(rows[0], 1), math.nan, OPEN)], LOSS) is None


def test_only_trials_of_all_objects_win_and_only_equal_sizes_are_compared(tmp_path: Path) -> None:
    part = [ended(n, {"training.learning_rate": 1e-3, "training.optimizer": "sgd", PART: 100}, 0.1) for n in range(4)]
    whole = [replace(one, configuration={**one.configuration}) for one in part[:2]]
    for one in whole:
        del one.configuration[PART]
    trials = [*part, *(ended(4 + n, one.configuration, 0.5) for n, one in enumerate(whole))]
    study = study_of(tmp_path / "s", trials)
    winner = study.winner(study.trials())
    assert winner is not None
    assert (winner.number, len(study.whole(study.trials()))) == (4, 2)
    assert study.front(trials) == [False] * 4 + [True] * 2
    assert study.table(trials)["training_objects"].to_pylist() == [100] * 4 + [None] * 2
    assert [one.number for one in study.alike(trials, 2)] == [4, 5]
    assert [one.number for one in study.alike(trials, 3)] == [0, 1, 2, 3]
    assert "training_objects" not in study.table(trials[4:]).column_names


def test_earlier_searches_say_what_is_tried_first(tmp_path: Path) -> None:
    space = Space.from_mapping(TABLE)
    past = [ended(n, space.drawn(1, n), cost(space.drawn(1, n))) for n in range(12)]
    past[5] = replace(past[5], status=FAILED)
    part = ended(12, {**space.drawn(1, 12), PART: 100}, -9.0)
    place = str(study_of(tmp_path / "s", [*past, part]).url)
    own = {"training.learning_rate": 5e-4, "training.optimizer": "sgd"}
    known = learned([place], space, own)
    assert (len(known), known[0].rank, known[-1].rank) == (11, 0.0, 10 / 11)
    order = sorted((one for one in past if one.status == FINISHED), key=lambda one: cost(one.configuration))
    assert first_of(known, own) == [one.configuration for one in order[:FIRST]]
    assert first_of(known, known[0].configuration)[0] == order[1].configuration  # the recipe's own is not tried twice
    assert first_of([*known, *known], own) == first_of(known, own)

    fewer = {"training.learning_rate": {"log_uniform": [1e-4, 1e-2]}, "training.batch_size": {"choice": [32, 64]}}
    new = learned([place], Space.from_mapping(fewer), {"training.learning_rate": 1e-3, "training.batch_size": 64})
    assert {one.configuration["training.batch_size"] for one in new} == {64}
    other = Space.from_mapping({"training.batch_size": {"choice": [32, 64]}})
    with pytest.raises(InputError, match="nothing that the study"):
        learned([place], other, {"training.batch_size": 64})
    with pytest.raises(InputError, match="holds no study"):
        learned([str(tmp_path)], space, own)


def test_tpe_begins_with_what_earlier_searches_know(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space = Space.from_mapping(TABLE)
    past = [ended(n, space.drawn(1, n), 100 + 50 * cost(space.drawn(1, n))) for n in range(40)]
    known = learned([study_of(tmp_path / "s", past).url], space, None)
    sampler = tpe_sampler(space, 0, [LOSS], known)
    asked = [sampler(number, []) for number in range(20)]
    away = sorted(abs(math.log10(one["training.learning_rate"]) + 3) for one in asked if one is not None)
    assert away[10] < 0.3  # at random it would be 0.5
    now = [ended(n, space.drawn(2, n), cost(space.drawn(2, n))) for n in range(12)]  # of another scale
    asked = [sampler(number, now) for number in range(12, 32)]
    away = sorted(abs(math.log10(one["training.learning_rate"]) + 3) for one in asked if one is not None)
    assert away[10] < 0.3


def test_settings_that_cannot_go_together_are_refused() -> None:
    with pytest.raises(InputError, match="fidelity stamps spares trials of asha"):
        SearchSettings(algorithm="random", fidelity="stamps")
    with pytest.raises(InputError, match="rungs must be 2 or more"):
        SearchSettings(fidelity="stamps", rungs=1)
    with pytest.raises(InputError, match="stamp"):
        SearchSettings(fidelity="stamp")


def test_local_search_climbs_from_the_recipes_own_values() -> None:
    space = Space.from_mapping({**TABLE, "network_arguments.layers": {"integer": [1, 6]}})
    own = {"training.learning_rate": 1.1e-4, "training.optimizer": "sgd", "network_arguments.layers": 6}

    def away(one: dict[str, Any]) -> float:
        return abs(math.log10(one["training.learning_rate"]) + 3) + 0.2 * abs(one["network_arguments.layers"] - 2)

    def run() -> list[Trial]:
        sampler = beginning_with([own], local_sampler(space, 0, LOSS))
        trials: list[Trial] = []
        for number in range(40):
            one = sampler(number, trials)
            assert one is not None
            assert ("training.ema" in one) == (one["training.optimizer"] == "adamw")
            trials.append(ended(number, one, away(one), FAILED if number == 7 else FINISHED))
        return trials

    trials = run()
    assert trials == run()
    assert min(away(one.configuration) for one in trials) < 0.5  # the recipe's own: 1.8
    assert len({json.dumps(one.configuration, sort_keys=True) for one in trials}) == 40
    alone = Space.from_mapping({"training.optimizer": {"choice": ["adamw", "sgd"]}})
    both = [ended(n, {"training.optimizer": name}, 1.0 + n) for n, name in enumerate(("adamw", "sgd"))]
    assert local_sampler(alone, 0, LOSS)(2, both) is not None  # nothing is left, and that is no error
    assert local_sampler(alone, 0, LOSS)(0, []) in ({"training.optimizer": "adamw"}, {"training.optimizer": "sgd"})
