"""The PSF of an image from its stars: right to a percent, judged by stars left out, refused where stars are too few."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from scipy.spatial import cKDTree

from astroml_plugin.compute import cluster
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.info import describe_source
from astroml_plugin.sources.ingest import FitsOptions
from astroml_plugin.sources.star_psf import finding
from astroml_plugin.sources.star_psf.choosing import choose_stars
from astroml_plugin.sources.star_psf.finding import find_objects
from astroml_plugin.sources.star_psf.judging import shapes
from astroml_plugin.sources.star_psf.measuring import StarPsf, measure_psf
from astroml_plugin.sources.survey import Survey
from tests.star_scenes import SIDE, scene, true_psf
from workflows.ingest import dry_run, ingest


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """One in-process cluster for the module."""
    with cluster.connect("local") as opened:
        yield opened


@pytest.fixture(scope="module")
def image() -> F64:
    """Pixels of the scene, with a column that has none."""
    pixels = scene()[0]
    pixels[:, 300] = np.nan
    return pixels


@pytest.fixture(scope="module")
def found(image: F64) -> StarPsf:
    """PSF of the scene."""
    return measure_psf(reader(image), image.shape)


def reader(image: F64) -> Any:
    def read(box: Box) -> tuple[Any, Any]:
        part = image[box.y0 : box.y1, box.x0 : box.x1]
        return part, np.isfinite(part)

    return read


def errors(found: StarPsf) -> F64:
    """(n, 3) errors of ln FWHM, e1 and e2 over the field."""
    at = np.linspace(40, SIDE - 40, 5)
    x, y = (part.ravel() for part in np.meshgrid(at, at))
    psf = found.at(x, y)
    return shapes(psf) - shapes(np.stack([true_psf(*place, psf.shape[-1]) for place in zip(x, y, strict=True)]))


def test_stars_alone_are_chosen_and_give_the_psf(image: F64, found: StarPsf) -> None:
    stars, objects = scene()[1], find_objects(reader(image), image.shape)
    choice = choose_stars(objects, image.shape)
    apart, _ = cKDTree(stars).query(np.column_stack([objects.x, objects.y])[choice.stars])
    assert len(choice.stars) > 40
    assert (apart > 1).sum() <= 1
    column, row = np.rint(objects.x[choice.stars]).astype(int), np.rint(objects.y[choice.stars]).astype(int)
    assert image[row, column].max() < 19_000  # nothing told that others are full
    assert np.abs(column - 300).min() > 2
    off = errors(found)
    assert np.abs(off[:, 0]).max() < 0.01
    assert np.abs(off[:, 1:]).max() < 0.006
    assert np.sqrt((off**2).mean(0)).max() < 0.004
    assert found.at(np.array([9.0]), np.array([9.0])).sum() == pytest.approx(1)


def test_stars_left_out_tell_how_good_it_is(found: StarPsf) -> None:
    quality = found.quality
    assert quality.doubt == ""
    assert quality.order in (1, 2)
    assert abs(quality.whole.fwhm_off) < 0.01
    assert quality.whole.fwhm_scatter < 0.02
    assert quality.whole.e_scatter < 0.02
    assert sum(zone.stars for zone in quality.zones) == quality.stars
    assert quality.rejected["galaxies and other shapes"] > 20
    other, _ = scene(3, stars=14, galaxies=10)
    assert measure_psf(reader(other), other.shape).quality.doubt.startswith("only ")


@pytest.mark.slow
def test_blocks_give_the_same(image: F64, found: StarPsf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "BLOCK", 300)
    other = measure_psf(reader(image), image.shape)
    assert abs(found.quality.stars - other.quality.stars) <= 3
    np.testing.assert_allclose(errors(found), errors(other), atol=0.004)


@pytest.mark.parametrize("stars", [0, 3])
def test_too_few_stars_are_refused(stars: int) -> None:
    image, _ = scene(4, stars=stars, galaxies=0, side=200)
    with pytest.raises(InputError, match=r"stars are too few for a PSF \(5 are the least.*--psf FILE"):
        measure_psf(reader(image), image.shape)
    for empty in (np.zeros((60, 70)), np.full((60, 70), np.nan)):
        with pytest.raises(InputError, match="0 stars are too few"):
            measure_psf(reader(empty), empty.shape)


def write(path: Path, image: F64, **planes: Any) -> str:
    hdus = [fits.ImageHDU(values.astype("f4"), name=name) for name, values in planes.items()]
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image.astype("f4"), name="SCI"), *hdus]).writeto(path)
    return str(path)


def run(client: Any, path: str, out: Path, **options: Any) -> tuple[Any, Survey]:
    result = ingest(path, out=str(out), client=client, halo=20, **{"tile_size": 360, **options})
    return result, Survey.open(str(out))


@pytest.mark.slow
def test_a_survey_has_it_in_cells(tmp_path: Path, client: Any, image: F64) -> None:
    path = write(tmp_path / "a.fits", image + 900)
    result, survey = run(client, path, tmp_path / "s.zarr", psf_from_stars=True)
    assert (result.failed, result.rows) == ((), 4)
    assert survey.psf_shape == (1, 1, 49, 49)
    for info in survey.iter_tiles():
        psf = survey.read_psf(info)[0, 0, 0].astype(np.float64)
        assert psf.sum() == pytest.approx(1, abs=1e-5)
        x, y = np.clip([(info.outer.x0 + info.outer.x1 - 1) / 2, (info.outer.y0 + info.outer.y1 - 1) / 2], 0, SIDE - 1)
        off = shapes(psf[None]) - shapes(true_psf(x, y, 49)[None])
        assert np.abs(off).max() < 0.012
        assert np.unravel_index(psf.argmax(), psf.shape) == (24, 24)
    whole = survey.star_psf().to_pylist()[0]
    assert (whole["image"], whole["band"], whole["zone"], whole["stars"] > 40) == ("a", "c000", 0, True)
    told = describe_source(survey)
    assert f"{whole['stars']} stars; FWHM 3.3" in told.facts["PSF of a c000"]
    assert [name for name in told.facts if "x 0-" in name]
    assert "the PSF of 1 band of images is from stars" in result.notes[-1]
    again, _ = run(client, path, tmp_path / "s.zarr", psf_from_stars=True)
    assert (again.units_done, again.units_skipped) == (0, 4)
    with pytest.raises(InputError, match="with other options"):
        run(client, path, tmp_path / "s.zarr")
    (told,) = dry_run(path, psf_from_stars=True)
    assert told.facts["PSF"] == "from the stars of each image (psf_from_stars)"


def test_nothing_changes_without_it_or_where_a_file_brings_one(tmp_path: Path, client: Any, image: F64) -> None:
    assert "psf_from_stars" not in FitsOptions().identity()
    assert FitsOptions(psf_from_stars=True).identity()["psf_from_stars"] is True
    brought = true_psf(0, 0, 25)
    path = write(tmp_path / "a.fits", image, PSF=brought)
    result, survey = run(client, path, tmp_path / "s.zarr", psf_from_stars=True, tile_size=600)
    assert (len(survey.star_psf()), result.notes) == (0, ())
    cells = survey.read_psf(survey.tile(0))[0]
    assert cells.shape == (2, 2, 49, 49)
    np.testing.assert_array_equal(cells[1, 0, 12:37, 12:37], brought.astype("f4"))
    (told,) = dry_run(path, psf_from_stars=True)
    assert told.facts["PSF"] == "as the files bring it"


def test_an_image_with_too_few_stars_fails_and_the_others_are_written(tmp_path: Path, client: Any) -> None:
    good, bad = write(tmp_path / "a.fits", scene(2, 40, 10, 256)[0]), write(tmp_path / "b.fits", scene(4, 2, 0, 200)[0])
    result = ingest([good, bad], out=str(tmp_path / "s.zarr"), client=client, psf_from_stars=True)
    assert result.rows == 1
    ((name, reason),) = result.failed
    assert name == "b_r0_c0"
    assert "too few for a PSF" in reason
    assert Survey.open(result.source).star_psf()["image"].unique().to_pylist() == ["a"]


@pytest.mark.shared_data
def test_a_real_image_of_few_stars_has_a_sane_one_and_a_warning(tmp_path: Path, client: Any, shared_data: Path) -> None:
    result = ingest(shared_data / "m51_512.fits", out=str(tmp_path / "s.zarr"), client=client, psf_from_stars=True)
    whole = Survey.open(result.source).star_psf().to_pylist()[0]
    assert 5 <= whole["stars"] < 20
    assert 2.3 < whole["fwhm"] < 2.8
    assert any("the PSF from stars is poor: only" in warning for warning in result.warnings)
