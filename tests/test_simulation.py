"""The simulated universe: right against GalSim, the same for every tiling, reproducible unit by unit."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.simulation import Camera, Population, Sky, StampSet, profiles, run, write_fits
from astroml_plugin.simulation.objects import sheared_ellipticity
from astroml_plugin.simulation.population import draw_population
from astroml_plugin.sky.wcs import Box, cut_tiles

galsim = pytest.importorskip("galsim", reason="needs the extra sim")


@pytest.mark.parametrize(
    ("n", "radius", "e1", "e2", "size"),
    [(0.5, 0.3, 0.6, 0.0, 48), (1.0, 0.6, 0.3, -0.2, 64), (2.3, 0.5, -0.3, 0.1, 96), (4.0, 0.5, 0.1, 0.3, 192)],
)
@pytest.mark.parametrize("profile", ["moffat", "kolmogorov"])
def test_drawing_agrees_with_galsim(n: float, radius: float, e1: float, e2: float, size: int, profile: str) -> None:
    """Within 1e-3 of the peak of galsim.drawImage, offset, PSF ellipticity and pixel response included."""
    psf = profiles.Psf(profile, 0.7, 0.03, -0.02)
    grid = profiles.grid_for(psf, size, 0.2)
    transform = profiles.Sersic(n).transform(profiles.ellipse(e1, e2, radius), grid)
    ours = profiles.to_image(transform * profiles.psf_transform(psf, size, 0.2), grid, 0.31, -0.22)
    point = galsim.Moffat(beta=3, fwhm=0.7) if profile == "moffat" else galsim.Kolmogorov(fwhm=0.7)
    galaxy = galsim.Sersic(n, half_light_radius=radius).shear(g1=e1, g2=e2)
    both = galsim.Convolve(galaxy, point.shear(g1=0.03, g2=-0.02))
    theirs = both.drawImage(nx=size, ny=size, scale=0.2, offset=(0.5 + 0.31, 0.5 - 0.22)).array
    assert np.abs(ours - theirs).max() < 1e-3 * theirs.max()


@pytest.mark.parametrize("size", [24, 25])
def test_psf_image_is_centred_on_its_half(size: int) -> None:
    image = profiles.psf_image(profiles.Psf("moffat", 0.7, 0.0, 0.0), size, 0.2)
    assert np.unravel_index(image.argmax(), image.shape) == (size // 2, size // 2)
    assert image.sum() == pytest.approx(1, abs=0.01)


def test_population_follows_its_settings() -> None:
    population = Population(star_fraction=0.2, bulge_probability=0.5)
    objects = draw_population(np.random.default_rng(5), 20_000, population, Camera())
    galaxy = objects.kind > 0
    assert 0.19 < 1 - galaxy.mean() < 0.21
    e = np.hypot(objects.e1[galaxy], objects.e2[galaxy])
    assert e.max() <= 0.8
    assert objects.e1[galaxy].std() == pytest.approx(0.17, abs=0.005)  # 3 a^2 per component, cut at 0.8
    assert np.isnan(objects.e1[~galaxy]).all()
    mag = objects.mag[galaxy, 1]
    assert mag.min() >= 20
    assert mag.max() <= 25.3
    ratio = ((mag > 24) & (mag < 25)).sum() / ((mag > 23) & (mag < 24)).sum()
    assert ratio == pytest.approx(10**0.35, rel=0.1)
    colour = objects.mag[:, 0] - objects.mag[:, 1]
    assert np.median(colour[objects.kind == 1]) > np.median(colour[objects.kind == 2]) + 0.2
    bulged = objects.bulge[:, 1] > 0
    assert set(objects.kind[bulged]) == {2}
    assert (objects.bulge[bulged, 2] > objects.bulge[bulged, 0]).mean() > 0.97


def test_shear_moves_ellipticity_as_galsim_does() -> None:
    e1, e2 = sheared_ellipticity(np.array([0.3]), np.array([-0.2]), np.array([0.05]), np.array([0.02]))
    both = galsim.Shear(g1=0.05, g2=0.02) + galsim.Shear(g1=0.3, g2=-0.2)
    assert (e1[0], e2[0]) == (pytest.approx(both.g1), pytest.approx(both.g2))


def _text(table: pa.Table) -> str:
    """A table's values as text: NaN equals NaN."""
    return str(table.to_pylist())


# --- stamps ---------------------------------------------------------------------------------------------------------


def test_a_block_is_the_same_alone_and_in_a_larger_set() -> None:
    small, large = StampSet(10, seed=3, block=8), StampSet(20, seed=3, block=8)
    last, same = small.make(1), large.make(1)
    assert len(last.table) == 2
    assert np.array_equal(last.image, same.image[:2])
    assert _text(last.table) == _text(same.table.slice(0, 2))
    assert not np.array_equal(small.make(0).image[:2], last.image)
    assert not np.array_equal(replace(small, seed=4).make(1).image, last.image)


def test_stamps_carry_the_truth_they_promise() -> None:
    camera = Camera(bands=("g", "r"), psf_fwhm=(0.55, 0.95), psf_ellipticity=0.05)
    block = StampSet(64, block=64, camera=camera, population=Population(star_fraction=0.3)).make(0)
    assert block.image.shape == block.variance.shape == (64, 2, 48, 48)
    assert block.psf.shape == (64, 2, 25, 25)
    table = block.table.to_pydict()
    snr = np.array(table["snr"])
    assert snr.min() > 9.99
    assert snr.max() < 200.2
    assert np.hypot(table["psf_e1"], table["psf_e2"]).max() <= 0.05
    stars = np.array(table["class"]) == "star"
    assert np.array_equal(stars, np.isnan(table["e1"]))
    assert np.allclose(table["flux"], 10 ** (0.4 * (30 - np.array(table["mag"]))))
    # brightest pixel within the offset's reach of pixel 24 (the contract's origin), for bright stars at least
    bright = np.flatnonzero(stars & (snr > 50))
    peaks = np.array([np.unravel_index(block.image[i, 1].argmax(), (48, 48)) for i in bright])
    assert np.abs(peaks - 24).max() <= 1


def test_neighbours_are_drawn_beside_the_object() -> None:
    alone, crowded = StampSet(16, block=16), StampSet(16, block=16, neighbours=300.0)
    assert _text(alone.make(0).table) == _text(crowded.make(0).table)
    assert crowded.make(0).image.sum() > alone.make(0).image.sum()


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"count": 5, "size": 4}, {"count": 5, "snr": (0.0, 5.0)}, {"count": 5, "seed": -1}],
)
def test_impossible_stamps_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError):
        StampSet(**wrong)


def test_galsim_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "galsim", None)
    with pytest.raises(InputError, match=r"astroml-plugin\[sim\]"):
        profiles.load_galsim()


# --- skies ----------------------------------------------------------------------------------------------------------

SKY = Sky(500, 620, seed=7, camera=Camera(psf_fwhm=(0.6, 0.8), psf_ellipticity=0.05, cosmic_rays=5, bad_pixels=1e-4))


def test_three_tilings_of_one_sky_have_the_same_pixels() -> None:
    """Bit for bit, noise and defects included, halo too; every object's truth lies in exactly one inner box."""
    whole, truth = SKY.render(Box(0, 0, SKY.width, SKY.height))
    for tile_size, halo in ((256, 32), (400, 64), (700, 50)):
        owned = []
        for geometry in cut_tiles(SKY.height, SKY.width, tile_size, halo):
            tile, table = SKY.render(geometry.outer)
            part = geometry.outer.clipped(SKY.height, SKY.width)
            mine = np.s_[:, part.y0 : part.y1, part.x0 : part.x1]
            y, x = part.y0 - geometry.outer.y0, part.x0 - geometry.outer.x0
            here = np.s_[:, y : y + part.height, x : x + part.width]
            for name in ("image", "variance", "mask"):
                assert np.array_equal(getattr(tile, name)[here], getattr(whole, name)[mine], equal_nan=name != "mask")
            outside = tile.mask == MaskBit.NO_DATA
            assert outside.sum() == 3 * (tile_size**2 - part.width * part.height)
            assert np.isnan(tile.image[outside]).all()
            owned += table.filter(geometry.inner.contains(table["x"], table["y"])).to_pylist()
        owned.sort(key=lambda row: row["object_id"])
        assert str(owned) == _text(truth.sort_by("object_id"))


def test_a_sky_is_what_its_settings_say() -> None:
    tile, truth = SKY.render(Box(0, 0, SKY.width, SKY.height), psf_size=25)
    assert tile.psf is not None
    assert tile.psf.shape == (3, 1, 1, 25, 25)
    expected = 30 * (0.2 / 60) ** 2 * 500 * 620
    assert abs(len(truth) - expected) < 5 * np.sqrt(expected)
    assert len(set(truth["object_id"].to_pylist())) == len(truth)
    bits = {bit: int(((tile.mask & bit) != 0).sum()) for bit in (MaskBit.BAD, MaskBit.COSMIC_RAY, MaskBit.NO_DATA)}
    assert bits[MaskBit.BAD] > 0
    assert bits[MaskBit.COSMIC_RAY] > 0
    assert bits[MaskBit.NO_DATA] == 0
    assert np.array_equal(np.isnan(tile.image), (tile.mask & MaskBit.BAD) != 0)
    quiet = tile.image[tile.mask == 0]
    assert abs(np.median(quiet)) < 0.5
    assert 1.4826 * np.median(np.abs(quiet - np.median(quiet))) == pytest.approx(2.5, abs=0.25)
    ra, dec = WCS(fits.Header.fromstring(SKY.wcs.header, sep="\n")).all_pix2world(truth["x"], truth["y"], 0)
    assert np.allclose(ra, truth["ra"], atol=1e-9)
    assert np.allclose(dec, truth["dec"], atol=1e-9)


def test_bright_stars_saturate() -> None:
    sky = Sky(200, 200, seed=1, density=60, population=Population(star_fraction=1.0, star_magnitude=(16.0, 17.0)))
    tile, _ = sky.render(Box(0, 0, 200, 200))
    saturated = (tile.mask & MaskBit.SATURATED) != 0
    assert saturated.any()
    assert np.nanmax(tile.image) < 3000 + 10 * np.sqrt(2.5**2 + 3000 / 20) + 500


def test_fits_files_hold_the_same_pixels(tmp_path) -> None:
    sky = replace(SKY, height=200, width=300)
    files, psf, truth = write_fits(sky, str(tmp_path))
    assert np.array_equal(fits.getdata(psf), sky.render(Box(0, 0, 300, 200), 25)[0].psf[:, 0, 0])
    tile, again = sky.render(Box(0, 0, 300, 200), 25)
    assert _text(truth) == _text(again)
    assert sorted(files) == ["g", "i", "r"]
    with fits.open(files["r"]) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "IMAGE", "MASK", "VARIANCE"]
        assert hdus[0].data is None
        assert np.array_equal(hdus["IMAGE"].data, tile.image[1], equal_nan=True)
        assert np.array_equal(hdus["VARIANCE"].data, tile.variance[1], equal_nan=True)
        planes = hdus["MASK"].data
        bad = planes & (1 << hdus["MASK"].header["MP_BAD"])
        assert np.array_equal(bad != 0, (tile.mask[1] & MaskBit.BAD) != 0)
        sky_position = WCS(hdus["IMAGE"].header).all_pix2world([[10, 20]], 0)[0]
        assert np.allclose(sky_position, np.ravel(sky.wcs.to_sky(10, 20)))


def test_the_smallest_index_that_a_population_may_have_can_be_drawn() -> None:
    spreads = [profiles.Sersic(n).spread for n in (0.3, 0.4, 0.5, 0.6)]
    assert np.all(np.diff(spreads) > 0)
    assert spreads[0] > 1


def test_each_band_has_its_own_noise() -> None:
    plain = Camera(bands=("g", "r", "i"), sky_sigma=2.0, gain=10.0)
    camera = replace(plain, noise_of_bands=(1.5, 1.0, 2.0))
    model = np.full((3, 4, 4), 30.0, np.float32)
    np.testing.assert_allclose(camera.variance(model)[:, 0, 0], [9 + 3, 4 + 3, 16 + 3])
    np.testing.assert_array_equal(camera.variance(model[1]), plain.variance(model[1]))
    with pytest.raises(InputError, match="noise_of_bands"):
        replace(plain, noise_of_bands=(1.0, 2.0))


def test_artefacts_of_a_sky_are_light_that_nothing_masks() -> None:
    """They are the same in every tiling; without them a sky is what it was before there was such a setting."""
    odd = replace(SKY, artefacts=6.0)
    box, part = Box(0, 0, SKY.width, SKY.height), Box(190, 130, 420, 390)
    plain, truth = SKY.render(box)
    tile, again = odd.render(box)
    np.testing.assert_array_equal(odd.render(part)[0].image, tile.image[:, 130:390, 190:420])
    np.testing.assert_array_equal(tile.mask, plain.mask)
    assert _text(truth) == _text(again)
    light = np.nan_to_num(tile.image - plain.image)
    assert all((band > 5 * 2.5).sum() > 20 for band in light)
    assert not np.array_equal(light[0], light[1])
    assert "artefacts" not in run._record(SKY)
    assert run._record(odd)["artefacts"] == 6.0
    for wrong in ({"artefacts": -1.0}, {"artefacts": math.nan}, {"artefacts": 1e12}, {"density": math.nan}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            replace(SKY, **wrong)
