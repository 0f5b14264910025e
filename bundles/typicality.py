"""Let a bundle that ships say what is unlike its training set, without training it again.

    python -m bundles.typicality lens --out astroml_plugin/bundles/lens --scratch DIR
    python -m bundles.typicality morphology --out astroml_plugin/bundles/morphology --scratch DIR --images gz1.npz

Bundles that measure simulated stamps learn it from further stamps of the population that they were trained on, and from
galaxies as surveys have them: fainter ones, with neighbours, at other depths. `segmentation` learns it from further
fields, `morphology` from the very stamps, divided as they were.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bundles import anomaly, ellipticity, later, lens, segmentation
from bundles.skies import GAIN, SkySet
from bundles.training_sets import TrainingSet, with_noise
from workflows.fit_typicality import fit_typicality

COUNT = 6144
"""Simulated stamps like those of the training."""


def _deep_fields(sigma: float, seed: int) -> TrainingSet:
    """Fields as surveys of another depth than that of the training see them.

    Args:
        sigma: sky noise of a pixel, counts of 30 mag.
        seed: of the set.
    """
    random = np.random.default_rng(seed)
    changes = {
        "population": {
            **{"magnitude": [19.0, 25.5], "tail": 0.7, "star_fraction": 0.15, "bulge_probability": 0.3},
            **{"sersic_n": [0.5, 6.0], "half_light_radius": [0.2, 1.2]},
        },
        "camera": {
            **{"sky_sigma": sigma, "gain": round(GAIN / sigma**2, 3), "psf_fwhm": [0.55, 0.95]},
            **{"psf_profile": str(random.choice(["moffat", "kolmogorov"])), "psf_ellipticity": 0.05},
        },
        "stamps": {"density": [20.0, 50.0]},
    }
    return TrainingSet(f"fields-{seed}-noise-{sigma}", "fields", 192, seed, {"changes": changes})


def _lenses(count: int, seed: int) -> TrainingSet:
    """Stamps as of the training of `lens`, with variance as those of surveys have."""
    return replace(lens.training_set(count, seed), name=f"lenses-variance-{seed}-{count}", options={})


POPULATIONS: dict[str, tuple[TrainingSet, ...]] = {
    "anomaly": (anomaly.training_set(COUNT, 351),),
    "ellipticity": tuple(
        replace(one, name=f"ellipticity-{one.name}-{one.seed + 50}", count=COUNT // 3, seed=one.seed + 50)
        for one in ellipticity.ELLIPTICITY
    ),
    "lens": (_lenses(COUNT, 451),),
    "segmentation": tuple(
        replace(one, name=f"fields-{one.name}-{one.seed + 50}", count=one.count // 3, seed=one.seed + 50)
        for one in segmentation.TRAINING
    ),
}
"""Bundle -> stamps of the population that it was trained on, which nothing else used."""

_SKIES = SkySet("sky-gri", 420, skies=24, brighter=3.0)

SURVEYS: dict[str, tuple[TrainingSet | SkySet, ...]] = {
    "anomaly": (*with_noise(anomaly.training_set(COUNT // 8, 352), (0.6, 1.7, 2.8, 4.5)), _SKIES),
    "ellipticity": (replace(_SKIES, name="sky-r", size=48, bands=("r",), brighter=0.5),),
    "lens": (
        *with_noise(_lenses(COUNT // 8, 452), (0.6, 1.7, 2.8)),
        replace(_SKIES, name="sky-deep", seed=450, skies=20, sigma=(0.2, 1.2), snr=7.0),
    ),
    "segmentation": tuple(
        _deep_fields(sigma, 261 + number) for number, sigma in enumerate((0.2, 0.3, 0.45, 0.7, 1.0, 1.5, 2.2, 3.0))
    ),
}
"""Bundle -> galaxies as surveys have them, as deep as its answers hold (docs/typicality.md)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    return later.command(
        arguments,
        prog="python -m bundles.typicality",
        description=__doc__,
        sets={name: (*own, *SURVEYS.get(name, ())) for name, own in POPULATIONS.items()},
        fit=lambda out, data: fit_typicality(out, data=data, out=out),
        told=lambda bundle: str(bundle.card.training["typicality"]),
    )


if __name__ == "__main__":
    sys.exit(main())
