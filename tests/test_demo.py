"""The demo, small: simulated sky and folders of images, start to end."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
import pytest
from PIL import Image

pytest.importorskip("galsim", reason="needs the extra sim")

from astroml_plugin.catalog.objects.folder import find_images
from astroml_plugin.core.errors import InputError
from astroml_plugin.evaluation.gallery import cut, stretched
from astroml_plugin.simulation import Camera, Population, Sky, write_fits
from astroml_plugin.sources.background import background
from workflows.demo import DemoSky, demo
from workflows.progress import Reporter
from workflows.query import query

SMALL = DemoSky(side=256, tile_size=384, density=150.0, training=0.018, epochs=2)
"""So few stamps for training that they have no typicality."""


@pytest.fixture(scope="module")
def image_out(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One output for the folders of images, so that its models are trained once."""
    return str(tmp_path_factory.mktemp("images-out"))


def test_demo_on_a_simulated_sky_and_again(tmp_path: Path) -> None:
    told = io.StringIO()
    result = demo(out=str(tmp_path / "out"), progress=Reporter(told), size=SMALL)
    assert "[7/7]" in told.getvalue()
    assert result.rows > 20
    rows = query(result.catalogs[0]).to_arrow()
    assert rows.num_rows == result.rows
    asked = {"segmentation_area", "shapes_e1", "shapes_e1_err", "classes_label", "classes_p_star", "ra", "flags"}
    assert asked <= set(rows.column_names)
    assert not (tmp_path / "out" / "objects.parquet").exists()
    complete, pure = (int(part) for part in re.findall(r"(\d+)% of", result.summary))
    assert complete > 60
    assert pure > 80
    with Image.open(result.pictures[0]) as picture:
        assert np.asarray(picture).std() > 10
    assert "Try next" in result.summary
    told = io.StringIO()
    again = demo(out=str(tmp_path / "out"), progress=Reporter(told), size=SMALL)
    assert again.rows == result.rows
    assert "trained:" not in told.getvalue()


@pytest.mark.slow
def test_demo_on_a_folder_of_images(tmp_path: Path, image_out: str) -> None:
    """One image with a catalogue beside it, one without, one that is broken."""
    folder = tmp_path / "images"
    population = Population(star_fraction=0.5)
    sky = Sky(160, 160, seed=5, density=120.0, population=population, camera=Camera(bands=("r",)), name="first")
    _, psf, truth = write_fits(sky, str(folder / "a"))
    Path(psf).unlink()
    bright = truth.filter(np.array(truth["snr"]) > 10).select(["object_id", "ra", "dec"])
    pacsv.write_csv(bright, folder / "a" / "first_r.csv")
    write_fits(replace(sky, seed=6, name="second"), str(folder / "b"))
    (folder / "b" / "broken.fits").write_bytes((folder / "b" / "second_r.fits").read_bytes()[:20_000])
    found = find_images(str(folder))
    assert [Path(entry.url).name for entry in found] == ["first_r.fits", "second_r.fits"]
    assert [entry.catalogue is not None for entry in found] == [True, False]
    result = demo(out=image_out, images=str(folder), progress=Reporter(io.StringIO()), size=SMALL)
    assert len(result.catalogs) == 2
    assert query(result.catalogs[0]).rows == bright.num_rows
    found_there = query(result.catalogs[1]).to_arrow()
    assert found_there.num_rows > 10
    assert {"segmentation_p_object", "shapes_e1", "classes_label"} <= set(found_there.column_names)
    assert "first_r.csv" in result.summary
    assert "found by segmentation" in result.summary
    assert Path(result.pictures[0]).stat().st_size > 10_000


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        find_images(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="no FITS image"):
        find_images(str(tmp_path))
    (tmp_path / "text.fits").write_text("no FITS")
    with pytest.raises(InputError, match="can be read"):
        find_images(str(tmp_path))


@pytest.mark.shared_data
def test_real_images_are_found_with_what_lies_beside_them(shared_data: Path) -> None:
    every = find_images(str(shared_data))
    found = {entry.stem: entry for entry in every}
    assert len(every) > 20
    assert {"m51_512", "frame-r-001000-1-0100", "IMAGE-HDFS-1.34", "group"} <= {*found}
    ntt, spitzer = found["sep_ntt_emmi_256"], found["spitzer_example_image"]
    assert ntt.catalogue is not None
    assert ntt.catalogue.endswith(".cat")
    assert spitzer.catalogue is not None
    assert spitzer.settings is not None
    assert spitzer.settings.columns == "object_id=#row"
    decam = next(entry for entry in found.values() if "_ooi_" in entry.stem)
    assert (decam.weight, decam.mask) == ("ooi=oow", "ooi=ood")


@pytest.mark.slow
@pytest.mark.shared_data
def test_demo_on_real_images(shared_data: Path, tmp_path: Path, image_out: str) -> None:
    """NTT with its Source Extractor catalogue, Spitzer with one in Galactic coordinates, DECam extensions."""
    folder = tmp_path / "images"
    decam = "decam_bass_mzls/testcase4/images/decam/CP/V4.8.2/CP20170315"
    for name in ("ntt", "spitzer", decam):
        (folder / Path(name).name).parent.mkdir(exist_ok=True)
        (folder / Path(name).name).symlink_to(shared_data / name)
    result = demo(out=image_out, images=str(folder), progress=Reporter(io.StringIO()), size=SMALL)
    rows = {Path(catalog).parent.name.rpartition("-")[0]: query(catalog).to_arrow() for catalog in result.catalogs}
    assert rows["sep_ntt_emmi_256"].num_rows == 65
    assert rows["sep_ntt_emmi_256"]["ra"].null_count == 65
    spitzer = rows["spitzer_example_image"]
    assert spitzer.num_rows == 224
    assert spitzer["ra"].null_count == 0
    assert "c4d_170316_062107_ooi_z_ls9.N2" in rows


def test_a_background_and_its_noise_are_found_under_stars_and_bad_pixels() -> None:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:300, :260]
    slope = 100 + 0.05 * x - 0.02 * y
    image = slope + rng.normal(0, 3, slope.shape)
    for cx, cy in rng.uniform(0, 260, (12, 2)):
        image += 400 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 6)
    image[:, 100:104] = np.nan
    usable = np.ones(image.shape, bool)
    usable[:70, :70] = False
    image[~usable] = 1e6
    level, noise = background(image, usable)
    inner = np.s_[80:-30, 80:-30]
    np.testing.assert_allclose(level[inner], slope[inner], atol=0.3)
    np.testing.assert_allclose(noise[inner], 3, rtol=0.15)
    assert np.isfinite(level).all()
    assert (noise > 0).all()
    for empty in (np.full((9, 9), np.nan), np.full((70, 20), 7.0)):
        level, noise = background(empty)
        np.testing.assert_array_equal(level, np.nan_to_num(empty))
        np.testing.assert_array_equal(noise, 1)


def test_correlated_noise_counts_at_the_scale_of_objects() -> None:
    white = np.random.default_rng(2).normal(0, 1, (256, 256))
    smooth = (white + np.roll(white, 1, 0) + np.roll(white, 1, 1) + np.roll(white, (1, 1), (0, 1))) / 2  # width 1
    assert float(np.median(background(white)[1])) == pytest.approx(1, rel=0.1)
    assert float(np.median(background(smooth)[1])) == pytest.approx(2, rel=0.15)


def test_cuts_at_edges_and_pictures_of_nothing() -> None:
    image = np.arange(12.0, dtype=np.float32).reshape(1, 3, 4)
    part = cut(image, 0, 0, 4)
    assert np.array_equal(part[0, 2:, 2:], image[0, :2, :2])
    assert np.isnan(part[0, :2]).all()
    assert np.isnan(cut(image, 100, 100, 4)).all()
    assert stretched(np.full((3, 4, 4), np.nan)).shape == (4, 4)
    assert stretched(np.ones((3, 4, 4))).shape == (4, 4, 3)
