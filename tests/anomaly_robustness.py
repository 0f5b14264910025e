"""Change of the anomaly score under conditions that should not matter: seeing, noise, place, orientation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.simulation import AnomalySet
from astroml_plugin.simulation.lenses import LensCamera
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns

SEED = 970
BANDS = ("g", "r", "i")


def perturbed(count: int) -> dict[str, AnomalySet]:
    """Condition -> scenes, ordinary and odd, with equal objects and noise under each condition."""
    fixed = LensCamera(psf_fwhm=(0.7, 0.7))
    base = AnomalySet(count, seed=SEED, block=count, anomaly_fraction=0.2, merger=0.4, ring=0.3, trail=0.3, lens=0.0)
    deep = tuple(depth - 0.7526 for depth in fixed.depth)
    gain = tuple(value / 4 for value in fixed.gain)
    return {
        "as they are": replace(base, camera=fixed, offset=0.0),
        "moved by up to 0.5 px": replace(base, camera=fixed, offset=0.5),
        "seeing 0.6": replace(base, camera=LensCamera(psf_fwhm=(0.6, 0.6)), offset=0.0),
        "seeing 0.9": replace(base, camera=LensCamera(psf_fwhm=(0.9, 0.9)), offset=0.0),
        "S/N halved": replace(base, camera=replace(fixed, depth=deep, gain=gain), offset=0.0),
    }


def changes(model: ModelBundle, count: int) -> dict[str, dict[str, float]]:
    """Condition -> median change of the percentile (signed, and of its size), and Spearman's rank correlation."""
    percentiles = {}
    for name, one in perturbed(count).items():
        block = one.make(0)
        plain = from_stamps(block.image, block.variance, None, bands=BANDS, pixel_scale=0.2)
        variants = {name: plain}
        if name == "as they are":
            turned = np.ascontiguousarray(np.roll(block.image[..., ::-1], 1, -1).swapaxes(2, 3))
            other = np.ascontiguousarray(np.roll(block.variance[..., ::-1], 1, -1).swapaxes(2, 3))
            variants["turned and mirrored"] = from_stamps(turned, other, None, bands=BANDS, pixel_scale=0.2)
            for change in (-0.5, 0.5):
                factor = np.float32(10 ** (-0.4 * change))
                scaled = (block.image * factor, block.variance * factor**2)
                variants[f"{change:+} mag at fixed S/N"] = from_stamps(*scaled, None, bands=BANDS, pixel_scale=0.2)
        for variant, cutouts in variants.items():
            score = _score(model, cutouts)
            percentiles[variant] = 100 * (1 - 10.0**-score)
    base = percentiles.pop("as they are")
    return {
        name: {
            "median": float(np.median(values - base)),
            "median_size": float(np.median(np.abs(values - base))),
            "spearman": float(np.corrcoef(_ranks(values), _ranks(base))[0, 1]),
        }
        for name, values in percentiles.items()
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values))


def _score(model: ModelBundle, cutouts: Cutouts) -> np.ndarray:
    task, network = model.task(), model.network(fused=True)
    parts = [columns(task, network, cutouts.take(slice(start, start + 256))) for start in range(0, len(cutouts), 256)]
    return np.concatenate([part["anomaly_score"] for part in parts]).astype(np.float64)
