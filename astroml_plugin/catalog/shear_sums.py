"""Sums over objects that a mean shear is made of: from arrays, or by SQL from a catalog of any size.

A shear and its errors follow from weighted sums of ellipticity, response and truth per block of objects (see
`evaluation.shear`), so that only sums leave the catalog.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.sql import name as quoted
from astroml_plugin.catalog.sql import quote
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.sources.stamps import Stamps

BLOCKS = 1000
"""Random blocks that objects are resampled in: their number sets the precision of an error to 1/sqrt(2 BLOCKS)."""

FIELDS = (
    *("count", "weight", "e1", "e2", "r11", "r12", "r21", "r22", "g1", "g2"),
    *("psf1", "psf2", "e1_psf1", "e2_psf2", "psf1_psf1", "psf2_psf2", "value"),
)
"""Last axis of every array of sums: objects, then sums of weight, and of weight times ellipticity, response, true
shear, PSF ellipticity, products of two, and the binned quantity. What a sample does not have is 0."""

LABELS = {"g1": ("shear_g1", "g1"), "g2": ("shear_g2", "g2"), "psf1": ("psf_e1",), "psf2": ("psf_e2",)}
"""Names that label columns of true shear and PSF ellipticity go by."""

_SHEARED = ("+g1", "-g1", "+g2", "-g2")
_PSF = ("+psf", "-psf")

BRANCHES = (*(f"{shear}/{angle}" for shear in _SHEARED for angle in (0, 90)), *_PSF)
"""Values of the label `branch`: the sign and component of the shear and the rotation of the galaxy in degrees, or the
sign of the PSF's ellipticity. The branches of one galaxy share their `set_id`."""

KINDS = len(_SHEARED) + 2
"""Kinds of branches: +g1, -g1, +g2, -g2, ±psf, and none. Numbers of the kinds are an axis of the sums."""

NO_BRANCH = KINDS - 1
"""Number of the objects that are of no branch."""

RESPONSE = ("r11", "r12", "r21", "r22")
"""Columns of the response R_ij = de_i / dg_j."""

MOST_BINS = 200
"""Most values that each make a bin."""


# ---- sums over arrays


def weighted(columns: Mapping[str, ArrayLike], weight: ArrayLike | None = None) -> F64:
    """Contribution of each object to the sums.

    Args:
        columns: e1, e2 and any of r11, r12, r21, r22, g1, g2, psf1, psf2, value, each (n,).
        weight: (n,), default 1.

    Returns:
        (n, len(FIELDS)) float64.
    """
    values_of = {name: np.asarray(values, np.float64) for name, values in columns.items()}
    w = np.ones(len(values_of["e1"])) if weight is None else np.asarray(weight, np.float64)
    terms = np.zeros((len(w), len(FIELDS)))
    terms[:, 0], terms[:, 1] = 1, w
    for number, factors in enumerate(_products(values_of), 2):
        if factors:
            terms[:, number] = w * np.prod([values_of[factor] for factor in factors], axis=0)
    return terms


def _products(names: Collection[str]) -> list[list[str]]:
    """Quantities whose product with the weight each field after the first two sums; none where one is not there."""
    factors = [name.split("_") for name in FIELDS[2:]]
    return [each if all(factor in names for factor in each) else [] for each in factors]


def block_sums(terms: F64, block: ArrayLike, group: ArrayLike | None = None, groups: int = 1) -> F64:
    """Sums per resampling block and group (a bin, a kind of branch).

    Args:
        terms: (n, field) of `weighted`.
        block: (n,) integers or text; objects of one block are resampled together.
        group: (n,) index below `groups`; objects with another one are left out.
        groups: number of groups.

    Returns:
        (block, group, field).
    """
    names, index = np.unique(np.asarray(block), return_inverse=True)
    where = np.zeros(len(terms), np.int64) if group is None else np.asarray(group, np.int64)
    used = (where >= 0) & (where < groups)
    sums = np.zeros((len(names), groups, terms.shape[1]))
    np.add.at(sums, (index[used], where[used]), terms[used])
    return sums


def label_columns(names: Iterable[str]) -> dict[str, str]:
    """Which of `names` hold g1, g2, psf1, psf2."""
    known = set(names)
    firsts = {ours: next((name for name in theirs if name in known), None) for ours, theirs in LABELS.items()}
    return {ours: name for ours, name in firsts.items() if name is not None}


def branch_kinds(branch: ArrayLike) -> I64:
    """(n,) numbers of the kinds of branches by name: 0 +g1, 1 -g1, 2 +g2, 3 -g2, 4 ±psf, -1 anything else."""
    names = np.asarray(branch, str)
    kinds = np.full(len(names), -1, np.int64)
    for number, start in enumerate(_SHEARED):
        kinds[np.char.startswith(names, start)] = number
    kinds[np.isin(names, _PSF)] = len(_SHEARED)
    return kinds


def _kind_sql(names: Iterable[str]) -> str:
    """SQL of the number of an object's kind of branch, as `branch_kinds`; without the label `NO_BRANCH`."""
    if "branch" not in names:
        return str(NO_BRANCH)
    cases = [f"WHEN starts_with(branch, {quote(start)}) THEN {number}" for number, start in enumerate(_SHEARED)]
    psf = ", ".join(map(quote, _PSF))
    return f"CASE {' '.join(cases)} WHEN branch IN ({psf}) THEN {len(_SHEARED)} ELSE {NO_BRANCH} END"


# ---- rows of a catalog


@dataclass(frozen=True)
class ShearRows:
    """Objects of one catalog and their labels, as SQL sees them."""

    catalog: str
    """URL of the catalog."""
    labels: pa.Table | None
    """Truth by object_id."""
    columns: Mapping[str, str]
    """SQL of e1, e2, r.., and of the labels g1, g2, psf1, psf2 where they are."""
    names: tuple[str, ...]
    """Every column of catalog and labels."""
    where: str
    """SQL of the selection."""
    key: str
    """SQL of the key: objects that share it are resampled together."""
    weight: str
    """SQL of the weight."""

    def rows(self, replaced: str = "") -> str:
        """SQL of the joined rows, some columns replaced."""
        joined = "catalog" if self.labels is None else "(SELECT * FROM catalog JOIN labels USING (object_id))"
        return f'(SELECT *{replaced} FROM {joined} WHERE "primary")'  # noqa: S608

    def ask(self, statement: str) -> pa.Table:
        """The answer; the labels are a view beside `catalog`."""
        tables = None if self.labels is None else {"labels": self.labels}
        return query(self.catalog, statement, tables=tables).to_arrow()


@dataclass(frozen=True)
class Bins:
    """Division of objects by a column or SQL expression."""

    expression: str | None = None
    """SQL; None: one bin holds all."""
    edges: tuple[float, ...] = ()
    """Edges of ranges; the last bin holds its upper edge."""
    values: tuple[str, ...] = ()
    """Instead of ranges: each value, as text, is a bin."""

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


@dataclass(frozen=True)
class RowOptions:
    """Objects whose shear is wanted, and where their ellipticities stand."""

    where: str = "flags = 0"
    """SQL condition: the selection."""
    weight: str | None = None
    """SQL expression of the weight, above 0; default 1."""
    frame: str = "pixel"
    """"pixel", or "sky" (+x West, +y North), where the response is its isotropic part (r11 + r22) / 2, the only one
    that survives the rotations of many images."""
    prefix: str = ""
    """Prefix of the columns, in a catalog of several bundles: the bundle's name."""
    resample_by: str | None = None
    """Column or SQL expression; objects that share it are resampled together (default set_id where there is one, else
    object_id; tile or a patch keeps correlated objects together)."""


def rows_of(catalog: str, labels: Any, options: RowOptions, *, calibrated: bool) -> ShearRows:
    """The rows of a catalog with their labels.

    Args:
        catalog: path or URL.
        labels: truth by object_id: Stamps (path or URL), a Parquet file, or a table; None: no truth.
        options: the selection and the columns.
        calibrated: whether the whole response may come from a calibration: the catalog then needs none.

    Raises:
        InputError: columns that are missing, labels without ids or with repeated ones.
    """
    have = Catalog.open(catalog).schema.names
    head = f"{options.prefix}_" if options.prefix else ""
    tail = "_sky" if options.frame == "sky" else ""
    wanted = [f"{head}e1{tail}", f"{head}e2{tail}", *(f"{head}{name}" for name in RESPONSE)]
    missing = [name for name in (wanted[:2] if calibrated else wanted) if name not in have]
    if missing:
        raise InputError(
            f"{storage.redact(catalog)} has no column {', '.join(missing)}: a shear needs ellipticities and responses; "
            f"measure with a bundle that gives them, and name it (--prefix) where the catalog is of several"
        )
    columns = dict(zip(("e1", "e2", *RESPONSE), (quoted(name) for name in wanted)))
    if calibrated and not _has_response(catalog, wanted[2:], have):
        columns |= dict.fromkeys(RESPONSE, "0.0")
    elif options.frame == "sky":
        isotropic = f"({columns['r11']} + {columns['r22']}) / 2"
        columns |= {"r11": isotropic, "r22": isotropic, "r12": "0.0", "r21": "0.0"}
    table = None if labels is None else _labels(labels, have)
    names = (*have, *([] if table is None else [name for name in table.column_names if name != "object_id"]))
    columns |= {ours: f"coalesce({quoted(name)}, 0)" for ours, name in label_columns(names).items()}
    key = options.resample_by or ("set_id" if "set_id" in names else "object_id")
    return ShearRows(catalog, table, columns, names, options.where, key, options.weight or "1.0")


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
    if storage.path_of(labels).endswith((".parquet", ".pq")):
        return storage.read_table(labels)
    return Stamps.open(labels).labels()


def bins_of(rows: ShearRows, by: str | None, edges: Sequence[float], count: int | None) -> Bins:
    """The bins, with the edges or values that the data decide.

    Raises:
        InputError: edges that do not rise, or more values than bins make sense for.
    """
    if by is None:
        if edges or count:
            raise InputError("bins need something to bin by: name a column or SQL expression with `by` (--by)")
        return Bins()
    if len(edges):
        limits = tuple(float(edge) for edge in edges)
        if len(limits) < 2 or any(low >= high for low, high in pairwise(limits)):
            raise InputError(f"edges {', '.join(f'{edge:g}' for edge in limits)}: give two or more, rising")
        return Bins(by, limits)
    source = f"FROM {rows.rows()} WHERE ({rows.where})"
    if count is None:
        answer = rows.ask(f"SELECT DISTINCT CAST(({by}) AS VARCHAR) AS v {source} ORDER BY v LIMIT {MOST_BINS + 1}")
        values = tuple(value for value in answer["v"].to_pylist() if value is not None)
        if len(values) > MOST_BINS:
            raise InputError(f"{by} has more than {MOST_BINS} values: give edges or a number of bins")
        return Bins(by, values=values)
    fractions = [number / count for number in range(count + 1)]
    value = f"CAST(({by}) AS DOUBLE)"
    answer = rows.ask(f"SELECT quantile_cont({value}, {fractions!r}) AS edges {source} AND isfinite({value})")
    limits = tuple(dict.fromkeys(answer["edges"][0].as_py() or ()))
    if len(limits) < 2:
        raise InputError(f"{by} has too few different values for {count} bins")
    return Bins(by, limits)


# ---- sums over a catalog


def catalog_sums(rows: ShearRows, bins: Bins, replaced: str = "") -> tuple[F64, int]:
    """Sums (block, bin, kind of branch, field), made where the catalog lies.

    Args:
        rows: the objects.
        bins: their division.
        replaced: SQL that puts other columns in the place of some.

    Returns:
        The sums, and the number of selected objects that lie in no bin or lack a number.
    """
    values = {**rows.columns, "weight": f"({rows.weight})", "value": bins.value}
    columns = ", ".join(f"CAST({sql} AS DOUBLE) AS v_{name}" for name, sql in values.items())
    needed = [f"v_{name}" for name in ("e1", "e2", *RESPONSE, "weight", "value")]
    good = " AND ".join([*(f"isfinite({name})" for name in needed), "v_weight > 0", "bin IS NOT NULL"])
    statement = (
        f"SELECT CASE WHEN {good} THEN bin ELSE -1 END AS bin, kind, block, {_summed(values)} FROM ("  # noqa: S608
        f"SELECT {bins.index} AS bin, {_kind_sql(rows.names)} AS kind, hash({rows.key}) % {BLOCKS} AS block, {columns} "
        f"FROM {rows.rows(replaced)} WHERE ({rows.where})) GROUP BY ALL ORDER BY ALL"
    )
    table = rows.ask(statement)
    bin_, kind, block = (table[name].to_numpy().astype(np.int64) for name in ("bin", "kind", "block"))
    fields = np.stack([table[f"s_{name}"].to_numpy().astype(np.float64) for name in FIELDS], axis=1)
    used = bin_ >= 0
    rejected = int(fields[~used, 0].sum())
    sums = np.zeros((BLOCKS, len(bins), KINDS, len(FIELDS)))
    sums[block[used], bin_[used], kind[used]] = fields[used]
    return sums, rejected


def _summed(names: Collection[str]) -> str:
    """SQL of the fields: the sums of what `weighted` gives."""
    terms = ["count(*) AS s_count", "sum(v_weight) AS s_weight"]
    for name, factors in zip(FIELDS[2:], _products(names)):
        product = " * ".join(["v_weight", *(f"v_{factor}" for factor in factors)]) if factors else "0.0"
        terms.append(f"sum({product}) AS s_{name}")
    return ", ".join(terms)
