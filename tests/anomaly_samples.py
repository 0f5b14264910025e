"""Small unlabelled populations for tests of anomalies: plain disks, a few with a companion, stored as stamps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.typicality_fit import TypicalitySettings
from tests.test_networks_structure import galaxies
from tests.training_samples import write_stamps
from workflows.recipe import read_recipe

SIZE = 32


def population(count: int, seed: int = 0, odd: int = 0, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Stamps (n, 2, size, size) in counts of noise 5 and their kinds (n,); the last `odd` are pairs."""
    image = galaxies(count, size, seed)
    if odd:
        image[-odd:] += galaxies(odd, size, seed + 1, brightness=40.0).roll((6, 4), (2, 3))
    kind = np.array(["normal"] * (count - odd) + ["merger"] * odd)
    return (100 + 5 * image.numpy()).astype(np.float32), kind


def stored(
    folder: Path, count: int = 192, seed: int = 0, odd: int = 0, name: str = "stamps", dtype: str = "float32"
) -> str:
    """A store of them, with the label column `kind`."""
    image, kind = population(count, seed, odd)
    if dtype == "uint8":
        image = np.clip(20 + 3 * np.arcsinh((image - 100) / 5), 0, 255).astype(np.uint8)
    return write_stamps(str(folder / "stamps.zarr"), image, {"kind": kind}, bands=("g", "r"))


def tiny(network: str = "autoencoder", **settings: object) -> Recipe:
    """The shipped recipe with a network for a few seconds, and nothing learned of what is typical."""
    recipe = read_recipe("anomaly")
    arguments = {"widths": [4, 8], "judge": [1, 2]}
    return replace(
        recipe,
        network=network,
        settings={**recipe.settings, "stamp_size": SIZE, "latent": 4, **settings},
        network_arguments=arguments,
        training=replace(recipe.training, epochs=2, batch_size=64),
        split=replace(recipe.split, fractions=(0.8, 0.1, 0.1)),
        typicality=TypicalitySettings(fit=False),
    )
