"""Geometry and world coordinates."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from astroml_plugin.core.errors import InputError
from astroml_plugin.sky.wcs import Box, Wcs, astropy_quiet, cut_tiles, healpix29, separation


def header(
    ctype: tuple[str, str] = ("RA---TAN", "DEC--TAN"), centre: tuple[float, float] = (150.0, 2.0), **extra
) -> fits.Header:
    """A 1000 x 800 image at 0.2 arcsec per pixel."""
    cards = {"NAXIS": 2, "NAXIS1": 1000, "NAXIS2": 800, "CTYPE1": ctype[0], "CTYPE2": ctype[1]}
    cards |= {"CRPIX1": 400.5, "CRPIX2": 300.25, "CRVAL1": centre[0], "CRVAL2": centre[1]}
    cards |= {"CD1_1": -5.5e-5, "CD1_2": 1e-6, "CD2_1": 1.2e-6, "CD2_2": 5.6e-5, "OBJECT": "not a WCS card", **extra}
    return fits.Header(cards)


SIP = {"A_ORDER": 2, "A_2_0": 1e-6, "A_0_2": -2e-6, "B_ORDER": 2, "B_1_1": 2e-6, "B_2_0": 1e-6}
TPV = {"PV1_0": 1e-5, "PV1_1": 1.0005, "PV1_4": 1e-3, "PV2_1": 0.9995, "PV2_4": 2e-3}
CASES = {
    "TAN": header(),
    "SIP": header(("RA---TAN-SIP", "DEC--TAN-SIP"), **SIP),
    "TPV": header(("RA---TPV", "DEC--TPV"), **TPV),
    "CAR": header(("GLON-CAR", "GLAT-CAR"), (0.02, 0.0)),
    "swapped": header(("DEC--TAN", "RA---TAN"), (2.0, 150.0)),
    "FK5": header(RADESYS="FK5", EQUINOX=1975.0),
    "pole": header(centre=(10.0, 89.999)),
}


@pytest.mark.parametrize("name", CASES)
def test_positions_agree_with_astropy_whole_and_in_a_tile(name: str) -> None:
    x, y = np.meshgrid([-0.5, 0.0, 499.3, 999.5], [-0.5, 0.0, 400.0, 799.5])
    x, y = x.ravel(), y.ravel()
    with astropy_quiet():
        sky = WCS(CASES[name]).pixel_to_world(x, y).icrs
    wcs = Wcs.from_header(CASES[name])
    tile = wcs.shifted(-37, 411, (512, 512))
    for one, dx, dy in ((wcs, 0, 0), (tile, -37, 411), (pickle.loads(pickle.dumps(tile)), -37, 411)):
        back = one.to_pixel(sky.ra.deg, sky.dec.deg)
        np.testing.assert_allclose(back[0] + dx, x, atol=1e-4)
        np.testing.assert_allclose(back[1] + dy, y, atol=1e-4)
        apart = separation(*one.to_sky(x - dx, y - dy), sky.ra.deg, sky.dec.deg) * 3600
        assert apart.max() < 1e-4 * wcs.pixel_scale
    assert tile.shifted(37, -411, (800, 1000)).shape == (800, 1000)
    assert "OBJECT" not in wcs.header


@pytest.mark.parametrize("name", ["TAN", "SIP", "TPV"])
def test_far_positions_have_no_pixel(name: str) -> None:
    wcs = Wcs.from_header(CASES[name])
    x, y = wcs.to_pixel([330.0, 150.0, np.nan, 150.0], [-2.0, 2.0, 1.0, 95.0])
    assert np.isnan(x[[0, 2, 3]]).all()
    assert np.isnan(y[[0, 2, 3]]).all()
    assert abs(x[1] - 399.5) < 1


def test_jacobian_is_west_and_north_per_pixel() -> None:
    wcs = Wcs.from_header(header(CD1_1=-1e-4, CD1_2=0.0, CD2_1=0.0, CD2_2=1e-4))
    np.testing.assert_allclose(wcs.jacobian(399.5, 299.25)[0], [[0.36, 0], [0, 0.36]], atol=1e-6)
    assert wcs.pixel_scale == pytest.approx(0.36, rel=1e-5)
    pole = Wcs.from_header(CASES["pole"]).jacobian([0, 999], [0, 799])
    np.testing.assert_allclose(np.abs(np.linalg.det(pole)), (5.5e-5 * 5.6e-5 + 1.2e-12) * 3600**2, rtol=1e-3)


def test_the_celestial_part_of_a_cube() -> None:
    cube = header(CTYPE3="FREQ", CRPIX3=1.0, CRVAL3=1e9, CDELT3=1e6, CUNIT3="Hz", WCSAXES=3)
    plain = Wcs.from_header(header()).to_sky(10, 20)
    np.testing.assert_allclose(Wcs.from_header(cube).to_sky(10, 20), plain)


def test_odd_headers_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Wcs.from_header(header(**SIP)).to_sky(1, 2)
    printed = capsys.readouterr()
    assert printed.out + printed.err == ""


def test_a_header_without_wcs_is_refused() -> None:
    with pytest.raises(InputError, match="pixel positions"):
        Wcs.from_header(fits.Header({"NAXIS": 2, "NAXIS1": 5, "NAXIS2": 5}))


@pytest.mark.parametrize(
    ("height", "width", "size", "halo"), [(800, 1000, 300, 20), (5, 7, 512, 128), (256, 256, 256, 0)]
)
def test_inner_boxes_partition_the_image(height: int, width: int, size: int, halo: int) -> None:
    owners = np.zeros((height, width), int)
    for tile in cut_tiles(height, width, size, halo):
        assert (tile.outer.width, tile.outer.height) == (size, size)
        owners[tile.inner.y0 : tile.inner.y1, tile.inner.x0 : tile.inner.x1] += 1
        assert tile.inner.x0 - tile.outer.x0 == halo
    assert (owners == 1).all()


def test_a_halo_that_leaves_no_inner_part_is_refused() -> None:
    with pytest.raises(InputError, match="halo of 128"):
        cut_tiles(10, 10, 256, 128)


def test_ownership_is_by_the_pixel_under_the_centre() -> None:
    box = Box(0, 0, 10, 10)
    x = np.array([-0.51, -0.5, 9.49, 9.5, np.nan])
    assert box.contains(x, 0 * x + 1).tolist() == [False, True, True, False, False]


def test_healpix_of_order_29() -> None:
    index = healpix29([0.0, np.nan, 266.4], [90.0, 1.0, -29.0])
    assert index.dtype == np.int64
    assert index[1] == -1
    assert ((index[[0, 2]] >= 0) & (index[[0, 2]] < 12 * 4**29)).all()


@pytest.mark.shared_data
def test_real_headers(shared_data: Path) -> None:
    files = [("spitzer/spitzer_example_image.fits", 0), ("sdss/frame-r-001000-1-0100.fits.bz2", 0)]
    files += [(str(path), 1) for path in sorted((shared_data / "decam_bass_mzls").rglob("*oo*.fits*"))[::20]]
    for name, number in files:
        with astropy_quiet(), fits.open(shared_data / name) as hdus:
            original = hdus[number].header
            sky_of = WCS(original).pixel_to_world
            width, height = original["NAXIS1"], original["NAXIS2"]
            x, y = np.array([-0.5, width - 0.5, -0.5, width - 0.5]), np.array([-0.5, -0.5, height - 0.5, height - 0.5])
            sky = sky_of(x, y).icrs
        tile = Wcs.from_header(original).shifted(13, -8)
        back = tile.to_pixel(sky.ra.deg, sky.dec.deg)
        assert np.abs(back[0] + 13 - x).max() < 1e-3, name
        assert np.abs(back[1] - 8 - y).max() < 1e-3, name
