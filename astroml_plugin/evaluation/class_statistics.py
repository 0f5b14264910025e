"""Class fractions of a catalog corrected for confusion, and thresholds with the purity and completeness they give."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.answers import TableResult
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.sql import name as quoted
from astroml_plugin.core import storage
from astroml_plugin.core.errors import DamagedError, InputError
from astroml_plugin.evaluation import calibration, thresholds
from astroml_plugin.evaluation.class_report import PURITIES
from astroml_plugin.evaluation.thresholds import OperatingPoint, ThresholdCurve


@dataclass(frozen=True)
class ClassCount:
    """How many objects of one class there are."""

    name: str
    """The class."""
    labelled: int
    """Objects of the catalog that have this label."""
    raw: float
    """Their fraction."""
    fraction: float | None
    """True fraction, corrected for the objects that labels confuse; None where the evaluation lacks a class or its
    labels do not tell the classes apart."""
    error: float | None
    """Standard error of the fraction: numbers of the catalog and of the evaluation."""
    low: float | None
    """Lower end of the 95 % interval."""
    high: float | None
    """Upper end."""


@dataclass(frozen=True)
class Selection:
    """A threshold on one class."""

    class_name: str
    """The class."""
    wanted: str
    """The request, for people."""
    sql: str
    """The condition that selects these objects; empty where no threshold does."""
    selected: int
    """Objects of the catalog that pass."""
    choice: OperatingPoint | None
    """Threshold, completeness, purity and the class fraction that they hold for."""
    mean_probability: float | None
    """Mean probability of the objects that pass: the purity that the probabilities themselves promise."""
    note: str = ""
    """Why there is no threshold."""


@dataclass(frozen=True, repr=False)
class ClassStatistics(TableResult):
    """Class fractions and selections of a catalog."""

    catalog: str
    """URL of the catalog."""
    objects: int
    """Objects with a label."""
    unmeasured: int
    """Objects without one."""
    counts: tuple[ClassCount, ...]
    """Per class."""
    selections: tuple[Selection, ...]
    """Thresholds."""
    seconds: float = field(default=0.0, compare=False)
    """Wall time."""

    def to_arrow(self) -> pa.Table:
        """One row per threshold."""
        rows = []
        for item in self.selections:
            row = {key: value for key, value in asdict(item).items() if key != "choice"}
            choice = dict.fromkeys(OperatingPoint.__dataclass_fields__) if item.choice is None else vars(item.choice)
            rows.append({**row, **choice})
        return pa.Table.from_pylist(rows)


@dataclass(frozen=True)
class _Evaluation:
    """Curves and confusion that `evaluate` wrote."""

    classes: tuple[str, ...]
    confusion: np.ndarray | None
    curves: Mapping[str, ThresholdCurve]
    alone: Mapping[str, np.ndarray]
    """Class -> (2, 2) confusion of having it (first) and not, by the label."""
    positive: str
    multi_label: bool


def class_statistics(
    catalog: str,
    *,
    evaluation: str,
    class_name: str | None = None,
    purity: float | Sequence[float] | None = None,
    top: int | None = None,
    prior: Mapping[str, float] | None = None,
    where: str = "TRUE",
) -> ClassStatistics:
    """Class fractions of a catalog, and thresholds on its probabilities.

    Args:
        catalog: folder of a catalog with p_<class> and label.
        evaluation: metrics.json (path or URL) that `evaluate` wrote for the same bundle, with the same prior and
            symmetries, on labelled objects that look like those of the catalog.
        class_name: the only class to choose thresholds for; default the one that the bundle searches for, else all.
        purity: one or several purities that selections are to have at least; default `PURITIES`.
        top: instead, the number of most probable objects to take.
        prior: class -> fraction in the catalog, where it is known better than from the corrected counts.
        where: SQL condition on the objects (primary rows only).

    Returns:
        The statistics. The purity of a selection rests on the class fraction; its completeness does not.

    Raises:
        InputError: an evaluation of another bundle or of other settings, unknown classes, no object.
    """
    started = time.perf_counter()
    if purity is not None and top is not None:
        raise InputError("choose a threshold by purity or by the number of objects: give one of --purity and --top")
    opened = Catalog.open(catalog)
    record = _read(evaluation)
    prefix = _prefix(opened, record)
    evaluated = _evaluation(record, evaluation)
    wanted = _wanted_classes(evaluated, class_name, prior)
    counted, unmeasured = _labels(opened.url, evaluated, prefix, where)
    counts = _counts(evaluated, counted)
    fractions = {one.name: one.fraction for one in counts} | dict(prior or {})
    table = _Probabilities(opened.url, prefix, where)
    purities = PURITIES if purity is None else tuple(np.atleast_1d(np.asarray(purity, float)).tolist())
    selections: list[Selection] = []
    for name in wanted:
        if top is not None:
            selections.append(_top(table, name, evaluated.curves[name], top, fractions[name]))
        else:
            selections += [_pure(table, name, evaluated.curves[name], one, fractions[name]) for one in purities]
    objects = counted["objects"]
    result = ClassStatistics(opened.url, objects, unmeasured, tuple(counts), tuple(selections))
    return replace(result, seconds=round(time.perf_counter() - started, 3))


# ---- the evaluation ----------------------------------------------------------------------------------------------


def _read(url: str) -> Mapping[str, Any]:
    """The record that `evaluate` wrote; the folder will do."""
    place = url if storage.path_of(url).endswith(".json") else storage.join(url, "metrics.json")
    try:
        record = storage.read_json(place)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"no evaluation at {storage.redact(place)}: give the metrics.json of evaluate") from None
    except DamagedError as error:
        raise InputError(
            f"{storage.redact(place)} is not JSON ({error.__cause__}): give the metrics.json of evaluate"
        ) from None
    if not isinstance(record, Mapping) or "bundle_sha256" not in record:
        raise InputError(f"{storage.redact(place)} is no evaluation: give the metrics.json of evaluate")
    return record


def _evaluation(record: Mapping[str, Any], url: str) -> _Evaluation:
    measured = record.get("metrics", {}).get("catalog", {})
    if "per_class" not in measured:
        raise InputError(f"the evaluation {storage.redact(url)} has no classes: evaluate a bundle of the task classify")
    curves = {name: ThresholdCurve.from_json(one["curve"]) for name, one in measured["per_class"].items()}
    confusion = np.array(measured["confusion"]) if "confusion" in measured else None
    positive = measured.get("search", {}).get("class", "")
    alone = {name: np.array(one["confusion"]) for name, one in measured["per_class"].items() if "confusion" in one}
    return _Evaluation(
        tuple(measured["classes"]), confusion, curves, alone, positive, bool(measured.get("multi_label"))
    )


def _prefix(catalog: Catalog, record: Mapping[str, Any]) -> str:
    """Prefix of the bundle's columns; catalog and evaluation must be of the same bundle and settings."""
    bundles: Mapping[str, str] = catalog.identity["bundles"]
    names = [name for name, digest in bundles.items() if digest == record["bundle_sha256"]]
    if not names:
        raise InputError(
            f"the evaluation is of bundle {record.get('bundle')} and the catalog of {', '.join(bundles)}, or of "
            f"another training: evaluate the bundle that made the catalog"
        )
    settings = catalog.identity["settings"]
    for name, own in (("prior", {}), ("symmetries", record.get("bundle_symmetries", 1))):
        there, here = settings.get(f"{names[0]}.{name}", settings.get(name, own)), record.get(name, own)
        if there != here:
            raise InputError(
                f"the catalog was made with {name} {there or 'of the bundle'} and the evaluation with "
                f"{here or 'that of the bundle'}: evaluate with the same --{name}"
            )
    return "" if len(bundles) == 1 else f"{names[0]}_"


def _wanted_classes(
    evaluated: _Evaluation, class_name: str | None, prior: Mapping[str, float] | None
) -> tuple[str, ...]:
    """The classes to choose thresholds for."""
    for name in [*([class_name] if class_name else []), *(prior or {})]:
        if name not in evaluated.classes:
            raise InputError(f"there is no class {name!r}: the bundle has {', '.join(evaluated.classes)}")
    bad = [f"{name}={value:g}" for name, value in (prior or {}).items() if not 0 < value < 1]
    if bad:
        raise InputError(f"prior {', '.join(bad)}: a class fraction must lie between 0 and 1")
    if class_name and class_name not in evaluated.curves:
        raise InputError(f"the evaluation has no example of {class_name!r}: evaluate on objects of every class")
    if class_name or evaluated.positive:
        return (class_name or evaluated.positive,)
    return tuple(name for name in evaluated.classes if name in evaluated.curves)


# ---- the catalog -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Probabilities:
    """Probabilities of a catalog. Conditions name isfinite: a comparison alone lets objects without one (NaN) pass."""

    catalog: str
    prefix: str
    where: str

    def column(self, name: str) -> str:
        return quoted(f"{self.prefix}p_{name}")

    def passing(self, name: str, choice: OperatingPoint) -> tuple[str, int, OperatingPoint, float | None]:
        """The condition that selects, how many pass, the threshold, and their mean probability."""
        condition = f"isfinite({self.column(name)}) AND {self.column(name)} >= {choice.threshold!r}"
        statement = (
            f"SELECT count(*) AS n, avg({self.column(name)}) AS p FROM catalog "  # noqa: S608
            f'WHERE "primary" AND ({self.where}) AND {condition}'
        )
        row = query(self.catalog, statement).to_arrow().to_pylist()[0]
        return condition, int(row["n"]), choice, None if row["p"] is None else float(row["p"])

    def highest(self, name: str, count: int) -> np.ndarray:
        """The highest probabilities, one more than `count` so that a tie shows."""
        statement = (
            f"SELECT {self.column(name)} AS p FROM catalog "  # noqa: S608
            f'WHERE "primary" AND ({self.where}) AND isfinite({self.column(name)}) ORDER BY p DESC LIMIT {count + 1}'
        )
        return np.asarray(query(self.catalog, statement).to_arrow()["p"].to_numpy(), np.float64)


def _labels(catalog: str, evaluated: _Evaluation, prefix: str, where: str) -> tuple[dict[str, Any], int]:
    """Objects with a label in all and per class, and how many have none."""
    label = quoted(f"{prefix}label")
    statement = f'SELECT {label} AS label, count(*) AS n FROM catalog WHERE "primary" AND ({where}) GROUP BY label'  # noqa: S608
    rows = query(catalog, statement).to_arrow().to_pylist()
    unmeasured = sum(row["n"] for row in rows if row["label"] is None)
    counts = dict.fromkeys(evaluated.classes, 0)
    for row in rows:
        names = [] if row["label"] is None else row["label"].split(";") if evaluated.multi_label else [row["label"]]
        for name in names:
            if name in counts:
                counts[name] += int(row["n"])
    objects = sum(row["n"] for row in rows) - unmeasured
    if objects == 0:
        raise InputError(f"no object of {storage.redact(catalog)} has a class where {where} ({unmeasured} have none)")
    return {"objects": objects, "counts": counts}, unmeasured


def _counts(evaluated: _Evaluation, counted: Mapping[str, Any]) -> list[ClassCount]:
    """Fractions with the correction that the evaluation allows."""
    counts, objects = counted["counts"], counted["objects"]
    if evaluated.multi_label or evaluated.confusion is None:
        return [_independent(name, counts[name], objects, evaluated.alone.get(name)) for name in evaluated.classes]
    labelled = [counts[name] for name in evaluated.classes]
    corrected = _corrected(labelled, evaluated.confusion)
    return [_count(name, labelled[number], objects, corrected, number) for number, name in enumerate(evaluated.classes)]


def _independent(name: str, count: int, objects: int, matrix: np.ndarray | None) -> ClassCount:
    """One class that excludes no other, corrected by its own rates at a probability of 0.5."""
    if matrix is None:
        return _count(name, count, objects, None, 0)
    return _count(name, count, objects, _corrected([count, objects - count], matrix), 0)


def _corrected(counts: Sequence[int], confusion: np.ndarray) -> Mapping[str, Any] | None:
    """None where the evaluation lacks a class, or its labels do not tell them apart."""
    try:
        return calibration.class_fractions(counts, confusion)
    except InputError:
        return None


def _count(name: str, labelled: int, objects: int, corrected: Mapping[str, Any] | None, number: int) -> ClassCount:
    keys = ("value", "error", "low", "high")
    values = [None] * len(keys) if corrected is None else [corrected[key][number] for key in keys]
    return ClassCount(name, labelled, labelled / objects, *values)


def _pure(table: _Probabilities, name: str, curve: ThresholdCurve, purity: float, fraction: float | None) -> Selection:
    """The largest selection of at least this purity."""
    wanted = f"purity >= {purity:g}"
    if not 0 < purity < 1:
        raise InputError(f"purity {purity:g} must lie between 0 and 1")
    known = _usable(fraction)
    if known is None:
        told = "is not known" if fraction is None else f"is {fraction:g} after the correction"
        return Selection(name, wanted, "", 0, None, None, f"its fraction in the catalog {told}: give its --prior")
    try:
        choice = curve.for_purity(purity, known)
    except InputError as error:
        return Selection(name, wanted, "", 0, None, None, str(error))
    return Selection(name, wanted, *table.passing(name, choice))


def _top(table: _Probabilities, name: str, curve: ThresholdCurve, count: int, fraction: float | None) -> Selection:
    """The most probable objects."""
    values = table.highest(name, max(count, 0))
    threshold = thresholds.top_threshold(values, count)
    choice = curve.at(threshold, _usable(fraction))
    return Selection(name, f"top {count}", *table.passing(name, choice))


def _usable(fraction: float | None) -> float | None:
    return fraction if fraction is not None and 0 < fraction < 1 else None


# ---- for a terminal ----------------------------------------------------------------------------------------------


def show(result: ClassStatistics) -> str:
    """Both tables as text."""
    width = max(5, *(len(one.name) for one in result.counts))
    lines = [f"{result.objects} objects with a label, {result.unmeasured} without", ""]
    lines.append(f"{'class':<{width}}  {'labelled':>10}  {'raw':>8}  {'corrected':>9}  {'error':>8}  95 % interval")
    for one in result.counts:
        fraction = "not known" if one.fraction is None else f"{one.fraction:9.5f}"
        rest = "" if one.error is None else f"  {one.error:8.5f}  {one.low:.5f}-{one.high:.5f}"
        lines.append(f"{one.name:<{width}}  {one.labelled:>10}  {one.raw:8.5f}  {fraction}{rest}")
    lines.append("")
    for item in result.selections:
        head = f"{item.class_name}, {item.wanted}: "
        if item.choice is None:
            lines.append(f"{head}{item.note}")
            continue
        c = item.choice
        mean = "" if item.mean_probability is None else f", mean probability {item.mean_probability:.3f}"
        lines.append(
            f"{head}{item.sql} selects {item.selected}: completeness {c.completeness:.3f} "
            f"({c.completeness_low:.3f}-{c.completeness_high:.3f}), purity {c.purity:.3f} "
            f"(at least {c.purity_low:.3f}) at a fraction of {c.prior:.3g}{mean}"
        )
    return "\n".join(lines)
