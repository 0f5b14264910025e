"""Shear from the shipped ellipticities: biases, leakage, errors of the input, and real galaxies."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astroml_plugin import simulation
from astroml_plugin.core import storage
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.evaluation import shear
from astroml_plugin.evaluation.baselines import shapes
from astroml_plugin.evaluation.input_errors import USUAL
from astroml_plugin.evaluation.shape_report import SNR_EDGES
from astroml_plugin.evaluation.shear import Estimate
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns
from benchmarks import branches
from benchmarks.branches import EVERY, LEAST_SNR, UNFLAGGED, Sets
from benchmarks.harness import kept, scratch, shared_data
from benchmarks.shape_samples import OWN_IMAGES, SEEDS, Scale
from tests.pages import table
from workflows.calibrate_response import calibrate_response
from workflows.simulate import simulate

CORRELATION = 0.2
"""Of the noise of neighbouring pixels, in one of the simulations."""
_ERRORS = tuple(name for name in USUAL if "noise" not in name)
_REAL = ("hst-test", "hst-test-resized")
_CLEAN = 5_000.0
"""S/N of the noiseless stamps; all else about them is the same."""
_OWN = ", response from images"

Part = tuple[str, dict[str, Any]]
"""Markdown and numbers of a part of the section."""
Ways = dict[str, np.ndarray]
"""Way of measuring -> sums, or R_S."""


def sheared(bundle: str, pool: Executor, scale: Scale) -> list[Part]:
    """All parts; what they took is kept below the scratch folder: it does not depend on the machine's mood."""
    samples = _samples(bundle, pool, scale)
    measured = [(row, branches.sums(pool, row.sets)) for row in samples]
    pairs = [(row, branches.sums(pool, row.sets)) for row in _psf_pairs(samples, scale)]
    varying = next(row for row in samples if row.name == "field-varying")
    few = replace(varying.sets, count=scale.others)
    robust = branches.sums(pool, replace(few, seed=SEEDS["robust"], perturbations=_ERRORS))
    parts = [
        _bias_table(measured, scale.calibration),
        _leakage_table(pairs),
        _robust_table(robust, varying.selected[""]),
    ]
    return [*parts, *([_scatter(bundle, pool, scale)] if _hst() else [])]


def snr_bins(snr: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Name and members (n,) of each bin."""
    return [(f"{low:g}-{high:g}", (snr >= low) & (snr < high)) for low, high in pairwise(SNR_EDGES)]


def remembered(name: str, what: Any, make: Callable[[], Any]) -> Any:
    """Plain JSON of a bundle and its seeds, made once for every `what`."""
    return kept(f"ellipticity-{name}-{storage.digest(what)[:16]}", make)


# ---- samples -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """One simulation to measure a bias on."""

    name: str
    sets: Sets
    selected: Ways
    """R_S."""
    precision: float = 0.0
    """Relative error of a mean response that was fitted to few images."""


def _samples(bundle: str, pool: Executor, scale: Scale) -> list[_Row]:
    hst = _hst()
    varying = Sets(bundle, "field-varying", "shear", scale.sets, SEEDS["shear"])
    fixed = replace(varying, preset="field-fixed", seed=SEEDS["fixed"])
    few = replace(varying, count=scale.others)
    other = {"count": scale.calibration}
    selected = _selected(pool, replace(varying, seed=SEEDS["calibration"], **other))
    rows = [
        _Row("field-fixed", fixed, _selected(pool, replace(fixed, seed=SEEDS["fixed-calibration"], **other))),
        _Row("field-varying", varying, selected),
        _Row("shifted", _population(replace(few, count=scale.shifted), "shifted", hst), selected),
        _Row("blended", _population(few, "blended", hst), selected),
    ]
    if hst:
        rows += [_Row(name, _population(few, name, hst), selected) for name in _REAL]
    for name, own in _own_responses(bundle, hst, pool, scale).items():
        count = scale.shifted if name == "shifted" else scale.others
        sets = replace(_population(few, name, hst), bundle=own, count=count)
        rows.append(_Row(name + _OWN, sets, selected, _precision(own)))
    correlated = replace(few, seed=SEEDS["correlated"], noise_correlation=CORRELATION)
    return [*rows, _Row(f"field-varying, noise correlated by {CORRELATION:g}", correlated, selected)]


def _psf_pairs(rows: list[_Row], scale: Scale) -> list[_Row]:
    """The same galaxies under +-e_PSF: of field-varying and of the real galaxies."""
    seeds = {
        "field-varying": SEEDS["psf"],
        **dict.fromkeys((*_REAL, *(name + _OWN for name in _REAL)), SEEDS["hst-psf"]),
    }
    counts = {"field-varying": scale.pairs}
    return [
        replace(
            row, sets=replace(row.sets, pairs="psf", count=counts.get(row.name, scale.others), seed=seeds[row.name])
        )
        for row in rows
        if row.name in seeds
    ]


def _population(sets: Sets, name: str, hst: str | None) -> Sets:
    return replace(sets, preset=name, seed=SEEDS[name], hst=hst if name.startswith("hst") else None)


def _selected(pool: Executor, calibration: Sets) -> Ways:
    """Selection response of a calibration set; none where nothing is selected."""
    found = {
        way: branches.selection(branches.drawn(sums, seed=1)) for way, sums in branches.sums(pool, calibration).items()
    }
    return {**found, EVERY: np.zeros_like(found[EVERY])}


def _own_responses(bundle: str, hst: str | None, pool: Executor, scale: Scale) -> dict[str, str]:
    """Bundles whose response was fitted to images of a population, made without truth and with a seed of its own.

    They are kept below the scratch folder.
    """
    work = {}
    for name in OWN_IMAGES if hst else ("shifted",):
        count = scale.images if name == "shifted" else scale.real_images
        folder = scratch() / f"ellipticity-images-{name}-{count}"
        made = simulate(out=str(folder), preset=name, count=count, seed=OWN_IMAGES[name], hst=hst)
        key = storage.digest(ModelBundle.load(bundle).sha256, count, OWN_IMAGES[name])[:12]
        work[name] = (bundle, made.source, str(scratch() / f"ellipticity-own-{name}-{key}"))
    return dict(zip(work, pool.map(_responded, work.values())))


def _responded(work: tuple[str, str, str]) -> str:
    torch.set_num_threads(1)
    bundle, source, out = work
    if not Path(out).exists():
        calibrate_response(bundle, data=source, out=f"{out}.partial", method="images")
        Path(f"{out}.partial").rename(out)
    return out


def _precision(bundle: str) -> float:
    found = ModelBundle.load(bundle).card.metrics["response"]
    mean, error = (np.reshape(found[name], (2, 2)) for name in ("mean", "error"))
    return float(np.hypot(error[0, 0], error[1, 1]) / np.trace(mean))


def _hst() -> str | None:
    """The catalog of real galaxies, where there is one."""
    folder = shared_data("cosmos_real26")
    return None if folder is None else str(folder)


# ---- tables ------------------------------------------------------------------------------------------------------


def _bias_table(measured: list[tuple[_Row, Ways]], calibration: int) -> Part:
    """m and c."""
    rows: list[list[str]] = []
    data: dict[str, Any] = {}
    for row, ways in measured:
        for way in _worth_showing(ways):
            m, c = branches.biases(branches.drawn(ways[way]), row.selected[way])
            m = [Estimate(one.value, float(np.hypot(one.error, row.precision * (1 + one.value)))) for one in m]
            used = float(ways[way][..., 0].sum() / (4 * row.sets.count))
            label = f"{row.name}, {way}" if way else row.name
            numbers = {"m": [_plain(item) for item in m], "c": [_plain(item) for item in c]}
            data[label] = {**numbers, "used": used, "selection": float(row.selected[way][0, 0, 0])}
            estimates = [*(_text(item, 1e3) for item in m), *(_text(item, 1e4) for item in c)]
            selected = "-" if way == EVERY else _text(Estimate.of(row.selected[way][:, 0, 0]), 1e3)
            rows.append([label, f"{row.sets.count:,}", f"{used:.1%}", selected, *estimates])
    head = ["simulation", "sets", "used", "R_S / 1e-3", "m1 / 1e-3", "m2 / 1e-3", "c1 / 1e-4", "c2 / 1e-4"]
    text = (
        f"### Shear\n\nSets of ±0.02 at 0 and 90 degrees, galaxies with measured S/N (`snr`) above {LEAST_SNR:g} "
        "in each branch by itself; *unflagged*: and without a flag, shown where that makes a difference. The shear is "
        "<e> / (<R> + R_S) with R_S from calibration sets of another seed: of field-fixed for field-fixed, of "
        f"field-varying for all others, {calibration:,} of each. R_S is the total response of the calibration's "
        "selected galaxies less their <R>, so what the readout R gets wrong for all of them is mended with it; *all "
        "S/N* selects nothing and takes no R_S: R alone. *Response from images*: R fitted by `calibrate-response "
        "--from images` to stamps of that population without truth, other noise, PSFs and places, but of the same real "
        "galaxies; its own error is part of that of m.\n\n"
    )
    return text + table(head, rows), {"shear": data}


def _worth_showing(ways: Ways, places: slice = slice(0, 4)) -> list[str]:
    """The ways of measuring that have objects in these places of most blocks; flags where there are some."""
    counts = {way: sums[:, places, 0] for way, sums in ways.items()}
    flagged = 1 - counts[UNFLAGGED].sum() / max(1, counts[""].sum())
    shown = ["", *([UNFLAGGED] if flagged > 0.005 else []), EVERY]
    return [way for way in shown if (counts[way] > 0).all(1).mean() > 0.9]


def _leakage_table(measured: list[tuple[_Row, Ways]]) -> Part:
    """alpha."""
    rows, data = [], {}
    for row, ways in measured:
        for way in _worth_showing(ways, slice(4, 5)):
            alpha = branches.leakage(branches.drawn(ways[way]), row.selected[way])
            used = float(ways[way][..., 0].sum() / (2 * row.sets.count))
            label = f"{row.name}, {way}" if way else row.name
            data[label] = {"alpha": [_plain(item) for item in alpha], "used": used}
            rows.append([label, f"{row.sets.count:,}", f"{used:.1%}", *(_text(item, 1e3) for item in alpha)])
    head = ["simulation", "pairs", "used", "α1 / 1e-3", "α2 / 1e-3"]
    text = "### PSF leakage\n\nThe same galaxies under PSFs of opposite ellipticity, ±0.05, selected as above.\n\n"
    return text + table(head, rows), {"leakage": data}


def _robust_table(robust: Ways, selected: np.ndarray) -> Part:
    """m and c with errors of the input, less those without on the same pixels."""
    draws = {name: branches.drawn(sums) for name, sums in robust.items()}
    found = {name: shear.biases(branches.signed(values), selected) for name, values in draws.items()}
    rows, data = [], {}
    for name in _ERRORS:
        m, c = (found[name][k] - found[""][k] for k in (0, 1))
        changes = {"m": [Estimate.of(m[:, i]) for i in (0, 1)], "c": [Estimate.of(c[:, i]) for i in (0, 1)]}
        data[name] = {key: [_plain(item) for item in values] for key, values in changes.items()}
        cells = [*(_text(item, 1e3) for item in changes["m"]), *(_text(item, 1e4) for item in changes["c"])]
        rows.append([name, *cells])
    head = ["error of the input", "Δm1 / 1e-3", "Δm2 / 1e-3", "Δc1 / 1e-4", "Δc2 / 1e-4"]
    text = (
        "### Errors of PSF model and background\n\nfield-varying, the same pixels with and without the error. A "
        "background that is wrong by a constant changes nothing: the border's median is taken off.\n\n"
    )
    return text + table(head, rows), {"robustness": data}


# ---- real galaxies -----------------------------------------------------------------------------------------------


def _scatter(bundle: str, pool: Executor, scale: Scale) -> Part:
    """Real galaxies, held out: noisy less noiseless answer of the same tool, and that over its mean response."""
    what = [ModelBundle.load(bundle).sha256, scale.scatter, SEEDS["scatter"]]
    data = remembered("scatter", what, lambda: _scatters(bundle, pool, scale.scatter))
    rows = []
    for name, cells in data.items():
        ours, theirs = cells["network"], cells["hsm"]
        network = f"{ours['rms']:.4f} ({ours['over_response']:.4f})"
        shares = (f"{cells['flagged']:.1%}", f"{theirs['failures']:.1%}")
        rows.append([*name.split("/"), cells["galaxies"], shares[0], network, f"{theirs['rms']:.4f}", shares[1]])
    head = ["simulation", "S/N", "galaxies", "flagged", "network: rms (over R)", "HSM, its successes", "HSM fails"]
    return f"### Real galaxies\n\n{_scatter.__doc__}\n\n" + table(head, rows), {"scatter": data}


def _scatters(bundle: str, pool: Executor, count: int) -> dict[str, Any]:
    """Numbers per preset and bin."""
    model = ModelBundle.load(bundle)
    task, network = model.task(), model.network(fused=True)
    data: dict[str, Any] = {}
    for preset in _REAL:
        made = replace(simulation.preset(preset, _hst()), count=count, seed=SEEDS["scatter"], block=count)
        noisy, clean = made.make(0), replace(made, snr=(_CLEAN, _CLEAN)).make(0)
        seen = [_both(task, network, block, pool) for block in (noisy, clean)]
        for label, chosen in snr_bins(noisy.table["snr"].to_numpy()):
            cells: dict[str, Any] = {
                "galaxies": int(chosen.sum()),
                "flagged": float(seen[0]["flagged"][chosen].mean()),
            }
            for method in ("network", "hsm"):
                pair = [values[method][chosen] for values in seen]
                good = np.isfinite(np.stack(pair)).all((0, 2))
                difference = (pair[0] - pair[1])[good]
                rms = float(np.sqrt((difference**2).mean())) if good.any() else float("nan")
                cells[method] = {"rms": rms, "failures": float(1 - good.mean())}
            cells["network"]["over_response"] = cells["network"]["rms"] / float(seen[0]["response"][chosen].mean())
            data[f"{preset}/{label}"] = cells
    return data


def _both(task: Any, network: Any, block: Any, pool: Executor) -> dict[str, np.ndarray]:
    """(n, 2) of network and HSM, the network's mean diagonal response (n,) and whether it flags (n,)."""
    cutouts = from_stamps(block.image, block.variance, block.psf, bands=("r",), pixel_scale=0.2)
    found = columns(task, network, cutouts)
    psf = block.psf[:, 0] / block.psf[:, 0].sum((1, 2), keepdims=True)
    theirs = shapes.measure("hsm", block.image[:, 0], block.variance[:, 0], psf, 0.2, pool=pool)
    own = np.stack([found["e1"], found["e2"]], axis=1).astype(np.float64)
    response = (found["r11"] + found["r22"]) / 2
    return {"network": own, "hsm": theirs, "response": response, "flagged": found["flags"] != 0}


def _text(item: Estimate, unit: float) -> str:
    return f"{item.value * unit:+.2f} ± {item.error * unit:.2f}"


def _plain(item: Estimate) -> list[float]:
    return [item.value, item.error]
