"""Drift against the training of the bundles that ship: what is like it is not reported, what has changed is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from astroml_plugin.core.settings import from_mapping
from astroml_plugin.core.typing import F32
from astroml_plugin.cutouts import psf_fwhms
from astroml_plugin.evaluation.calibration import wilson
from astroml_plugin.simulation.camera import Camera
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.splits import SplitSettings
from benchmarks.drift import judged, measured
from benchmarks.harness import Section, kept, scratch, shared_data
from bundles.morphology import ingested
from bundles.reference import TRAINING, drawn
from tests.pages import table
from workflows.ingest import ingest
from workflows.simulate import simulate

COUNT = 192
"""Stamps of a draw."""

GALAXIES = 52
"""The same of `morphology`: its test split has 157, so three draws."""

ARMS = {
    "same": "another draw of the training's population",
    "seeing": "seeing 1.4 times as wide, the noise as before",
    "depth": "1 mag shallower (noise 2.5 times)",
    "swapped": "first two bands exchanged",
}

DRAWS = {"same": 12, "seeing": 5, "depth": 5, "swapped": 5}
"""Draws of each arm."""

ONE_BAND = ("ellipticity", "segmentation")


def run() -> Section:
    """Whether a page reports what has moved since the training of a bundle."""
    rows, data = [], {}
    (scratch() / "drift_training").mkdir(exist_ok=True)
    for bundle in (*sorted(TRAINING), "morphology"):
        for arm, words in ARMS.items():
            if arm == "swapped" and bundle in ONE_BAND:
                continue
            draws = min(DRAWS[arm], 3) if bundle == "morphology" else DRAWS[arm]
            name = f"drift_training/{bundle}-{arm}"
            found = [
                kept(f"{name}-{seed}", lambda b=bundle, a=arm, s=seed: judged(_catalog(b, a, s)))
                for seed in range(draws)
            ]
            outside, any_ = ([bool(one[key]) for one in found] for key in ("outside", "reported"))
            low, high = (float(end) for end in wilson(np.mean(outside), draws))
            counts = {key: sum(key in one["outside"] for one in found) for one in found for key in one["outside"]}
            most = ", ".join(f"{key} ({n})" for key, n in sorted(counts.items(), key=lambda item: -item[1])[:4])
            data[f"{bundle} {arm}"] = {"outside": outside, "reported": any_, "names": counts}
            told = [f"{sum(outside)} of {draws}", f"{low:.2f} to {high:.2f}", f"{sum(any_)} of {draws}", most or "–"]
            rows.append([bundle, words, *told])
    text = (
        f"{run.__doc__} A draw has {COUNT} stamps (three blocks) of the sets that a bundle was trained on, in their "
        f"proportions and with new seeds; of `morphology` {GALAXIES} galaxies of its test split; of `segmentation` a "
        "survey of four tiles of 512 pixels, at whose objects the page looks. Seeing: images and PSFs are convolved, "
        "then white noise brings the noise back (`segmentation`: the camera has it). Beyond: at least one number lies "
        "beyond the training; the interval is that of 95 % (Wilson). Reported: beyond it, or in another mix.\n\n"
        + table(["bundle", "what differs", "beyond", "rate, 95 %", "reported", "named most often (draws)"], rows)
    )
    return Section("Drift against the training", text, data)


def _catalog(bundle: str, arm: str, seed: int) -> str:
    """The catalog of one draw."""
    folder = scratch() / "drift_training" / f"{bundle}-{arm}-{seed}"
    if bundle == "segmentation":
        low, high = 0.5, 1.0
        wide, noise = (1.4 if arm == "seeing" else 1.0), (2.5 if arm == "depth" else 1.0)
        usual = Camera(bands=("r",))
        camera = replace(usual, psf_fwhm=(low * wide, high * wide), sky_sigma=usual.sky_sigma * noise)
        more: dict[str, Any] = {"count": 4, "tile_size": 512, "preset": "fields"}
        source = simulate(out=str(folder), kind="survey", seed=9500 + seed, camera=camera, **more).source
    else:
        source = _changed(bundle, arm, seed, str(folder))
    return measured(source, bundle, folder / "catalog")


def _same(bundle: str, seed: int) -> tuple[list[Stamps], list[np.ndarray]]:
    """Stores with a draw of the training's population, and the rows of each."""
    if bundle == "morphology":
        images = shared_data("gz1_sdss_rgb64_dev.npz")
        data = LabelledStamps([ingested(str(images), str(scratch() / "drift_training"))])
        model = ModelBundle.load(bundle)
        split = from_mapping(SplitSettings, model.card.training["split"], "the split")
        rows = data.split(split, model.task().usable(data.labels))["test"]
        return [data.first], [rows[seed * GALAXIES : (seed + 1) * GALAXIES]]
    place = str(scratch() / "drift_training" / "sets")
    sets = [replace(one, name=f"{one.name}-{seed}", seed=one.seed + 9000 + 10 * seed) for one in drawn(bundle, COUNT)]
    stores = [Stamps.open(one.made(place, least=1)) for one in sets]
    return stores, [np.arange(store.count) for store in stores]


def _changed(bundle: str, arm: str, seed: int, folder: str) -> str:
    """Stamps of a draw, changed as the arm says."""
    stores, rows = _same(bundle, seed)
    read = [store.read_rows(some) for store, some in zip(stores, rows, strict=True)]
    image = np.concatenate([part[0] for part in read])
    psf = None if read[0][2] is None else np.concatenate([part[2] for part in read])
    rng = np.random.default_rng([seed, 5])
    plain = image.astype(np.float32)
    if arm == "seeing":
        plain, psf = _widened(plain, psf, rng)
    if arm == "depth":
        plain = plain + np.float32(np.sqrt(2.5**2 - 1)) * _noise(plain) * rng.normal(size=plain.shape).astype("f4")
    changed = plain.round().clip(0, 255).astype(image.dtype) if image.dtype == np.uint8 else plain
    first = stores[0]
    bands = list(first.bands)
    if arm == "swapped":
        bands[:2] = bands[1::-1]
    arrays: dict[str, Any] = {"images": changed, "bands": np.array(bands), "object_id": np.arange(len(image))}
    arrays |= {} if psf is None else {"psf": psf}
    arrays |= {} if first.pixel_scale is None else {"pixel_scale": first.pixel_scale}
    known = [one for one in first.zero_points or () if one is not None]
    arrays |= {"zero_point": np.array(known)} if len(known) == len(first.bands) else {}
    file = f"{folder}.npz"
    np.savez(file, **arrays)
    return ingest([file], out=f"{folder}.zarr", block=64).source


def _noise(image: F32) -> F32:
    """(n, band, 1, 1) scatter of the pixels at the border."""
    edge = np.ones(image.shape[-2:], bool)
    edge[4:-4, 4:-4] = False
    border = image[..., edge]
    spread = 1.4826 * np.median(np.abs(border - np.median(border, -1, keepdims=True)), -1)
    return np.asarray(spread[..., None, None], np.float32)


def _widened(image: F32, psf: F32 | None, rng: np.random.Generator) -> tuple[F32, F32 | None]:
    """Images and PSFs 1.4 times as wide, with white noise that brings the noise back to what it was."""
    import torch

    before, made = _noise(image), image.copy()
    wide = np.full(image.shape[:2], 3.0) if psf is None else np.zeros(image.shape[:2])
    kernels = None if psf is None else np.array(psf, np.float32)
    for band in range(image.shape[1]):
        if psf is not None:
            wide[:, band] = psf_fwhms(torch.from_numpy(np.array(psf[:, band], np.float32)))
        for row, sigma in enumerate(np.sqrt(1.4**2 - 1) * wide[:, band] / 2.3548):
            made[row, band] = gaussian_filter(image[row, band], sigma, mode="nearest")
            if kernels is not None:
                kernels[row, band] = gaussian_filter(kernels[row, band], sigma, mode="constant")
    lost = np.sqrt(np.maximum(before**2 - _noise(made) ** 2, 0))
    return made + lost * rng.normal(size=made.shape).astype(np.float32), kernels
