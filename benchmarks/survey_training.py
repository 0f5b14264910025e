"""Training straight from a survey's tiles beside training on the same stamps stored: speed and memory.

python -m benchmarks --only survey_training
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.training.checkpoint import read_log
from benchmarks.harness import REPEATS, Section, interleave, median_iqr, scratch, words_of
from tests.pages import table
from workflows.cutouts import cutouts
from workflows.simulate import simulate

TITLE = "Training from a survey's tiles"
SIDE, DENSITY, BANDS = 5120, 30.0, ("g", "r", "i")
EPOCHS, SIZE = 3, 48
MEMORY = {"all stamps fit": 2e9, "a tenth of them fits": 4e7}
"""Case -> `memory` of [training], bytes."""


def run() -> Section:
    """A simulated sky in g, r and i, stars against galaxies, three epochs of a small network with one thread, each
    training in a process of its own. `stored` reads stamps that `cutouts` has written before; `tiles` cuts them from
    the survey as it learns. Objects a second over all epochs (cutting and decoding counted), and the most memory that
    the process held; medians and quartiles."""
    folder = scratch() / "survey_training"
    sky = simulate(
        out=str(folder / "sky"),
        kind="survey",
        seed=991,
        shape=(SIDE, SIDE),
        tile_size=1024,
        bands=BANDS,
        density=DENSITY,
        changes={"population": {"star_fraction": 0.4}},
    )
    truth = storage.read_table(str(sky.truth))
    star = truth["class"].to_numpy(zero_copy_only=False) == "star"
    kind = pa.array(np.where(star, "star", "galaxy"))
    labels = truth.select(["object_id", "ra", "dec"]).append_column("kind", kind)
    storage.write_table(str(folder / "labels.parquet"), labels)
    stamps = cutouts(sky.source, out=str(folder / "stamps.zarr"), objects=labels, size=SIZE).out
    rows, data = [], {}
    for case, memory in MEMORY.items():
        given = {"stored": (stamps,), "tiles": (sky.source, "--labels", str(folder / "labels.parquet"))}
        found = interleave({name: _arm(folder, memory, words, len(labels)) for name, words in given.items()})
        for name in given:
            speed, peak = ([one[key] for one in found[name]] for key in ("speed", "peak"))
            rows.append([case, name, median_iqr(speed, 0), median_iqr(peak, 0)])
        ratio = [one["speed"] / other["speed"] for one, other in zip(found["tiles"], found["stored"])]
        more = [one["peak"] - other["peak"] for one, other in zip(found["tiles"], found["stored"])]
        rows.append([case, "tiles beside stored", f"{median_iqr(ratio, 2)} times", f"{median_iqr(more, 0)} more"])
        data[case] = {name: found[name] for name in given}
    text = f"{words_of(run)} {labels.num_rows:,} objects in {(SIDE // 1024) ** 2} tiles of 1024², {REPEATS} turns.\n\n"
    return Section(TITLE, text + table(["memory", "arm", "objects/s", "MiB"], rows), data)


def _arm(folder: Path, memory: float, data: Sequence[str], count: int) -> Callable[[], dict[str, float]]:
    """One training in a process of its own: objects a second over all epochs, and MiB of its highest memory."""
    recipe = folder / f"recipe-{memory:.0f}.toml"
    recipe.write_text(_RECIPE.format(memory=memory, epochs=EPOCHS, size=SIZE))

    def call() -> dict[str, float]:
        out = folder / "bundle"
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-m", "workflows.cli", "train", str(recipe), "--out", str(out), "--data", *data]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"train ended with status {status}")
        seconds = [record["seconds"] for record in read_log(str(out))]
        return {"speed": EPOCHS * 0.8 * count / sum(seconds), "peak": used.ru_maxrss / 1024}

    return call


_RECIPE = """
task = "classify"
network = "strided_cnn"

[settings]
label = "kind"
stamp_size = {size}

[settings.normalisation]
background = "border"
unit = "noise"
stretch = "asinh"

[network_arguments]
widths = [8, 16]
hidden = 16

[training]
epochs = {epochs}
batch_size = 128
memory = {memory}

[split]
fractions = [0.8, 0.1, 0.1]
leaks = "drop"

[typicality]
fit = false
"""
