"""What the shipped ellipticities can do, against classical methods on the same pixels. Fresh seeds, one run.

python -m benchmarks --only ellipticity            # writes the section of RESULTS.md (45 core-minutes)
python -m benchmarks.ellipticity --ahead           # what needs no quiet machine, kept for the command above: all but 5
python -m benchmarks.ellipticity --quick           # prints it, from a fiftieth of the galaxies
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin.evaluation.baselines import shapes
from astroml_plugin.evaluation.value_metrics import value_figures
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.batches import StampBatches
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.fit import fit
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.settings import TrainingRun
from benchmarks.harness import Section, interleave, median_iqr, scratch
from benchmarks.shape_samples import QUICK, SEEDS, Scale
from benchmarks.shears import Part, remembered, sheared, snr_bins
from tests.pages import table
from workflows.infer import infer
from workflows.query import query
from workflows.recipe import read_recipe
from workflows.simulate import simulate

TARGETS = {
    "field-fixed": (0.120, 0.073, 0.037, 0.021),
    "field-varying": (0.124, 0.076, 0.039, 0.022),
}
"""RMSE per component and S/N bin that issue 3 asks for."""
SPEED_SAMPLE = 2000
"""Stamps that HSM is timed on."""


def run(scale: Scale | None = None) -> Section:
    """All figures; the section says what they were measured on."""
    scale = scale or Scale()
    bundle = bundle_url()
    model = ModelBundle.load(bundle)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(abs, range(4)))  # start the processes
        varying = _simulated("field-varying", scale.galaxies)
        timed = [_speed(varying, bundle, pool, scale), _training(varying, scale)]
        parts = [*_accurate(bundle, pool, scale), *timed, *sheared(bundle, pool, scale)]
    head = (
        f"Bundle `{model.name}` ({model.sha256[:12]}), seeds {min(SEEDS.values())} to {max(SEEDS.values())}, on which "
        f"nothing was trained or tuned. {scale.galaxies:,} galaxies per PSF with S/N log-uniform 10-200, the same "
        "pixels for all methods; errors are bootstrap standard deviations. HSM is GalSim's REGAUSS; moments are "
        "adaptive moments with a Gaussian PSF correction."
    )
    text = "\n\n".join([head, *(part for part, _ in parts)])
    data: dict[str, Any] = {"scale": vars(scale)}
    for _, found in parts:
        data |= found
    return Section("Ellipticities", text, data)


def _accurate(bundle: str, pool: Executor, scale: Scale) -> list[Part]:
    """The sections of accuracy and errors; what the classical methods gave is kept."""
    measured = {name: _measured(_simulated(name, scale.galaxies), bundle, name, pool, scale) for name in TARGETS}
    return [_accuracy(measured), _coverage(measured)]


def bundle_url() -> str:
    """The bundle to measure: ASTROML_BENCH_BUNDLE, else the shipped `ellipticity`."""
    return os.environ.get("ASTROML_BENCH_BUNDLE", "ellipticity")


def _simulated(name: str, count: int) -> str:
    """Stored stamps of a preset."""
    return simulate(
        out=str(scratch() / f"ellipticity-{name}-{count}"), preset=name, count=count, seed=SEEDS[name]
    ).source


# ---- accuracy ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measured:
    """One PSF's galaxies, measured by everyone."""

    truth: np.ndarray
    """(n, 2)"""
    snr: np.ndarray
    widths: tuple[np.ndarray, np.ndarray]
    """(n, 2) each."""
    methods: dict[str, np.ndarray]
    """Name -> (n or fewer, 2); NaN for failures."""


def _measured(url: str, bundle: str, name: str, pool: Executor, scale: Scale) -> _Measured:
    found = _catalog(url, bundle, scratch() / f"ellipticity-{name}-catalog")
    store = Stamps.open(url)
    labels = store.labels(["object_id", "e1", "e2", "snr"])
    order = np.argsort(labels["object_id"].to_numpy())
    truth = _pair(labels, "e1", "e2")[order]
    methods = {"network": _pair(found, "e1", "e2")}
    what = [store.count, SEEDS[name], scale.ngmix, _NGMIX]
    classical = remembered(name, what, lambda: _classical(store, order, pool, scale))
    methods |= {method: np.array(values, np.float64) for method, values in classical.items()}  # None is NaN
    widths = (_pair(found, "e1_err", "e2_err"), _pair(found, "e1_err95", "e2_err95"))
    return _Measured(truth, labels["snr"].to_numpy()[order], widths, methods)


_NGMIX = importlib.util.find_spec("ngmix") is not None


def _classical(store: Stamps, order: np.ndarray, pool: Executor, scale: Scale) -> dict[str, Any]:
    """Method -> (n, 2) as lists, None for NaN; ngmix measures the first galaxies only."""
    planes = [plane[order] for plane in _planes(store)]
    found = {method: shapes.measure(method, *planes, 0.2, pool=pool) for method in ("hsm", "moments")}
    if _NGMIX:
        found["ngmix"] = shapes.measure("ngmix", *(plane[: scale.ngmix] for plane in planes), 0.2, pool=pool)
    return {name: np.where(np.isfinite(e), e, None).tolist() for name, e in found.items()}


def _catalog(url: str, bundle: str, out: Path) -> pa.Table:
    """The catalog of a source, in the order of the ids; made by this very bundle."""
    shutil.rmtree(out, ignore_errors=True)
    infer(url, bundle=bundle, out=str(out))
    return query(str(out), "SELECT * FROM catalog ORDER BY object_id").to_arrow()


def _planes(store: Stamps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, variance and PSF of the first band of all stamps."""
    parts = [store.read_block(unit.index) for unit in store.units()]
    image, variance, psf = (np.concatenate([part[k][:, 0] for part in parts]) for k in range(3))  # type: ignore[index]
    return image, variance, psf / psf.sum((1, 2), keepdims=True)


def _pair(values: pa.Table, one: str, two: str) -> np.ndarray:
    return np.stack([values[one].to_numpy(), values[two].to_numpy()], axis=1).astype(np.float64)


def _accuracy(measured: dict[str, _Measured]) -> Part:
    """RMSE per component; slope and offset of (e - truth) against truth."""
    texts, data = [], {}
    for name, sample in measured.items():
        rows = [["asked for", *(f"{value:.3f}" for value in TARGETS[name]), "", ""]]
        for method, found in sample.methods.items():
            cells, failed = [], ~np.isfinite(found).all(1)
            variants = {method: found}
            if failed.any():
                variants[f"{method}, failures as e = 0"] = np.where(failed[:, None], 0.0, found)
            for label, values in variants.items():
                cells = [_one(values, sample, chosen) for _, chosen in snr_bins(sample.snr)]
                data[f"{name}/{label}"] = cells
                slopes = " / ".join(f"{np.mean(cell['slope']):+.2f}" if "slope" in cell else "-" for cell in cells)
                rows.append([label, *(_rmse(cell) for cell in cells), slopes, f"{failed.mean():.2%} of {len(found):,}"])
        head = ["RMSE per component", *(f"S/N {label}" for label, _ in snr_bins(sample.snr)), "slope", "failures"]
        texts.append(f"### {name}\n\n" + table(head, rows))
    return "\n\n".join(texts), {"accuracy": data}


def _one(found: np.ndarray, sample: _Measured, chosen: np.ndarray) -> dict[str, Any]:
    few = chosen[: len(found)]
    return value_figures(found[few], sample.truth[: len(found)][few], repeats=100)


def _rmse(cell: dict[str, Any]) -> str:
    if "rmse" not in cell:
        return "-"
    value, interval = np.array(cell["rmse"]), np.array(cell["rmse_interval"])
    error = float(np.sqrt((np.diff(interval, axis=1) ** 2).sum()) / 4)
    return f"{float(np.sqrt((value**2).mean())):.4f} ± {error:.4f}"


def _coverage(measured: dict[str, _Measured]) -> Part:
    """How often the truth lies inside the intervals."""
    rows, data = [], {}
    for name, sample in measured.items():
        for label, chosen in snr_bins(sample.snr):
            inside = (sample.widths[0][chosen], sample.widths[1][chosen])
            cell = value_figures(sample.methods["network"][chosen], sample.truth[chosen], inside, repeats=100)
            data[f"{name}/{label}"] = cell
            both = [" / ".join(f"{v:.3f}" for v in cell[k]) for k in ("coverage_683", "coverage_95", "pull_half_width")]
            rows.append([name, label, cell["count"], *both])
    head = ["simulation", "S/N", "galaxies", "inside 68.3 % (e1 / e2)", "inside 95 %", "half-width of the pull"]
    return "### Errors\n\n" + table(head, rows), {"coverage": data}


# ---- speed -------------------------------------------------------------------------------------------------------


def _speed(url: str, bundle: str, pool: Executor, scale: Scale) -> Part:
    """Stored stamps to catalog rows, start-up of Dask included; HSM in two warm processes on pixels in memory."""
    store, out = Stamps.open(url), scratch() / "ellipticity-speed"
    image, variance, psf = (plane[:SPEED_SAMPLE] for plane in _planes(store))

    def ours() -> float:
        shutil.rmtree(out, ignore_errors=True)
        result = infer(url, bundle=bundle, out=str(out))
        return result.rows / result.seconds

    def theirs() -> float:
        started = time.perf_counter()
        shapes.measure("hsm", image, variance, psf, 0.2, pool=pool, chunk=125)
        return len(image) / (time.perf_counter() - started)

    rates = interleave({"network": ours, "hsm": theirs}, scale.repeats)
    ratio = [a / b for a, b in zip(rates["network"], rates["hsm"])]
    rows = [
        ["`infer`: stored stamps to catalog rows, galaxies/s", median_iqr(rates["network"], 0)],
        ["HSM in two processes, pixels in memory, galaxies/s", median_iqr(rates["hsm"], 0)],
        ["ratio", median_iqr(ratio, 2)],
        ["canary, s", median_iqr(rates["canary"])],
    ]
    text = f"### Speed\n\n{_speed.__doc__} {store.count:,} stamps; median (quartiles) of {scale.repeats}.\n\n"
    return text + table(["figure", "value"], rows), {"speed": {**rates, "ratio": ratio}}


IN_MEMORY = 1e9
"""Bytes that hold all of it."""


def _training(url: str, scale: Scale) -> Part:
    """Training from the store and on the same tensors in memory, with the shipped recipe's cache and without it."""
    recipe = read_recipe("ellipticity")
    data = LabelledStamps([url])
    rows = np.arange(min(scale.training, data.labels.num_rows))
    plan = recipe.build_task().fit_to_training(data.labels, data.sample(rows, 512, 0))
    targets = plan.targets(data.labels.take(pa.array(rows)))

    def arm(memory: float, *, cache: bool) -> Any:
        epochs = recipe.training.epochs if cache else 3
        settings = replace(recipe.training, epochs=epochs, cache=cache, batch_size=512)

        def call() -> float:
            torch.manual_seed(0)
            network = plan.build_network(recipe.network, recipe.network_arguments)
            streams = [
                StampBatches(data, part, targets[part], bands=("r",), batch_size=512, memory=memory)
                for part in (rows, rows[:512])
            ]
            if memory > IN_MEMORY:
                for stream in streams:
                    next(stream.epoch(0))  # what fits is decoded whole, before the clock starts
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as out:
                result = fit(plan, network, *streams, settings, TrainingRun(out))
            if cache:
                return epochs * len(rows) / (time.perf_counter() - started)
            return float(np.median([record["objects_per_second"] for record in result.history[1:]]))

        return call

    arms = {
        f"{kind}{label}": arm(memory, cache=cache)
        for label, cache in ((", cache", True), ("", False))
        for kind, memory in (("store", 4e7), ("memory", 2 * IN_MEMORY))
    }
    rates = interleave(arms, scale.repeats)
    rows_shown = [[f"{name}, galaxies/s", median_iqr(rates[name], 0)] for name in arms]
    ratios = {}
    for label in (", cache", ""):
        ratios[label] = [a / b for a, b in zip(rates[f"store{label}"], rates[f"memory{label}"])]
        rows_shown.append([f"ratio{label}", median_iqr(ratios[label], 2)])
    text = (
        f"### Throughput of training\n\n{_training.__doc__} The cache keeps the moments of every stamp, so that pixels "
        f"are read once: whole trainings of {recipe.training.epochs} epochs, reading and all. Without it pixels are "
        f"read from the store in every epoch: epochs 2 and 3. {len(rows):,} galaxies.\n\n"
    )
    data_shown = {**rates, "ratio": ratios[", cache"], "ratio_without_cache": ratios[""]}
    return text + table(["figure", "value"], rows_shown), {"training": data_shown}


def main() -> None:
    """Print the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the galaxies")
    parser.add_argument("--ahead", action="store_true", help="all but timings, kept for the whole run")
    options = parser.parse_args()
    scale = QUICK if options.quick else Scale()
    if not options.ahead:
        print(run(scale).text)
        return
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        parts = [*sheared(bundle_url(), pool, scale), *_accurate(bundle_url(), pool, scale)]
    print("\n\n".join(text for text, _ in parts))


if __name__ == "__main__":
    main()
