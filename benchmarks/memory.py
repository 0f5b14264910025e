"""Peak memory of a run over a survey and over one sixteen times as large."""

from __future__ import annotations

import shutil

import numpy as np

from benchmarks import skies
from benchmarks.harness import REPEATS, Section, median_iqr, peak_pss, scratch, table

SIDES = (5, 20)


def run() -> Section:
    """25 and 400 tiles of 512² in three bands, 100 objects each, the whole command in its own process."""
    bundle = skies.bundle("small", 48)
    folders = {side: skies.noise_survey(side, 512, 64, 100) for side in SIDES}
    peaks: dict[int, list[float]] = {side: [] for side in SIDES}
    for _ in range(REPEATS):
        for side, folder in folders.items():
            out = scratch() / f"memory-{side}"
            shutil.rmtree(out, ignore_errors=True)
            command = ["-m", "workflows.cli", "infer", str(folder / "survey.zarr"), "--bundle", bundle]
            command += ["--objects", str(folder / "objects.parquet"), "--out", str(out)]
            peak, _, status = peak_pss(command)
            if status != 0:
                raise RuntimeError(f"infer ended with status {status}")
            peaks[side].append(peak / 2**20)
    ratio = [large / small for small, large in zip(peaks[SIDES[0]], peaks[SIDES[1]])]
    rows = [[side**2, median_iqr(peaks[side], 0)] for side in SIDES]
    text = (
        f"{run.__doc__} Proportional set size summed over the process tree, {REPEATS} repeats.\n\n"
        + table(["tiles", "peak, MiB"], rows)
        + f"\n\n16 times the tiles: {median_iqr(ratio)} times the memory."
    )
    return Section(
        "Peak memory", text, {"ratio": float(np.median(ratio)), "peaks_mib": {str(k): v for k, v in peaks.items()}}
    )
