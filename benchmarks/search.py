"""Is early stopping worth it, and what does Ray cost: searches of the recipe `ellipticity` on simulated stamps.

python -m benchmarks.search --seed 0                   # the two searches of a seed, ahead of time
python -m benchmarks --only search                     # those that are missing, the overhead, the section of RESULTS.md
python -m benchmarks.search --minutes 20 --cores 2     # prints it, at 20 minutes of both cores per arm

Studies are kept below ASTROML_BENCH and go on where they were stopped. Both searches of a seed run at the same time,
since the same training takes up to half as many core-seconds again where others use the machine. Stamps have a seed of
development: nothing that is quoted elsewhere was run_trials on them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astroml_plugin.core import storage
from astroml_plugin.core.settings import to_mapping
from astroml_plugin.search import node_cache
from astroml_plugin.search.ray_cluster import Resources, connected
from astroml_plugin.search.study import Study, Trial
from astroml_plugin.search.trial import configured
from astroml_plugin.training.bundle import CARD, ModelBundle
from astroml_plugin.training.checkpoint import LOG
from astroml_plugin.training.plan import initial_network, plan_training
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.run import fit_plan
from astroml_plugin.training.settings import TrainingRun
from benchmarks.harness import Section, scratch
from tests.pages import table
from workflows.recipe import read_recipe
from workflows.search import SearchExecution, search
from workflows.simulate import simulate
from workflows.train import train

ALGORITHMS = ("random", "asha")
SEEDS = (0, 1, 2)
"""Of the configurations; both arms draw the same ones in the same order."""
STAMPS_SEED = 520
TARGETS = {"asha_over_random": 1 / 3, "efficiency": 0.85}
"""What issue 8 asks for: ASHA's core-seconds to the final loss of random search, and trials' share of cores x wall."""


Arms = dict[int, dict[str, list[Trial]]]
"""Seed -> algorithm -> trials."""


@dataclass(frozen=True)
class Scale:
    """How much is searched."""

    stamps: int = 4000
    epochs: int = 27
    """Of a trial, at most."""
    total_epochs: int | None = 432
    """Budget of an arm: sixteen whole trials."""
    minutes: float | None = None
    """Instead: wall time of an arm."""
    cores: int = 1
    overhead_epochs: int = 100
    """Epochs of each trial of the overhead's measurement: trials of 30 s and longer."""
    overhead_trials: int = 4
    overhead_cores: int = 2


def run(scale: Scale | None = None) -> Section:
    """All figures; the section says what they were measured on."""
    scale = scale or Scale()
    torch.set_num_threads(1)
    data = _data(scale.stamps)
    default = _default(scale, data)
    arms: Arms = {seed: _pair(scale, seed) for seed in SEEDS}
    speed, speed_data = _speed(arms, default, scale)
    print(speed, flush=True)
    overhead, overhead_data = _overhead(scale, data)
    budget = f"{scale.minutes:g} minutes" if scale.minutes else f"{scale.total_epochs} epochs"
    head = (
        f"Recipe `ellipticity`, seven searched parameters, {scale.stamps:,} simulated stamps (seed {STAMPS_SEED}), "
        f"70 / 20 / 10 % for training, validation and test; trials of up to {scale.epochs} epochs; {budget} per arm on "
        f"{scale.cores} core(s). Both searches of a seed draw the same configurations in the same order and run at the "
        "same time."
    )
    return Section(
        "Hyperparameter search",
        "\n\n".join([head, speed, overhead]),
        {"scale": asdict(scale), "targets": TARGETS, **speed_data, **overhead_data},
    )


def _folder(scale: Scale, name: str) -> Path:
    parts = {key: value for key, value in asdict(scale).items() if not key.startswith("overhead")}
    made = storage.digest(parts, to_mapping(_recipe(scale.epochs)), _space())
    return scratch() / "search" / made[:12] / name


def _data(count: int) -> str:
    place = scratch() / "search" / f"stamps-{count}"
    if not (place / "stamps.zarr").exists():
        simulate(out=str(place), kind="stamps", count=count, seed=STAMPS_SEED)
    return str(place / "stamps.zarr")


def _recipe(epochs: int) -> Recipe:
    base = read_recipe("ellipticity")
    split = replace(base.split, fractions=(0.7, 0.2, 0.1))
    return replace(base, training=replace(base.training, epochs=epochs), split=split)


def _space() -> dict[str, Any]:
    """Wider than what the recipe ships with since: there was more to be told apart."""
    return {
        "training.learning_rate": {"log_uniform": [1e-4, 2e-2]},
        "training.weight_decay": {"log_uniform": [1e-6, 1e-1]},
        "training.batch_size": {"choice": [64, 128, 256, 512]},
        "network_arguments.hidden": {"log_integer": [32, 512]},
        "network_arguments.layers": {"integer": [1, 4]},
        "network_arguments.activation": {"choice": ["silu", "gelu", "relu", "tanh"]},
        "network_arguments.dropout": {"uniform": [0.0, 0.4]},
    }


# ---- ASHA against random search ----------------------------------------------------------------------------------


def _pair(scale: Scale, seed: int) -> dict[str, list[Trial]]:
    """Algorithm -> trials of the searches of a seed; those that are not kept are made at the same time, a core each."""
    options = [f"--{name}={getattr(scale, name)}" for name in _OPTIONS if getattr(scale, name) is not None]
    cores = sorted(os.sched_getaffinity(0))
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.search", "--arm", f"{name}-{seed}", *options],
            preexec_fn=partial(os.sched_setaffinity, 0, {cores[number % len(cores)]}) if scale.cores == 1 else None,
        )
        for number, name in enumerate(ALGORITHMS)
        if not (_folder(scale, f"{name}-{seed}") / "best" / CARD).exists()
    ]
    statuses = [process.wait() for process in started]
    if any(statuses):
        raise RuntimeError(f"a search of seed {seed} failed")
    return {name: _trials(_folder(scale, f"{name}-{seed}")) for name in ALGORITHMS}


_OPTIONS = ("stamps", "epochs", "minutes", "cores")


def _trials(folder: Path) -> list[Trial]:
    return Study(str(folder), storage.read_json(str(folder / "study.json"))).trials()


def _arm(scale: Scale, name: str) -> None:
    """Make one search."""
    torch.set_num_threads(1)
    algorithm, _, seed = name.partition("-")
    hours = None if scale.minutes is None else scale.minutes / 60
    with connected(Resources(limit=scale.cores)):
        search(
            _recipe(scale.epochs),
            data=_data(scale.stamps),
            out=_folder(scale, name),
            space=_space(),
            algorithm=algorithm,
            baseline=False,  # the default is another arm
            seed=int(seed),
            hours=hours,
            total_epochs=scale.total_epochs if hours is None else None,
            concurrent=scale.cores,
        )


def trace(trials: Sequence[Trial]) -> tuple[np.ndarray, np.ndarray]:
    """Core-seconds spent by all trials together, and the best validation loss by then, epoch after epoch.

    When an epoch ended follows from when its trial ended and the seconds of the later ones.
    """
    last = max((one.extra["ended"] for one in trials if "ended" in one.extra), default=0.0)
    events: list[tuple[float, float, float]] = []
    for one in trials:
        ends = one.extra.get("ended", last + one.seconds)  # cut by the budget: it ran at the end
        durations = [float(record["seconds"]) for record in one.history]
        setup = one.cpu_seconds - sum(float(record["cpu_seconds"]) for record in one.history)
        for number, record in enumerate(one.history):
            cost = float(record["cpu_seconds"]) + (setup if number == 0 else 0.0)
            events.append((ends - sum(durations[number + 1 :]), cost, float(record["validation_loss"])))
    events.sort()
    return np.cumsum([cost for _, cost, _ in events]), np.minimum.accumulate([loss for _, _, loss in events])


def _default(scale: Scale, data: str) -> dict[str, float]:
    """Losses of the shipped recipe as it is."""
    out = _folder(scale, "default")
    train(_recipe(scale.epochs), data=data, out=str(out))
    metrics = ModelBundle.load(str(out)).card.metrics
    return {name: float(metrics[name]["loss"]) for name in ("validation", "test")}


def _speed(arms: Arms, default: dict[str, float], scale: Scale) -> tuple[str, dict[str, Any]]:
    """Table: what ASHA needs until it is as good as random search ends."""
    data = {str(seed): _compared(found, scale, seed) for seed, found in arms.items()}
    rows = [[seed, name, *_row(one[name])] for seed, one in data.items() for name in ALGORITHMS]
    median, epochs = (_median([one["asha"][name] for one in data.values()]) for name in ("ratio", "epoch_ratio"))
    better, tested = (sum(one["asha"][a] < default[b] for one in data.values()) for a, b in _LOSSES)
    said = "met" if median <= TARGETS["asha_over_random"] else "not met"
    head = (
        "seed",
        "algorithm",
        "trials",
        "validation loss",
        "test loss",
        "core-seconds",
        "had random's loss at",
        "ratio",
    )
    text = (
        f"**Early stopping** (loss: negative log likelihood):\n\n{table(head, rows)}\n\n"
        f"The ratio is the core-seconds to the final validation loss of random search, over random search's. Median "
        f"{median:.2f} (target 0.33 or less: {said}); counted in epochs {epochs:.2f}. The recipe's default has "
        f"{default['validation']:.4f} on validation and {default['test']:.4f} on test: ASHA's winner is better in "
        f"{better} of {len(data)} on validation, in {tested} on test (a search of users starts with the recipe's own "
        "values; here they are left out)."
    )
    return text, {"arms": data, "default": default, "median_ratio": median if np.isfinite(median) else None}


_LOSSES = (("loss", "validation"), ("test", "test"))


def _row(one: dict[str, Any]) -> list[str]:
    when = "–" if one["reached"] is None else f"{one['reached']:.0f}"
    ratio = "never" if one["ratio"] is None else f"{one['ratio']:.2f}"
    return [str(one["trials"]), f"{one['loss']:.4f}", f"{one['test']:.4f}", f"{one['core_seconds']:.0f}", when, ratio]


def _median(ratios: Sequence[float | None]) -> float:
    """An arm that never got there counts as infinite."""
    return float(np.median([np.inf if one is None else one for one in ratios]))


def _compared(found: dict[str, list[Trial]], scale: Scale, seed: int) -> dict[str, dict[str, Any]]:
    """Both searches of a seed in numbers."""
    traces = {name: trace(trials) for name, trials in found.items()}
    goal, whole = traces["random"][1][-1], float(traces["random"][0][-1])
    data: dict[str, dict[str, Any]] = {}
    for name, (spent, best) in traces.items():
        there = np.flatnonzero(best <= goal)
        data[name] = {
            "trials": len(found[name]),
            "loss": float(best[-1]),
            "test": _test_loss(_folder(scale, f"{name}-{seed}") / "best"),
            "core_seconds": float(spent[-1]),
            "reached": float(spent[there[0]]) if len(there) else None,
            "ratio": float(spent[there[0]]) / whole if len(there) else None,
            "epoch_ratio": float(there[0] + 1) / len(traces["random"][0]) if len(there) else None,
        }
    return data


def _test_loss(bundle: Path) -> float:
    return float(ModelBundle.load(str(bundle)).card.metrics["test"]["loss"])


# ---- what Ray costs ----------------------------------------------------------------------------------------------


def _overhead(scale: Scale, data: str) -> tuple[str, dict[str, Any]]:
    """Trials' core-seconds over cores and wall of the search, and of Optuna alone with the same samples."""
    kept = _folder(scale, "overhead") / "overhead.json"
    if not kept.exists():
        ray, configurations = _ray_arm(scale, data)
        alone = _optuna_alone(_recipe(scale.overhead_epochs), data, configurations)
        storage.write_json(str(kept), {"ray": ray, "optuna": alone})
    found = storage.read_json(str(kept))
    ray, alone = found["ray"], found["optuna"]
    said = "met" if ray["efficiency"] >= TARGETS["efficiency"] else "not met"
    head = ("", "cores", "wall [s]", "trials [core-s]", "efficiency")
    rows = [_used_row("search", ray), _used_row("Optuna alone", alone)]
    low, high = min(ray["each"]), max(ray["each"])
    text = (
        f"**Overhead**: {scale.overhead_trials} trials of {low:.0f} to {high:.0f} core-seconds; Optuna alone trains "
        f"the same configurations one after the other in one process.\n\n{table(head, rows)}\n\n"
        f"Efficiency: trials' core-seconds over cores x wall, start-up apart (target 0.85: {said}). Start-up, "
        f"checks and pictures of the search: {ray['whole'] - ray['wall']:.0f} s."
    )
    return text, {"overhead": found}


def _used_row(name: str, one: dict[str, Any]) -> list[str]:
    return [name, *(f"{one[key]:.0f}" for key in ("cores", "wall", "trials")), f"{one['efficiency']:.3f}"]


def _ray_arm(scale: Scale, data: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The search in numbers, and its configurations."""
    place, cores = _folder(scale, "overhead"), scale.overhead_cores
    shutil.rmtree(place, ignore_errors=True)
    started = time.perf_counter()
    with connected(Resources(limit=cores)):
        search(
            _recipe(scale.overhead_epochs),
            data=data,
            out=place,
            space={key: value for key, value in _space().items() if key in _ALIKE},
            algorithm="random",
            trials=scale.overhead_trials,
            concurrent=cores,
            execution=SearchExecution(leave_open=True),
        )
    whole, trials = time.perf_counter() - started, _trials(place)
    each = [one.cpu_seconds for one in trials]
    first = min(one.extra["ended"] - one.seconds for one in trials)
    wall = max(one.extra["ended"] for one in trials) - first
    return {**_shares(wall, sum(each), cores), "whole": whole, "each": each}, [one.configuration for one in trials]


def _shares(wall: float, trials: float, cores: int) -> dict[str, Any]:
    """What part of the cores the trials had."""
    return {"cores": cores, "wall": wall, "trials": trials, "efficiency": trials / (cores * wall)}


_ALIKE = ("training.learning_rate", "training.weight_decay")
"""Searched where trials are to last equally long."""


def _optuna_alone(recipe: Recipe, data: str, configurations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same trainings in a loop of Optuna's."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stamps = node_cache.CachedStamps([data])
    place = scratch() / "search" / "optuna"
    shutil.rmtree(place, ignore_errors=True)
    started, cpu = time.perf_counter(), time.process_time()

    def objective(trial: Any) -> float:
        plan = plan_training(configured(recipe, configurations[trial.number]), stamps)
        out = str(place / str(trial.number))
        result = fit_plan(plan, initial_network(plan), TrainingRun(out))
        assert (place / str(trial.number) / LOG).exists()
        return min(record["validation_loss"] for record in result.history)

    optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).optimize(objective, n_trials=len(configurations))
    return _shares(time.perf_counter() - started, time.process_time() - cpu, 1)


def main() -> None:
    """Print the section at another scale."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--overhead", action="store_true", help="measure the overhead only")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="make the searches of this seed only")
    parser.add_argument("--arm", metavar="NAME-SEED", help="make this search only, such as asha-0")
    parser.add_argument("--minutes", type=float, help="wall time of an arm instead of a budget in epochs")
    parser.add_argument("--cores", type=int, default=1, help="of this machine to use")
    parser.add_argument("--stamps", type=int, default=Scale.stamps)
    parser.add_argument("--epochs", type=int, default=Scale.epochs, help="of a trial, at most")
    options = parser.parse_args()
    scale = Scale(options.stamps, options.epochs, minutes=options.minutes, cores=options.cores)
    if options.arm is not None:
        _arm(scale, options.arm)
    elif options.overhead:
        print(_overhead(scale, _data(scale.stamps))[0])
    elif options.seed is not None:
        _data(scale.stamps)
        _pair(scale, options.seed)
    else:
        print(run(scale).text)


if __name__ == "__main__":
    main()
