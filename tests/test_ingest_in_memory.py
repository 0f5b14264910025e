"""Images from Python and scenes of archives: pixels, units, noise, masks and sky are those of files with the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, NDData, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from astropy.wcs import WCS

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.pixels import Tile
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo
from tests import universe
from workflows.cli import main
from workflows.ingest import dry_run, ingest

HEADER = fits.Header.fromstring(universe.header(60, 50), sep="\n")
PIXELS = np.random.default_rng(1).normal(0, 3, (60, 50)).astype(np.float32)
BAD = np.zeros((60, 50), bool)
BAD[5:7, 9] = True
CORNERS = WCS(HEADER).pixel_to_world_values([0, 42], [0, 22])


def only_tile(url: str) -> tuple[Tile, TileInfo]:
    """Pixels of the image in the one tile of a survey, and its row."""
    survey = Survey.open(url)
    info = survey.tile(0)
    tile = survey.read_tile(info, verify=True)
    inside = np.s_[:, -info.outer.y0 : info.image_shape[0] - info.outer.y0]
    part = (*inside, slice(-info.outer.x0, info.image_shape[1] - info.outer.x0))
    cut = [None if values is None else values[part] for values in (tile.variance, tile.mask)]
    return Tile(tile.image[part], *cut, tile.psf), info


def sky(header: str | None) -> np.ndarray:
    """Positions of two pixels of a tile's array, 128 of halo before the image."""
    assert header is not None
    return np.array(WCS(fits.Header.fromstring(header, sep="\n")).pixel_to_world_values([128, 170], [128, 150]))


IMAGES: dict[str, Any] = {
    "ccd": CCDData(
        PIXELS, unit="nJy", wcs=WCS(HEADER), mask=BAD, uncertainty=StdDevUncertainty(np.full((60, 50), 3.0)), meta={}
    ),
    "variance": NDData(
        PIXELS.astype(np.float64),
        unit="nJy",
        wcs=WCS(HEADER),
        mask=BAD,
        uncertainty=VarianceUncertainty(np.full((60, 50), 9e-6), unit=u.uJy**2),
    ),
    "inverse": NDData(
        PIXELS, unit="nJy", wcs=WCS(HEADER), mask=BAD, uncertainty=InverseVariance(np.full((60, 50), 1 / 9))
    ),
}


@pytest.mark.parametrize("kind", list(IMAGES))
def test_pixels_noise_mask_unit_and_sky_of_nddata(tmp_path: Path, client: object, kind: str) -> None:
    result = ingest(IMAGES[kind], out=tmp_path / "s.zarr", bands="r", name="mine", client=client)
    tile, info = only_tile(result.source)
    assert (info.image, info.units, info.zero_points["r"]) == ("mine", {"r": "nJy"}, pytest.approx(31.4, abs=1e-3))
    np.testing.assert_array_equal(tile.image[0], PIXELS)
    assert tile.variance is not None
    assert tile.mask is not None
    np.testing.assert_allclose(tile.variance[0], 9.0, rtol=1e-5)
    np.testing.assert_array_equal(tile.mask[0], np.where(BAD, int(MaskBit.BAD), 0))
    np.testing.assert_allclose(sky(info.header), CORNERS, rtol=0, atol=1e-10)
    assert result.warnings == ()
    again = ingest(IMAGES[kind], out=tmp_path / "s.zarr", bands="r", name="mine", client=client)
    assert (again.units_done, again.units_skipped) == (0, 1)
    assert not list(tmp_path.rglob("*.fits"))


def test_arrays_hdulists_paths_and_folders(tmp_path: Path, client: object) -> None:
    cube, header = np.stack([PIXELS, 2 * PIXELS, 3 * PIXELS]), HEADER.copy()
    header["BUNIT"] = "nJy"
    several = ingest((cube, WCS(HEADER)), out=str(tmp_path / "cube.zarr"), bands="g,r,i", client=client).source
    tile, info = only_tile(several)
    np.testing.assert_array_equal(tile.image, cube)
    np.testing.assert_allclose(sky(info.header), CORNERS, rtol=0, atol=1e-10)
    planes = ingest(
        [(PIXELS * u.nJy, WCS(HEADER)), (2 * PIXELS, header)], out=tmp_path / "two.zarr", bands="g,r", client=client
    )
    np.testing.assert_array_equal(only_tile(planes.source)[0].image, cube[:2])
    assert only_tile(planes.source)[1].units == {"g": "nJy", "r": "nJy"}
    hdus = fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(PIXELS, header, "SCI"), fits.ImageHDU(PIXELS * 0 + 2, name="ERR")]
    )
    tile, info = only_tile(ingest(hdus, out=tmp_path / "hdus.zarr", client=client).source)
    assert tile.variance is not None
    np.testing.assert_array_equal(tile.variance[0], np.full((60, 50), 4.0))
    (tmp_path / "night").mkdir()
    hdus.writeto(tmp_path / "night" / "a.fits")
    with fits.open(tmp_path / "night" / "a.fits") as opened:
        held = ingest(opened, out=tmp_path / "held.zarr", client=client).source
    for source in (held, ingest(tmp_path / "night", out=tmp_path / "night.zarr", client=client).source):
        tile, info = only_tile(source)
        assert info.image == "a"
        np.testing.assert_array_equal(tile.image[0], PIXELS)


def test_a_masked_array_and_one_without_a_sky(tmp_path: Path, client: object) -> None:
    tile, info = only_tile(ingest(np.ma.MaskedArray(PIXELS, BAD), out=tmp_path / "s.zarr", client=client).source)
    assert info.header is None
    assert tile.mask is not None
    assert (tile.mask[0] > 0).tolist() == BAD.tolist()


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((3, 60, 50)), "has 3 bands: name as many"),
        (np.zeros(60), "has the shape"),
        (np.zeros((60, 50), complex), "no real numbers"),
        (CCDData(PIXELS, unit="adu", uncertainty=UnknownUncertainty(PIXELS)), "is no noise of pixels"),
        (NDData(PIXELS, uncertainty=StdDevUncertainty(PIXELS[:5])), "one value per pixel"),
        (NDData(PIXELS, mask=BAD[:5]), "one value per pixel"),
        ({"images": PIXELS}, "this is a dict"),
        ([PIXELS.tolist()], "this is a list"),
        (7, "this is a int"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path: Path, image: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as found:
        ingest(image, out=tmp_path / "s.zarr")
    assert "\n" not in str(found.value)
    with pytest.raises(InputError, match="looks at files"):
        dry_run(PIXELS)


def test_a_scene_of_several_bands_in_an_archive_is_a_survey(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], client: object
) -> None:
    cube = np.stack([PIXELS, 2 * PIXELS])
    psfs = np.stack([np.eye(15), np.ones((15, 15))]).astype(np.float32)
    noise = np.abs(cube) + 1
    scene = {"images": cube, "variance": noise, "psfs": psfs, "filters": np.array(["g", "r"])}
    np.savez(tmp_path / "scene.npz", mask=np.stack([BAD, ~BAD]), **scene)
    assert main(["ingest", str(tmp_path / "scene.npz"), "--out", str(tmp_path / "s.zarr")]) == 0
    survey = Survey.open(str(tmp_path / "s.zarr"))
    tile, info = only_tile(survey.url)
    assert (survey.bands, info.image) == (("g", "r"), "scene")
    np.testing.assert_array_equal(tile.image, cube)
    np.testing.assert_array_equal(tile.variance, noise)
    assert tile.psf is not None
    np.testing.assert_array_equal(tile.psf[:, 0, 0], psfs)
    assert tile.mask is not None
    np.testing.assert_array_equal(tile.mask > 0, np.stack([BAD, ~BAD]))
    assert ingest(str(tmp_path / "scene.npz"), out=survey.url, client=client).units_skipped == 1
    with pytest.raises(InputError, match=r"2 bands \(g, r\), and 3 names"):
        ingest(str(tmp_path / "scene.npz"), out=tmp_path / "t.zarr", bands="g,r,i", client=client)


@pytest.mark.shared_data
def test_the_hsc_scene_is_a_survey_of_five_bands(shared_data: Path, tmp_path: Path, client: object) -> None:
    survey = Survey.open(ingest(shared_data / "hsc_cosmos_35.npz", out=tmp_path / "s.zarr", client=client).source)
    assert survey.bands == ("g", "r", "i", "z", "y")
    tile, info = only_tile(survey.url)
    with np.load(shared_data / "hsc_cosmos_35.npz") as archive:
        np.testing.assert_array_equal(tile.image, archive["images"])
        assert info.image_shape == archive["images"].shape[1:]
