"""Tiles from images in memory and from files are the tiles that an ingest stores, and can be measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, NDData, StdDevUncertainty
from astropy.wcs import WCS

import astroml_plugin as ap
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.sources.survey import Survey
from tests import universe
from workflows.ingest import ingest

HEADER = fits.Header.fromstring(universe.header(90, 70), sep="\n")
BAD = np.zeros((90, 70), bool)
BAD[5:7, 9] = True


def ccd(seed: int) -> CCDData:
    pixels = universe.field(90, 70, 1, seed)[0] + 20
    noise = StdDevUncertainty(np.full((90, 70), 1.0))
    return CCDData(pixels, unit="nJy", wcs=WCS(HEADER), mask=BAD, uncertainty=noise, meta={"FILTER": "r"})


def assert_stored(tile: ap.Tile, survey: Survey) -> None:
    """Equal to the only tile of a survey, arrays and all that is known of them."""
    stored = ap.Tile.from_survey(survey, 0)
    assert tile.bands == stored.bands
    for name in ("image", "variance", "mask", "psf"):
        np.testing.assert_array_equal(getattr(tile, name), getattr(stored, name), err_msg=name)
    apart = {"source": "", "source_id": "", "checksum": ""}
    assert replace(tile.info, **apart) == replace(stored.info, **apart)  # type: ignore[arg-type]


def test_ccddata_by_hand_is_what_ingest_stores(tmp_path: Path, client: object) -> None:
    images = [ccd(1), ccd(2)]
    ingest(images, out=tmp_path / "s.zarr", bands="g,r", name="mine", client=client)
    tile = ap.Tile.from_ccddata(images, bands="g,r", name="mine")
    assert_stored(tile, Survey.open(str(tmp_path / "s.zarr")))
    assert tile.zero_points == (pytest.approx(31.4, abs=1e-3),) * 2
    assert any("sky was taken off" in note for note in tile.notes)
    assert (tile.mask[0, 128 : 128 + 90, 128 : 128 + 70][BAD] == int(MaskBit.BAD)).all()  # type: ignore[index]
    table = ap.measure(
        tile,
        {"object_id": [5], "ra": [float(HEADER["CRVAL1"])], "dec": [float(HEADER["CRVAL2"])]},
        universe.make_bundle(str(tmp_path / "kind")),
    ).table
    np.testing.assert_allclose([table["x"][0].as_py(), table["y"][0].as_py()], [34, 44], atol=1e-6)


def test_files_are_what_ingest_stores(tmp_path: Path, client: object) -> None:
    noise = fits.ImageHDU(np.full((90, 70), 4.0, np.float32), name="VARIANCE")
    y, x = np.mgrid[:9, :9] - 4
    psf = fits.ImageHDU(np.exp(-(x**2 + y**2) / 6.0).astype(np.float32), name="PSF")
    image = fits.ImageHDU(universe.field(90, 70, 1)[0], HEADER, "IMAGE")
    fits.HDUList([fits.PrimaryHDU(), image, noise, psf]).writeto(tmp_path / "one.fits")
    ingest(str(tmp_path / "one.fits"), out=tmp_path / "s.zarr", bands="r", halo=40, client=client)
    tile = ap.Tile.from_fits(tmp_path / "one.fits", bands=["r"], halo=40)
    assert tile.psf is not None
    assert_stored(tile, Survey.open(str(tmp_path / "s.zarr")))


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "array": (np.zeros((9, 9)), {}, "ndarray is no NDData"),
    "cube": (NDData(np.zeros((3, 9, 9))), {}, "has 3 bands: name as many"),
    "grids": ([NDData(np.ones((9, 9))), NDData(np.ones((9, 8)))], {"bands": "g,r"}, "different shapes"),
    "tiles": (NDData(np.ones((9, 9))), {"tile_size": 64}, "tile_size would do nothing"),
    "stamps": (NDData(np.ones((9, 9))), {"block": 3}, "would do nothing for FITS images"),
    "option": (NDData(np.ones((9, 9))), {"bcakground": "off"}, "did you mean 'background'"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_images_that_make_no_tile_are_one_sentence(case: str) -> None:
    given, changes, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        ap.Tile.from_nddata([given] if isinstance(given, np.ndarray) else given, **changes)


def test_several_images_are_refused(tmp_path: Path) -> None:
    hdus = [fits.ImageHDU(universe.field(40, 40, 1, seed)[0], name=f"SCI{seed}") for seed in (1, 2)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "two.fits")
    with pytest.raises(InputError, match=r"2 images are given .* choose one"):
        ap.Tile.from_fits(tmp_path / "two.fits")
    assert ap.Tile.from_fits(tmp_path / "two.fits", hdu="SCI2").info.image.startswith("two")


@pytest.mark.shared_data
@pytest.mark.parametrize("file", ["sdss/frame-r-001000-1-0100.fits.bz2", "euclid/group.fits"])
def test_real_images_are_measured(shared_data: Path, file: str) -> None:
    """A frame of SDSS and a field of Euclid in four bands, as downloaded: objects found and rows for them."""
    bands = "r" if "sdss" in file else None
    tile = ap.Tile.from_fits(shared_data / file, bands=bands)
    found = ap.measure(tile, None, "segmentation")
    assert found.labels is not None
    assert found.table.num_rows > 3
    at = np.array([found.table[axis].to_numpy() for axis in "yx"]).round().astype(int)
    owners = found.labels[at[0] - tile.info.outer.y0, at[1] - tile.info.outer.x0]
    assert (owners == found.table["label_id"].to_numpy()).mean() > 0.8
    given = found.table.select(["object_id", "ra", "dec"])
    band = {"band": "VIS"} if bands is None else {}
    again = ap.measure(tile, given, "ellipticity", outside="leave", assumed_psf_fwhm=1.2, **band)
    assert again.table.num_rows + again.unplaced.num_rows == found.table.num_rows  # type: ignore[union-attr]
