"""Mean shear of a catalog in bins, with bootstrap errors; its biases where the true shear is known.

Sums come from `catalog.shear_sums`, formulas from `evaluation.shear`; here they are chosen, binned and resampled.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog, unlike_training
from astroml_plugin.catalog.answers import TableResult
from astroml_plugin.catalog.shear_sums import FIELDS, Bins, RowOptions, ShearRows, bins_of, catalog_sums, rows_of
from astroml_plugin.catalog.sql import name as quoted
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.typing import F64
from astroml_plugin.evaluation import shear as formulas
from astroml_plugin.evaluation.bootstrap import resampled_sums
from astroml_plugin.evaluation.shear import Bias, Estimate


@dataclass(frozen=True)
class ShearOptions(RowOptions):
    """Options of a mean shear. SQL sees columns of the catalog (rows with `primary` only) and of the labels.

    A label that a column of the catalog has the name of is called `true_<name>`.
    """

    by: str | None = None
    """Column or SQL expression to bin by."""
    edges: tuple[float, ...] = ()
    """Edges of the bins, rising."""
    bins: int | None = None
    """Without edges: so many bins of equal numbers of objects; without both, every value is a bin."""
    labels: Any = None
    """Truth by object_id: Stamps (path or URL), a Parquet file, or a table. `branch` and `set_id` with `shear_g1`,
    `shear_g2` (or g1, g2) give biases, `psf_e1`, `psf_e2` give the leakage."""
    calibration: Place | None = None
    """Catalog of simulated branches with other seeds, measured by the same bundle, from which the selection response is
    taken (the whole response, where the catalog has none). Without it, columns such as `snr_1p, snr_1m, snr_2p, snr_2m`
    (what `snr` would be under a shear of ±`step` in component 1 or 2) give it where selection and bins use them."""
    calibration_labels: Any = None
    """Labels of the calibration."""
    step: float = 0.01
    """Shear of the columns like snr_1p."""
    bootstrap: int = 500
    """Bootstrap samples."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        if self.frame not in ("pixel", "sky"):
            raise InputError(f"frame {self.frame!r}: use pixel or sky")
        if self.bootstrap < 2 or (self.bins is not None and self.bins < 1):
            raise InputError("give 2 bootstrap samples or more and 1 bin or more (--bootstrap, --bins)")


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
    """Biases, where the branches +g and -g are there."""
    leakage: tuple[Estimate, Estimate] | None = None
    """alpha of both components, where the PSF's ellipticity is known and varies."""


@dataclass(frozen=True, repr=False)
class ShearResult(TableResult):
    """Mean shear of a catalog."""

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
    note: str = ""
    """A sentence where many rows are left away only because they are unlike what the bundle was trained on."""

    def to_arrow(self) -> pa.Table:
        """One row per bin, the last one for all."""
        return pa.Table.from_pylist([_flat(item) for item in (*self.bins, self.total)])


def measure_shear(catalog: str, options: ShearOptions) -> ShearResult:
    """Mean shear (<R> + R_S)^-1 <e> of a catalog with e1, e2, r11, r12, r21, r22.

    Raises:
        InputError: columns, labels or branches that are missing, no object left, SQL that fails.
    """
    started = time.perf_counter()
    calibrated = options.calibration is not None
    rows = rows_of(catalog, options.labels, options, calibrated=calibrated)
    bins = bins_of(rows, options.by, options.edges, options.bins)
    sums, rejected = catalog_sums(rows, bins)
    objects = int(sums[..., 0].sum())
    note = "" if options.labels is not None else unlike_training.sentence(catalog, options.where)
    if objects == 0 and note:
        raise InputError(f"no object of {storage.redact(catalog)} is left where {options.where}: {note}")
    if objects == 0:
        raise InputError(
            f"no object of {storage.redact(catalog)} is left where {options.where}: {rejected} have no finite "
            f"ellipticity and response, or lie in no bin (a bundle whose response was never fitted gives NaN, and so "
            f"does --frame sky where the images have no world coordinates)"
        )
    drawn = resampled_sums(_with_total(sums), options.bootstrap, options.seed)
    selection, source = _selection(rows, _calibration(catalog, options), bins, options)
    every = [_bin(bins, number, drawn, selection) for number in range(len(bins) + 1)]
    shown = () if options.by is None else tuple(every[:-1])
    seconds = round(time.perf_counter() - started, 3)
    about = objects, rejected, source, options.where, options.frame, seconds, note
    return ShearResult(catalog, every[-1], shown, *about)


# ---- selection response ------------------------------------------------------------------------------------------


def _calibration(catalog: str, options: ShearOptions) -> ShearRows | None:
    """The simulated branches; refused where they are what is measured: such a bias would be 0 whatever the shapes."""
    calibration = options.calibration
    if calibration is None:
        return None
    if Catalog.open(catalog).identity.get("source") == Catalog.open(calibration).identity.get("source"):
        raise InputError(
            f"the calibration {storage.redact(calibration)} was measured on the same stamps as the catalog: "
            f"simulate its branches with another seed"
        )
    return rows_of(text_of(calibration), options.calibration_labels, options, calibrated=True)


def _selection(
    rows: ShearRows, calibration: ShearRows | None, bins: Bins, options: ShearOptions
) -> tuple[F64 | None, str]:
    """R_S (1 + bootstrap, bins and total, 2, 2), and where it is from."""
    if calibration is not None:
        if "branch" not in calibration.names or "g1" not in calibration.columns:
            raise InputError(
                "the calibration has no labels branch, shear_g1, shear_g2: give the labels of its simulated branches "
                "(--calibration-labels)"
            )
        sums, _ = catalog_sums(calibration, bins)
        drawn = resampled_sums(_with_total(sums), options.bootstrap, options.seed + 1)
        return formulas.selection_from_branches(_signed(drawn)), "calibration"
    used = _sheared_columns(rows, bins)
    if not used:
        return None, "none"
    parts = []
    for component in (1, 2):
        for sign in ("p", "m"):
            pairs = ", ".join(f"{quoted(f'{name}_{component}{sign}')} AS {quoted(name)}" for name in used)
            parts.append(catalog_sums(rows, bins, f" REPLACE ({pairs})")[0])
    drawn = resampled_sums(
        np.stack([_with_total(part).sum(2) for part in parts], axis=2), options.bootstrap, options.seed
    )
    pairs_ = drawn.reshape(*drawn.shape[:2], 2, 2, len(FIELDS))
    return formulas.selection_from_metacalibration(pairs_, options.step), "columns"


def _sheared_columns(rows: ShearRows, bins: Bins) -> list[str]:
    """Columns that selection, bins or weight depend on and that the catalog has under shear too.

    Raises:
        InputError: not under all four shears.
    """
    texts = (rows.where, bins.expression or "", rows.weight)
    shape = {sql.strip('"') for sql in rows.columns.values()}
    used = []
    for name in rows.names:
        wanted = [f"{name}_{component}{sign}" for component in (1, 2) for sign in "pm"]
        missing = [other for other in wanted if other not in rows.names]
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
    """The sheared branches (..., component, sign, field) of (..., kind of branch, field)."""
    return sums[..., :4, :].reshape(*sums.shape[:-2], 2, 2, sums.shape[-1])


# ---- results -----------------------------------------------------------------------------------------------------


def _bin(bins: Bins, number: int, drawn: F64, selection: F64 | None) -> ShearBin:
    """One bin's numbers from sums (1 + bootstrap, bin, kind of branch, field)."""
    kinds = drawn[:, number]
    sums = kinds.sum(1)
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
        bias=_bias(_signed(kinds), chosen),
        leakage=_leakage(kinds, chosen),
    )


def _bias(sums: F64, selection: F64 | float) -> Bias | None:
    if not sums[0, ..., 0].all(axis=-1).any():
        return None
    m, c = formulas.biases(sums, selection)
    return Bias(*(Estimate.of(values[:, i]) for values in (m, c) for i in (0, 1)))


def _leakage(kinds: F64, selection: F64 | float) -> tuple[Estimate, Estimate] | None:
    """From the branches ±psf where there are any, else from all objects."""
    sums = kinds[:, 4] if kinds[0, 4, 0] else kinds.sum(1)
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
    return "\n".join([*lines, *([result.note] if result.note else [])])
