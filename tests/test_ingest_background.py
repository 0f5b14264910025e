"""The sky of images: taken off where it is clear of 0, told, and never objects or variance with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from astroml_plugin.compute import cluster
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.core.typing import F64
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.info import describe_source
from astroml_plugin.sources.ingest import FitsOptions
from astroml_plugin.sources.ingest.measuring import measured_sky
from astroml_plugin.sources.ingest.sky import Sky, mesh_side, sky_of
from astroml_plugin.sources.ingest.sky_cells import measure
from tests.test_ingest_fits import run, whole
from workflows.ingest import ingest

SIDE = 640


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """One in-process cluster for the module."""
    with cluster.connect("local") as opened:
        yield opened


def scene(seed: int = 1, noise: float = 5.0, count: int = 150) -> tuple[F64, F64]:
    """Light of small objects and their noise, (y, x)."""
    rng = np.random.default_rng(seed)
    light = np.zeros((SIDE, SIDE))
    axis = np.arange(-12, 13)
    for _ in range(count):
        x, y = rng.integers(12, SIDE - 12, 2)
        spot = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / rng.uniform(1.5, 3) ** 2)
        light[y - 12 : y + 13, x - 12 : x + 13] += spot * rng.exponential(200)
    return light, rng.normal(0, noise, (SIDE, SIDE))


def slope() -> F64:
    """A sky with a slope and a fall towards a corner, (y, x)."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    return np.asarray(3000 + 25 * x - 15 * (x - 0.3) ** 2 - 20 * y**2)


def sky_by(image: F64, choice: str = "auto", mesh: int | None = None) -> Sky:
    def read(box: Box) -> tuple[Any, Any]:
        part = image[box.y0 : box.y1, box.x0 : box.x1]
        return part, np.isfinite(part)

    return measured_sky(read, image.shape, choice, mesh)


def write(path: Path, image: Any, **planes: Any) -> str:
    hdus = [fits.ImageHDU(values, name=name) for name, values in planes.items()]
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image, name="SCI"), *hdus]).writeto(path)
    return str(path)


def test_a_mesh_follows_the_sky_and_no_objects() -> None:
    light, noise = scene()
    sky = sky_by(slope() + light + noise)
    assert (sky.taken, sky.mesh) == (True, 128)
    assert "if it is light of objects, give --background level" in sky.doubt
    assert sky_by(3000 + light + noise).doubt == ""
    left = sky.at(Box(0, 0, SIDE, SIDE)) - slope()
    assert abs(float(np.median(left))) < 0.1 * 5
    assert np.abs(left).max() < 0.8 * 5
    assert sky.noise == pytest.approx(5, rel=0.03)
    assert sky.correlation == pytest.approx(1, abs=0.15)


def test_a_sky_at_zero_stays_as_it_is() -> None:
    for level in (0.0, 1.5, -1.5):
        light, noise = scene()
        assert not sky_by(level + light + noise).taken
    light, noise = scene()
    y = np.mgrid[:SIDE, :SIDE][0] / SIDE
    assert sky_by(light + noise - 12 * (y > 0.7)).taken  # nothing but sky is below 0


@pytest.mark.parametrize(("level", "share"), [(0.0, 0.2), (1.0, 0.2), (-2.2, 2.0), (60.0, 2.0)])
def test_some_rows_of_a_large_image_tell_a_sky_at_zero(level: float, share: float) -> None:
    light, _ = scene()
    image = np.tile(light, (4, 2)) + np.random.default_rng(2).normal(level, 5, (4 * SIDE, 2 * SIDE))
    looked_at = 0

    def read(box: Box) -> tuple[Any, Any]:
        nonlocal looked_at
        part = image[box.y0 : box.y1, box.x0 : box.x1]
        looked_at += part.size
        return part, np.isfinite(part)

    sky = measured_sky(read, image.shape, "auto", None)
    assert looked_at <= share * image.size
    whole_sky = sky_of(measure(read, image.shape, mesh_side(None, image.shape)), "auto")
    assert sky.taken == whole_sky.taken == (level == 60)
    assert sky.level == pytest.approx(whole_sky.level, abs=0.05 * 5)
    assert sky.noise == pytest.approx(whole_sky.noise, rel=0.03)
    assert sky.correlation == pytest.approx(whole_sky.correlation, abs=0.1)
    assert sky.fine == pytest.approx(whole_sky.fine, rel=0.03)


def test_large_objects_stay_and_those_that_fill_an_image_are_told() -> None:
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    light, noise = scene()
    galaxy = 2000 * np.exp(-np.hypot(y, x) / 25)
    image = slope() + light + noise + galaxy
    left = sky_by(image).at(Box(0, 0, SIDE, SIDE)) - slope()
    near = np.hypot(y, x) < 100
    assert np.abs(left[near]).max() < 2 * 5
    assert abs(left[near].sum()) < 0.03 * galaxy[near].sum()
    filled = 500 + noise + 3000 * np.exp(-np.hypot(y, x) / 150)
    sky = sky_by(filled)
    assert sky.doubt.startswith("its levels differ too much")
    assert sky.cells is not None
    assert sky.cells.shape == (1, 1)
    assert 480 < sky.level < 1000
    assert sky_by(filled, "mesh").mesh == 128
    assert sky_by(filled - 645).doubt  # without a sky it looks the same


def test_tiles_have_no_steps_and_the_variance_is_that_with_the_sky(tmp_path: Path, client: Any) -> None:
    light, noise = scene()
    image = slope() + light + noise
    image[100:140, 200:260] = 0  # padding
    image[300, 300] = np.nan
    variance = np.full(image.shape, 25.0)
    path = write(tmp_path / "a.fits", image.astype("f4"), VAR=variance.astype("f4"))
    shape = {"tile_size": 300, "halo": 20, "background": "auto"}
    result, survey = run(client, path, tmp_path / "s.zarr", **shape)
    _, other = run(client, path, tmp_path / "t.zarr", **{**shape, "tile_size": 700})
    np.testing.assert_array_equal(whole(survey, "a"), whole(other, "a"))  # whole compares the halos too
    stored, mask = whole(survey, "a")[0], whole(survey, "a", "mask")[0]
    expected = light + noise
    good = mask == 0
    assert np.abs(stored - expected)[good].max() < 4
    assert (mask[100:140, 200:260] == MaskBit.NO_DATA).all()
    assert mask[300, 300] == MaskBit.UNMASKED_NAN
    np.testing.assert_array_equal(whole(survey, "a", "variance")[0], variance.astype("f4"))
    assert len(result.notes) == 1
    assert "sky was taken off 1 image by a mesh of 128 pixels" in result.notes[0]
    quality = survey.tile(0).quality["c000"]
    assert quality.sky_taken == pytest.approx(float(np.median(slope()[:260, :260])), rel=0.002)
    assert abs(quality.sky_left) < 0.2
    assert quality.noise == pytest.approx(5, rel=0.05)
    told = describe_source(survey)
    assert "(mesh 128)" in told.column("sky taken")[0]
    assert not told.notes


def test_integers_and_saturation_are_those_of_the_file(tmp_path: Path, client: Any) -> None:
    light, noise = scene()
    raw = np.round(np.minimum(slope() + 10 * light + noise, 3500)).astype("i2")
    hdu = fits.PrimaryHDU(raw)
    hdu.header["SATURATE"] = 3500
    hdu.writeto(tmp_path / "a.fits")
    _, survey = run(client, str(tmp_path / "a.fits"), tmp_path / "s.zarr", tile_size=700, background="auto")
    mask = whole(survey, "a", "mask")[0]
    np.testing.assert_array_equal(mask & MaskBit.SATURATED > 0, raw >= 3500)
    stored = whole(survey, "a")[0]
    sky = raw - stored
    assert np.abs(sky - slope()).max() < 4
    assert np.ptp(np.diff(sky, axis=1)) < 0.1  # smooth: nothing of the pixels' own


def test_off_leaves_the_sky_and_says_so(tmp_path: Path, client: Any) -> None:
    light, noise = scene()
    path = write(tmp_path / "a.fits", (slope() + light + noise).astype("f4"))
    result, survey = run(client, path, tmp_path / "s.zarr", tile_size=700)
    assert not result.notes
    assert any("from 0: sky is left there, or light fills it" in warning for warning in result.warnings)
    assert survey.tiles_off_zero(("c000",)) == ["a_r0_c0"]
    assert describe_source(survey).notes
    quality = survey.tile(0).quality["c000"]
    assert (quality.sky_taken, quality.sky_mesh) == (0.0, 0.0)
    assert quality.sky_left > 500
    result, survey = run(client, path, tmp_path / "l.zarr", tile_size=700, background="level")
    assert len(np.unique(np.round((slope() + light + noise).astype("f4") - whole(survey, "a")[0], 1))) <= 2


def test_few_counts_constant_images_and_small_ones_are_left_alone(tmp_path: Path, client: Any) -> None:
    rng = np.random.default_rng(1)
    assert not sky_by(rng.poisson(0.02, (SIDE, SIDE)).astype(float)).taken
    assert not sky_by(np.full((SIDE, SIDE), 7.0)).taken
    assert not sky_by(np.full((SIDE, SIDE), np.nan)).taken
    assert sky_by(rng.normal(50, 5, (30, 31))).taken


def test_a_sky_whose_noise_is_not_known_has_no_number_of_noises(tmp_path: Path) -> None:
    image = np.random.default_rng(1).normal(50, 1, (8, 12)).astype(np.float32)  # too small for its noise
    (note,) = ingest(image, out=tmp_path / "s.zarr", bands="r", name="tiny", halo=4).notes
    assert "by one level, where the noise of a pixel is not known (tiny)" in note


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="background must be one of auto, mesh, level, off"):
        FitsOptions(background="yes")
    with pytest.raises(InputError, match="background_mesh must be 16 pixels or more"):
        FitsOptions(background_mesh=4)
    younger = {"background", "background_mesh"}
    assert not younger & {*FitsOptions(background="off").identity()}
    assert younger & {*FitsOptions().identity()}
