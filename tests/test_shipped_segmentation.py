"""The bundle `segmentation`, on fields it never saw and on bad input, and the command that makes it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astroml_plugin.core.flags import MaskBit, ObjectFlag
from astroml_plugin.evaluation.detection_metrics import DetectionSet, counts, match, pooled
from astroml_plugin.pixels import Tile
from astroml_plugin.tasks.segmentation.whole_tile import field_of, maps_of
from astroml_plugin.training import bundle as bundles
from astroml_plugin.training.bundle import ModelBundle
from bundles import segmentation as making

torch.set_num_threads(1)

MODEL = ModelBundle.load("segmentation")
TASK, NETWORK = MODEL.task(), MODEL.network(fused=True)
SIDE = 256


def find(tile, task=TASK):
    return task.detect(maps_of(task, NETWORK, tile), field_of(tile, task.bands, (31.4,) * len(task.bands)))


def noise_tile(level=0.0, side=SIDE, seed=4, bands=1):
    image = np.random.default_rng(seed).normal(level, 1, (bands, side, side)).astype(np.float32)
    return Tile(image, np.ones_like(image), np.zeros(image.shape, np.uint32))


def star_on(tile, x=128, y=128, flux=300_000.0, sigma=1.6):
    rows, columns = np.mgrid[: tile.image.shape[1], : tile.image.shape[2]]
    light = flux * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    return replace(tile, image=(tile.image + light).astype(np.float32))


def test_it_ships_within_its_size() -> None:
    assert "segmentation" in bundles.shipped()
    folder = Path(bundles.locate("segmentation"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 2**20
    assert (folder / "README.md").exists()
    assert (TASK.stride, TASK.reach, TASK.channels) == (8, 128, 7)
    assert MODEL.card.training["thresholds"]["purity"] >= 0.96


def test_it_finds_a_fresh_field() -> None:
    pytest.importorskip("galsim")
    from astroml_plugin.simulation.fields import field_sky, truth_of

    tile, truth = truth_of(field_sky(985, 640, 0.7))
    found = find(tile)
    figures = pooled([counts(DetectionSet(found.x, found.y, found.labels, {}), truth)], 1)
    assert figures["purity"][0] > 0.92
    assert figures["iou"][0] > 0.80
    assert figures["completeness 20-23"][0] > 0.9
    assert figures["completeness 24-25"][0] > 0.4
    matched = match(found.x, found.y, truth.x, truth.y)
    bright = (matched >= 0) & (truth.snr[matched] > 40)
    star = truth.star[matched[bright]]
    assert found.columns["p_star"][bright][star].mean() > found.columns["p_star"][bright][~star].mean() + 0.3


def test_next_to_nothing_is_found_in_noise() -> None:
    assert len(find(noise_tile(side=512))) <= 4


def test_several_bands_are_one_deeper_image() -> None:
    one, many = noise_tile(bands=1), noise_tile(bands=4)
    faint = 70.0
    task = TASK.for_bands(("g", "r", "i", "z"))
    assert not np.any(np.hypot(*(find(star_on(one, flux=faint)).x - 128, 0)) < 0)
    found = find(star_on(many, flux=faint), task)
    nearest = np.hypot(found.x - 128, found.y - 128).argmin()
    assert np.hypot(found.x - 128, found.y - 128)[nearest] < 1.5
    assert found.columns["flux_aper_g"][nearest] == pytest.approx(faint, rel=0.4)


def test_stars_without_a_psf_say_so_and_galaxies_do_not() -> None:
    psf = star_on(replace(noise_tile(side=33), image=np.zeros((1, 33, 33), np.float32)), 16, 16, 1.0).image
    rows, columns = np.mgrid[:SIDE, :SIDE]
    disk = 40 * np.exp(-np.sqrt((columns - 190) ** 2 + (rows - 60) ** 2 + 1) / 3.5).astype(np.float32)
    tile = star_on(star_on(replace(noise_tile(), image=noise_tile().image + disk), 60, 128, 6000.0), 196, 128, 6000.0)
    half = np.stack([psf, np.full_like(psf, np.nan)], axis=1)[:, None]  # two cells, the right one unknown
    flags = []
    for cells in (None, half, psf[:, None, None]):
        found = find(replace(tile, psf=cells))
        near = [np.hypot(found.x - x, found.y - y).argmin() for x, y in ((60, 128), (196, 128), (190, 60))]
        assert found.columns[f"flux_total_{TASK.bands[0]}"][near[:2]] == pytest.approx(6000, rel=0.04)
        flags.append([bool(found.flags[number] & ObjectFlag.NO_PSF) for number in near])
    assert flags == [[True, True, False], [False, True, False], [False, False, False]]


@pytest.mark.parametrize("level", [0.0, 3.0])
def test_a_constant_or_masked_tile_has_nothing_but_perhaps_a_few(level) -> None:
    image = np.full((1, SIDE, SIDE), level, np.float32)
    constant = find(Tile(np.zeros_like(image), np.ones_like(image)))
    assert len(constant) == 0
    masked = find(Tile(image, np.ones_like(image), np.full(image.shape, int(MaskBit.BAD), np.uint32)))
    assert len(masked) == 0


def test_defects_do_not_break_it_and_are_flagged() -> None:
    tile = star_on(noise_tile(), flux=2_000_000.0)
    mask = tile.mask.copy()
    mask[tile.image > 3000] = int(MaskBit.SATURATED)
    mask[0, :, 127:130] |= int(MaskBit.SATURATED)  # bleed
    image = tile.image.copy()
    rows = np.arange(SIDE)
    image[0, rows, rows // 2] += 40  # satellite trail
    image[0, 30:33] = np.nan
    found = find(replace(tile, image=image, mask=mask))
    assert np.isfinite(found.x).all()
    near = np.hypot(found.x - 128, found.y - 128) < 12
    assert np.any(found.flags[near] & ObjectFlag.SATURATED)
    assert not np.any(found.labels[0, :][:5] < 0)


def test_missing_variance_and_negative_background() -> None:
    tile = star_on(noise_tile(), flux=3000.0)
    found = find(replace(tile, variance=None, mask=None))
    nearest = np.hypot(found.x - 128, found.y - 128).argmin()
    assert np.hypot(found.x - 128, found.y - 128)[nearest] < 1
    assert np.all(found.flags & ObjectFlag.NO_VARIANCE)
    below = find(star_on(noise_tile(-2.0), flux=30_000.0))
    assert np.hypot(below.x - 128, below.y - 128).min() < 1


@pytest.mark.shared_data
def test_a_galaxy_larger_than_the_network_sees(shared_data) -> None:
    from astropy.io import fits

    image = fits.getdata(shared_data / "m51_512.fits").astype(np.float32)
    level = np.float32(np.median(image[:40]))
    found = find(Tile((image - level)[None], None))
    assert len(found) > 0
    assert np.isfinite(found.x).all()


@pytest.mark.slow
def test_the_command_makes_a_bundle(tmp_path) -> None:
    pytest.importorskip("galsim")
    recipe = making.segmentation_recipe()
    recipe = replace(
        recipe,
        network_arguments={"widths": [8, 8], "depth": [1, 1], "head": 8},
        training=replace(recipe.training, epochs=1),
        split=replace(recipe.split, fractions=(0.6, 0.2, 0.2)),
    )
    made = making.make(out=str(tmp_path / "bundle"), scratch=str(tmp_path / "data"), scale=0.01, recipe=recipe)
    assert 0.2 <= made.card.training["thresholds"]["foreground"] <= 0.7
    assert made.task().settings.near == made.card.training["thresholds"]["near"]
    again = making.make(out=str(tmp_path / "bundle"), scratch=str(tmp_path / "data"), scale=0.01, recipe=recipe)
    assert again.sha256 == made.sha256
