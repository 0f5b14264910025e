"""What is simulated for the benchmark of ellipticities: seeds, none of them trained or tuned on, and how much."""

from __future__ import annotations

from dataclasses import dataclass

SEEDS = {"field-fixed": 910, "field-varying": 911, "shear": 920, "calibration": 921, "psf": 922, "shifted": 923}
SEEDS |= {"blended": 924, "hst-test": 925, "robust": 926, "correlated": 927, "hst-test-resized": 928}
SEEDS |= {"fixed": 929, "fixed-calibration": 930, "hst-psf": 931, "scatter": 932}
"""Of 900 and above: never trained or tuned on."""
OWN_IMAGES = {"shifted": 801, "hst-test": 802, "hst-test-resized": 803}
"""Populations that a response is also fitted to, on images without truth, and the seeds of those."""


@dataclass(frozen=True)
class Scale:
    """How much is simulated."""

    galaxies: int = 22_528
    """Per PSF; 23 % of them in the smallest S/N bin: 5,000 and more."""
    sets: int = 131_072
    """Sets of four of field-fixed and of field-varying."""
    calibration: int = 131_072
    """And of each for the calibration of the selection."""
    pairs: int = 16_384
    """Pairs of PSFs."""
    shifted: int = 8_192
    """Sets of the shifted population."""
    others: int = 4_032
    """Sets of each other population, of the errors of the input, and pairs of PSFs of real galaxies."""
    images: int = 24_576
    """Images of the shifted population, without truth, that a response is fitted to."""
    real_images: int = 8_192
    """And of each sample of real galaxies."""
    scatter: int = 3_840
    """Real galaxies whose scatter is measured: the held-out objects at 12 angles, 8 times."""
    training: int = 6_144
    """Galaxies that the throughput of training is taken on."""
    ngmix: int = 2_000
    """First galaxies that ngmix measures."""
    repeats: int = 5
    """Of timings."""


QUICK = Scale(
    galaxies=1_024,
    sets=1_024,
    calibration=1_024,
    pairs=512,
    shifted=256,
    others=256,
    images=1_024,
    real_images=1_024,
    scatter=480,
    training=1_024,
    ngmix=100,
    repeats=2,
)
