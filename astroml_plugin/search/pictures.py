"""Pictures of a study: parallel coordinates, progress against time and cost, importance, Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from astroml_plugin.search.importance import importance, places
from astroml_plugin.search.space import Parameter
from astroml_plugin.search.study import STOPPED, Study, Trial

_BEST = "crimson"


def figures(study: Study, trials: Sequence[Trial], winner: Trial) -> dict[str, Figure]:
    """Name -> figure of everything that can be drawn of these trials."""
    usable = study.usable(trials)
    found = {
        "parallel_coordinates": parallel_coordinates(study, usable, winner),
        "progress": progress(study, usable, winner),
    }
    values, method = importance(study, trials)
    if values:
        found["importance"] = bars(values, method)
    if len(study.objectives) > 1:
        found["pareto"] = front(study, usable)
    if shown := [one for one in study.space.parameters if _varied(one, usable)]:
        found["population"] = population(shown, usable, winner)
    return found


def parallel_coordinates(study: Study, trials: Sequence[Trial], winner: Trial) -> Figure:
    """Every trial a line through its parameters, coloured by the rank of its objective; the winner on top."""
    parameters = study.space.parameters
    figure = Figure(figsize=(max(6.0, 1.9 * len(parameters) + 2.0), 4.8), layout="constrained")
    axes = figure.subplots()
    ranked = sorted(trials, key=lambda one: -study.main.cost(one.value(study.main)))  # the best are drawn last
    values = places(study.space, ranked)
    rank = np.linspace(0, 1, max(2, len(ranked)))
    across = np.arange(len(parameters) + 1)
    for one, line, place in zip(ranked, values, rank):
        best = one.number == winner.number
        style: dict[str, Any] = (
            {"color": _BEST, "lw": 2.5, "zorder": 3} if best else {"color": _shade(place), "lw": 0.9}
        )
        axes.plot(across, [*line, place], marker="o", ms=5 if best else 2.5, **style)
    names = [one.key.partition(".")[2] or one.key for one in parameters]
    axes.set_xticks(across, [*names, f"rank of\n{study.main.name}"])
    for x, parameter in enumerate(parameters):
        _scale(axes, x, parameter)
        axes.axvline(x, color="0.8", lw=0.8, zorder=0)
    axes.set(yticks=[0, 1], yticklabels=["", ""], ylim=(-0.35, 1.15), title=_title(study, trials, winner))
    axes.text(across[-1] + 0.04, 1.0, "best", va="center")
    axes.text(across[-1] + 0.04, 0.0, "worst", va="center")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _shade(place: float) -> tuple[float, float, float]:
    grey = 0.88 * (1 - place)
    return (grey, grey + 0.25 * place, 0.55 * place + grey)


def _scale(axes: Any, x: int, one: Parameter) -> None:
    """The values beside an axis: its ends, or the choices."""
    count = len(one.values)
    marks = [0.0, 1.0] if one.kind != "choice" else [i / max(1, count - 1) for i in range(count)]
    for mark, value in zip(marks, one.values):
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
        style: dict[str, Any] = {"fontsize": 8, "color": "0.2", "bbox": box, "zorder": 4}
        axes.annotate(text, (x, mark), xytext=(4, 4), textcoords="offset points", **style)
    if one.when:
        axes.annotate("not set", (x, -0.25), xytext=(4, -10), textcoords="offset points", fontsize=8, color="0.35")


def _title(study: Study, trials: Sequence[Trial], winner: Trial) -> str:
    return f"{len(trials)} trials; best {study.main.name} {winner.value(study.main):.4g} (trial {winner.number}, red)"


def progress(study: Study, trials: Sequence[Trial], winner: Trial) -> Figure:
    """Curves of all trials, and the best objective against time and against core-seconds spent."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    curves, clock, cost = figure.subplots(1, 3)
    for one in trials:
        values = [record.get(study.main.name, math.nan) for record in one.history]
        best = one.number == winner.number
        colour = _BEST if best else ("0.7" if one.status == STOPPED else "steelblue")
        curves.plot(range(1, len(values) + 1), values, color=colour, lw=2 if best else 0.8, zorder=3 if best else 2)
    curves.set(xlabel="epoch", ylabel=study.main.name, title="trials (grey: stopped early, red: winner)")
    ended = sorted(trials, key=lambda one: one.extra.get("ended", math.inf))
    values = [one.value(study.main) for one in ended]
    first = min((one.extra["ended"] - one.seconds for one in ended if "ended" in one.extra), default=0.0)
    minutes = [(one.extra.get("ended", math.nan) - first) / 60 for one in ended]
    spent = np.cumsum([one.cpu_seconds for one in ended]) / 60
    for axes, x, label in ((clock, minutes, "minutes since the start"), (cost, spent, "core-minutes spent")):
        axes.plot(x, values, "o", ms=3.5, color="0.6")
        axes.step(x, _best_so_far(study, values), where="post", color=_BEST)
        axes.set(xlabel=label, ylabel=study.main.name, title="ended trials, and the best so far")
    _trim(curves, [one.value(study.main) for one in trials])
    for axes in (clock, cost):
        _trim(axes, values)
    return figure


def _best_so_far(study: Study, values: Sequence[float]) -> np.ndarray:
    better = np.maximum if study.main.large else np.minimum
    return better.accumulate(np.asarray(values, float)) if len(values) else np.array([])


def _trim(axes: Any, values: Sequence[float]) -> None:
    """Leave out of view what is far worse than the rest."""
    if len(values) > 3:
        low, middle, high = np.percentile(values, [0, 50, 100])
        span = max(3 * (middle - low), 3 * (high - middle) if middle == low else 0.0, 1e-12)
        axes.set_ylim(max(low - 0.1 * span, axes.get_ylim()[0]), min(low + 1.5 * span, axes.get_ylim()[1]))


def bars(values: dict[str, float], method: str) -> Figure:
    """Importance of each parameter."""
    figure = Figure(figsize=(7.5, 1.4 + 0.4 * len(values)), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(values)[::-1], list(values.values())[::-1], color="steelblue")
    axes.set(xlim=(0, None), xlabel="importance")
    axes.set_title(method, fontsize=9)
    return figure


def front(study: Study, trials: Sequence[Trial]) -> Figure:
    """The first two objectives against each other; what no trial beats is marked."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    first, second = study.objectives[:2]
    points = np.array([[one.value(first), one.value(second)] for one in trials]).reshape(-1, 2)
    axes.plot(points[:, 0], points[:, 1], "o", ms=4, color="0.6", label="trials")
    on = np.array(study.front(trials), bool)
    chosen = points[on][np.argsort(points[on][:, 0])]
    axes.plot(chosen[:, 0], chosen[:, 1], "o--", lw=0.8, color=_BEST, label="not beaten in all objectives")
    axes.set(xlabel=str(first), ylabel=str(second))
    axes.legend()
    return figure


def population(shown: Sequence[Parameter], trials: Sequence[Trial], winner: Trial) -> Figure:
    """Population-based training: what each member's weights were trained with, epoch after epoch."""
    figure = Figure(figsize=(4.2 * len(shown), 3.6), layout="constrained")
    for axes, parameter in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
        for one in sorted(trials, key=lambda one: one.number == winner.number):
            best = one.number == winner.number
            changes = one.schedule or [{"epoch": 0, "configuration": one.configuration}]
            values = [change["configuration"].get(parameter.key, math.nan) for change in changes]
            epochs = [change["epoch"] for change in changes]
            style: dict[str, Any] = {"color": _BEST, "lw": 2.2} if best else {"color": "0.6", "lw": 0.9}
            axes.step([*epochs, len(one.history)], [*values, values[-1]], where="post", **style)
        axes.set(
            xlabel="epoch", title=parameter.key.partition(".")[2], yscale="log" if parameter.logarithmic else "linear"
        )
    return figure


def _varied(one: Parameter, trials: Sequence[Trial]) -> bool:
    """Whether it changed in the middle of a training."""
    found = [{change["configuration"].get(one.key) for change in trial.schedule} for trial in trials]
    return one.numeric and any(len(values) > 1 for values in found)
