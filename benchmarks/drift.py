"""Drift of inputs and outputs: how often other seeing, depth, bands or surveys are reported, and the same one again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from astroml_plugin.catalog import Catalog
from astroml_plugin.evaluation.calibration import wilson
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.run.drift import compared, reference_for
from astroml_plugin.reporting.run.sampling import sampled
from astroml_plugin.reporting.run.subject import RunSubject
from astroml_plugin.simulation.camera import Camera
from benchmarks.harness import Section, kept, scratch
from tests.pages import table
from workflows.infer import infer
from workflows.simulate import simulate

SEEDS = range(16)
"""Surveys of each arm."""

_USUAL = Camera(psf_fwhm=(0.7, 0.8), psf_ellipticity=0.03)


@dataclass(frozen=True)
class Arm:
    """A way in which a survey differs from the reference."""

    words: str
    seeing: float = 1.0
    noise: float = 1.0
    swapped: bool = False
    other: Mapping[str, Any] | None = None
    """Further changes of the camera."""

    def camera(self, seed: int) -> Camera:
        """Camera of one survey: noise and seeing also change from survey to survey, as from night to night."""
        rng = np.random.default_rng([seed, 17])
        night, sky = rng.uniform(0.95, 1.05), rng.uniform(0.93, 1.07)
        low, high = (night * self.seeing * end for end in _USUAL.psf_fwhm)
        changed = replace(_USUAL, psf_fwhm=(low, high), sky_sigma=_USUAL.sky_sigma * self.noise * sky)
        return replace(changed, **(self.other or {}))


ARMS = {
    "same": Arm("the same survey again: another sky; seeing ± 5 %, noise ± 7 %, as in the reference"),
    "seeing": Arm("seeing 1.4 times as wide", seeing=1.4),
    "slightly": Arm("seeing 1.2 times as wide", seeing=1.2),
    "depth": Arm("1 mag shallower (noise 2.5 times)", noise=2.5),
    "deeper": Arm("0.5 mag deeper (noise 0.63 times)", noise=0.63),
    "swapped": Arm("g and r exchanged", swapped=True),
    "survey": Arm(
        "another survey (0.263 arcsec pixels, seeing 0.9-1.2 arcsec, twice the noise)",
        other={"pixel_scale": 0.263, "psf_fwhm": (0.9, 1.2), "sky_sigma": 5.0},
    ),
}


def run() -> Section:
    """Whether a page reports what moved: surveys of four tiles against a catalog of four other tiles."""
    rows, data = [], {}
    (scratch() / "drift").mkdir(exist_ok=True)
    for name, arm in ARMS.items():
        found = [
            kept(
                f"drift/{name}-{seed}",
                lambda name=name, seed=seed: judged(_catalog(name, seed), _catalog("same", 500 + seed)),
            )
            for seed in SEEDS
        ]
        told = [bool(one["reported"]) for one in found]
        by_tile = float(np.mean([one["tiles"] for one in found]))
        names = {key: sum(key in one["reported"] for one in found) for one in found for key in one["reported"]}
        most = ", ".join(f"{key} ({count})" for key, count in sorted(names.items(), key=lambda item: -item[1])[:4])
        low, high = (float(end) for end in wilson(np.mean(told), len(told)))
        data[name] = {"reported": told, "tiles": by_tile, "names": names}
        rows.append(
            [arm.words, f"{sum(told)} of {len(told)}", f"{low:.2f} to {high:.2f}", f"{by_tile:.0%}", most or "–"]
        )
    text = (
        f"{run.__doc__} Simulated surveys in g, r, i (`simulate --kind survey`, four tiles of 512 pixels, about 50 "
        "objects each), measured by the bundle `anomaly` at the true places. Reported: at least one input or output; "
        "the interval is that of 95 % (Wilson). Tiles: part of the tiles in which at least one number is reported by "
        "itself.\n\n" + table(["what differs", "reported", "rate, 95 %", "tiles", "named most often (surveys)"], rows)
    )
    return Section("Drift", text, data)


def judged(mine: str, reference: str | None = None) -> dict[str, Any]:
    """Numbers that the page of a catalog reports, those beyond the reference, and the part of the tiles with any.

    Args:
        mine: a catalog.
        reference: another; None: the training of its bundle.
    """
    with RunSubject.opened(mine, ReportOptions(reference=reference)) as subject:
        why, known = reference_for(subject)
        assert known is not None, why
        rows = sampled(subject)
        found = compared(known, rows)
    moved = {tile for one in found for tile in one.moved}
    names, outside = (
        [one.name.partition(" [")[0] for one in found if getattr(one, what)] for what in ("reported", "outside")
    )
    return {"reported": names, "outside": outside, "tiles": len(moved) / len(rows.tiles), "numbers": len(found)}


def measured(source: str, bundle: str, out: Path, objects: str | None = None) -> str:
    """The catalog at `out` of a source, measured unless it is there."""
    if not (out.exists() and any(one["state"] != "running" for one in Catalog.open(out).runs())):
        infer(source, bundle=bundle, objects=objects, out=str(out))
    return str(out)


def _catalog(name: str, seed: int) -> str:
    """The catalog of one survey."""
    arm = ARMS[name]
    folder = scratch() / "drift" / f"{'same' if arm.swapped else name}-{seed}"
    out = scratch() / "drift" / f"{name}-{seed}" / "catalog"
    options: dict[str, Any] = {"count": 4, "tile_size": 512, "halo": 64, "psf_size": 25}
    made = simulate(out=str(folder), kind="survey", seed=9000 + seed, camera=arm.camera(seed), **options)
    survey = made.source
    if arm.swapped:
        survey = _swapped(Path(survey), out.parent / "survey.zarr")
    return measured(survey, "anomaly", out, str(folder / "truth.parquet"))


def _swapped(survey: Path, to: Path) -> str:
    """A copy of a survey whose first two bands have each other's name."""
    shutil.copytree(survey, to, dirs_exist_ok=True)
    file = to / "zarr.json"
    told = json.loads(file.read_text())
    about = told["attributes"]["astroml_plugin"]
    first, second, *others = about["bands"]
    about["bands"] = [second, first, *others]
    file.write_text(json.dumps(told))
    return str(to)
