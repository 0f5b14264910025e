"""How the bundle `ellipticity` is made: simulate, train, mend PSF leakage, fit the response, calibrate the errors."""

from __future__ import annotations

import argparse
from dataclasses import replace

from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.recipe import Recipe
from bundles.training_sets import TrainingSet
from workflows.calibrate_response import calibrate_response
from workflows.recalibrate import recalibrate
from workflows.recipe import read_recipe
from workflows.train import Progress, train

_ANY_PSF = {"psf_fwhm": [0.5, 1.05], "psf_ellipticity": 0.1}

_TO_200 = {"snr": (10.0, 200.0)}
_TO_400 = {"snr": (8.0, 400.0)}

ELLIPTICITY = (
    TrainingSet("fixed", "field-fixed", 65_536, 101, _TO_200),
    TrainingSet("varying", "field-varying", 131_072, 102, {**_TO_400, "changes": {"camera": _ANY_PSF}}),
    TrainingSet(
        "wide",
        "field-varying",
        49_152,
        103,
        {
            **_TO_400,
            "changes": {
                "camera": {**_ANY_PSF, "psf_profile": "kolmogorov", "gain": 20.0},
                "population": {"sersic_n": [0.5, 6.0], "half_light_radius": [0.2, 1.2]},
            },
        },
    ),
)
"""Training sets of `ellipticity`."""

RESPONSE = (
    TrainingSet("sheared-fixed", "field-fixed", 24_576, 107, {**_TO_200, "pairs": "shear"}),
    TrainingSet("sheared-varying", "field-varying", 24_576, 108, {**_TO_200, "pairs": "shear"}),
    TrainingSet(
        "sheared", "field-varying", 32_768, 104, {**_TO_400, "changes": {"camera": _ANY_PSF}, "pairs": "shear"}
    ),
)
"""Training sets of its shear response."""

LEAKAGE = (
    TrainingSet(
        "psf-pairs",
        "field-varying",
        32_768,
        109,
        {"snr": (10.0, 400.0), "changes": {"camera": {"psf_fwhm": [0.5, 1.05]}}, "pairs": "psf"},
    ),
)
"""Pairs on which PSF leakage is taken out."""

CALIBRATION = (
    TrainingSet("calibration-fixed", "field-fixed", 16_384, 105, _TO_200),
    TrainingSet("calibration-varying", "field-varying", 16_384, 106, _TO_200),
)
"""Sets on which its errors are calibrated: above S/N 200 they are therefore a little too large."""

_DESCRIPTION = (
    "Reduced shear of a galaxy in any one band at 0.2 arcsec per pixel, its PSF taken into account: posterior mean "
    "under the prior p(|e|) ~ |e| exp(-|e|/0.1), Sersic n 0.5-6, half-light radius 0.2-1.2 arcsec, S/N 8-400, PSF FWHM "
    "0.5-1.05 arcsec and ellipticity to 0.1. Isolated galaxies, uncorrelated noise: neighbours bias it. A shear is "
    "<e>/<R>."
)


def ellipticity_recipe() -> Recipe:
    """The recipe `ellipticity`, trained for longer on more."""
    recipe = replace(read_recipe("ellipticity"), description=_DESCRIPTION)
    training = replace(recipe.training, epochs=36, batch_size=512, learning_rate=0.003, ema=0.999, memory=8e9)
    return replace(recipe, training=training, split=replace(recipe.split, fractions=(0.9, 0.05, 0.05)))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command beside those of all bundles."""
    parser.add_argument("--weights", metavar="BUNDLE", help="a trained bundle: fit its response and errors anew")


def make(
    *,
    out: str,
    scratch: str,
    scale: float = 1.0,
    recipe: Recipe | None = None,
    weights: str | None = None,
    progress: Progress | None = None,
) -> ModelBundle:
    """Make the bundle `ellipticity`.

    Args:
        out: folder of the bundle.
        scratch: folder for some 12 GB of simulated stamps.
        scale: factor on the number of galaxies; tests take a small part.
        recipe: another than `ellipticity_recipe`.
        weights: a trained bundle to start from instead of training one.
        progress: told of each unit and epoch.
    """

    def made(sets: tuple[TrainingSet, ...]) -> list[str]:
        return [data.made(scratch, scale, progress=progress) for data in sets]

    if weights is None:
        train(recipe or ellipticity_recipe(), data=made(ELLIPTICITY), out=out, progress=progress)
    if weights is not None or "leakage" not in ModelBundle.load(out).card.training:
        calibrate_response(weights or out, data=made(RESPONSE), psf_pairs=made(LEAKAGE), out=out)
    return recalibrate(out, data=made(CALIBRATION))
