"""The small models of `demo`: simulated stamps and the shipped recipes, a minute of training each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from distributed import Client

from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError
from astroml_plugin.simulation import Camera, Population, Sky
from astroml_plugin.training.recipe import Recipe
from workflows.progress import Reporter
from workflows.recipe import read_recipe
from workflows.simulate import simulate
from workflows.train import TrainResult, train


@dataclass(frozen=True)
class DemoModel:
    """A model of the demo: what it learns from, and how."""

    name: str
    """Name of the bundle and prefix of its columns."""
    recipe: Recipe
    count: int
    """Stamps to simulate."""
    stamps: dict[str, Any]
    """Further arguments of `simulate`."""


def _recipe(name: str, epochs: int, settings: dict[str, Any]) -> Recipe:
    recipe = read_recipe(name)
    training = replace(recipe.training, epochs=epochs)
    return replace(recipe, settings={**recipe.settings, **settings}, training=training)


def _classes(epochs: int, settings: dict[str, Any]) -> Recipe:
    """The recipe `classify` with a network that is fast on stamps as small as these."""
    recipe = _recipe("classify", epochs, settings)
    training = replace(recipe.training, learning_rate=0.002, weight_decay=0.001)
    arguments = {"widths": [16, 32, 64], "hidden": 128, "dropout": 0.1}
    return replace(recipe, network="strided_cnn", network_arguments=arguments, training=training)


def sky_models(scale: float = 1.0, epochs: int = 10) -> tuple[DemoModel, DemoModel]:
    """Ellipticities from r with the PSF, and classes from g, r, i, for the simulated sky.

    Args:
        scale: factor on the number of stamps; tests take a small part.
        epochs: passes over them.
    """
    crowded = {"density": 40.0, "snr": (5.0, 400.0)}
    shapes = {"population": Population(star_fraction=0.0), "camera": Camera(bands=("r",)), "size": 48, "seed": 11}
    classes = {"population": Population(star_fraction=0.3, bulge_probability=0.3), "size": 32, "seed": 12}
    return (
        DemoModel("shapes", _recipe("ellipticity", epochs, {}), int(12_000 * scale), shapes | crowded),
        DemoModel(
            "classes",
            _classes(epochs, {"stamp_size": 32, "resize": "fit"}),
            int(8_000 * scale),
            classes | crowded | {"bands": ("g", "r", "i")},
        ),
    )


def image_models(scale: float = 1.0, epochs: int = 8) -> tuple[DemoModel, DemoModel]:
    """Shapes and classes from any one band without a PSF, in pixels rather than arcsec.

    They are trained on stars and galaxies seen with a PSF of 1.6 to 5 pixels, so that any image with such a PSF may
    be given, whatever its pixel scale; what they say of real objects shows the way, it is no measurement.
    """
    camera = Camera(bands=("any",), psf_fwhm=(0.32, 1.0), psf_ellipticity=0.1, gain=5.0)
    common = {"camera": camera, "size": 32, "snr": (8.0, 500.0), "density": 20.0}
    settings = {"any_band": True, "stamp_size": 32, "resize": "fit", "psf": "none", "sizes": "pixels"}
    flat = {"background": "border", "unit": "noise", "stretch": "asinh", "softening": 3.0}
    return (
        DemoModel(
            "shapes",
            _recipe("ellipticity", epochs, settings),
            int(10_000 * scale),
            common | {"population": Population(star_fraction=0.0), "seed": 21},
        ),
        DemoModel(
            "classes",
            _classes(epochs, settings | {"normalisation": flat}),
            int(10_000 * scale),
            common | {"population": Population(star_fraction=0.4), "seed": 22},
        ),
    )


@dataclass(frozen=True)
class DemoSky:
    """How large a demo is; tests take a small one."""

    side: int = 1792
    """Pixels of the sky's sides."""
    tile_size: int = 1024
    halo: int = 128
    density: float = 40.0
    """Objects per arcmin^2."""
    training: float = 1.0
    """Factor on the number of training stamps."""
    epochs: int = 10
    """Passes over them."""

    def sky(self) -> Sky:
        """The simulated sky."""
        population = Population(star_fraction=0.15, bulge_probability=0.3)
        return Sky(self.side, self.side, seed=2026, density=self.density, population=population, camera=Camera())

    def models(self) -> tuple[DemoModel, DemoModel]:
        """The two models that measure it: shapes and classes."""
        return sky_models(self.training, self.epochs)


def train_model(model: DemoModel, folder: str, client: Client, report: Reporter) -> TrainResult:
    """Simulate what `model` learns from and train it; what is there already is kept.

    Returns:
        The training's result; its bundle lies at `folder`/bundles/<name>.
    """
    stamps = storage.join(folder, "training", model.name)
    made = simulate(out=stamps, kind="stamps", count=model.count, client=client, progress=report, **model.stamps)
    if made.units_failed:
        reason = next(iter(made.failures.values()))
        raise AstromlError(f"{made.units_failed} blocks of training stamps could not be made: {reason}")
    return train(model.recipe, data=made.source, out=storage.join(folder, "bundles", model.name), progress=report)
