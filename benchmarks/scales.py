"""One simulated sky on pixels of four sizes: shapes, classes and detections of bundles that were trained at 0.2 arcsec.

The PSF has a FWHM of 0.92 arcsec and the noise is the same per area on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Cutouts, from_stamps, recentred
from astroml_plugin.evaluation.detection_metrics import match
from astroml_plugin.evaluation.ranking_metrics import auroc
from astroml_plugin.pixels import Tile
from astroml_plugin.simulation.camera import Camera
from astroml_plugin.simulation.fields import FIELD_POPULATION, truth_of
from astroml_plugin.simulation.lenses import LensSet
from astroml_plugin.simulation.population import Population
from astroml_plugin.simulation.postage import StampSet
from astroml_plugin.simulation.skies import Sky
from astroml_plugin.tasks.scale import to_scale
from astroml_plugin.tasks.segmentation.task import SegmentTask
from astroml_plugin.tasks.segmentation.whole_tile import field_of, maps_of
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns
from benchmarks.harness import Section, kept
from tests.pages import table

OWN, SCALES = 0.2, (0.15, 0.2, 0.263, 0.4)
FWHM, SIGMA = 0.92, 2.5
_WITHIN = 0.6  # arcsec: a detection and an object may be the same


@dataclass(frozen=True)
class Scale:
    """How much is measured, and from which seeds: development used 31, 41 and 520."""

    galaxies: int = 6144
    lenses: int = 1536
    fields: int = 4
    side: float = 2.56
    """Arcmin."""
    seed: int = 970


QUICK = Scale(galaxies=64, lenses=48, fields=1, side=0.6, seed=31)


def run(scale: Scale | None = None) -> Section:
    """All figures."""
    scale = scale or Scale()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, float]] = {}
    for what in (shapes, classes, fields):
        for size in SCALES:
            name = f"scales-{what.__name__}-{size}-{'-'.join(map(str, asdict(scale).values()))}"
            for resample, found in kept(name, partial(what, scale, size)).items():
                for figure, value in found.items():
                    rows.setdefault(figure, {})[_heading(size, resample)] = value
    heads = [
        _heading(size, resample) for resample in ("auto", "off") for size in SCALES if (size, resample) != (OWN, "off")
    ]
    lines = [
        [figure, *(f"{values[head]:.3f}" if head in values else "" for head in heads)]
        for figure, values in rows.items()
    ]
    text = (
        f"{(__doc__ or '').strip()} {scale.galaxies} galaxies of S/N 10–200, {scale.lenses} stamps of which half are "
        f"lenses, {scale.fields} fields of {scale.side:g}′, seeds {scale.seed} and up; nothing was tuned on them. "
        f"Galaxies are the same at each scale, lenses and fields are drawn anew. "
        f"Flagged: the part with OUT_OF_DOMAIN. Figures are of all objects, flagged ones too. “as they are” is "
        f"`--resample off`; fields never are resampled.\n\n" + table(["figure", *heads], lines)
    )
    return Section("Pixels of any scale", text, {"scale": asdict(scale), "figures": rows})


def _heading(size: float, resample: str) -> str:
    return f"{size}″" + (", as they are" if resample == "off" else "")


def measured(name: str, stamps: Cutouts, resample: str) -> dict[str, np.ndarray]:
    """Columns of a bundle as `evaluate` measures them."""
    model = ModelBundle.load(name)
    task = model.task().with_settings(resample=resample, resize="fit")
    network = model.network(fused=True)
    parts = []
    for start in range(0, len(stamps), 256):
        scaled = to_scale(task.settings, stamps.take(slice(start, start + 256)))
        parts.append(columns(task, network, recentred(scaled, task.settings.centring)[0]))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _flagged(found: dict[str, np.ndarray]) -> float:
    return float((found["flags"] & int(ObjectFlag.OUT_OF_DOMAIN) > 0).mean())


def side_of(size: int, pixel_scale: float) -> int:
    """Even side of stamps that hold `size` pixels of 0.2 arcsec, and the kernel."""
    return 2 * math.ceil((size // 2 + 3) * OWN / pixel_scale + 4)


Figures = dict[str, dict[str, float]]
"""Figures with pixels that are resampled ("auto"), and as they are ("off") where that is not the same."""


def _each(pixel_scale: float, figures: Callable[[str], dict[str, float]]) -> Figures:
    return {resample: figures(resample) for resample in (("auto",) if pixel_scale == OWN else ("auto", "off"))}


def shapes(scale: Scale, pixel_scale: float) -> Figures:
    """Errors of e1 and e2 by S/N, their coverage, and the response."""
    camera = Camera(
        bands=("r",),
        pixel_scale=pixel_scale,
        gain=0.0,
        sky_sigma=SIGMA * pixel_scale / OWN,
        psf_fwhm=(FWHM, FWHM),
        psf_ellipticity=0.05,
    )
    made = StampSet(
        scale.galaxies,
        seed=scale.seed,
        block=scale.galaxies,
        size=side_of(48, pixel_scale),
        psf_size=41,
        camera=camera,
        population=Population(star_fraction=0.0),
        snr=(10.0, 200.0),
    ).make(0)
    stamps = from_stamps(made.image, made.variance, made.psf, bands=("r",), pixel_scale=pixel_scale)
    truth, snr = np.stack([made.table[name].to_numpy() for name in ("e1", "e2")]), made.table["snr"].to_numpy()
    return _each(pixel_scale, lambda resample: _shapes(measured("ellipticity", stamps, resample), truth, snr))


def _shapes(found: dict[str, np.ndarray], truth: np.ndarray, snr: np.ndarray) -> dict[str, float]:
    wrong = np.stack([found[name] for name in ("e1", "e2")]) - truth
    figures = {}
    for low, high in ((10, 20), (20, 50), (50, 200)):
        chosen = (snr >= low) & (snr < high)
        figures[f"RMSE of e, S/N {low}–{high}"] = float(np.sqrt((wrong[:, chosen] ** 2).mean()))
    for name, column in (("68.3", "err"), ("95", "err95")):
        held = np.abs(wrong) < np.stack([found[f"{one}_{column}"] for one in ("e1", "e2")])
        figures[f"within the {name} % error"] = float(held.mean())
    figures["mean response"] = float(np.nanmean((found["r11"] + found["r22"]) / 2))
    return {**figures, "shapes flagged": _flagged(found)}


def classes(scale: Scale, pixel_scale: float) -> Figures:
    """How well lenses are told from others, and how odd stamps seem."""
    base = LensSet(scale.lenses, seed=scale.seed + 1, block=scale.lenses)
    camera = replace(base.camera, pixel_scale=pixel_scale, psf_fwhm=(FWHM, FWHM))
    size = min(128, max(base.size, side_of(64, pixel_scale)))
    made = replace(base, camera=camera, size=size).make(0)
    bands = camera.bands
    truth = np.array(made.table["class"].to_pylist()) == "lens"
    stamps = from_stamps(
        made.image, made.variance, made.psf, bands=bands, pixel_scale=pixel_scale, zero_points=[31.4] * len(bands)
    )
    return _each(pixel_scale, lambda resample: _classes(stamps, truth, resample))


def _classes(stamps: Cutouts, truth: np.ndarray, resample: str) -> dict[str, float]:
    lens, odd = (measured(name, stamps, resample) for name in ("lens", "anomaly"))
    probability = np.clip(np.where(truth, lens["p_lens"], 1 - lens["p_lens"]), 1e-7, 1)
    return {
        "lens: AUROC": auroc(lens["p_lens"], truth),
        "lens: mean −ln p of the true class": float(-np.log(probability).mean()),
        "lenses flagged": _flagged(lens),
        "anomaly: AUROC of lenses": auroc(odd["anomaly_score"], truth),
        "anomaly: median score": float(np.median(odd["anomaly_score"])),
    }


def fields(scale: Scale, pixel_scale: float) -> Figures:
    """Completeness and purity of what `segmentation` finds."""
    model = ModelBundle.load("segmentation")
    task, network = model.task(), model.network(fused=True)
    assert isinstance(task, SegmentTask)
    side = round(scale.side * 60 / pixel_scale / 8) * 8
    camera = Camera(bands=("r",), pixel_scale=pixel_scale, sky_sigma=SIGMA * pixel_scale / OWN, psf_fwhm=(FWHM, FWHM))
    sums: dict[str, list[np.ndarray]] = {}
    for number in range(scale.fields):
        sky = Sky(side, side, scale.seed + 2 + number, 45.0, FIELD_POPULATION, camera)
        tile, truth = truth_of(sky)
        for name, values in _found(task, network, tile, truth, pixel_scale).items():
            sums.setdefault(name, []).append(values)
    return {"auto": {name: float(np.concatenate(values).mean()) for name, values in sums.items()}}


def _found(task: SegmentTask, network: Any, tile: Tile, truth: Any, pixel_scale: float) -> dict[str, np.ndarray]:
    found = task.detect(maps_of(task, network, tile), field_of(tile, task.bands))
    of = match(found.x, found.y, truth.x, truth.y, _WITHIN / pixel_scale)
    hit = np.zeros(len(truth.x), bool)
    hit[of[of >= 0]] = True
    figures = {"objects found that are there": of >= 0}
    for low, high in ((20, 23), (23, 24), (24, 25)):
        figures[f"completeness {low}–{high} mag"] = hit[(truth.mag >= low) & (truth.mag < high)]
    figures["detections flagged"] = found.flags & int(ObjectFlag.OUT_OF_DOMAIN) > 0
    return figures
