"""Pixels of FITS files as the numbers that the file means, however it is packed, compressed or scaled."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import astropy.io.fits
import numpy as np
import pytest
from astropy.io import fits

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from tests.test_ingest_fits import WCS_CARDS, noise, run, whole


def zipped(*contents: bytes) -> bytes:
    """A zip archive, stored, of some files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"x{number}.fits", content)
    return buffer.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    **{"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zip": zipped},
    **{"gzip twice": lambda data: gzip.compress(zipped(data)), "plain": lambda data: data},
}


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz"])
@pytest.mark.parametrize("packing", PACKED)
def test_the_first_bytes_say_how_a_file_is_packed(tmp_path: Path, client: Any, packing: str, name: str) -> None:
    data, quality = noise(), np.zeros((50, 70), "i4")
    quality[3, 4] = 1
    extension = fits.ImageHDU(quality, name="DQ")
    image = fits.ImageHDU(data, fits.Header(WCS_CARDS), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), image, extension]).writeto(tmp_path / "plain")
    (tmp_path / name).write_bytes(PACKED[packing]((tmp_path / "plain").read_bytes()))
    _, survey = run(client, str(tmp_path / name), tmp_path / "s.zarr")
    np.testing.assert_array_equal(whole(survey, "a")[0], data)
    np.testing.assert_array_equal(whole(survey, "a", "mask")[0] > 0, quality > 0)


def test_packings_that_are_not_read_name_the_remedy(tmp_path: Path, client: Any) -> None:
    lzw = Path(astropy.io.fits.__file__).parent / "tests" / "data" / "lzw.fits.Z"
    with pytest.raises(InputError, match=r"packed by compress.*unpack it with uncompress"):
        run(client, str(lzw), tmp_path / "s.zarr")
    (tmp_path / "two.fits").write_bytes(zipped(b"1", b"2"))
    with pytest.raises(InputError, match=r"zip archive of 2 files \(x0.fits, x1.fits\): unpack it"):
        run(client, str(tmp_path / "two.fits"), tmp_path / "s.zarr")
    (tmp_path / "cut.fits").write_bytes(gzip.compress(b"SIMPLE" * 999)[:-20])
    with pytest.raises(InputError, match="no readable FITS file"):
        run(client, str(tmp_path / "cut.fits"), tmp_path / "s.zarr")


def test_hcompress_is_exact_in_threads_and_over_files(tmp_path: Path, client: Any) -> None:
    """The decoder keeps state in C globals: without the lock almost every such run failed, and some stored nonsense."""
    truth = {}
    for name in ("a", "b"):
        image = (noise((150, 170), seed=len(truth)) / 7).astype("f4")
        options = {"compression_type": "HCOMPRESS_1", "tile_shape": (16, 170)}
        hdu = fits.CompImageHDU(image, fits.Header(WCS_CARDS), **options)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / f"{name}.fits")
        truth[name] = fits.getdata(tmp_path / f"{name}.fits", 1).astype("f4")
    _, survey = run(client, [str(tmp_path / "a.fits"), str(tmp_path / "b.fits")], tmp_path / "s.zarr")
    for name, pixels in truth.items():
        np.testing.assert_array_equal(whole(survey, name)[0], pixels)


@pytest.mark.parametrize("compressed", [False, True])
def test_asinh_magnitudes_of_panstarrs_become_light(tmp_path: Path, client: Any, compressed: bool) -> None:
    light = noise().astype(np.float64) * 10
    light[5, 6] = np.nan
    stored = (2.5 / np.log(10) * np.arcsinh((light - 12) / 60)).astype("f4")
    header = fits.Header({**WCS_CARDS, "BSOFTEN": 30.0, "BOFFSET": 12.0})
    if compressed:
        hdu: Any = fits.CompImageHDU(stored, header, compression_type="GZIP_1", quantize_level=0.0)
    else:
        hdu = fits.ImageHDU(stored, header)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "rings.v3.skycell.1004.016.stk.r.unconv.fits")
    _, survey = run(client, str(tmp_path / "*.fits"), tmp_path / "s.zarr", name="a")
    np.testing.assert_allclose(whole(survey, "a")[0], light, rtol=3e-6, atol=3e-4)


@pytest.mark.parametrize("errors", ["VARIANCE", "ERR", "WHT"])
@pytest.mark.parametrize("scale", [1e-20, 1e-31, 1e25])
def test_units_beyond_float32_are_scaled_with_their_zero_point(
    tmp_path: Path, client: Any, errors: str, scale: float
) -> None:
    """Variances of 1e-62 became 0 once, and the catalog was empty."""
    rng = np.random.default_rng(1)
    image, variance = rng.normal(5, 2, (50, 70)) * scale, np.full((50, 70), (2 * scale) ** 2)
    plane = {"VARIANCE": variance, "ERR": np.sqrt(variance), "WHT": 1 / variance}[errors]
    cards = fits.Header({**WCS_CARDS, "BUNIT": "erg/s/cm2", "MAGZERO": 20.0, "SATURATE": 8 * scale})
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(image, cards, name="SCI"), fits.ImageHDU(plane, name=errors)]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    _, survey = run(client, str(tmp_path / "a.fits"), tmp_path / "s.zarr")
    info = survey.tile(0)
    zero = info.zero_points["c000"]
    assert zero is not None
    factor = 10 ** ((zero - 20.0) / 2.5)
    assert 0.3 < 2 * scale * factor < 4
    assert info.units["c000"] == f"{1 / factor:.0e} erg/s/cm2"
    np.testing.assert_allclose(whole(survey, "a")[0], image * factor, rtol=1e-6)
    np.testing.assert_allclose(whole(survey, "a", "variance")[0], variance * factor**2, rtol=1e-6)
    saturated = whole(survey, "a", "mask")[0] & MaskBit.SATURATED > 0
    np.testing.assert_array_equal(saturated, image >= 8 * scale)


def test_no_variance_is_0_or_less(tmp_path: Path, client: Any) -> None:
    variance = np.full((50, 70), 4.0)
    variance[1, 2], variance[3, 4], variance[5, 6], variance[7, 8] = 0, -1, np.nan, 1e-60
    image = fits.ImageHDU(noise(), fits.Header(WCS_CARDS), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), image, fits.ImageHDU(variance, name="VAR")]).writeto(tmp_path / "a.fits")
    _, survey = run(client, str(tmp_path / "a.fits"), tmp_path / "s.zarr")
    stored, mask = whole(survey, "a", "variance")[0], whole(survey, "a", "mask")[0]
    lost = np.isnan(stored)
    assert [tuple(place) for place in np.argwhere(lost)] == [(1, 2), (3, 4), (5, 6), (7, 8)]
    assert (mask[lost] == MaskBit.BAD).all()
    assert (mask[~lost] == 0).all()
    assert (stored[~lost] == 4).all()


def test_errors_of_another_unit_than_their_image_are_refused(tmp_path: Path, client: Any) -> None:
    image = fits.ImageHDU(noise(), fits.Header(WCS_CARDS), name="SCI")
    variance = fits.ImageHDU(np.full((50, 70), 1e-60), name="VAR")
    fits.HDUList([fits.PrimaryHDU(), image, variance]).writeto(tmp_path / "a.fits")
    with pytest.raises(AssertionError, match="beyond float32"):
        run(client, str(tmp_path / "a.fits"), tmp_path / "s.zarr")
