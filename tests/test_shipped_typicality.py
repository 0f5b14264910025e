"""Bundles that ship tell noise from what they know, and take galaxies of survey tiles for what they know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from astropy.io import fits
from astropy.nddata import NDData, VarianceUncertainty
from scipy import ndimage

from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.networks.typicality import split
from astroml_plugin.simulation import Sky
from astroml_plugin.simulation.options import StampSimulation, SurveySimulation
from astroml_plugin.sky.wcs import Box
from astroml_plugin.training.bundle import ModelBundle
from bundles.skies import SkySet
from bundles.typicality import POPULATIONS, SURVEYS
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.query import query

torch.set_num_threads(1)

NAMES = sorted(set(SURVEYS) - {"segmentation"})

SKY = SkySet("sky", 987, skies=1, side=512, sigma=(0.5, 0.5))
"""About the depth of the LSST's ten years."""


def unlike(name: str, stamps: Cutouts) -> np.ndarray:
    """(n,) whether the typicality sets the flag, of stamps that carry it for no other reason."""
    bundle = ModelBundle.load(name)
    task, known = bundle.task(), bundle.typicality()
    assert known is not None
    network = bundle.network(fused=True)
    whole = known.around(task.inference_network(network), known.taps(network, name), task.input_shapes())
    with torch.inference_mode():
        inputs, flags = task.prepare(stamps)
        outputs, typicality = split(whole(*inputs))
        columns, _ = task.to_columns(outputs, stamps, flags)
        columns, bits = known.told(typicality, columns, flags.numpy())
    low = columns["typicality"] < known.false_flags
    assert (bits[low] & 256 > 0).all()
    return np.asarray(low[flags.numpy() & 256 == 0])


def own(name: str) -> Cutouts:
    """Stamps of the population that a bundle was trained on."""
    one = POPULATIONS[name][0]
    made = StampSimulation(preset=one.preset, count=48, block=48, seed=one.seed + 700, **one.options).stamps()
    block, camera = made.make(0), made.camera
    zero = [camera.zero_point] * len(camera.bands)
    return from_stamps(*block[:3], bands=camera.bands, pixel_scale=camera.pixel_scale, zero_points=zero)


def galaxies(size: int, bands: tuple[str, ...]) -> Cutouts:
    """Galaxies of a simulated sky, none with something much brighter beside it."""
    sky: Sky = SurveySimulation(seed=SKY.seed, **SKY.options(0)).sky()
    tile, truth = sky.render(Box(0, 0, SKY.side, SKY.side), 25)
    rows = truth.filter(pa.array(replace(SKY, brighter=0.5, size=size).chosen(truth))).to_pylist()
    assert len(rows) > 20
    place = [sky.camera.bands.index(band) for band in bands]
    corners = [(int(row["y"] + 0.5) - size // 2, int(row["x"] + 0.5) - size // 2) for row in rows]
    boxes = [(place, slice(y, y + size), slice(x, x + size)) for y, x in corners]
    image, variance = (
        np.stack([plane[part][:, down, right] for part, down, right in boxes]) for plane in (tile.image, tile.variance)
    )
    psf = np.repeat(tile.psf[None, place, 0, 0], len(rows), axis=0)
    zero = [sky.camera.zero_point] * len(bands)
    return from_stamps(image, variance, psf, bands=bands, pixel_scale=0.2, zero_points=zero)


@pytest.mark.parametrize("name", NAMES)
def test_own_stamps_and_galaxies_of_a_survey_are_typical_and_noise_is_not(name: str) -> None:
    pytest.importorskip("galsim")
    assert unlike(name, own(name)).mean() < 0.07
    survey = galaxies(48, ("r",)) if name == "ellipticity" else galaxies(64, ("g", "r", "i"))
    assert unlike(name, survey).mean() < 0.12
    assert survey.variance is not None
    if name != "ellipticity":  # its own limits flag all of it
        noise = survey.variance.sqrt() * torch.randn(survey.image.shape, generator=torch.Generator().manual_seed(0))
        assert unlike(name, replace(survey, image=noise)).mean() > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_was_fitted_to(name: str) -> None:
    sources = [one["name"] for one in ModelBundle.load(name).card.training["typicality"]["sources"]]
    skies = next(one for one in SURVEYS[name] if isinstance(one, SkySet))
    assert f"{skies.name}-{skies.seed}.zarr" in sources
    assert f"{POPULATIONS[name][0].name}/stamps.zarr" in sources


def test_what_segmentation_finds_on_its_own_sky_is_typical_and_on_correlated_noise_it_is_not(tmp_path: Path) -> None:
    pytest.importorskip("galsim")
    sky = SurveySimulation(seed=77, shape=(512, 512), bands=("r",), density=60.0).sky()
    tile, _ = sky.render(Box(0, 0, 512, 512), 25)
    assert tile.variance is not None
    noise = np.sqrt(np.nanmedian(tile.variance[0]))
    usable = np.isfinite(tile.image[0]) & (tile.variance[0] > 0)
    image = np.where(usable, tile.image[0], 0)
    fits.writeto(tmp_path / "psf.fits", tile.psf[0, 0, 0])
    rates = {}
    for name, pixels in (("own", image), ("smoothed", ndimage.gaussian_filter(image, 1.0))):
        level = noise if name == "own" else 1.4826 * np.median(np.abs(pixels - np.median(pixels)))
        given = NDData(pixels, uncertainty=VarianceUncertainty(np.full_like(pixels, level**2)), mask=~usable)
        source = ingest(given, out=str(tmp_path / name), bands="r", psf=(str(tmp_path / "psf.fits"),)).source
        catalog = infer(source, bundle="segmentation", out=str(tmp_path / f"{name}-catalog")).catalog
        found = query(catalog, 'SELECT typicality FROM catalog WHERE "primary"').to_arrow()["typicality"].to_numpy()
        assert len(found) > 30
        rates[name] = float(np.mean(found < 0.01))
    assert rates["own"] < 0.12
    assert rates["smoothed"] > 0.9


def test_fields_of_eight_depths_are_part_of_what_segmentation_knows() -> None:
    known = [one["name"] for one in ModelBundle.load("segmentation").card.training["typicality"]["sources"]]
    wanted = [one.name for one in (*POPULATIONS["segmentation"], *SURVEYS["segmentation"])]
    assert known == [f"{name}/stamps.zarr" for name in wanted]
    assert len(SURVEYS["segmentation"]) == 8


def test_nothing_much_brighter_lies_beside_what_is_cut() -> None:
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
