"""Search hyperparameters: a recipe with a [search.space] in, a study with its trials and the best bundle out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping, refuse_choices, to_mapping
from astroml_plugin.search import node_cache
from astroml_plugin.search.objectives import SPEED, Objective
from astroml_plugin.search.population import Population
from astroml_plugin.search.ray_cluster import Resources, connected
from astroml_plugin.search.ray_space import from_ray
from astroml_plugin.search.samplers import Sampler, grid_sampler, random_sampler, starting_with, tpe_sampler
from astroml_plugin.search.schedulers import Scheduling
from astroml_plugin.search.space import Configuration, Parameter, Space
from astroml_plugin.search.study import FAILED, FINISHED, OPEN, STOPPED, Study, Trial
from astroml_plugin.search.tuning import Budget, Progress, tuned
from astroml_plugin.training.batches import LabelledStamps, split_record
from astroml_plugin.training.bundle import CARD, ModelBundle
from workflows.recipe import Recipe, read_recipe, search_table
from workflows.train import Plan, fitted_to, planned
from workflows.trials import TrialWork, changeable, configured, own_configuration
from workflows.winner import baseline_value, make_bundle, shared_identity, write_tables

ALGORITHMS = ("asha", "random", "grid", "tpe", "tpe-asha", "pbt")
_REFUSED = {
    "task": "it is what the recipe is for",
    "description": "it changes no training",
    "licence": "it changes no training",
    "training.epochs": "give the epochs of a trial as `epochs` in [search] or --epochs",
    "training.memory": "it changes no training",
}
_DEFAULT_TRIALS, _DEFAULT_POPULATION = 32, 8


@dataclass(frozen=True)
class SearchSettings:
    """How to search: the table [search] of a recipe, its `space` apart."""

    algorithm: str = "asha"
    """asha (random draws, hopeless trials stopped early), random, grid, tpe (optuna), tpe-asha, or pbt (a population
    whose worst members go on from the weights of the best)."""
    trials: int | None = None
    """Configurations to try; 32 where no other budget is given, all points for a grid; pbt: members, 8 by default."""
    hours: float | None = None
    """Wall time to search, earlier calls included."""
    total_epochs: int | None = None
    """Epochs over all trials."""
    epochs: int | None = None
    """Epochs of one trial, at most; None: the recipe's."""
    objectives: tuple[str, ...] = ("validation_loss",)
    """NAME, NAME:min or NAME:max; the first chooses the winner, all make the Pareto table."""
    seed: int = 0
    """Of the configurations."""
    baseline: bool = True
    """The first trial has the recipe's own values, where the space contains them, so that nothing worse wins. A grid
    stays as it is."""
    grace: int | None = None
    """ASHA: epochs before a trial may be stopped; None: until the learning rate has warmed up."""
    reduction: float = 3.0
    """ASHA: one trial of so many goes on at each rung."""
    interval: int = 1
    """PBT: epochs between exchanges."""
    retries: int = 2
    """Further attempts of a trial whose process fails."""
    give_up: int = 5
    """So many failed trials, and no other, end the search."""
    cpus: float = 1.0
    """Cores of one process of a trial."""
    gpus: float = 0.0
    """GPUs of one process of a trial, also fractions."""
    processes: int = 1
    """Processes that train one trial together, each on its share of the data."""
    concurrent: int | None = None
    """Trials at once, at most; None: as many as fit."""

    def __post_init__(self) -> None:
        refuse_choices(self, {"algorithm": ALGORITHMS}, "search")
        least = {"trials": 1, "total_epochs": 1, "epochs": 1, "grace": 1, "give_up": 1}
        least |= {"retries": 0, "seed": 0, "processes": 1, "concurrent": 1, "interval": 1}
        for name, low in least.items():
            if (value := getattr(self, name)) is not None and value < low:
                raise InputError(f"search {name} must be {low} or more, not {value}")
        if (self.hours is not None and self.hours <= 0) or self.reduction <= 1 or self.gpus < 0 or self.cpus <= 0:
            raise InputError(
                f"search needs hours ({self.hours}) and cpus ({self.cpus}) above 0, reduction ({self.reduction}) above "
                f"1 and gpus ({self.gpus}) of 0 or more"
            )
        if not self.objectives:
            raise InputError("search needs at least one objective, such as validation_loss")
        if self.algorithm == "pbt" and self.trials == 1:
            raise InputError("a population needs 2 or more trials, not 1: whom should it learn from?")

    @property
    def population(self) -> int | None:
        """Members of a population; None for other algorithms."""
        return (self.trials or _DEFAULT_POPULATION) if self.algorithm == "pbt" else None


@dataclass(frozen=True)
class SearchResult:
    """A finished search."""

    study: str
    """Path or URL of the study."""
    trials: int
    """Configurations tried."""
    statuses: dict[str, int]
    """finished, stopped, failed, open -> trials."""
    best: int
    """Number of the winner."""
    value: float
    """Its first objective, on the validation split."""
    configuration: dict[str, Any]
    """What it was given."""
    baseline: float | None
    """The first objective of the recipe's own values; None where they were not tried, or failed."""
    bundle: str | None
    """Path or URL of the winner's bundle; None while the study is left open."""
    metrics: dict[str, Any]
    """Of the validation and the test split; empty while the study is left open."""
    seconds: float
    """Wall time of this call."""
    skipped: bool = False
    """Whether the same search was there already, finished."""


def search(
    recipe: str | Path | Recipe,
    *,
    data: str | Sequence[str],
    out: str | Path,
    space: Mapping[str, Any] | Space | None = None,
    ray_address: str | None = None,
    device: str | None = None,
    retrain: bool = False,
    leave_open: bool = False,
    retry_failed: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> SearchResult:
    """Search the space of a recipe; run again after an interruption, it continues.

    Trials see the training and the validation split only. At the end the winner's weights are kept (or it is trained
    anew) and measured once on the test split; that closes the study.

    Args:
        recipe: a shipped name, the path of a TOML file, or a `Recipe`.
        data: one or several `Stamps` with label columns, readable from every node.
        out: folder or URL of the study, shared by all nodes.
        space: instead of [search.space] of the recipe: the same table, or one of Ray's `tune.loguniform(…)`, ….
        ray_address: of a running Ray cluster; else one is started here and stopped at the end.
        device: torch device of trials; default CUDA where a trial has a GPU.
        retrain: train the winner once more from the start instead of keeping its weights.
        leave_open: do not measure on test: the study can be continued with a larger budget.
        retry_failed: try failed trials of an earlier call again.
        progress: told after every epoch.
        settings: fields of `SearchSettings`, instead of those in the recipe.

    Raises:
        InputError: recipe, space, data or settings that cannot be used, every trial fails, or another study in `out`.
    """
    started = time.perf_counter()
    chosen = _settings(recipe, settings)
    base = _trained_as(read_recipe(recipe), chosen)
    chosen = replace(chosen, grace=chosen.grace or _warmed_up(base))
    searched = _space(recipe, space)
    _refuse_keys(base, searched)
    if retrain and chosen.population:
        raise InputError("the winner of a population cannot be retrained: its settings changed while it trained")
    resources = _resources(chosen, ray_address)
    urls = tuple(storage.absolute(url) for url in ([data] if isinstance(data, str) else data))
    stamps = node_cache.CachedStamps(urls)
    plan = planned(base, stamps)
    _refuse_networks(base, searched, plan)
    population = _population(chosen, base, searched, plan)
    study = Study.opened(str(out), _record(base, searched, chosen, stamps))
    sampler = _sampler(chosen, base, searched, study)
    budget = _budget(chosen, searched)
    with study.alone():
        if study.record.get("budget") is not None:
            _refuse_more(study, budget)
        else:
            if retry_failed:
                _reopen(study)
            if _work_left(study, sampler, budget):
                work = TrialWork(
                    base,
                    urls,
                    device,
                    chosen.processes,
                    any(one.name == SPEED for one in study.objectives),
                    shared_identity(study),
                )
                with connected(resources):
                    scheduling = _scheduling(chosen, base)
                    tuned(
                        study,
                        work,
                        sampler,
                        budget=budget,
                        scheduling=scheduling,
                        resources=resources,
                        population=population,
                        progress=progress,
                    )
        result = _concluded(study, base, stamps, budget, leave_open=leave_open, retrain=retrain, device=device)
    if ray_address is None:
        node_cache.forget(stamps.digest)
    return replace(result, seconds=time.perf_counter() - started)


# ---- checked before anything starts ------------------------------------------------------------------------------


def _settings(recipe: str | Path | Recipe, given: Mapping[str, Any]) -> SearchSettings:
    table = {key: value for key, value in search_table(recipe).items() if key != "space"}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    return from_mapping(SearchSettings, {**table, **plain}, "[search] of the recipe")


def _space(recipe: str | Path | Recipe, given: Mapping[str, Any] | Space | None) -> Space:
    if isinstance(given, Space):
        return given
    table = search_table(recipe).get("space", {}) if given is None else from_ray(given)
    if not isinstance(table, Mapping):
        raise InputError(f"[search.space] of the recipe must be a table, not {table!r}")
    return Space.from_mapping(table)


def _trained_as(recipe: Recipe, chosen: SearchSettings) -> Recipe:
    """The recipe with the epochs of a trial. Members of a population do not lose patience: they are replaced."""
    training = replace(recipe.training, epochs=chosen.epochs or recipe.training.epochs)
    return replace(recipe, training=replace(training, patience=0) if chosen.population else training)


def _warmed_up(base: Recipe) -> int:
    """Epochs until the schedule is at its highest rate: before, trials differ in how fast they get there."""
    training = base.training
    return max(1, round(training.warmup * training.epochs)) if training.schedule == "one_cycle" else 1


def _population(chosen: SearchSettings, base: Recipe, space: Space, plan: Plan) -> Population | None:
    if chosen.population is None:
        return None
    changed = changeable(base, space, plan)
    if not changed:
        raise InputError(
            f"pbt changes numbers of a training while it goes on, and of {', '.join(space.keys)} it can change none: "
            "search training.learning_rate or training.weight_decay too, or take asha"
        )
    return Population(space, chosen.seed, chosen.population, chosen.interval, base.training.epochs, changed)


def _refuse_keys(base: Recipe, space: Space) -> None:
    """Every key exists, may be searched, and takes the values it is given."""
    for one in space.parameters:
        if one.key in _REFUSED or (one.key.startswith("split") and one.key not in ("split.limit", "split.limit_seed")):
            why = _REFUSED.get(one.key, "trials must be compared on the same validation objects")
            raise InputError(f"search space: {one.key!r} cannot be searched: {why}")
    for one, configuration in space.corners():
        try:
            configured(base, configuration).build_task()
        except InputError as error:
            raise InputError(f"search space, {one.key} = {_shown(one, configuration)}: {error}") from None


def _refuse_networks(base: Recipe, space: Space, plan: Plan) -> None:
    """Networks and settings at the ends of the space can be built for these data; no memory is taken for weights."""
    for one, configuration in space.corners():
        if one.key.partition(".")[0] not in ("network", "network_arguments", "settings"):
            continue
        recipe = configured(base, configuration)
        try:
            task = plan.task
            if one.key.startswith("settings"):
                task = fitted_to(recipe.build_task(), plan.data)
            else:
                with torch.device("meta"):
                    task.build_network(recipe.network, recipe.network_arguments)
        except InputError as error:
            raise InputError(f"search space, {one.key} = {_shown(one, configuration)}: {error}") from None


def _shown(one: Parameter, configuration: Configuration) -> str:
    return repr(configuration.get(one.key))


def _resources(chosen: SearchSettings, address: str | None) -> Resources:
    return Resources(chosen.cpus * chosen.processes, chosen.gpus * chosen.processes, chosen.concurrent, address)


def _sampler(chosen: SearchSettings, base: Recipe, space: Space, study: Study) -> Sampler:
    if chosen.algorithm == "grid":
        return grid_sampler(space)
    tpe = chosen.algorithm.startswith("tpe")
    sampler = tpe_sampler(space, chosen.seed, study.objectives) if tpe else random_sampler(space, chosen.seed)
    own = _own(chosen, base, space)
    return sampler if own is None else starting_with(own, sampler)


def _own(chosen: SearchSettings, base: Recipe, space: Space) -> Configuration | None:
    """What the first trial tries: the recipe itself."""
    return own_configuration(base, space) if chosen.baseline and chosen.algorithm != "grid" else None


def _budget(chosen: SearchSettings, space: Space) -> Budget:
    trials = chosen.trials
    if chosen.algorithm == "grid":
        points = len(space.grid())
        trials = points if trials is None else min(points, trials)
    trials = chosen.population or trials
    if trials is None and chosen.hours is None and chosen.total_epochs is None:
        trials = _DEFAULT_TRIALS
    return Budget(trials, chosen.hours, chosen.total_epochs)


def _scheduling(chosen: SearchSettings, base: Recipe) -> Scheduling:
    kind = {"asha": "asha", "tpe-asha": "asha"}.get(chosen.algorithm, "none")
    shared = {"reduction", "retries", "give_up"}
    given = {name: getattr(chosen, name) for name in shared}
    return Scheduling(kind, base.training.epochs, grace=chosen.grace or 1, **given)


def _record(base: Recipe, space: Space, chosen: SearchSettings, stamps: LabelledStamps) -> dict[str, Any]:
    """What a study is: whatever changes what a trial gives, or which trials there are."""
    objectives = [str(Objective.parse(text)) for text in chosen.objectives]
    names = ["algorithm", "seed", "processes"]
    names += ["grace", "reduction"] if chosen.algorithm.endswith("asha") else []
    names += ["interval", "population"] if chosen.population else []
    names += ["baseline"] if _own(chosen, base, space) is not None else []
    record = {
        "recipe": {**to_mapping(base), "split": split_record(base.split)},
        "space": space.to_mapping(),
        "objectives": objectives,
        "settings": {name: getattr(chosen, name) for name in names},
        "data": stamps.digest,
    }
    return {"identity": storage.digest(record), **record}


def _refuse_more(study: Study, budget: Budget) -> None:
    if study.record["budget"] != asdict(budget):
        raise InputError(
            f"the study in {storage.redact(study.url)} is closed: its winner was measured on the test split, and what "
            "is chosen later would not be blind to it; choose another output (leave_open keeps a study open)"
        )


def _reopen(study: Study) -> None:
    for one in study.trials():
        if one.status == FAILED:
            study.reopen(one.number)


def _work_left(study: Study, sampler: Sampler, budget: Budget) -> bool:
    """Whether Ray has anything to do."""
    trials = study.trials()
    if budget.hours is not None and study.spent >= 3600 * budget.hours:
        return False
    if budget.epochs is not None and sum(len(one.history) for one in trials) >= budget.epochs:
        return False
    if any(one.status == OPEN for one in trials):
        return True
    full = budget.trials is not None and len(trials) >= budget.trials
    return not full and sampler(len(trials), trials) is not None


# ---- the end -----------------------------------------------------------------------------------------------------


def _concluded(
    study: Study,
    base: Recipe,
    data: LabelledStamps,
    budget: Budget,
    *,
    leave_open: bool,
    retrain: bool,
    device: str | None,
) -> SearchResult:
    """Tables, pictures, the winner's recipe; unless left open its bundle, measured once on the test split."""
    trials = study.trials()
    number = study.record.get("winner")
    winner = study.winner(trials) if number is None else trials[number]
    if winner is None:
        reasons = list(dict.fromkeys(one.reason for one in trials if one.status == FAILED))[:3]
        why = f"they failed: {'; '.join(reasons)}" if reasons else "give a larger budget"
        raise InputError(f"none of the {len(trials)} trials has a result: {why}")
    best = configured(base, winner.configuration)
    write_tables(study, trials, winner, best)
    url = storage.join(study.url, "best")
    skipped = storage.exists(storage.join(url, CARD))
    if leave_open and not skipped:
        return _result(study, trials, winner, None)
    if not skipped:
        study.save(winner=winner.number, budget=asdict(budget), tried=len(trials))  # frozen before test is looked at
        measured = int(study.record.get("test_measurements", 0)) + 1
        study.save(test_measurements=measured)
        make_bundle(study, trials, winner, base, data, url, retrain=retrain, device=device)
        study.forget_checkpoints(trials, keep=winner.number)
    return _result(study, trials, winner, ModelBundle.load(url), skipped=skipped)


def _result(
    study: Study, trials: Sequence[Trial], winner: Trial, bundle: ModelBundle | None, *, skipped: bool = False
) -> SearchResult:
    statuses = {name: sum(one.status == name for one in trials) for name in (FINISHED, STOPPED, FAILED, OPEN)}
    return SearchResult(
        study.url,
        len(trials),
        statuses,
        winner.number,
        winner.value(study.main),
        winner.configuration,
        baseline_value(study, trials),
        None if bundle is None else bundle.url,
        {} if bundle is None else bundle.card.metrics,
        0.0,
        skipped,
    )


SETTINGS = tuple(field.name for field in fields(SearchSettings))
"""Names of the settings, for the command line."""
