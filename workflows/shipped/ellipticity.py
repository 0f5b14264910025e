"""How the bundle `ellipticity` is made: simulate, train, mend PSF leakage, fit the response, calibrate the errors."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.recipe import Recipe
from workflows.calibrate_response import calibrate_response
from workflows.recalibrate import recalibrate
from workflows.recipe import read_recipe
from workflows.simulate import simulate
from workflows.train import train


@dataclass(frozen=True)
class TrainingSet:
    """One simulation."""

    name: str
    """Of its folder in the scratch directory."""
    preset: str
    """Named simulation."""
    count: int
    """Galaxies."""
    seed: int
    """Not one of the seeds that results are quoted for (those are 900 and above)."""
    snr: tuple[float, float] = (8.0, 400.0)
    """S/N range, log-uniform."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Single settings of the preset that are changed."""
    pairs: str | None = None
    """Sets of sheared stamps."""


_ANY_PSF = {"psf_fwhm": [0.5, 1.05], "psf_ellipticity": 0.1}

ELLIPTICITY = (
    TrainingSet("fixed", "field-fixed", 65_536, 101, (10.0, 200.0)),
    TrainingSet("varying", "field-varying", 131_072, 102, changes={"camera": _ANY_PSF}),
    TrainingSet(
        "wide",
        "field-varying",
        49_152,
        103,
        changes={
            "camera": {**_ANY_PSF, "psf_profile": "kolmogorov", "gain": 20.0},
            "population": {"sersic_n": [0.5, 6.0], "half_light_radius": [0.2, 1.2]},
        },
    ),
)
"""What `ellipticity` is trained on."""

RESPONSE = (
    TrainingSet("sheared-fixed", "field-fixed", 24_576, 107, (10.0, 200.0), pairs="shear"),
    TrainingSet("sheared-varying", "field-varying", 24_576, 108, (10.0, 200.0), pairs="shear"),
    TrainingSet("sheared", "field-varying", 32_768, 104, changes={"camera": _ANY_PSF}, pairs="shear"),
)
"""What its shear response is fitted on."""

LEAKAGE = (
    TrainingSet(
        "psf-pairs", "field-varying", 32_768, 109, (10.0, 400.0), {"camera": {"psf_fwhm": [0.5, 1.05]}}, pairs="psf"
    ),
)
"""What PSF leakage is taken out on."""

CALIBRATION = (
    TrainingSet("calibration-fixed", "field-fixed", 16_384, 105, (10.0, 200.0)),
    TrainingSet("calibration-varying", "field-varying", 16_384, 106, (10.0, 200.0)),
)
"""What its errors are calibrated on: above S/N 200 they are therefore a little too large."""

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


def simulated(data: TrainingSet, scratch: str, scale: float = 1.0, progress: Any = None) -> str:
    """The URL of the stamps of a training set, made below `scratch` where they are missing."""
    made = simulate(
        out=storage.join(scratch, data.name),
        preset=data.preset,
        count=max(64, int(data.count * scale)),
        seed=data.seed,
        snr=data.snr,
        changes=data.changes,
        pairs=data.pairs,
        progress=progress,
    )
    return made.source


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
    progress: Any = None,
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
        return [simulated(data, scratch, scale, progress) for data in sets]

    if weights is None:
        train(recipe or ellipticity_recipe(), data=made(ELLIPTICITY), out=out, progress=progress)
    if weights is not None or "leakage" not in ModelBundle.load(out).card.training:
        calibrate_response(weights or out, data=made(RESPONSE), psf_pairs=made(LEAKAGE), out=out)
    return recalibrate(out, data=made(CALIBRATION))
