"""What the pixels or the place of a plane contradict is said: errors, padding, half a WCS, empty maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from astroml_plugin.core.flags import MaskBit
from astroml_plugin.core.typing import F64
from astroml_plugin.sky.headers import coordinates_of
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.ingest import FitsOptions
from astroml_plugin.sources.ingest.band_pixels import read_band
from astroml_plugin.sources.ingest.bands import band_plan
from astroml_plugin.sources.ingest.exposures import exposures
from astroml_plugin.sources.ingest.info import describe_fits
from astroml_plugin.sources.ingest.looking import no_psf
from astroml_plugin.sources.ingest.measuring import BandTask, measure_band
from astroml_plugin.sources.ingest.opening import open_fits
from astroml_plugin.sources.ingest.padding import fill_of, padding_of
from tests.test_ingest_background import sky_by
from tests.test_ingest_fits import WCS_CARDS

SIDE = 120


def said(path: Path, sci: Any, cards: dict[str, Any] | None = None, **planes: Any) -> list[str]:
    """What is said of an image with planes; (values, cards) for a plane with its own WCS."""
    hdus: list[Any] = [fits.PrimaryHDU(), fits.ImageHDU(sci, fits.Header({**WCS_CARDS, **(cards or {})}), name="SCI")]
    for name, plane in planes.items():
        values, own = plane if isinstance(plane, tuple) else (plane, {})
        hdus.append(fits.ImageHDU(values, fits.Header({**WCS_CARDS, **own}), name=name))
    fits.HDUList(hdus).writeto(path, overwrite=True)
    notes = band_plan(exposures(str(path), FitsOptions())[0], 0, FitsOptions())[1]
    return [note for note in notes if "zero point" not in note]


def deviates(sigma: float = 15.0, seed: int = 3) -> Any:
    return np.random.default_rng(seed).normal(0, sigma, (SIDE, SIDE)).astype("f4")


def test_errors_that_are_not_the_noise_of_the_image_are_said(tmp_path: Path) -> None:
    path, one = tmp_path / "a.fits", np.ones((SIDE, SIDE), "f4")
    for sigma in (2.5, 15.0, 25.0):
        told = said(path, deviates(sigma), WHT=one)
        assert len(told) == 1
        assert "but its typical error is 1 where SCI has noise of" in told[0]
    for error in (9.0, 15.0, 28.0):
        assert said(path, deviates(), ERR=one * error) == []
    assert "typical error is 40" in said(path, deviates(), ERR=one * 40)[0]
    resampled = np.repeat(np.repeat(deviates()[:40, :40], 3, 0), 3, 1)  # pixels of 3 x 3: noise that adds up
    resampled += deviates(5, 4)
    assert said(path, resampled, ERR=one * 20) == []


def test_weights_of_astrodrizzle_are_seconds(tmp_path: Path) -> None:
    time = np.full((SIDE, SIDE), 2000, "f4")
    told = said(tmp_path / "a.fits", deviates(0.01), {"EXPTIME": 2000.0}, WHT=time)
    told += said(tmp_path / "b.fits", deviates(0.02), {"D001WTSC": "exptime"}, WHT=time)
    assert ["is no error but an exposure" in note for note in told] == [True, True]


def test_empty_maps_and_planes_of_another_place_are_said(tmp_path: Path) -> None:
    path, one = tmp_path / "a.fits", np.ones((SIDE, SIDE), "f4")
    for nothing in (0, -1, np.nan):
        assert "ERR (std) has no value above 0" in said(path, deviates(), ERR=one * nothing)[0]
    assert "DQ (mask) is 4 everywhere" in said(path, deviates(), DQ=(4 * one).astype("i4"))[0]
    assert "SCI (image) has no finite pixel" in said(path, one * np.nan)[0]
    assert "PSF (psf) is -1 everywhere" in said(path, deviates(), PSF=-one[:21, :21])[0]
    assert no_psf(-one[None, :21, :21])
    assert not no_psf(deviates()[None])
    assert said(path, deviates(), ERR=(15 * one, {"CRPIX1": 30.4})) == []
    told = said(path, deviates(), ERR=(15 * one, {"CRVAL2": 3.0}))
    assert told[0].startswith("ERR (std) lies 2e+04 pixels away from SCI by its WCS")


@pytest.mark.parametrize(
    ("without", "cards", "problem"),
    [
        (["CRVAL1"], {}, "it has no CRVAL1"),
        (["CRVAL2"], {}, "it has no CRVAL2"),
        (["CTYPE1", "CTYPE2"], {}, "it has no CTYPE1 and CTYPE2"),
        (["CTYPE1", "CTYPE2"], {"CRVAL1": 1.0, "CRVAL2": 1.0, "CD1_1": 1.0, "CD2_2": 1.0}, ""),
    ],
)
def test_half_a_wcs_is_none_and_it_is_said(without: list[str], cards: dict[str, Any], problem: str) -> None:
    header = fits.Header({**WCS_CARDS, **cards})
    for card in without:
        del header[card]
    found = coordinates_of(header)
    assert found.cards is None
    assert found.problem.startswith(problem)
    assert bool(found.problem) == bool(problem)


def test_a_map_without_reference_is_at_0_and_it_is_said() -> None:
    header = fits.Header({"CTYPE1": "RA---CAR", "CTYPE2": "DEC--CAR", "CDELT1": -1.0, "CDELT2": 1.0})
    assert "0 is taken for both" in coordinates_of(header).notes[0]


def padded(level: float, noise: float, side: int = 640) -> tuple[F64, Any]:
    """A sky with 42 % of zeros about it, as a rotated mosaic has, and where they are."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    border = np.abs(x) + np.abs(y) > 0.54
    return np.where(border, 0, level + np.random.default_rng(1).normal(0, noise, (side, side))), border


@pytest.mark.parametrize("choice", ["auto", "level", "mesh"])
def test_zeros_about_a_mosaic_are_no_sky(choice: str) -> None:
    image, _ = padded(1000, 30)
    sky = sky_by(image, choice)
    assert (sky.taken, sky.padded) == (True, True)
    assert sky.level == pytest.approx(1000, abs=2)
    assert sky.noise == pytest.approx(30, rel=0.03)


def test_zeros_that_are_values_stay() -> None:
    random, everything = np.random.default_rng(2), np.ones((640, 640), bool)
    border = padded(0, 1)[1]
    for image in (random.poisson(0.05, border.shape), random.poisson(3.0, border.shape), padded(0.0, 5)[0]):
        assert padding_of(image.astype("f8"), everything) is None
        assert padding_of(np.where(border, 0, image).astype("f8"), everything) is None
    distance = np.hypot(*(np.mgrid[:640, :640] - 320))
    assert padding_of(np.where(distance < 300, 1000 * np.exp(-distance / 60), 0), everything) is None


@pytest.mark.parametrize(("fill", "level"), [(-99.0, 0.0), (1e20, 50.0), (-32768.0, 0.3)])
def test_values_for_missing_pixels_are_no_light(tmp_path: Path, fill: float, level: float) -> None:
    image, border = padded(level, 2)
    image = np.where(border, fill, image + level).astype("f4")
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(image).writeto(path)
    band = band_plan(exposures(str(path), FitsOptions())[0], 0, FitsOptions())[0]
    sky = measure_band(BandTask(band, image.shape, (0, 0), FitsOptions())).sky
    assert sky.fills == pytest.approx((fill,))
    assert sky.noise == pytest.approx(2, rel=0.03)
    with open_fits(str(path)) as file:
        pixels, _, mask = read_band(replace(band, sky=sky), Box(0, 0, 640, 640), {str(path): file})
    assert (np.isnan(pixels) == border).all()
    assert ((mask & MaskBit.NO_DATA > 0) == border).all()
    assert f"pixels of exactly {fill:g} are far from all others" in str(describe_fits(str(path)))


def test_a_block_between_the_rows_that_were_looked_at_is_found(tmp_path: Path) -> None:
    image = np.random.default_rng(3).normal(0, 2, (2100, 300)).astype("f4")
    image[10:60, 100:200] = -99  # rows 112 to 144 are looked at, then 368 to 400
    path = str(tmp_path / "a.fits")
    fits.PrimaryHDU(image).writeto(path)
    band = band_plan(exposures(path, FitsOptions())[0], 0, FitsOptions())[0]
    sky = measure_band(BandTask(band, image.shape, (0, 0), FitsOptions())).sky
    with open_fits(path) as file:
        pixels = read_band(replace(band, sky=sky), Box(0, 0, 300, 2100), {path: file})[0]
    assert (np.isnan(pixels) == (image == -99)).all()


def test_clipped_full_and_counted_pixels_are_no_fill() -> None:
    image, everything = deviates(10), np.ones((SIDE, SIDE), bool)
    full = np.where(np.arange(SIDE) < 20, np.float32(65535), image)  # saturated
    few = np.random.default_rng(1).poisson(0.3, image.shape).astype("f4")
    for seen in (image, full, np.clip(image, -10, None), few, np.round(image), few - 1):
        assert fill_of(seen, everything) is None


def test_padding_has_no_data_and_info_says_what_is_doubtful(tmp_path: Path) -> None:
    image, border = padded(100, 25)  # 4 noises from 0
    path = str(tmp_path / "a.fits")
    fits.PrimaryHDU(image.astype("f4")).writeto(path)
    exposure = exposures(path, FitsOptions())[0]
    band = band_plan(exposure, 0, FitsOptions())[0]
    sky = measure_band(BandTask(band, image.shape, (0, 0), FitsOptions())).sky
    object.__setattr__(band, "sky", sky)
    with open_fits(path) as file:
        pixels, _, mask = read_band(band, Box(0, 0, 640, 640), {path: file})
    assert (np.isnan(pixels) == border).all()
    assert ((mask > 0) == border).all()
    stripes = np.random.default_rng(5).normal(0, 40, (640, 1)) + np.random.default_rng(6).normal(900, 1, (640, 640))
    fits.PrimaryHDU(stripes.astype("f4")).writeto(path, overwrite=True)
    assert "times as much as neighbours in a row differ, as with stripes" in " ".join(str(describe_fits(path)).split())
