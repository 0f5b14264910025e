"""One search from its checks to its bundle: refuse what cannot work, open the study, try, conclude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping
from astroml_plugin.search import node_cache
from astroml_plugin.search.local import local_sampler
from astroml_plugin.search.objectives import SPEED, Objective
from astroml_plugin.search.population import Population
from astroml_plugin.search.ray_cluster import Resources, connected
from astroml_plugin.search.ray_space import from_ray
from astroml_plugin.search.report import make_bundle, shared_identity, write_tables
from astroml_plugin.search.samplers import (
    STARTUP,
    Sampler,
    beginning_with,
    grid_sampler,
    halving_sampler,
    random_sampler,
    tpe_sampler,
)
from astroml_plugin.search.schedulers import Scheduling
from astroml_plugin.search.settings import SearchSettings
from astroml_plugin.search.sizes import Sizes
from astroml_plugin.search.space import Configuration, Parameter, Space
from astroml_plugin.search.study import FAILED, OPEN, PART, Study, Trial
from astroml_plugin.search.trial import TrialWork, changeable, configured, own_configuration
from astroml_plugin.search.tuning import Budget, Progress, run_trials
from astroml_plugin.search.warm_start import Learned, first_of, learned
from astroml_plugin.training.bundle import CARD, ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.plan import Plan, complete_task, plan_training
from astroml_plugin.training.recipe import Recipe, plain_recipe
from astroml_plugin.training.splits import split_record
from astroml_plugin.training.tracking import check_names

_REFUSED = {
    "task": "it is what the recipe is for",
    "description": "it changes no training",
    "licence": "it changes no training",
    "training.epochs": "give the epochs of a trial as `epochs` in [search] or --epochs",
    "training.memory": "it changes no training",
}
_DEFAULT_TRIALS = 32


@dataclass(frozen=True)
class SearchExecution:
    """How a search runs: nothing here changes what a trial gives."""

    ray_address: str | None = None
    """Address of a running Ray cluster; default: one is started here and stopped at the end."""
    device: str | None = None
    """Torch device of trials; default: CUDA where a trial has a GPU."""
    retrain: bool = False
    """Train the winner once more from the start instead of keeping its weights."""
    leave_open: bool = False
    """Do not measure on the test split: the study can be continued with a larger budget."""
    retry_failed: bool = False
    """Try trials again that failed in an earlier call."""
    track: tuple[str, ...] = ()
    """Programs that hear of the search, and at its end of each trial: tensorboard, mlflow, wandb."""

    def __post_init__(self) -> None:
        check_names(self.track)


@dataclass(frozen=True)
class Conclusion:
    """The end of a search."""

    study: Study
    """The study, with all that is known of its trials."""
    trials: Sequence[Trial]
    """All trials, by number."""
    winner: Trial
    """The trial that is best in the first objective."""
    bundle: ModelBundle | None
    """The winner's bundle; None while the study is left open."""
    skipped: bool = False
    """Whether the bundle was there already."""


def search_settings(table: Mapping[str, Any], given: Mapping[str, Any]) -> SearchSettings:
    """Settings of the table [search] of a recipe, some of them given instead.

    Raises:
        InputError: an unknown key or a value that cannot be used.
    """
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    own = {key: value for key, value in table.items() if key != "space"}
    return from_mapping(SearchSettings, {**own, **plain}, "[search] of the recipe")


def search_space(table: Mapping[str, Any], given: Mapping[str, Any] | Space | None) -> Space:
    """The space of the table [search] of a recipe, or the one given instead, also in Ray's own words.

    Raises:
        InputError: an empty space, unknown kinds, wrong ranges or conditions.
    """
    if isinstance(given, Space):
        return given
    chosen = table.get("space", {}) if given is None else from_ray(given)
    if not isinstance(chosen, Mapping):
        raise InputError(f"[search.space] of the recipe must be a table, not {chosen!r}")
    return Space.from_mapping(chosen)


def search_recipe(
    recipe: Recipe,
    space: Space,
    settings: SearchSettings,
    *,
    data: Sequence[str],
    out: str,
    execution: SearchExecution,
    progress: Progress | None = None,
) -> Conclusion:
    """Search a space around a recipe; what an earlier call found in `out` is kept and goes on.

    Args:
        recipe: its values outside of the space hold for every trial.
        space, settings: what is searched, and how.
        data: `Stamps` with label columns, readable from every node.
        out: folder or URL of the study, shared by all nodes.
        execution: where and how far.
        progress: told after every epoch.

    Raises:
        InputError: recipe, space, data or settings that cannot be used, every trial fails, or another study in `out`.
    """
    base = _trained_as(recipe, settings)
    _refuse_keys(base, space)
    if execution.retrain and settings.population:
        raise InputError("the winner of a population cannot be retrained: its settings changed while it trained")
    cpus, gpus = settings.cpus * settings.processes, settings.gpus * settings.processes
    resources = Resources(cpus, gpus, settings.concurrent, execution.ray_address)
    urls = tuple(storage.absolute(url) for url in data)
    stamps = node_cache.CachedStamps(urls)
    plan = plan_training(base, stamps)
    base = plan.recipe
    settings = replace(settings, grace=settings.grace or warm_up_epochs(base))
    _refuse_networks(base, space, plan)
    population = _population(settings, base, space, plan)
    beginning = _beginning(settings, base, space)
    sizes = _sizes(settings, space, len(plan.rows["train"]))
    study = Study.opened(out, _record(base, space, settings, stamps, beginning))
    sampler = _sampler(settings, space, study, beginning, sizes)
    budget = _budget(settings, space)
    with study.alone():
        if study.record.get("budget") is not None:
            _refuse_more(study, budget)
        else:
            for trial in study.trials() if execution.retry_failed else ():
                if trial.status == FAILED:
                    study.reopen(trial.number)
            if _work_left(study, sampler, budget):
                speed = any(one.name == SPEED for one in study.objectives)
                work = TrialWork(base, urls, execution.device, settings.processes, speed, shared_identity(study))
                with connected(resources):
                    run_trials(
                        study,
                        work,
                        sampler,
                        budget=budget,
                        scheduling=_scheduling(settings, base),
                        resources=resources,
                        population=population,
                        progress=progress,
                    )
        found = _concluded(study, base, stamps, budget, execution)
    if execution.ray_address is None:
        node_cache.forget(stamps.digest)
    return found


# ---- checked before anything starts ------------------------------------------------------------------------------


def _trained_as(recipe: Recipe, chosen: SearchSettings) -> Recipe:
    """The recipe with the epochs of a trial. Members of a population do not lose patience: they are replaced."""
    training = replace(recipe.training, epochs=chosen.epochs or recipe.training.epochs)
    return replace(recipe, training=replace(training, patience=0) if chosen.population else training)


def warm_up_epochs(base: Recipe) -> int:
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
                task = complete_task(recipe.build_task(), plan.data)
            else:
                with torch.device("meta"):
                    task.build_network(recipe.network, recipe.network_arguments)
        except InputError as error:
            raise InputError(f"search space, {one.key} = {_shown(one, configuration)}: {error}") from None


def _shown(one: Parameter, configuration: Configuration) -> str:
    return repr(configuration.get(one.key))


@dataclass(frozen=True)
class _Beginning:
    """The first configurations of a search, and how they are known."""

    own: Configuration | None
    """The recipe's own values; None where they are not tried."""
    known: Sequence[Learned] = ()
    """Configurations of earlier searches, the best first."""

    @property
    def first(self) -> list[Configuration]:
        """Configurations of the first trials."""
        own = [] if self.own is None else [self.own]
        return own + first_of(self.known, self.own)


def _beginning(chosen: SearchSettings, base: Recipe, space: Space) -> _Beginning:
    if chosen.warm_start and chosen.algorithm in ("grid", "pbt"):
        raise InputError(f"warm_start helps asha, random, tpe, tpe-asha and local, not {chosen.algorithm}")
    return _Beginning(_own(chosen, base, space), learned(chosen.warm_start, space, own_configuration(base, space)))


def _sizes(chosen: SearchSettings, space: Space, objects: int) -> Sizes | None:
    """Sizes of the training set; None where all trials see all objects."""
    if chosen.fidelity != "stamps":
        return None
    if PART in space.keys:
        raise InputError(f"fidelity stamps sets {PART} itself: leave it out of the search space")
    return Sizes.of(objects, chosen.rungs, chosen.reduction)


def _sampler(chosen: SearchSettings, space: Space, study: Study, beginning: _Beginning, sizes: Sizes | None) -> Sampler:
    if chosen.algorithm == "grid":
        return grid_sampler(space)
    if chosen.algorithm.startswith("tpe"):
        sampler = tpe_sampler(
            space, chosen.seed, study.objectives, beginning.known, partial(study.alike, least=STARTUP)
        )
    elif chosen.algorithm == "local":
        sampler = local_sampler(space, chosen.seed, study.main)
    else:
        sampler = random_sampler(space, chosen.seed)
    if sizes is None:
        return beginning_with(beginning.first, sampler)
    # the recipe's own values are tried on the fewest objects too, so that others are compared with them
    twice = [] if beginning.own is None else [beginning.own]
    return halving_sampler(sizes, beginning_with([*twice, *beginning.first], sampler), len(twice), study.main)


def _own(chosen: SearchSettings, base: Recipe, space: Space) -> Configuration | None:
    """Configuration of the first trial: the recipe's own values; None where it does not try them."""
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
    kind = "asha" if chosen.algorithm.endswith("asha") and chosen.fidelity == "epochs" else "none"
    shared = {"reduction", "retries", "give_up"}
    given = {name: getattr(chosen, name) for name in shared}
    return Scheduling(kind, base.training.epochs, grace=chosen.grace or 1, **given)


def _record(
    base: Recipe, space: Space, chosen: SearchSettings, stamps: LabelledStamps, beginning: _Beginning
) -> dict[str, Any]:
    """Record of a study: everything that changes what a trial gives, or which trials there are."""
    objectives = [str(Objective.parse(text)) for text in chosen.objectives]
    names = ["algorithm", "seed", "processes"]
    names += ["grace", "reduction"] if chosen.algorithm.endswith("asha") else []
    names += ["interval", "population"] if chosen.population else []
    names += ["baseline"] if beginning.own is not None else []
    names += ["fidelity", "rungs"] if chosen.fidelity != "epochs" else []
    record: dict[str, Any] = {
        "recipe": {**plain_recipe(base), "split": split_record(base.split)},
        "space": space.to_mapping(),
        "objectives": objectives,
        "settings": {name: getattr(chosen, name) for name in names},
        "data": stamps.digest,
    }
    if beginning.known:
        record["learned"] = [{"configuration": one.configuration, "rank": one.rank} for one in beginning.known]
    return {"identity": storage.digest(record), **record}


def _refuse_more(study: Study, budget: Budget) -> None:
    if study.record["budget"] != asdict(budget):
        raise InputError(
            f"the study in {storage.redact(study.url)} is closed: its winner was measured on the test split, and what "
            "is chosen later would not be blind to it; choose another output (leave_open keeps a study open)"
        )


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
    study: Study, base: Recipe, data: LabelledStamps, budget: Budget, execution: SearchExecution
) -> Conclusion:
    """Tables, pictures, the winner's recipe; unless left open its bundle, measured once on the test split."""
    trials = study.trials()
    number = study.record.get("winner")
    winner = study.winner(trials) if number is None else trials[number]
    if winner is None:
        reasons = list(dict.fromkeys(one.reason for one in trials if one.status == FAILED))[:3]
        why = f"they failed: {'; '.join(reasons)}" if reasons else "give a larger budget"
        raise InputError(f"none of the {len(trials)} trials has a result: {why}")
    write_tables(study, trials, winner, configured(base, winner.configuration))
    url = storage.join(study.url, "best")
    skipped = storage.exists(storage.join(url, CARD))
    if execution.leave_open and not skipped:
        return Conclusion(study, trials, winner, None)
    if not skipped:
        study.save(winner=winner.number, budget=asdict(budget), tried=len(trials))  # frozen before test is looked at
        study.save(test_measurements=int(study.record.get("test_measurements", 0)) + 1)
        make_bundle(study, trials, winner, base, data, url, retrain=execution.retrain, device=execution.device)
        study.forget_checkpoints(trials, keep=winner.number)
    return Conclusion(study, trials, winner, ModelBundle.load(url), skipped)
