"""Peak memory of a run over a survey and over one sixteen times as large."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from astroml_plugin.compute.cluster import IO_LANES, cores
from benchmarks import skies
from benchmarks.harness import REPEATS, Section, median_iqr, pss_series, scratch
from tests.pages import table

SIDES, PER_TILE = (8, 32), 25
WINDOW = cores() + IO_LANES + 1
"""Units in flight on one worker."""


def run() -> Section:
    """64 and 1,024 tiles of 512² in three bands, 25 objects each, the whole command in its own process."""
    bundle = skies.bundle("small", 48)
    folders = {side: skies.noise_survey(side, 512, 64, PER_TILE) for side in SIDES}
    series: dict[int, list[np.ndarray]] = {side: [] for side in SIDES}
    for _ in range(REPEATS):
        for side, folder in folders.items():
            series[side].append(_one_run(folder, bundle, scratch() / f"memory-{side}"))
    peaks = {side: [float(found[:, 1].max()) for found in series[side]] for side in SIDES}
    typical = {side: [float(np.median(found[:, 1])) for found in series[side]] for side in SIDES}
    ratio, of_medians = (
        [large / small for small, large in zip(values[SIDES[0]], values[SIDES[1]])] for values in (peaks, typical)
    )
    within = [float(found[:, 1].max() / _first(found)[:, 1].max()) for found in series[SIDES[1]]]
    slopes = [float(np.polyfit(found[:, 0], found[:, 1], 1)[0]) for found in series[SIDES[1]]]
    rows = [[side**2, median_iqr(peaks[side], 0), median_iqr(typical[side], 0)] for side in SIDES]
    text = (
        f"{run.__doc__} Proportional set size summed over the process tree, every 50 ms, {REPEATS} repeats; "
        f"what comes before two windows ({2 * WINDOW} units) is left out.\n\n"
        + table(["tiles", "peak, MiB", "median over time, MiB"], rows)
        + f"\n\n16 times the tiles: {median_iqr(ratio)} times the peak, {median_iqr(of_medians)} times the median "
        "(the longer run is looked at more often, so that its highest moment is higher). "
        f"Within the long run, the peak over all of it is {median_iqr(within)} times that over its first sixteenth. "
        f"A line through the long run rises by "
        f"{median_iqr([slope * 1024 for slope in slopes], 1)} KiB per unit."
    )
    data = {
        "ratio": float(np.median(ratio)),
        "ratio_of_medians": float(np.median(of_medians)),
        "ratio_within": float(np.median(within)),
        "slope_kib_per_unit": float(np.median(slopes)) * 1024,
        "peaks_mib": {str(k): v for k, v in peaks.items()},
    }
    return Section("Peak memory", text, data)


def _first(found: np.ndarray) -> np.ndarray:
    """Samples of the first sixteenth of the units."""
    return found[found[:, 0] <= max(found[-1, 0] / 16, found[0, 0])]


def _one_run(folder: Path, bundle: str, out: Path) -> np.ndarray:
    """(samples, 2): units done and MiB, after two windows."""
    shutil.rmtree(out, ignore_errors=True)
    command = ["-m", "workflows.cli", "infer", str(folder / "survey.zarr"), "--bundle", bundle]
    command += ["--objects", str(folder / "objects.parquet"), "--out", str(out)]

    def done() -> int:
        return sum(1 for path in out.glob("parts/*/*.parquet") if not path.name.startswith("."))

    samples, status = pss_series(command, done)
    if status != 0:
        raise RuntimeError(f"infer ended with status {status}")
    found = np.array([(units, size / 2**20) for units, size in samples if units >= 2 * WINDOW])
    if len(found) < 10:
        raise RuntimeError(f"only {len(found)} samples after two windows: the run is too short to be looked at")
    return found
