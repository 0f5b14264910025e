"""Shear from a catalog: mean per bin with bootstrap errors; biases where the true shear is known."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.query import query, write_rows
from astroml_plugin.catalog.sql import name as quoted
from astroml_plugin.catalog.sql import quote
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64
from astroml_plugin.evaluation import shear as formulas
from astroml_plugin.evaluation.bootstrap import resampled_sums
from astroml_plugin.evaluation.shear import BLOCKS, FIELDS, Bias, Estimate
from astroml_plugin.sources.stamps import Stamps

_RESPONSE = ("r11", "r12", "r21", "r22")
_PLACES = 6
"""+g1, -g1, +g2, -g2, ±psf, and objects of no branch."""
_MOST_BINS = 200


@dataclass(frozen=True)
class ShearBin:
    """The shear of the objects in one bin."""

    name: str
    """The bin: "low-high", a value of the binned column, or "all"."""
    low: float | None
    """Lower edge; None where bins are no ranges."""
    high: float | None
    """Upper edge, not in the bin but for the last."""
    value: float | None
    """Mean of the binned quantity."""
    count: int
    """Objects."""
    weight: float
    """Sum of weights."""
    e1: float
    """Mean ellipticity, first component: not a shear."""
    e2: float
    """Mean ellipticity, second component."""
    g1: Estimate
    """Shear, first component."""
    g2: Estimate
    """Shear, second component."""
    response: tuple[tuple[float, float], tuple[float, float]]
    """<R>, R_ij = de_i / dg_j."""
    selection_response: tuple[tuple[float, float], tuple[float, float]] | None
    """R_S; None where it is not known and was taken to be 0."""
    bias: Bias | None = None
    """Where the branches +g and -g are there."""
    leakage: tuple[Estimate, Estimate] | None = None
    """alpha of both components, where the PSF's ellipticity is known and varies."""


@dataclass(frozen=True)
class ShearResult:
    """What a catalog says of the shear."""

    catalog: str
    """URL of the catalog."""
    total: ShearBin
    """Over all bins."""
    bins: tuple[ShearBin, ...]
    """In order; empty without `by`."""
    objects: int
    """Objects used."""
    rejected: int
    """Objects that pass the selection but lie in no bin, or whose ellipticity, response or weight is no number."""
    selection_response: str
    """"columns", "calibration" or "none": where R_S is from."""
    where: str
    """The selection."""
    frame: str
    """"pixel" or "sky"."""
    seconds: float = field(default=0.0, compare=False)
    """Wall time."""

    def to_arrow(self) -> pa.Table:
        """One row per bin, the last one for all."""
        return pa.Table.from_pylist([_flat(item) for item in (*self.bins, self.total)])


@dataclass(frozen=True)
class _Sample:
    """Objects of one catalog as SQL sees them."""

    catalog: str
    labels: pa.Table | None
    columns: Mapping[str, str]
    """SQL of e1, e2, r.., and of the labels g1, g2, psf1, psf2 where they are."""
    names: tuple[str, ...]
    """Every column of catalog and labels."""
    where: str
    key: str
    """SQL of what is resampled."""
    weight: str

    def rows(self, replaced: str = "") -> str:
        """SQL of the joined rows, some columns replaced."""
        joined = "catalog" if self.labels is None else "(SELECT * FROM catalog JOIN labels USING (object_id))"
        return f'(SELECT *{replaced} FROM {joined} WHERE "primary")'  # noqa: S608

    def ask(self, statement: str) -> pa.Table:
        """The answer; the labels are a view beside `catalog`."""
        tables = None if self.labels is None else {"labels": self.labels}
        return query(self.catalog, statement, tables=tables).to_arrow()


@dataclass(frozen=True)
class _Bins:
    """How objects are divided."""

    expression: str | None = None
    edges: tuple[float, ...] = ()
    """Of ranges; the last bin holds its upper edge."""
    values: tuple[str, ...] = ()
    """Else: each value, as text, is a bin."""

    def __len__(self) -> int:
        return max(1, len(self.edges) - 1) if not self.values else len(self.values)

    @property
    def index(self) -> str:
        """SQL of the number of an object's bin; NULL where it is in none."""
        if self.expression is None:
            return "0"
        if self.values:
            cases = [f"WHEN {quote(value)} THEN {number}" for number, value in enumerate(self.values)]
            return f"CASE CAST(({self.expression}) AS VARCHAR) {' '.join(cases)} END"
        last = len(self.edges) - 2
        cases = [
            f"WHEN ({self.expression}) >= {low!r} AND ({self.expression}) {'<=' if number == last else '<'} {high!r} "
            f"THEN {number}"
            for number, (low, high) in enumerate(pairwise(self.edges))
        ]
        return f"CASE {' '.join(cases)} END"

    @property
    def value(self) -> str:
        """SQL of the binned number."""
        return "0.0" if self.expression is None or self.values else f"CAST(({self.expression}) AS DOUBLE)"

    def described(self, number: int) -> tuple[str, float | None, float | None]:
        """Name and edges of a bin."""
        if self.values:
            return self.values[number], None, None
        if not self.edges:
            return "all", None, None
        low, high = self.edges[number : number + 2]
        return f"{low:.6g}-{high:.6g}", low, high


def shear(
    catalog: str,
    *,
    by: str | None = None,
    edges: Sequence[float] = (),
    bins: int | None = None,
    where: str = "flags = 0",
    weight: str | None = None,
    frame: str = "pixel",
    prefix: str = "",
    labels: Any = None,
    calibration: str | None = None,
    calibration_labels: Any = None,
    step: float = 0.01,
    resample_by: str | None = None,
    bootstrap: int = 500,
    seed: int = 0,
    to: str | None = None,
) -> ShearResult:
    """Mean shear (<R> + R_S)^-1 <e> of a catalog, in bins, with bootstrap errors; and its biases where truth is known.

    SQL expressions see the columns of the catalog (rows with `primary` only) and of the labels; a label that a column
    of the catalog has the name of is called `true_<name>`.

    Args:
        catalog: folder of a catalog with e1, e2, r11, r12, r21, r22.
        by: column or SQL expression to bin by.
        edges: edges of the bins, rising.
        bins: without edges: so many bins of equal numbers of objects; without both, every value is a bin.
        where: SQL condition: what is selected.
        weight: SQL expression, above 0.
        frame: "pixel", or "sky" (+x West, +y North), where the response is its isotropic part (r11 + r22) / 2, the only
            one that survives the rotations of many images.
        prefix: of the columns, in a catalog of several bundles: the bundle's name.
        labels: truth by object_id: Stamps (path or URL), a Parquet file, or a table. `branch` and `set_id` with
            `shear_g1`, `shear_g2` (or g1, g2) give biases, `psf_e1`, `psf_e2` give the leakage.
        calibration: catalog of simulated branches with other seeds, measured by the same bundle, from which the
            selection response is taken (the whole response, where the catalog has none). Without it, columns such as
            `snr_1p, snr_1m, snr_2p, snr_2m` (what `snr` would be under a shear of ±`step` in component 1 or 2) give it
            where the selection and bins use them.
        calibration_labels: the labels of those.
        step: shear of the counterfactual columns.
        resample_by: column or SQL expression; objects that share it are resampled together (default set_id where there
            is one, else object_id; tile or a patch keeps correlated objects together).
        bootstrap: samples.
        seed: of the bootstrap.
        to: also write the bins to this .parquet, .csv, .fits or .vot.

    Raises:
        InputError: columns, labels or branches that are missing, no object left, SQL that fails.
    """
    started = time.perf_counter()
    if frame not in ("pixel", "sky"):
        raise InputError(f"frame {frame!r}: use pixel or sky")
    if bootstrap < 2 or (bins is not None and bins < 1):
        raise InputError("give 2 bootstrap samples or more and 1 bin or more (--bootstrap, --bins)")
    options: dict[str, Any] = {"where": where, "weight": weight, "frame": frame}
    options |= {"prefix": prefix, "resample_by": resample_by, "calibrated": calibration is not None}
    sample = _sample(catalog, labels, **options)
    divided = _bins(sample, by, edges, bins)
    sums, rejected = _sums(sample, divided)
    objects = int(sums[..., 0].sum())
    if objects == 0:
        raise InputError(
            f"no object of {storage.redact(catalog)} is left where {where}: {rejected} have no finite ellipticity and "
            f"response, or lie in no bin (a bundle whose response was never fitted gives NaN, and so does "
            f"--frame sky where the images have no world coordinates)"
        )
    drawn = resampled_sums(_with_total(sums), bootstrap, seed)
    other = None if calibration is None else _calibration(catalog, calibration, calibration_labels, options)
    selection, source = _selection(sample, other, divided, step, bootstrap, seed)
    found = [_bin(divided, number, drawn, selection) for number in range(len(divided) + 1)]
    shown = () if by is None else tuple(found[:-1])
    result = ShearResult(sample.catalog, found[-1], shown, objects, rejected, source, where, frame)
    if to is not None:
        write_rows(result.to_arrow(), to)
    return replace(result, seconds=round(time.perf_counter() - started, 3))


# ---- what is asked of the catalog --------------------------------------------------------------------------------


def _sample(
    catalog: str,
    labels: Any,
    *,
    where: str,
    weight: str | None,
    frame: str,
    prefix: str,
    resample_by: str | None,
    calibrated: bool,
) -> _Sample:
    """The columns, found; refused where they are not."""
    have = Catalog.open(catalog).schema.names
    head = f"{prefix}_" if prefix else ""
    tail = "_sky" if frame == "sky" else ""
    wanted = [f"{head}e1{tail}", f"{head}e2{tail}", *(f"{head}{name}" for name in _RESPONSE)]
    missing = [name for name in (wanted[:2] if calibrated else wanted) if name not in have]
    if missing:
        raise InputError(
            f"{storage.redact(catalog)} has no column {', '.join(missing)}: a shear needs ellipticities and responses; "
            f"measure with a bundle that gives them, and name it (--prefix) where the catalog is of several"
        )
    columns = dict(zip(("e1", "e2", *_RESPONSE), (quoted(name) for name in wanted)))
    if calibrated and not _has_response(catalog, wanted[2:], have):
        columns |= dict.fromkeys(_RESPONSE, "0.0")
    elif frame == "sky":
        isotropic = f"({columns['r11']} + {columns['r22']}) / 2"
        columns |= {"r11": isotropic, "r22": isotropic, "r12": "0.0", "r21": "0.0"}
    table = None if labels is None else _labels(labels, have)
    names = (*have, *([] if table is None else [name for name in table.column_names if name != "object_id"]))
    columns |= {ours: f"coalesce({quoted(name)}, 0)" for ours, name in formulas.label_columns(names).items()}
    key = resample_by or ("set_id" if "set_id" in names else "object_id")
    return _Sample(catalog, table, columns, names, where, key, weight or "1.0")


def _calibration(catalog: str, calibration: str, labels: Any, options: Mapping[str, Any]) -> _Sample:
    """The simulated branches; refused where they are what is measured: such a bias would be 0 whatever the shapes."""
    if Catalog.open(catalog).identity.get("source") == Catalog.open(calibration).identity.get("source"):
        raise InputError(
            f"the calibration {storage.redact(calibration)} was measured on the same stamps as the catalog: "
            f"simulate its branches with another seed"
        )
    return _sample(calibration, labels, **options)


def _has_response(catalog: str, names: Sequence[str], have: Sequence[str]) -> bool:
    """Whether any object has a response: a bundle whose response was not fitted gives NaN."""
    if any(name not in have for name in names):
        return False
    found = query(catalog, f"SELECT count(*) AS n FROM catalog WHERE isfinite({quoted(names[0])})")  # noqa: S608
    return bool(found.to_arrow()["n"][0].as_py())


def _labels(labels: Any, have: Sequence[str]) -> pa.Table:
    """The label table, its columns renamed where the catalog has the name."""
    table = labels if isinstance(labels, pa.Table) else _read_labels(labels)
    if "object_id" not in table.column_names:
        raise InputError("the labels have no column object_id: they are matched to the catalog by it")
    repeated = table.num_rows - len(np.unique(table["object_id"].to_numpy()))
    if repeated:
        raise InputError(f"{repeated} object_id of the labels occur more than once: give one row per object")
    taken = set(have) - {"object_id"}
    return table.rename_columns([f"true_{name}" if name in taken else name for name in table.column_names])


def _read_labels(labels: Any) -> pa.Table:
    if not isinstance(labels, str):
        return pa.Table.from_pandas(
            labels.to_pandas() if hasattr(labels, "to_pandas") else labels, preserve_index=False
        )
    if labels.endswith((".parquet", ".pq")):
        return storage.read_table(labels)
    return Stamps.open(labels).labels()


def _bins(sample: _Sample, by: str | None, edges: Sequence[float], count: int | None) -> _Bins:
    """The bins, with the edges or values that the data decide.

    Raises:
        InputError: edges that do not rise, or more values than bins make sense for.
    """
    if by is None:
        if edges or count:
            raise InputError("bins need something to bin by: name a column or SQL expression with `by` (--by)")
        return _Bins()
    if len(edges):
        limits = tuple(float(edge) for edge in edges)
        if len(limits) < 2 or any(low >= high for low, high in pairwise(limits)):
            raise InputError(f"edges {', '.join(f'{edge:g}' for edge in limits)}: give two or more, rising")
        return _Bins(by, limits)
    rows = f"FROM {sample.rows()} WHERE ({sample.where})"
    if count is None:
        found = sample.ask(f"SELECT DISTINCT CAST(({by}) AS VARCHAR) AS v {rows} ORDER BY v LIMIT {_MOST_BINS + 1}")
        values = tuple(value for value in found["v"].to_pylist() if value is not None)
        if len(values) > _MOST_BINS:
            raise InputError(f"{by} has more than {_MOST_BINS} values: give edges or a number of bins")
        return _Bins(by, values=values)
    shares = [number / count for number in range(count + 1)]
    value = f"CAST(({by}) AS DOUBLE)"
    found = sample.ask(f"SELECT quantile_cont({value}, {shares!r}) AS edges {rows} AND isfinite({value})")
    limits = tuple(dict.fromkeys(found["edges"][0].as_py() or ()))
    if len(limits) < 2:
        raise InputError(f"{by} has too few different values for {count} bins")
    return _Bins(by, limits)


def _sums(sample: _Sample, bins: _Bins, replaced: str = "") -> tuple[F64, int]:
    """Sums (block, bin, place, field) and the number of selected objects that no bin or number can be given."""
    place = "5"
    if "branch" in sample.names:
        starts = enumerate(("+g1", "-g1", "+g2", "-g2"))
        cases = [f"WHEN starts_with(branch, '{start}') THEN {number}" for number, start in starts]
        place = f"CASE {' '.join(cases)} WHEN branch IN ('+psf', '-psf') THEN 4 ELSE 5 END"
    given = {**sample.columns, "weight": f"({sample.weight})", "value": bins.value}
    columns = ", ".join(f"CAST({sql} AS DOUBLE) AS v_{name}" for name, sql in given.items())
    needed = [f"v_{name}" for name in ("e1", "e2", *_RESPONSE, "weight", "value")]
    good = " AND ".join([*(f"isfinite({name})" for name in needed), "v_weight > 0", "bin IS NOT NULL"])
    statement = (
        f"SELECT CASE WHEN {good} THEN bin ELSE -1 END AS bin, place, block, {_summed(given)} FROM ("  # noqa: S608
        f"SELECT {bins.index} AS bin, {place} AS place, hash({sample.key}) % {BLOCKS} AS block, {columns} "
        f"FROM {sample.rows(replaced)} WHERE ({sample.where})) GROUP BY ALL ORDER BY ALL"
    )
    table = sample.ask(statement)
    bin_, place_, block = (table[name].to_numpy().astype(np.int64) for name in ("bin", "place", "block"))
    values = np.stack([table[f"s_{name}"].to_numpy().astype(np.float64) for name in FIELDS], axis=1)
    used = bin_ >= 0
    rejected = int(values[~used, 0].sum())
    sums = np.zeros((BLOCKS, len(bins), _PLACES, len(FIELDS)))
    sums[block[used], bin_[used], place_[used]] = values[used]
    return sums, rejected


def _summed(given: Mapping[str, str]) -> str:
    """SQL of the fields: as `formulas.weighted`, summed."""
    terms = ["count(*) AS s_count", "sum(v_weight) AS s_weight"]
    for name in FIELDS[2:]:
        factors = name.split("_")
        there = all(factor in given for factor in factors)
        product = " * ".join(["v_weight", *(f"v_{factor}" for factor in factors)]) if there else "0.0"
        terms.append(f"sum({product}) AS s_{name}")
    return ", ".join(terms)


# ---- selection response ------------------------------------------------------------------------------------------


def _selection(
    sample: _Sample, calibration: _Sample | None, bins: _Bins, step: float, bootstrap: int, seed: int
) -> tuple[F64 | None, str]:
    """R_S (1 + bootstrap, bins and total, 2, 2), and where it is from."""
    if calibration is not None:
        if "branch" not in calibration.names or "g1" not in calibration.columns:
            raise InputError(
                "the calibration has no labels branch, shear_g1, shear_g2: give the labels of its simulated branches "
                "(--calibration-labels)"
            )
        sums, _ = _sums(calibration, bins)
        drawn = resampled_sums(_with_total(sums), bootstrap, seed + 1)
        return formulas.selection_from_branches(_signed(drawn)), "calibration"
    used = _counterfactuals(sample, bins)
    if not used:
        return None, "none"
    parts = []
    for component in (1, 2):
        for sign in ("p", "m"):
            pairs = ", ".join(f"{quoted(f'{name}_{component}{sign}')} AS {quoted(name)}" for name in used)
            parts.append(_sums(sample, bins, f" REPLACE ({pairs})")[0])
    drawn = resampled_sums(np.stack([_with_total(part).sum(2) for part in parts], axis=2), bootstrap, seed)
    pairs_ = drawn.reshape(*drawn.shape[:2], 2, 2, len(FIELDS))
    return formulas.selection_from_counterfactuals(pairs_, step), "columns"


def _counterfactuals(sample: _Sample, bins: _Bins) -> list[str]:
    """Columns that selection, bins or weight depend on and that the catalog has under shear too.

    Raises:
        InputError: not under all four shears.
    """
    texts = (sample.where, bins.expression or "", sample.weight)
    shape = {sql.strip('"') for sql in sample.columns.values()}
    used = []
    for name in sample.names:
        wanted = [f"{name}_{component}{sign}" for component in (1, 2) for sign in "pm"]
        missing = [other for other in wanted if other not in sample.names]
        if len(missing) == len(wanted) or name in shape or not any(re.search(rf"\b{name}\b", text) for text in texts):
            continue
        if missing:
            raise InputError(f"the catalog lacks {', '.join(missing)}: the selection response of {name} needs all four")
        used.append(name)
    return used


def _with_total(sums: F64) -> F64:
    """(block, bin, ...) with one more bin that holds all."""
    return np.concatenate([sums, sums.sum(1, keepdims=True)], axis=1)


def _signed(sums: F64) -> F64:
    """The sheared branches (..., component, sign, field) of (..., place, field)."""
    return sums[..., :4, :].reshape(*sums.shape[:-2], 2, 2, sums.shape[-1])


# ---- results -----------------------------------------------------------------------------------------------------


def _bin(bins: _Bins, number: int, drawn: F64, selection: F64 | None) -> ShearBin:
    """One bin's numbers from sums (1 + bootstrap, bin, place, field)."""
    places = drawn[:, number]
    sums = places.sum(1)
    chosen: F64 | float = 0.0 if selection is None else selection[:, number]
    g, e, response = formulas.mean_shear(sums, chosen), formulas.mean_ellipticity(sums), formulas.mean_response(sums)
    total = number == len(bins)
    name, low, high = ("all", None, None) if total else bins.described(number)
    value = float(formulas.mean(sums, "value")[0]) if bins.edges else None
    return ShearBin(
        *(name, low, high, value, int(sums[0, 0]), float(sums[0, 1]), float(e[0, 0]), float(e[0, 1])),
        g1=Estimate.of(g[:, 0]),
        g2=Estimate.of(g[:, 1]),
        response=_matrix(response[0]),
        selection_response=None if selection is None else _matrix(selection[0, number]),
        bias=_bias(_signed(places), chosen),
        leakage=_leakage(places, chosen),
    )


def _bias(sums: F64, selection: F64 | float) -> Bias | None:
    if not sums[0, ..., 0].all(axis=-1).any():
        return None
    m, c = formulas.biases(sums, selection)
    return Bias(*(Estimate.of(values[:, i]) for values in (m, c) for i in (0, 1)))


def _leakage(places: F64, selection: F64 | float) -> tuple[Estimate, Estimate] | None:
    """From the branches ±psf where there are any, else from all objects."""
    sums = places[:, 4] if places[0, 4, 0] else places.sum(1)
    alpha = formulas.leakage(sums, selection)
    return (Estimate.of(alpha[:, 0]), Estimate.of(alpha[:, 1])) if np.isfinite(alpha[0]).any() else None


def _matrix(values: F64) -> tuple[tuple[float, float], tuple[float, float]]:
    return (float(values[0, 0]), float(values[0, 1])), (float(values[1, 0]), float(values[1, 1]))


def _flat(item: ShearBin) -> dict[str, Any]:
    """A bin as a row."""
    row: dict[str, Any] = {name: getattr(item, name) for name in ("name", "low", "high", "value", "count", "weight")}
    row |= {"e1": item.e1, "e2": item.e2}
    estimates = {"g1": item.g1, "g2": item.g2}
    if item.bias is not None:
        estimates |= {name: getattr(item.bias, name) for name in ("m1", "m2", "c1", "c2")}
    if item.leakage is not None:
        estimates |= {"alpha1": item.leakage[0], "alpha2": item.leakage[1]}
    for name, estimate in estimates.items():
        row |= {name: estimate.value, f"{name}_err": estimate.error}
    for head, matrix in (("r", item.response), ("rs", item.selection_response)):
        if matrix is not None:
            row |= {f"{head}{i + 1}{j + 1}": matrix[i][j] for i in (0, 1) for j in (0, 1)}
    return row


def show(result: ShearResult) -> str:
    """The bins as text, one line each."""
    shown = (*result.bins, result.total)
    wide = max(16, *(len(item.name) for item in shown))
    lines = [f"{'bin':>{wide}} {'objects':>10} {'g1':>20} {'g2':>20} {'R':>7} {'R_S':>8}"]
    for item in shown:
        own = (item.response[0][0] + item.response[1][1]) / 2
        selected = item.selection_response
        chosen = "-" if selected is None else f"{(selected[0][0] + selected[1][1]) / 2:+.4f}"
        lines.append(f"{item.name:>{wide}} {item.count:>10} {item.g1!s:>20} {item.g2!s:>20} {own:>7.4f} {chosen:>8}")
        if item.bias is not None:
            bias = item.bias
            lines.append(f"{'':>{wide}} m1 {bias.m1}  m2 {bias.m2}  c1 {bias.c1}  c2 {bias.c2}")
        if item.leakage is not None:
            lines.append(f"{'':>{wide}} alpha1 {item.leakage[0]}  alpha2 {item.leakage[1]}")
    if result.rejected:
        lines.append(f"{result.rejected} selected objects are in no bin or have no finite ellipticity and response")
    return "\n".join(lines)
