"""Sections about a search: progress, parameters, importance, what no trial beats, failures and all trials."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from astroml_plugin.core import storage
from astroml_plugin.reporting.charts import Axis, Bars, Chart, Line, Points, Series, Words
from astroml_plugin.reporting.pages import Block, Commands, Maker, Missing, Note, Section, Table
from astroml_plugin.reporting.words import label, many, number
from astroml_plugin.search.importance import importance, places
from astroml_plugin.search.space import Parameter
from astroml_plugin.search.study import FAILED, FINISHED, OPEN, STOPPED, STUDY, Study, Trial

BEST, PROGRESS, COORDINATES, IMPORTANCE, FRONT = (
    "The best trial",
    "Progress",
    "Parameters and objective",
    "Importance",
    "More than one objective",
)
FAILURES, TRIALS, NEXT = "Failed trials", "All trials", "What to do next"
_RED = "#b03a2e"
_GREY = "#9aa5b4"
_DRAWN = 200
_CURVES = 60
_LISTED = 300


@dataclass
class StudySubject:
    """A search that is asked for a page."""

    study: Study
    trials: list[Trial]
    shared: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def opened(cls, url: str) -> StudySubject:
        """The study in a folder.

        Raises:
            InputError: study.json is of something else.
        """
        record = storage.read_record(storage.join(url, STUDY), identity=str, space=dict, objectives=list)
        study = Study(url, record)
        return cls(study, study.trials())

    @cached_property
    def winner(self) -> Trial | None:
        """The best trial; None where none can be used."""
        return self.study.winner(self.trials)

    @cached_property
    def usable(self) -> list[Trial]:
        """Trials with a finite objective that did not fail, the best last."""
        return self.study.usable(self.trials)[::-1]


def facts(subject: StudySubject) -> list[tuple[str, str]]:
    """Numbers below the page's title."""
    counts = Counter(one.status for one in subject.trials)
    found = [("trials", f"{len(subject.trials):,}")]
    found += [(name, f"{counts[name]:,}") for name in (FINISHED, STOPPED, FAILED, OPEN) if counts[name]]
    if subject.winner is not None:
        found.append((f"best {subject.study.main.name}", f"{subject.winner.value(subject.study.main):.5g}"))
    return found


def best(subject: StudySubject) -> Section | Missing:
    """Configuration of the winner beside the recipe's own values."""
    winner, study = subject.winner, subject.study
    if winner is None:
        return Missing(BEST, "no trial has a finite objective yet")
    first = subject.trials[0] if study.record.get("settings", {}).get("baseline") else None
    rows = [
        [key, _cell(winner.configuration.get(key)), _cell(first.configuration.get(key)) if first else ""]
        for key in study.space.keys
    ]
    values = [
        [str(one), f"{winner.value(one):.6g}", f"{first.value(one):.6g}" if first else ""] for one in study.objectives
    ]
    text = (
        f"Trial {winner.number} of {len(subject.trials)} has the best {study.main}: "
        f"{winner.value(study.main):.5g} after "
        f"{many(len(winner.history), 'epoch')}, {number(round(winner.seconds, 1))} s."
    )
    blocks: list[Block] = [
        Table(("objective", "best", "recipe's own values"), values, "Objectives on the validation split"),
        Table(("parameter", "best", "recipe's own values"), rows, "Parameters"),
    ]
    if first is not None and winner.number == first.number:
        blocks.insert(0, Note("Nothing was better than the recipe's own values."))
    return Section(
        BEST, text, blocks, "The winner is chosen on the validation split; only its bundle's card has the test split."
    )


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return number(value) if isinstance(value, int | float | str) else json.dumps(value, default=str)


def progress(subject: StudySubject) -> Section | Missing:
    """The best value against the time, and the curves of trials."""
    usable, main = subject.usable, subject.study.main
    if not usable:
        return Missing(PROGRESS, "no trial has a finite objective yet")
    ended = sorted((one for one in usable if "ended" in one.extra), key=lambda one: one.extra["ended"])
    blocks: list[Block] = []
    if ended:
        start = min(one.extra["ended"] - one.seconds for one in ended)
        minutes = np.array([(one.extra["ended"] - start) / 60 for one in ended])
        values = np.array([one.value(main) for one in ended])
        so_far = (np.maximum if main.large else np.minimum).accumulate(values)
        texts = [f"trial {one.number}: {value:.5g}" for one, value in zip(ended, values, strict=True)]
        series: list[Series] = [
            Points(minutes, values, "ended trials", texts=texts, colour=_GREY, size=8),
            Line(minutes, so_far, "the best so far", step=True, colour=_RED, width=2.2),
        ]
        blocks.append(
            Chart(
                "The best against time",
                Axis("minutes since the start"),
                Axis(main.name, limits=_limits(values)),
                series,
                360,
            )
        )
    curves: list[Series] = []
    for one in usable[-_CURVES:]:
        own = [record.get(main.name) for record in one.history]
        y = np.array([float(v) if isinstance(v, int | float) else np.nan for v in own])
        won = subject.winner is not None and one.number == subject.winner.number
        style: dict[str, Any] = {"colour": _RED if won else _GREY, "width": 2.4 if won else 1.0}
        curves.append(
            Line(
                np.arange(1, len(y) + 1.0),
                y,
                f"trial {one.number}" if won else "",
                texts=[f"trial {one.number}"] * len(y),
                **style,
            )
        )
    finite = np.array([one.value(main) for one in usable])
    blocks.append(
        Chart(
            "Curves of trials, the best in red",
            Axis("epoch"),
            Axis(main.name, limits=_limits(finite)),
            curves,
            360,
            legend=False,
        )
    )
    return Section(
        PROGRESS,
        f"{main} on the validation split. The best {min(_CURVES, len(usable))} of {len(usable)} trials are drawn.",
        blocks,
    )


def _limits(values: np.ndarray) -> tuple[float, float] | None:
    """Axis that leaves out what is far worse than the rest."""
    if len(values) < 4:
        return None
    low, middle, high = np.percentile(values, [2, 50, 98])
    span = max(high - low, abs(middle) * 1e-3, 1e-9)
    return float(low - 0.15 * span), float(high + 0.15 * span)


def coordinates(subject: StudySubject) -> Section | Missing:
    """Parallel coordinates: each trial a line through its parameters to the rank of its objective."""
    if not subject.usable:
        return Missing(COORDINATES, "no trial has a finite objective yet")
    parameters = subject.study.space.parameters
    shown = subject.usable[-_DRAWN:]
    values = places(subject.study.space, shown).reshape(len(shown), len(parameters))
    rank = np.linspace(0, 1, len(shown)) if len(shown) > 1 else np.ones(1)
    across = np.arange(len(parameters) + 1.0)
    series: list[Series] = [Line(np.full(2, x), np.array([0.0, 1.0]), colour="#c4cbd5", width=1) for x in across]
    main = subject.study.main
    for one, line, place in zip(shown, values, rank.tolist(), strict=True):
        won = subject.winner is not None and one.number == subject.winner.number
        text = f"trial {one.number}, {main.name} {one.value(main):.5g}"
        colour = _RED if won else _mixed(place)
        series.append(
            Line(across, np.r_[line, place], colour=colour, width=2.6 if won else 1.1, texts=[text] * len(across))
        )
    names = [one.key.partition(".")[2] or one.key for one in parameters]
    marks = [mark for x, one in enumerate(parameters) for mark in _marks(x, one)]
    series.append(Words(np.array([m[0] for m in marks]), np.array([m[1] for m in marks]), [m[2] for m in marks]))
    figure = Chart(
        "Parameters of each trial; dark is good, red is best",
        Axis("", ticks=[*names, f"rank of {main.name}"], limits=(-0.5, len(parameters) + 0.5)),
        Axis("", limits=(-0.36, 1.12), ticks=()),
        series,
        430,
        half=False,
        legend=False,
    )
    text = (
        "Every line is a trial. Each axis runs from the lowest value (or the first choice) to the highest; "
        "the last axis is the "
        "rank of the objective, best on top. A line below an axis: the parameter was not set there."
    )
    return Section(COORDINATES, text, [figure])


def _mixed(place: float) -> str:
    red, green, blue = (round(208 - (208 - end) * place) for end in (27, 79, 114))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _marks(x: int, one: Parameter) -> list[tuple[float, float, str]]:
    count = len(one.values)
    at = [0.0, 1.0] if one.kind != "choice" else [k / max(1, count - 1) for k in range(count)]
    words = [f"{value:.3g}" if isinstance(value, float) else label(value, 14) for value in one.values]
    return [(x + 0.02, mark + (0.05 if mark >= 1 else -0.05), word) for mark, word in zip(at, words, strict=True)]


def mattered(subject: StudySubject) -> Section | Missing:
    """How much each parameter matters."""
    values, method = importance(subject.study, subject.trials)
    if not values:
        return Missing(IMPORTANCE, method)
    names = list(values)[::-1]
    bars = Bars(np.arange(len(names), dtype=float), np.array([values[name] for name in names]), sideways=True)
    figure = Chart(
        "Importance", Axis("importance"), Axis("", ticks=names), [bars], 90 + 28 * len(names), legend=False, half=False
    )
    return Section(IMPORTANCE, f"{method[0].upper()}{method[1:]}.", [figure])


def front(subject: StudySubject) -> Section | Missing | None:
    """Trials that no other beats in all objectives."""
    objectives = subject.study.objectives
    if len(objectives) < 2 or not subject.usable:
        return None
    first, second = objectives[:2]
    points = np.array([[one.value(first), one.value(second)] for one in subject.usable])
    on = np.array(subject.study.front(subject.usable), bool)
    texts = [f"trial {one.number}" for one in subject.usable]
    chosen = points[on][np.argsort(points[on][:, 0])]
    series: list[Series] = [
        Points(points[:, 0], points[:, 1], "trials", texts=texts, colour=_GREY, size=8),
        Line(chosen[:, 0], chosen[:, 1], "not beaten in all objectives", colour=_RED, width=1.4, dashed=True),
        Points(chosen[:, 0], chosen[:, 1], colour=_RED, size=9),
    ]
    figure = Chart(f"{second.name} against {first.name}", Axis(str(first)), Axis(str(second)), series, 380, half=False)
    return Section(FRONT, f"{many(int(on.sum()), 'trial is', 'trials are')} not beaten in all objectives.", [figure])


def failures(subject: StudySubject) -> Section | Missing:
    """Why trials failed."""
    failed = [one for one in subject.trials if one.status == FAILED]
    if not failed:
        return Missing(FAILURES, "no trial failed")
    rows = [[str(one.number), one.reason, json.dumps(one.configuration, default=str)] for one in failed[:40]]
    table = Table(("trial", "reason", "configuration"), rows, "Failed trials", max(len(failed) - 40, 0))
    return Section(FAILURES, f"{many(len(failed), 'trial')} of {len(subject.trials)} failed.", [table])


def trials(subject: StudySubject) -> Section | Missing:
    """All trials in a table, the best first."""
    if not subject.trials:
        return Missing(TRIALS, "the study has no trial yet")
    ordered = [*subject.usable[::-1], *(one for one in subject.trials if one not in subject.usable)]
    keys = subject.study.space.keys
    head = ("trial", "status", *(one.name for one in subject.study.objectives), "epochs", "seconds", *keys)
    rows = [
        [
            *(str(one.number), one.status, *(number(one.value(k)) for k in subject.study.objectives)),
            *(str(len(one.history)), number(round(one.seconds, 1))),
            *(_cell(one.configuration.get(key)) for key in keys),
        ]
        for one in ordered[:_LISTED]
    ]
    table = Table(head, rows, "Trials", max(len(ordered) - _LISTED, 0), folded=len(rows) > 20)
    return Section(TRIALS, "The best first; trials.parquet in the study's folder has all of them.", [table])


def next_steps(subject: StudySubject) -> Section:
    """Commands to go on with."""
    place = shlex.quote(storage.redact(subject.study.url))
    lines = []
    if storage.exists(storage.join(subject.study.url, "best", "card.json")):
        lines.append(
            (
                "Judge the winner on stamps that it has not seen",
                f"astroml-plugin evaluate STAMPS --bundle {place}/best --out report",
            )
        )
        lines.append(
            ("Measure with the winner", f"astroml-plugin infer SOURCE --bundle {place}/best --out catalog --report")
        )
    else:
        lines.append(
            ("Go on: the same search again continues", f"astroml-plugin search RECIPE --data STAMPS --out {place}")
        )
    return Section(NEXT, "", [Commands(lines)])


MAKERS = (
    Maker(BEST, best),
    Maker(PROGRESS, progress),
    Maker(COORDINATES, coordinates),
    Maker(IMPORTANCE, mattered),
    Maker(FRONT, front),
    Maker(FAILURES, failures),
    Maker(TRIALS, trials),
    Maker(NEXT, next_steps),
)
"""The sections of a search's page, in their order. A section is added here."""
