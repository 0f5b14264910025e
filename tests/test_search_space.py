import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from astroml_plugin import search as search_package
from astroml_plugin.core.errors import InputError
from astroml_plugin.search import importance as importance_module
from astroml_plugin.search import pictures
from astroml_plugin.search.importance import FANOVA, FOREST, importance, places
from astroml_plugin.search.objectives import SPEED, Objective, kept, pareto
from astroml_plugin.search.report import pareto_table
from astroml_plugin.search.samplers import STARTUP, beginning_with, grid_sampler, random_sampler, tpe_sampler
from astroml_plugin.search.space import Parameter, Space
from astroml_plugin.search.study import FAILED, FINISHED, OPEN, Study, Trial

TABLE = {
    "training": {"learning_rate": {"log_uniform": [1e-4, 1e-2]}, "ema": {"uniform": [0.0, 0.9]}},
    "network_arguments.layers": {"integer": [1, 3]},
    "network_arguments.hidden": {"log_integer": [16, 256]},
    "training.optimizer": {"choice": ["adamw", "sgd"]},
    "training.weight_decay": {"log_uniform": [1e-6, 1e-2], "when": {"training.optimizer": "adamw"}},
}


def test_draws_follow_their_distributions_and_conditions() -> None:
    space = Space.from_mapping(TABLE)
    drawn = [space.drawn(3, number) for number in range(4000)]
    rate = np.log10([one["training.learning_rate"] for one in drawn])
    assert (rate >= -4).all()
    assert (rate <= -2).all()
    assert np.histogram(rate, 4, (-4, -2))[0].min() > 900
    layers = np.bincount([one["network_arguments.layers"] for one in drawn])
    assert layers[0] == 0
    assert layers[1:].min() > 1200
    hidden = np.array([one["network_arguments.hidden"] for one in drawn])
    assert (hidden.min(), hidden.max()) == (16, 256)
    assert 0.45 < (hidden < 64).mean() < 0.55
    for one in drawn:
        assert ("training.weight_decay" in one) == (one["training.optimizer"] == "adamw")
    assert drawn[7] == space.drawn(3, 7) != space.drawn(4, 7)
    assert Space.from_mapping(space.to_mapping()) == space


def test_a_draw_does_not_depend_on_other_parameters() -> None:
    fewer = {key: value for key, value in TABLE.items() if key != "network_arguments.layers"}
    one, other = Space.from_mapping(TABLE).drawn(0, 5), Space.from_mapping(fewer).drawn(0, 5)
    assert {**other, "network_arguments.layers": one["network_arguments.layers"]} == one


def test_grid_has_every_combination_once() -> None:
    table = {
        "a": {"choice": ["x", "y"]},
        "b": {"integer": [1, 3], "when": {"a": "x"}},
        "c": {"log_uniform": [1.0, 100.0], "steps": 3},
    }
    points = Space.from_mapping(table).grid()
    assert len(points) == 3 * 3 + 3
    assert sorted({point["c"] for point in points}) == pytest.approx([1.0, 10.0, 100.0])
    sampler = grid_sampler(Space.from_mapping(table))
    assert [sampler(number, []) for number in range(12)] == points
    assert sampler(12, []) is None
    with pytest.raises(InputError, match="needs steps"):
        Space.from_mapping({"c": {"uniform": [0, 1]}}).grid()
    with pytest.raises(InputError, match="1,000,000 points"):
        Space.from_mapping({"c": {"uniform": [0, 1], "steps": 1000}, "d": {"integer": [1, 1000]}}).grid()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "search space is empty"),
        ({"a": 3}, "must be a table"),
        ({"a": {"log_unifrom": [1, 2]}}, "did you mean 'log_uniform'"),
        ({"a": {"uniform": [2, 1]}}, "must be below the highest"),
        ({"a": {"uniform": [1, math.inf]}}, "must be below the highest"),
        ({"a": {"log_uniform": [0, 1]}}, "above 0, not 0"),
        ({"a": {"integer": [1, 2.5]}}, "whole numbers"),
        ({"a": {"uniform": [1]}}, "two numbers"),
        ({"a": {"choice": []}}, "choice is empty"),
        ({"a": {"choice": 3}}, "must be a list"),
        ({"a": {"choice": [1], "uniform": [1, 2]}}, "exactly one of"),
        ({"a": {"integer": [1, 2], "steps": 1}}, "2 or more"),
        ({"ab": {"choice": [1]}, "b": {"choice": [1], "when": {"abc": 1}}}, "did you mean 'ab'"),
        ({"a": {"choice": [1], "when": {"b": 1}}, "b": {"choice": [1], "when": {"a": 1}}}, "round in a circle"),
    ],
)
def test_bad_spaces_are_refused_in_a_sentence(table: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Space.from_mapping(table)


def test_a_sampler_can_start_with_a_given_configuration() -> None:
    space = Space.from_mapping(TABLE)
    sampler, plain = beginning_with([{"training.optimizer": "sgd"}], random_sampler(space, 3)), random_sampler(space, 3)
    assert sampler(0, []) == {"training.optimizer": "sgd"}
    assert [sampler(number, []) for number in (1, 2)] == [plain(number, []) for number in (1, 2)]
    assert space["training.learning_rate"].contains(1e-3)
    assert not space["training.learning_rate"].contains(1.0)
    assert not space["network_arguments.layers"].contains(1.5)
    assert not space["network_arguments.layers"].contains(True)
    assert not space["training.optimizer"].contains(None)


def test_corners_show_every_choice_where_its_condition_holds() -> None:
    table = {
        "network": {"choice": ["mlp", "strided_cnn"]},
        "network_arguments.widths": {"choice": [[4, 8], [8]], "when": {"network": "strided_cnn"}},
    }
    corners = [(one.key, configuration) for one, configuration in Space.from_mapping(table).corners()]
    assert ("network_arguments.widths", {"network": "strided_cnn", "network_arguments.widths": [8]}) in corners
    assert ("network", {"network": "mlp"}) in corners


def test_kept_is_the_epoch_of_the_lowest_validation_loss() -> None:
    history = [{"epoch": i, "validation_loss": loss} for i, loss in enumerate([3.0, math.nan, 1.0, 1.0, 2.0])]
    assert kept(history) == history[2]
    assert kept(history[1:2]) is None
    trial = Trial(0, {}, FINISHED, history=[{"validation_loss": 1.0, "validation_accuracy": 0.7}])
    assert trial.value(Objective.parse("validation_accuracy")) == 0.7
    assert Objective.parse("validation_accuracy").large
    assert str(Objective.parse("objects_per_second")) == "inference_objects_per_second:max"
    assert not Objective.parse("validation_accuracy:min").large
    with pytest.raises(InputError, match="NAME:min or NAME:max"):
        Objective.parse("loss:up")


def test_pareto() -> None:
    assert pareto([(1, 5), (2, 2), (2, 3), (5, 1), (2, 2), (6, 6)]) == [True, True, False, True, True, False]


def trial(space: Space, number: int, cost: float, status: str = FINISHED) -> Trial:
    configuration = space.drawn(0, number)
    history = [{"epoch": 0, "validation_loss": cost, "seconds": 1.0, "cpu_seconds": 2.0}]
    return Trial(number, configuration, status, history=history if math.isfinite(cost) else [])


def test_tpe_prefers_good_regions_and_depends_on_the_trials_alone() -> None:
    pytest.importorskip("optuna")
    space = Space.from_mapping(TABLE)
    objectives = [Objective.parse("validation_loss")]
    known = [trial(space, n, (math.log10(space.drawn(0, n)["training.learning_rate"]) + 3) ** 2) for n in range(40)]
    known[3], known[4] = replace(known[3], status=FAILED), replace(known[4], status=OPEN, history=[])
    sampler = tpe_sampler(space, 0, objectives)
    asked = [sampler(number, known) for number in range(40, 60)]
    assert asked == [tpe_sampler(space, 0, objectives)(number, known) for number in range(40, 60)]
    assert len({str(one) for one in asked}) == 20
    distance = np.abs(np.log10([one["training.learning_rate"] for one in asked]) + 3)
    assert np.median(distance) < 0.3  # at random it would be 0.5
    assert sampler(STARTUP - 1, []) == random_sampler(space, 0)(STARTUP - 1, [])
    for one in asked:
        assert ("training.weight_decay" in one) == (one["training.optimizer"] == "adamw")


def test_several_objectives_make_a_table_and_a_picture(tmp_path: Path) -> None:
    space = Space.from_mapping(
        {"training.learning_rate": {"log_uniform": [1e-4, 1e-2]}, "network": {"choice": ["a", "b"]}}
    )
    objectives = ["validation_loss:min", "inference_objects_per_second:max"]
    study = Study.opened(str(tmp_path / "s"), {"identity": "x", "space": space.to_mapping(), "objectives": objectives})
    found = [(0.5, 100.0), (0.3, 50.0), (0.4, 40.0), (0.9, 900.0), (math.nan, 9000.0)]
    trials = [
        Trial(
            number,
            space.drawn(0, number),
            FINISHED,
            history=[{"epoch": 0, "validation_loss": loss}],
            extra={SPEED: fast},
        )
        for number, (loss, fast) in enumerate(found)
    ]
    trials.append(replace(trials[0], number=5, status=FAILED, extra={SPEED: 1e6}))
    assert study.front(trials) == [True, True, False, True, False, False]
    on = [one for one, best in zip(trials, study.front(trials)) if best]
    lines = pareto_table(study, on).splitlines()
    assert (
        lines[0]
        == "| trial | validation_loss:min | inference_objects_per_second:max | training.learning_rate | network |"
    )
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 1", "| 0", "| 3"]
    assert lines[2].startswith("| 1 | 0.3 | 50 | ")
    assert study.winner(trials).number == 1  # type: ignore[union-attr]
    axes = pictures.figures(study, trials, trials[1])["pareto"].axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines][1] == [[0.3, 50.0], [0.5, 100.0], [0.9, 900.0]]


@pytest.mark.parametrize(
    ("missing", "said"),
    [((), FANOVA), pytest.param(("optuna",), FOREST, marks=pytest.mark.slow)],
    ids=["all", "no optuna"],
)
def test_importance_finds_what_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], said: str
) -> None:
    if "optuna" not in missing:
        pytest.importorskip("optuna")
    found = importance_module.find_spec
    monkeypatch.setattr(importance_module, "find_spec", lambda name: None if name in missing else found(name))
    space = Space.from_mapping(TABLE)
    record = {"identity": "x", "space": space.to_mapping(), "objectives": ["validation_loss:min"]}
    study = Study.opened(str(tmp_path / "s"), record)
    trials = [trial(space, n, abs(math.log10(space.drawn(0, n)["training.learning_rate"]) + 3)) for n in range(40)]
    values, method = importance(study, trials)
    assert method == said
    first, second = list(values.items())[:2]
    assert first[0] == "training.learning_rate"
    assert first[1] > 2 * second[1]
    assert set(values) == set(space.keys)
    assert importance(study, trials) == (values, method)
    assert importance(study, trials[:5])[0] == {}
    x = places(space, trials)
    assert x.max() <= 1
    assert (x[:, space.keys.index("training.weight_decay")] < 0).any()


def test_place_is_the_inverse_of_at() -> None:
    for kind, values in (("uniform", (0.5, 2.0)), ("log_uniform", (1e-4, 1.0)), ("choice", ("a", "b", "c"))):
        one = Parameter("k", kind, values)
        assert one.place(one.at(0.999999)) == pytest.approx(1.0, abs=1e-4)
        assert one.place(one.at(0.0)) == 0


def test_only_search_imports_ray() -> None:
    package = Path(search_package.__file__).parent
    importing = re.compile(r"^\s*(import|from) ray\b", re.MULTILINE)
    found = {path for top in (package.parent, package.parents[1] / "workflows") for path in top.rglob("*.py")}
    outside = [path.name for path in found if package not in path.parents and importing.search(path.read_text())]
    assert outside == []
    pure = ("space", "study", "samplers", "objectives", "importance", "pictures", "node_cache")
    assert [name for name in pure if importing.search((package / f"{name}.py").read_text())] == []
