"""Report of measured ellipticities against the truth: numbers with bootstrap intervals, shear biases, and figures.

The shear of the evaluated stamps uses the sums of `catalog.shear_sums` and the formulas of `evaluation.shear`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import shear_sums
from astroml_plugin.core.hashing import hashed_blocks
from astroml_plugin.core.typing import F64, I64, Bool
from astroml_plugin.evaluation import figures as plots
from astroml_plugin.evaluation import shear
from astroml_plugin.evaluation.bootstrap import resampled_sums
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.evaluation.value_metrics import FEWEST, finite_rows, value_figures
from astroml_plugin.evaluation.value_report import drawn_figures

SNR_EDGES = (10.0, 20.0, 50.0, 100.0, 200.0)
"""Bins of the label `snr`, the matched-filter S/N."""
SIZE_EDGES = (0.1, 0.3, 0.5, 0.7, 1.0, 2.0)
"""Bins of the label `half_light_radius`, arcsec."""
_BINNED = {"snr_bins": ("snr", SNR_EDGES), "size_bins": ("half_light_radius", SIZE_EDGES)}
_REPEATS = 200


def binned(
    found: F64, truth: F64, widths: tuple[F64, F64] | None, table: pa.Table, repeats: int = _REPEATS
) -> dict[str, Any]:
    """`value_metrics.value_figures` of all objects and, where the labels are there, per bin of S/N and of size."""
    result: dict[str, Any] = {"all": value_figures(found, truth, widths, repeats=repeats)}
    for name, (label, edges) in _BINNED.items():
        if label not in table.column_names:
            continue
        value = _label(table, label)
        result[name] = {}
        for low, high in pairwise(edges):
            chosen = (value >= low) & (value < high)
            if chosen.sum() >= FEWEST:
                inside = None if widths is None else (widths[0][chosen], widths[1][chosen])
                result[name][f"{low:g}-{high:g}"] = value_figures(found[chosen], truth[chosen], inside, repeats=repeats)
    return result


def response_grid(response: F64, table: pa.Table) -> dict[str, Any] | None:
    """Mean (R11 + R22) / 2 and its standard error per S/N and size bin from (n, 4); None where there is none.

    `value[i][j]` is of S/N bin i, size bin j; NaN below 20 objects.
    """
    own = (response[:, 0] + response[:, 3]) / 2
    good = np.isfinite(own)
    if not good.any() or not {"snr", "half_light_radius"} <= set(table.column_names):
        return None
    rows = np.digitize(_label(table, "snr"), SNR_EDGES) - 1
    columns = np.digitize(_label(table, "half_light_radius"), SIZE_EDGES) - 1
    shape = (len(SNR_EDGES) - 1, len(SIZE_EDGES) - 1)
    value, error = np.full(shape, np.nan), np.full(shape, np.nan)
    for row, column in np.ndindex(*shape):
        chosen = good & (rows == row) & (columns == column)
        if chosen.sum() >= FEWEST:
            value[row, column] = own[chosen].mean()
            error[row, column] = own[chosen].std() / np.sqrt(chosen.sum())
    means = response[good].mean(0).tolist()
    edges = {"snr_edges": list(SNR_EDGES), "size_edges": list(SIZE_EDGES)}
    return {"mean": means, **edges, "value": value.tolist(), "error": error.tolist()}


def shear_report(columns: Mapping[str, np.ndarray], table: pa.Table, repeats: int = 300) -> dict[str, Any]:
    """m, c and alpha, each [value, error], from branches where the labels have them (`evaluation.shear`).

    Without branches alpha is the slope of (e - truth) against the PSF's ellipticity, not divided by any response.
    """
    names = set(table.column_names)
    e = np.stack([columns["e1"], columns["e2"]], axis=1).astype(np.float64)
    response = {name: columns[name] for name in ("r11", "r12", "r21", "r22") if name in columns}
    good = finite_rows(e)
    if {"branch", "set_id"} <= names and response:
        good &= finite_rows(np.stack(list(response.values()), axis=1))
        return _branch_report(e, response, table, good, repeats)
    if not {"psf_e1", "psf_e2", "e1", "e2"} <= names:
        return {}
    truth = np.stack([_label(table, "e1"), _label(table, "e2")], axis=1)
    good &= finite_rows(truth)
    ones = dict.fromkeys(("r11", "r22"), np.ones(len(e)))
    return {"alpha": _estimates(shear.leakage(_drawn(e - truth, ones, table, good, repeats)))} if good.any() else {}


def _drawn(e: F64, response: Mapping[str, np.ndarray], table: pa.Table, good: Bool, repeats: int) -> F64:
    """Resampled sums (1 + repeats, field) of the good objects."""
    return _placed(e, response, table, good, repeats, np.zeros(len(e), np.int64), 1)[:, 0]


def _placed(
    e: F64,
    response: Mapping[str, np.ndarray],
    table: pa.Table,
    good: Bool,
    repeats: int,
    place: I64,
    places: int,
) -> F64:
    columns = {"e1": e[:, 0], "e2": e[:, 1], **response}
    labels = shear_sums.label_columns(table.column_names)
    columns |= {ours: np.nan_to_num(_label(table, name)) for ours, name in labels.items()}
    key = table["set_id" if "set_id" in table.column_names else "object_id"].to_numpy()
    terms = shear_sums.weighted({name: values[good] for name, values in columns.items()})
    sums = shear_sums.block_sums(terms, hashed_blocks(key[good], shear_sums.BLOCKS), place[good], places)
    return resampled_sums(sums, repeats)


def _branch_report(
    e: F64, response: Mapping[str, np.ndarray], table: pa.Table, good: Bool, repeats: int
) -> dict[str, Any]:
    place = shear_sums.branch_kinds(np.array(table["branch"].to_pylist(), str))
    sums = _placed(e, response, table, good, repeats, place, 5)
    found: dict[str, Any] = {}
    if sums[0, :4, 0].any():
        signed = sums[:, :4].reshape(len(sums), 2, 2, -1)
        m, c = shear.biases(signed)
        found = {"m": _estimates(m), "c": _estimates(c)}
    if sums[0, 4, 0]:
        found["alpha"] = _estimates(shear.leakage(sums[:, 4]))
    return found


def _estimates(values: F64) -> list[list[float]]:
    """[[value, error], [value, error]] of both components from (1 + repeats, 2)."""
    both = [shear.Estimate.of(values[:, i]) for i in (0, 1)]
    return [[estimate.value, estimate.error] for estimate in both]


def change(own: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], truth: F64) -> dict[str, Any]:
    """Effect of an error of the input on the columns of a measurement.

    `gain`: (slope of the changed e against the truth) / (slope of e) - 1; `response`: relative change of the mean
    response; their difference is about the change of m. `shift`: mean change of e over the mean response, about the
    change of c. Each [value, standard error] per component but RMSE; the response is 1 where there is none.
    """
    before, after = _pair(own), _pair(other)
    good = finite_rows(before) & finite_rows(after)
    before, after, truth = before[good], after[good], truth[good]
    difference, centred = after - before, truth - truth.mean(0)
    gain = (centred * difference).sum(0) / (centred * before).sum(0)
    rest = centred * (difference - gain * before)
    error = np.sqrt((rest**2).sum(0)) / np.abs((centred * before).sum(0))
    response, ratio = _mean_response(own, good), _mean_response(other, good) / _mean_response(own, good)
    shift = np.stack([difference.mean(0), difference.std(0) / np.sqrt(len(before))], axis=1) / response[:, None]
    return {
        "rmse": np.sqrt(((after - truth) ** 2).mean(0)).tolist(),
        "rmse_unchanged": np.sqrt(((before - truth) ** 2).mean(0)).tolist(),
        "shift": shift.tolist(),
        "gain": np.stack([gain, error], axis=1).tolist(),
        "response": (ratio - 1).tolist(),
        "m_change": np.stack([(1 + gain) / ratio - 1, error], axis=1).tolist(),
    }


def _mean_response(columns: Mapping[str, np.ndarray], good: Bool) -> F64:
    """(<R11>, <R22>) of some objects; 1 where they have none."""
    if "r11" not in columns or not np.isfinite(columns["r11"][good]).any():
        return np.ones(2)
    return np.array([np.nanmean(columns[name][good]) for name in ("r11", "r22")])


def assess(measured: Measurements, truth: F64, table: pa.Table) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything `evaluate` says of ellipticities: (plain JSON, file stem -> figure).

    Args:
        measured: catalog columns of n objects, as they are, with errors of the input, and by other methods.
        truth: (n, 2).
        table: labels of the n objects.
    """
    own = _pair(measured.own)
    widths = (_pair(measured.own, "_err"), _pair(measured.own, "_err95"))
    result: dict[str, Any] = binned(own, truth, widths, table)
    result["residuals"] = {
        name: drawn_figures(measured.own, name, truth[:, place]) for place, name in enumerate(("e1", "e2"))
    }
    response = np.stack([measured.own[name] for name in ("r11", "r12", "r21", "r22")], axis=1).astype(np.float64)
    grid = response_grid(response, table)
    if grid is not None:
        result["response"] = grid
    result["shear"] = shear_report(measured.own, table)
    for name, columns in measured.perturbed.items():
        found = {**change(measured.own, columns, truth), "shear": shear_report(columns, table, repeats=100)}
        result.setdefault("perturbed", {})[name] = found
    for name, columns in measured.baselines.items():
        seen = _pair(columns)
        repaired = np.where(np.isfinite(seen).all(1, keepdims=True), seen, 0.0)
        result.setdefault("baselines", {})[name] = {
            "successes": binned(seen, truth, None, table),
            "failures_as_0": binned(repaired, truth, None, table),
            "shear": {} if np.isnan(seen).all() else shear_report({"e1": seen[:, 0], "e2": seen[:, 1]}, table),
        }
    return result, figures(result, own, truth, widths)


def _pair(columns: Mapping[str, np.ndarray], end: str = "") -> F64:
    return np.stack([columns[f"e1{end}"], columns[f"e2{end}"]], axis=1).astype(np.float64)


def _label(table: pa.Table, name: str) -> F64:
    return np.asarray(table[name].to_numpy(), np.float64)


# ---- figures -----------------------------------------------------------------------------------------------------


def figures(result: Mapping[str, Any], own: F64, truth: F64, widths: tuple[F64, F64]) -> dict[str, Any]:
    """Figures from what `assess` found."""
    drawn = {"ellipticity_measured": plots.measured_density(truth, own, ("e₁", "e₂"))}
    for bins, label in (("snr_bins", "signal to noise"), ("size_bins", "half-light radius [arcsec]")):
        if result.get(bins):
            drawn[f"ellipticity_accuracy_{bins[:-5]}"] = _accuracy(result, bins, label)
    if result.get("snr_bins"):
        drawn["ellipticity_errors"] = _errors(result["snr_bins"], (own - truth) / widths[0])
    if "response" in result:
        grid = result["response"]
        drawn["ellipticity_response"] = plots.labelled_grid(
            np.array(grid["value"]),
            ("signal to noise", "half-light radius [arcsec]"),
            (_names(SNR_EDGES), _names(SIZE_EDGES)),
            "shear response (R₁₁ + R₂₂) / 2",
        )
    small = {name: found for name, found in result.get("perturbed", {}).items() if "noise" not in name}
    if small:  # more noise changes far more than the rest: its numbers are in the JSON
        drawn["ellipticity_robustness"] = _robustness(small)
    return drawn


def _names(edges: tuple[float, ...]) -> list[str]:
    return [f"{low:g}–{high:g}" for low, high in pairwise(edges)]


def _series(bins: Mapping[str, Any], statistic: str, names: list[str]) -> tuple[F64, F64, F64]:
    """Value, low, high (k,) per bin, the mean of both components; RMSE in quadrature."""
    rows = []
    for name in names:
        found = bins.get(name, {})
        if statistic not in found:
            rows.append([np.nan] * 3)
            continue
        value, interval = np.array(found[statistic]), np.array(found[f"{statistic}_interval"])
        middle = float(np.sqrt((value**2).mean()) if statistic == "rmse" else value.mean())
        half = float(np.sqrt(((interval[:, 1] - interval[:, 0]) ** 2).sum()) / 4)
        rows.append([middle, middle - half, middle + half])
    array = np.array(rows)
    return array[:, 0], array[:, 1], array[:, 2]


def _accuracy(result: Mapping[str, Any], bins: str, label: str) -> Any:
    """RMSE, slope and offset per bin, of the network and of the other methods."""
    names = list(result[bins])
    panels = []
    for statistic, text in (
        ("rmse", "RMSE per component"),
        ("slope", "slope of (e − true) against true"),
        ("offset", "offset at true e = 0"),
    ):
        series = {"network": _series(result[bins], statistic, names)}
        for method, found in result.get("baselines", {}).items():
            name = _METHODS.get(method, method)
            series[name] = _series(found["successes"].get(bins, {}), statistic, names)
            failed = found["successes"]["all"]["failures"]
            if statistic == "rmse" and failed > 0.01 * found["successes"]["all"]["count"]:
                series[f"{name}, failures as e = 0"] = _series(found["failures_as_0"].get(bins, {}), statistic, names)
        panels.append((text, series))
    return plots.binned_panels(label, [name.replace("-", "–") for name in names], panels)


def _errors(bins: Mapping[str, Any], pull: F64) -> Any:
    """Coverage of both intervals per S/N bin; the pulls beside a Gaussian of unit width."""
    names = list(bins)
    series = {f"{text} interval": _series(bins, name, names) for name, text in _INTERVALS}
    return plots.coverage_and_pull(
        [name.replace("-", "–") for name in names], series, (0.683, 0.95), pull[np.isfinite(pull).all(1)]
    )


_METHODS = {
    "hsm": "HSM REGAUSS",
    "moments": "adaptive moments",
    "unweighted": "unweighted moments",
    "ngmix": "ngmix exponential",
}
_INTERVALS = (("coverage_683", "68.3 %"), ("coverage_95", "95 %"))


def _robustness(perturbed: Mapping[str, Any]) -> Any:
    """Effect of each error of the input: m and c themselves from branches, changes of gain and mean without."""
    with_m = all("m" in found["shear"] for found in perturbed.values())
    texts = ("m", "c") if with_m else ("change of gain over response ≈ Δm", "mean change of e / R ≈ Δc")
    rows: list[tuple[str, list[list[list[float]]]]] = []
    for name, found in perturbed.items():
        pair = [found["shear"]["m"], found["shear"]["c"]] if with_m else [found["m_change"], found["shift"]]
        rows.append((name, pair))
    return plots.effect_bars(rows, texts)
