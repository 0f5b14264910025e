"""Search hyperparameters: a recipe with a [search.space] in, a study with its trials and the best bundle out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.results import Result
from astroml_plugin.core.settings import texts
from astroml_plugin.search.report import baseline_value
from astroml_plugin.search.session import Conclusion, SearchExecution, search_recipe, search_settings, search_space
from astroml_plugin.search.settings import SearchSettings
from astroml_plugin.search.space import Space
from astroml_plugin.search.study import FAILED, FINISHED, OPEN, STOPPED
from astroml_plugin.search.tracked import TrackedSearch
from astroml_plugin.search.tuning import Progress
from astroml_plugin.training.recipe import Recipe
from workflows.notebook import shows_progress
from workflows.recipe import read_recipe, search_table

SETTINGS = tuple(field.name for field in fields(SearchSettings))
"""Names of the settings, for the command line."""


@dataclass(frozen=True, repr=False)
class SearchResult(Result):
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
    """First objective of the winner, on the validation split."""
    configuration: dict[str, Any]
    """Configuration of the winner."""
    baseline: float | None
    """The first objective of the recipe's own values; None where they were not tried, or failed."""
    bundle: str | None
    """Path or URL of the winner's bundle; None while the study is left open."""
    metrics: dict[str, Any]
    """Metrics of the validation and the test split; empty while the study is left open."""
    seconds: float
    """Wall time of this call."""
    skipped: bool = False
    """Whether the same search was there already, finished."""


@shows_progress("search")
def search(
    recipe: Place | Recipe,
    *,
    data: Place | Sequence[Place],
    out: Place,
    space: Mapping[str, Any] | Space | None = None,
    execution: SearchExecution | None = None,
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
        execution: Ray cluster, device, and what becomes of the winner and of failed trials.
        progress: told after every epoch.
        settings: fields of `SearchSettings`, instead of those in the recipe.

    Raises:
        InputError: recipe, space, data or settings that cannot be used, every trial fails, or another study in `out`.
    """
    started = time.perf_counter()
    table = search_table(recipe)
    execution = execution or SearchExecution()
    with TrackedSearch(execution.track, text_of(out), progress) as tracked:
        found = search_recipe(
            read_recipe(recipe),
            search_space(table, space),
            search_settings(table, settings),
            data=texts(data),
            out=text_of(out),
            execution=execution,
            progress=tracked.progress,
        )
        tracked.conclude(found)
    return _result(found, time.perf_counter() - started)


def _result(found: Conclusion, seconds: float) -> SearchResult:
    study, trials, winner, bundle = found.study, found.trials, found.winner, found.bundle
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
        seconds,
        found.skipped,
    )
