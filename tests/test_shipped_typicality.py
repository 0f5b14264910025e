"""Bundles that ship tell noise from what they know, and take galaxies of survey tiles for what they know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.bundle import ModelBundle
from bundles.skies import SkySet
from bundles.typicality import POPULATIONS, SURVEYS
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.query import query

NAMES = sorted(SURVEYS)

SKY = SkySet("sky", 987, skies=1, side=640, sigma=(0.5, 0.5))
"""About the depth of the LSST's ten years."""


def unlike(source: str | list[str], name: str, out: Path) -> np.ndarray:
    """(n,) whether the typicality sets the flag."""
    made = infer(source, bundle=name, out=str(out)).catalog
    rows = query(made, "SELECT typicality, flags FROM catalog").to_arrow()
    low = rows["typicality"].to_numpy() < 0.01
    assert (rows["flags"].to_numpy()[low] & int(ObjectFlag.OUT_OF_DOMAIN) > 0).all()
    return low


def noise(source: str, out: Path) -> str:
    """Stamps like those of a source with noise alone."""
    stamps = Stamps.open(source)
    _, variance, psf = stamps.read_block(0)
    assert variance is not None
    image = np.random.default_rng(0).normal(size=variance.shape) * np.sqrt(variance)
    told = {"bands": np.array(stamps.bands), "pixel_scale": 0.2, "variance": variance, "psf": psf}
    np.savez(out.with_suffix(".npz"), images=image.astype(np.float32), **told)
    return ingest([str(out.with_suffix(".npz"))], out=str(out)).source


@pytest.mark.parametrize("name", NAMES)
def test_own_stamps_and_galaxies_of_a_survey_are_typical_and_noise_is_not(name: str, tmp_path: Path) -> None:
    pytest.importorskip("galsim")
    own = POPULATIONS[name][0]
    made = replace(own, name="own", count=96, seed=own.seed + 700).made(str(tmp_path))
    assert unlike(made, name, tmp_path / "a").mean() < 0.06
    told = {"size": 48, "bands": ("r",)} if name == "ellipticity" else {}
    (galaxies,) = replace(SKY, **told).made(str(tmp_path))
    low = unlike(galaxies, name, tmp_path / "b")
    assert len(low) > 40
    assert low.mean() < 0.3  # bright neighbours among them
    assert unlike(noise(galaxies, tmp_path / "noise.zarr"), name, tmp_path / "c").mean() > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_was_fitted_to(name: str) -> None:
    sources = [one["name"] for one in ModelBundle.load(name).card.training["typicality"]["sources"]]
    skies = next(one for one in SURVEYS[name] if isinstance(one, SkySet))
    assert f"{skies.name}-{skies.seed}.zarr" in sources
    assert f"{POPULATIONS[name][0].name}/stamps.zarr" in sources


def test_nothing_much_brighter_lies_beside_what_is_cut() -> None:
    pa = pytest.importorskip("pyarrow")
    truth = pa.table(
        {
            "x": [100.0, 110.0, 200.0, 300.0, 305.0, 10.0],
            "y": [100.0, 100.0, 200.0, 300.0, 300.0, 300.0],
            "mag": [23.0, 21.0, 23.0, 22.0, 22.5, 21.0],
            "snr": [50.0, 200.0, 9.0, 80.0, 60.0, 90.0],
            "class": ["disk", "disk", "disk", "star", "disk", "disk"],
        }
    )
    assert replace(SKY, brighter=3.0).chosen(truth).tolist() == [False, True, False, False, True, False]
    assert SKY.chosen(truth).tolist() == [True, True, False, False, True, False]
