"""Sections about an evaluation as a whole: scores, the figures that the task drew, provenance."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.reporting.evaluation.subject import EvaluationSubject
from astroml_plugin.reporting.figures import cell, intervals, is_figure
from astroml_plugin.reporting.pages import Block, Commands, Missing, Note, Picture, Pictures, Section, Table
from astroml_plugin.reporting.words import many, number

SCORES, FIGURES, ORIGIN, NEXT = "Scores", "Figures of the task", "Provenance", "What to do next"
_FIGURES = 12
_BYTES = 4_000_000


def facts(subject: EvaluationSubject) -> list[tuple[str, str]]:
    """Numbers below the page's title."""
    record = subject.record
    found = [("objects", number(record.get("objects"))), ("task", str(record.get("task", "–")))]
    found += [("split", str(record.get("split", "–"))), ("failures", number(subject.metrics.get("failures")))]
    scores = subject.catalog.get("scores")
    if isinstance(scores, Mapping):
        found += [(name.replace("_", " "), cell(value)) for name, value in list(scores.items())[:2]]
    return found


def scores(subject: EvaluationSubject) -> Section:
    """All scalar figures, with intervals where there are some."""
    record = subject.record
    split = {"test": "the test split of its training data", "unseen": "objects that it was not trained on"}
    kind = split.get(str(record.get("split")), "all objects of the source")
    text = f"Bundle {record.get('bundle')} on {many(int(record.get('objects') or 0), 'object')}: {kind}."
    left = record.get("left_out")
    if isinstance(left, Mapping) and any(left.values()):
        told = f"{number(left.get('trained_on'))} trained on, {number(left.get('not_told'))} that it cannot tell"
        text += f" Left out, as the bundle was trained on them: {told}."
    found = subject.catalog.get("scores")
    named = {str(k): v for k, v in found.items() if is_figure(v)} if isinstance(found, Mapping) else {}
    blocks: list[Block] = []
    if named:
        shares = {name: value for name, value in named.items() if 0 <= value["value"] <= 1}
        drawn = {name.replace("_", " "): value for name, value in (shares or named).items()}
        blocks.append(intervals("Scores with 95 % intervals", "score", drawn))
    rows = [[name.replace("_", " "), cell(value)] for name, value in named.items()]
    plain = {str(k): v for k, v in subject.metrics.items() if isinstance(v, int | float) or is_figure(v)}
    plain = {name: value for name, value in plain.items() if name not in named}
    rows += [[name.replace("_", " "), cell(value)] for name, value in plain.items()]
    if subject.metrics.get("failures"):
        blocks.insert(0, Note(f"{many(int(subject.metrics['failures']), 'object')} could not be measured.", bad=True))
    blocks.append(Table(("figure", "value"), rows, "Figures of merit"))
    search = subject.catalog.get("search")
    if isinstance(search, Mapping):
        cells = [[name.replace("_", " "), cell(value)] for name, value in search.items() if is_figure(value)]
        blocks.append(Table(("figure", "value"), cells, f"Search for {search.get('class')}"))
    return Section(SCORES, text, blocks)


def figures(subject: EvaluationSubject) -> Section | Missing:
    """The pictures that the task wrote beside metrics.json."""
    names = [name for name in storage.list_files(subject.url, ".png") if "/" not in name]
    found, size = [], 0
    for name in names[:_FIGURES]:
        data = storage.read_bytes(storage.join(subject.url, name))
        if size + len(data) > _BYTES:
            break
        size += len(data)
        stem = name.removesuffix(".png").replace("_", " ")
        found.append(Picture(data, f"figure: {stem}", [stem]))
    if not found:
        return Missing(FIGURES, "the evaluation has no figures beside metrics.json")
    more = len(names) - len(found)
    text = "As `evaluate` drew them." + (f" {many(more, 'further file')} not shown." if more else "")
    return Section(FIGURES, text, [Pictures(found, wide=True)])


def origin(subject: EvaluationSubject) -> Section:
    """Everything that metrics.json says besides figures."""
    rows = [[str(key), _shown(value)] for key, value in subject.record.items() if key != "metrics"]
    return Section(ORIGIN, "", [Table(("what", "value"), rows, "Evaluation")])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def next_steps(subject: EvaluationSubject) -> Section:
    """Commands to go on with."""
    place = shlex.quote(storage.redact(subject.url))
    bundle = shlex.quote(str(subject.record.get("bundle")))
    lines = [
        (
            "Measure a survey or stamps with this bundle",
            f"astroml-plugin infer SOURCE --bundle {bundle} --out catalog --report",
        )
    ]
    if "per_class" in subject.catalog:
        lines.append(
            (
                "Class fractions of a catalog, corrected by this evaluation",
                f"astroml-plugin class-statistics catalog --evaluation {place}/metrics.json",
            )
        )
    lines.append(
        ("Other methods on the same objects", "astroml-plugin compare RECIPE --data STAMPS --out comparison --folds 5")
    )
    return Section(NEXT, "", [Commands(lines)])
