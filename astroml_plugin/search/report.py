"""The end of a search: its tables and pictures, and the winner's bundle, measured on the test split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from astroml_plugin.compute.device import usable_device
from astroml_plugin.core import storage
from astroml_plugin.evaluation.figures import write_figure
from astroml_plugin.search import pictures
from astroml_plugin.search.study import FAILED, Study, Trial
from astroml_plugin.search.trial import trial_plan
from astroml_plugin.training.checkpoint import history_of
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.plan import initial_network
from astroml_plugin.training.recipe import Recipe, to_toml
from astroml_plugin.training.run import fit_plan, write_bundle
from astroml_plugin.training.settings import TrainingRun


def shared_identity(study: Study) -> str | None:
    """Identity of all checkpoints of a population, whose members go on from each other's; None for other searches."""
    pbt = study.record["settings"]["algorithm"] == "pbt"
    return storage.digest("population", study.record["identity"]) if pbt else None


def baseline_value(study: Study, trials: Sequence[Trial]) -> float | None:
    """The first objective of the recipe's own values, the first trial; None where they were not tried, or failed.

    A member of a population does not keep its values: there it is None too.
    """
    if not study.record["settings"].get("baseline") or not trials or shared_identity(study):
        return None
    value = trials[0].value(study.main)
    return value if math.isfinite(value) and trials[0].status != FAILED else None


def make_bundle(
    study: Study,
    trials: Sequence[Trial],
    winner: Trial,
    base: Recipe,
    data: LabelledStamps,
    url: str,
    *,
    retrain: bool,
    device: str | None,
) -> None:
    """Restore the winner's weights, or train it anew; calibrate, measure once on the test split, write the bundle."""
    record = {
        "search": {
            "study": study.record["identity"],
            "algorithm": study.record["settings"]["algorithm"],
            "trials": len(trials),
            "winner": winner.number,
            "objective": str(study.main),
            "value": winner.value(study.main),
            "baseline": baseline_value(study, trials),
            "retrained": retrain,
            **({"schedule": list(winner.schedule)} if winner.schedule else {}),
        }
    }
    plan = trial_plan(base, winner.configuration, data)
    plan = replace(plan, identity=shared_identity(study) or plan.identity)
    device = usable_device(device)
    if retrain:
        folder, training = storage.join(study.url, "retrained"), plan.recipe.training
    else:
        folder = study.folder(winner.number)
        training = replace(plan.recipe.training, epochs=len(history_of(folder)))  # restored, and no epoch added
    run = TrainingRun(folder, plan.identity, device=device)
    recipe = replace(plan.recipe, training=training)
    result = fit_plan(replace(plan, recipe=recipe), initial_network(plan), run)
    storage.write_atomic(storage.join(url, "recipe.toml"), to_toml(plan.recipe).encode())
    write_bundle(plan, result, url, device, record)


def write_tables(study: Study, trials: Sequence[Trial], winner: Trial, best: Recipe) -> None:
    """trials.parquet, best.toml, pareto.md and the pictures of a study."""
    storage.write_table(storage.join(study.url, "trials.parquet"), study.table(trials))
    storage.write_atomic(storage.join(study.url, "best.toml"), to_toml(best).encode())
    front = [one for one, on in zip(trials, study.front(trials)) if on]
    storage.write_atomic(storage.join(study.url, "pareto.md"), pareto_table(study, front).encode())
    for name, figure in pictures.figures(study, trials, winner).items():
        write_figure(storage.join(study.url, f"{name}.png"), figure)


def pareto_table(study: Study, trials: Sequence[Trial]) -> str:
    """Markdown: trials that no other beats in all objectives, best first."""
    head = ["trial", *(str(one) for one in study.objectives), *study.space.keys]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for trial in sorted(trials, key=lambda one: study.main.cost(one.value(study.main))):
        values = [f"{trial.value(one):.5g}" for one in study.objectives]
        given = [_cell(trial.configuration.get(key)) for key in study.space.keys]
        lines.append("| " + " | ".join([str(trial.number), *values, *given]) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
