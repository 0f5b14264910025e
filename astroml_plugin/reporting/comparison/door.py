"""The page of a comparison of methods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.reporting.charts import Axis, Chart, Points, Series
from astroml_plugin.reporting.figures import cell, ends_of, intervals, is_figure
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.pages import Block, Maker, Missing, Page, Section, Table, composed
from astroml_plugin.reporting.subjects import made_by
from astroml_plugin.reporting.words import many, number

METHODS, COSTS, ORIGIN = "Methods", "Costs", "Provenance"
_FIGURES = 6


@dataclass(frozen=True)
class ComparisonSubject:
    """Outcome of `compare`: the content of compare.json."""

    url: str
    record: Mapping[str, Any]

    @property
    def table(self) -> list[Mapping[str, Any]]:
        """One record per method, best first."""
        return [one for one in self.record["table"] if isinstance(one, Mapping) and "method" in one]

    @property
    def figures(self) -> list[str]:
        """Names of the figures that every method has."""
        first = self.table[0] if self.table else {}
        return [name for name in first if all(is_figure(one.get(name)) for one in self.table)]


def methods(subject: ComparisonSubject) -> Section | Missing:
    """Figures of all methods with their intervals."""
    if not subject.table or not subject.figures:
        return Missing(METHODS, "compare.json has no figures")
    blocks: list[Block] = [
        intervals(
            name.replace("_", " "), name.replace("_", " "), {str(one["method"]): one[name] for one in subject.table}
        )
        for name in subject.figures[:_FIGURES]
    ]
    rows = [[str(one["method"]), *(cell(one[name]) for name in subject.figures)] for one in subject.table]
    blocks.append(Table(("method", *(name.replace("_", " ") for name in subject.figures)), rows, "With 95 % intervals"))
    folds = subject.record.get("folds")
    how = f"{folds} folds, each object judged once" if folds else "the recipe's own test split, or other sources"
    objects = many(int(subject.record.get("objects") or 0), "object")
    text = f"{objects}, the same for all methods ({how}). The best is on top."
    return Section(
        METHODS,
        text,
        blocks,
        "Intervals that overlap little differ; of the same objects the difference is known better than that.",
    )


def costs(subject: ComparisonSubject) -> Section | Missing:
    """Seconds of training and objects per second."""
    rows = [
        [
            str(one["method"]),
            number(one.get("trained")),
            number(one.get("train_seconds")),
            number(one.get("objects_per_second")),
        ]
        for one in subject.table
    ]
    if not rows:
        return Missing(COSTS, "compare.json names no method")
    blocks: list[Block] = []
    if subject.figures:
        name = subject.figures[0]
        known = [one for one in subject.table if isinstance(one.get("objects_per_second"), int | float)]
        x, y = (
            ends_of([{"value": one["objects_per_second"]} for one in known])[0],
            ends_of([one[name] for one in known]),
        )
        series: list[Series] = [
            Points(x, y[0], low=y[1], high=y[2], texts=[str(one["method"]) for one in known], size=9)
        ]
        blocks.append(
            Chart(
                f"{name.replace('_', ' ')} against speed",
                Axis("objects per second", log=True),
                Axis(name.replace("_", " ")),
                series,
                360,
                half=False,
            )
        )
    head = ("method", "objects trained on", "training s", "objects/s")
    return Section(COSTS, "Measured while the comparison ran, on its machine.", [*blocks, Table(head, rows, "Costs")])


def origin(subject: ComparisonSubject) -> Section:
    """Everything that compare.json says besides figures."""
    rows = [
        [str(k), v if isinstance(v, str) else json.dumps(v, default=str)]
        for k, v in subject.record.items()
        if k != "table"
    ]
    return Section(ORIGIN, "", [Table(("what", "value"), rows, "Comparison", folded=True)])


MAKERS = (Maker(METHODS, methods), Maker(COSTS, costs), Maker(ORIGIN, origin))
"""The sections of a comparison's page, in their order. A section is added here."""


def page(url: str, options: ReportOptions) -> Page:
    """The page of the comparison in the folder `url`.

    Raises:
        InputError: compare.json is of something else.
    """
    record = storage.read_json(storage.join(url, "compare.json"))
    if not isinstance(record, Mapping) or not isinstance(record.get("table"), list):
        raise InputError(f"{storage.redact(url)}/compare.json is no comparison: give the --out folder of compare")
    subject = ComparisonSubject(url, record)
    sections, missing = composed(subject, MAKERS)
    facts = [("objects", number(record.get("objects"))), ("methods", str(len(subject.table)))]
    if subject.table:
        facts.append(("best", str(subject.table[0]["method"])))
    title = f"Comparison: {record.get('task', '')}"
    return Page(title, storage.redact(url), "comparison", sections, missing, made_by("report"), facts)
