"""Fractions of classes: what labels say, with errors, and what probabilities and an evaluation say beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import sql
from astroml_plugin.catalog.schema import is_text
from astroml_plugin.evaluation.calibration import wilson
from astroml_plugin.evaluation.class_statistics import ClassCount, ClassStatistics, class_statistics
from astroml_plugin.reporting.charts import Axis, Bars, Chart
from astroml_plugin.reporting.pages import Block, Missing, Section, Table
from astroml_plugin.reporting.run.subject import PRIMARY, RunSubject
from astroml_plugin.reporting.words import label, many, number

TITLE = "Classes"
_COLUMNS = 6
_SHOWN = 25
_LISTED = 200
_PLACES = ("image", "tile")


@dataclass(frozen=True)
class Labels:
    """Labels of one column, most frequent first."""

    column: str
    objects: int
    """Objects with a label."""
    without: int
    """Objects without one."""
    kinds: int
    """Different labels."""
    names: Sequence[str]
    """The most frequent ones."""
    counts: Sequence[int]


def text_columns(schema: pa.Schema) -> list[str]:
    """Columns of texts that a task wrote."""
    return [field.name for field in schema if is_text(field.type) and field.name not in _PLACES]


def labels_of(subject: RunSubject, column: str) -> Labels:
    """Labels of a column of texts, in the primary rows."""
    name = sql.name(column)
    row = subject.session.row(
        f"SELECT count({name}) AS n, count(*) AS rows, count(DISTINCT {name}) AS kinds FROM catalog WHERE {PRIMARY}"  # noqa: S608
    )
    found = subject.session.rows(
        f"SELECT {name} AS label, count(*) AS n FROM catalog WHERE {PRIMARY} AND {name} IS NOT NULL "  # noqa: S608
        f"GROUP BY label ORDER BY n DESC, label LIMIT {_LISTED}"
    )
    counts = [int(one["n"]) for one in found]
    objects = int(row["n"])
    return Labels(
        column, objects, int(row["rows"]) - objects, int(row["kinds"]), [str(one["label"]) for one in found], counts
    )


def section(subject: RunSubject) -> Section | Missing:
    """Bars of the most frequent labels of each column of texts, with 95 % intervals, and a table."""
    columns = text_columns(subject.schema)
    if not columns:
        return Missing(TITLE, "the catalog has no column of labels")
    if not subject.counts["objects"]:
        return Missing(TITLE, "the catalog has no rows")
    blocks: list[Block] = []
    texts = [
        "Fractions of the objects that have a label, with 95 % intervals of their numbers alone (Wilson). "
        "They say what the "
        "model called the objects, not what they are: labels that are confused move the fractions."
    ]
    for column in columns[:_COLUMNS]:
        found = labels_of(subject, column)
        if not found.objects:
            texts.append(f"{column}: no object has a label.")
            continue
        if found.kinds > max(_LISTED, found.objects // 2) and found.objects > _LISTED:
            texts.append(f"{column}: {found.kinds:,} different texts, so these are no classes.")
            continue
        blocks += _blocks(found, _probabilities(subject, column, found.names))
        texts.append(
            f"{column}: {many(found.objects, 'object')} in {many(found.kinds, 'class', 'classes')}, "
            f"{many(found.without, 'object has', 'objects have')} none."
        )
    if subject.options.evaluation:
        blocks += _corrected(corrected(subject))
    elif blocks:
        texts.append(
            "With --evaluation metrics.json (of `evaluate` on the same bundle) the fractions are corrected for that."
        )
    return Section(TITLE, "\n\n".join(texts), blocks)


def _blocks(found: Labels, expected: dict[str, float]) -> list[Block]:
    part = np.array(found.counts[:_SHOWN]) / found.objects
    low, high = (np.asarray(end, float) for end in wilson(part, found.objects))
    shown = [label(name or "(empty text)", 28) for name in found.names[:_SHOWN]]
    places = np.arange(len(shown))[::-1].astype(float)
    bars = Bars(places, part, low=low, high=high, sideways=True)
    more = found.kinds - len(shown)
    title = f"{found.column}: {'all' if not more else f'the {len(shown)} most frequent of {found.kinds:,}'} classes"
    figure = Chart(
        title,
        Axis("fraction of the labelled objects"),
        Axis("", ticks=shown[::-1]),
        [bars],
        height=90 + 24 * len(shown),
        legend=False,
    )
    rows = [
        [
            *(name or "(empty text)", f"{count:,}", f"{100 * count / found.objects:.3f} %"),
            *(_interval(count, found.objects), number(expected[name]) if name in expected else ""),
        ]
        for name, count in zip(found.names, found.counts, strict=True)
    ]
    head = ("class", "objects", "fraction", "95 % interval", "mean probability")
    listed = Table(head, rows, f"{found.column}: all numbers", found.kinds - len(rows), folded=True)
    return [figure, listed]


def _interval(count: int, total: int) -> str:
    low, high = wilson(count / total, total)
    return f"{100 * float(low):.3f} % to {100 * float(high):.3f} %"


def _probabilities(subject: RunSubject, column: str, names: Sequence[str]) -> dict[str, float]:
    """Class -> mean probability, where the catalog has the column p_<class> beside the labels."""
    prefix = column.removesuffix("label")
    known = [name for name in names[:_SHOWN] if f"{prefix}p_{name}" in subject.schema.names]
    if column == prefix or not known:
        return {}
    quoted = [sql.name(f"{prefix}p_{name}") for name in known]
    parts = [f"avg({one}::DOUBLE) FILTER (isfinite({one})) AS c{k}" for k, one in enumerate(quoted)]
    row = subject.session.row(f"SELECT {', '.join(parts)} FROM catalog WHERE {PRIMARY}")  # noqa: S608
    return {name: float(row[f"c{k}"]) for k, name in enumerate(known) if row[f"c{k}"] is not None}


def corrected(subject: RunSubject) -> ClassStatistics:
    """Class fractions corrected by the evaluation that was named.

    Raises:
        InputError: the evaluation is of another bundle, or is none.
    """
    if "corrected" not in subject.shared:
        evaluation = str(subject.options.evaluation)
        subject.shared["corrected"] = class_statistics(subject.catalog.url, evaluation=evaluation, purity=0.9)
    found: ClassStatistics = subject.shared["corrected"]
    return found


def _corrected(found: ClassStatistics) -> list[Block]:
    rows = [[one.name, f"{one.labelled:,}", number(one.raw), number(one.fraction), _ends(one)] for one in found.counts]
    head = ("class", "labelled", "fraction of labels", "corrected fraction", "95 % interval")
    chosen = [
        [one.class_name, one.wanted, f"{one.selected:,}", one.sql or one.note]
        + ([number(one.choice.completeness)] if one.choice else ["–"])
        for one in found.selections
    ]
    return [
        Table(head, rows, "Fractions corrected for confusion by the evaluation"),
        Table(("class", "wanted", "objects", "condition", "completeness"), chosen, "Selections of purity 0.9"),
    ]


def _ends(one: ClassCount) -> str:
    return "–" if one.low is None or one.high is None else f"{one.low:.4g} to {one.high:.4g}"
