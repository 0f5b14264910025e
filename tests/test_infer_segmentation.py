"""The shipped bundle `segmentation` through `infer`: bad pixels, odd surveys, real images."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.overlay import read_labels
from astroml_plugin.core.flags import MaskBit, ObjectFlag
from astroml_plugin.training.bundle import ModelBundle
from tests import universe
from tests.detection import rows, run
from workflows.infer import dry_run
from workflows.ingest import ingest

SHAPE = (300, 640)
"""Two tiles beside one another."""
Change = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


def found(folder: Path, client: object, change: Change | None = None, **survey: Any) -> pa.Table:
    """The catalog of a small sky whose pixels went through `change`; no unit may fail."""
    folder.mkdir(exist_ok=True)
    settings = {"shape": SHAPE, "tile_size": 640, "halo": 128, **survey}
    universe.make_survey(str(folder / "survey.zarr"), change=change, **settings)
    result = run(folder, folder / "catalog", client, source=folder / "survey.zarr", bundle="segmentation")
    assert result.units_failed == 0
    return rows(folder / "catalog")


def near(table: pa.Table, x: float, y: float) -> dict[str, Any]:
    """The row of the object that is nearest to a pixel."""
    away = np.hypot(table["x"].to_numpy() - x, table["y"].to_numpy() - y)
    return {"away": away.min(), **table.slice(int(away.argmin()), 1).to_pylist()[0]}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, client: object) -> pa.Table:
    """What is found without any defect."""
    return found(tmp_path_factory.mktemp("plain"), client)


def spoiled(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
    """The left half: a saturated star that bleeds, a satellite's trail, a stripe of NaN, a masked block."""
    y, x = np.mgrid[: image.shape[1], : image.shape[2]]
    image += 60_000 * np.exp(-((x - 180) ** 2 + (y - 200) ** 2) / 9.0).astype(np.float32)
    mask[image > 3000] |= np.uint32(MaskBit.SATURATED)
    mask[:, 60:, 179:182] |= np.uint32(MaskBit.SATURATED)  # bleed
    image[0, np.arange(300), np.arange(300) // 3] += 50
    image[:, 40:44, :300] = np.nan
    mask[:, 230:, 240:300] |= np.uint32(MaskBit.BAD)


def test_defects_are_flagged_where_they_are_and_change_nothing_elsewhere(
    tmp_path: Path, client: object, plain: pa.Table
) -> None:
    table = found(tmp_path, client, spoiled)
    star = near(table, 180, 200)
    assert star["away"] < 12
    assert star["flags"] & ObjectFlag.SATURATED
    labels = read_labels(str(tmp_path / "catalog")).labels
    assert (labels[41:43, :300] > 0).mean() < 0.1  # but for what lies across it
    assert (labels[235:, 245:300] > 0).mean() < 0.1
    x, flags = (table[name].to_numpy() for name in ("x", "flags"))
    assert np.isfinite(x).all()
    assert not np.any(flags[(x > 310)] & ObjectFlag.SATURATED)
    far = 300 + 64  # what the network sees, rounded up
    kept, before = (one.filter(one["x"].to_numpy() > far) for one in (table, plain))
    assert kept.num_rows > 20
    for name in ("object_id", "area"):
        assert kept[name].to_pylist() == before[name].to_pylist()


def test_a_masked_or_constant_tile_has_no_objects(tmp_path: Path, client: object) -> None:
    def masked(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        mask[:] = int(MaskBit.BAD)

    def constant(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        image[:] = 0

    one: dict[str, Any] = {"shape": (256, 256), "tile_size": 512}  # tile
    assert found(tmp_path / "masked", client, masked, **one).num_rows == 0
    assert found(tmp_path / "constant", client, constant, **one).num_rows == 0
    assert found(tmp_path / "flat", client, constant, variance=False, **one).num_rows == 0
    done = Catalog.open(str(tmp_path / "masked" / "catalog")).current()
    assert done["rows"].to_pylist() == [0] * done.num_rows


def test_a_negative_background_hides_the_faint_only(tmp_path: Path, client: object, plain: pa.Table) -> None:
    def lower(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        image -= 2

    table = found(tmp_path, client, lower)
    bright = [row for row in plain.to_pylist() if row["peak_snr"] > 12 and not row["flags"] & ObjectFlag.BLENDED]
    assert len(bright) > 5
    assert np.mean([near(table, row["x"], row["y"])["away"] < 2 for row in bright]) > 0.9


def test_missing_variance_is_estimated_and_said(tmp_path: Path, client: object, plain: pa.Table) -> None:
    table = found(tmp_path, client, variance=False, tile_size=512)
    assert np.all(table["flags"].to_numpy() & ObjectFlag.NO_VARIANCE)
    both = set(table["object_id"].to_pylist()) & set(plain["object_id"].to_pylist())
    assert len(both) > 0.9 * max(plain.num_rows, table.num_rows)
    theirs = {row["object_id"]: row for row in plain.to_pylist()}
    pairs = [(row, theirs[row["object_id"]]) for row in table.to_pylist() if row["object_id"] in both]
    for kind in ("iso", "aper", "total"):
        ratio = np.array([row[f"flux_{kind}_r_err"] / other[f"flux_{kind}_r_err"] for row, other in pairs])
        assert abs(np.median(ratio) - 1) < 0.1


def test_bands_of_different_depth_count_by_their_noise(tmp_path: Path, client: object) -> None:
    """One band, and the same with a second that is 20 times shallower and half missing: the second adds nothing."""
    rng = np.random.default_rng(8)

    def shallow(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        if len(image) > 1:
            image[1] += rng.normal(0, 20, image[1].shape).astype(np.float32)
            variance[1] = 401
            image[1, :, :200], mask[1, :, :200] = np.nan, int(MaskBit.NO_DATA)

    def bands(*names: str) -> pa.Table:
        folder = tmp_path / "-".join(names)
        return found(folder, client, shallow, bands=names)

    both = bands("r", "z")
    alone = found(tmp_path / "alone", client, lambda image, *_: None, bands=("r", "z"))
    assert {"flux_iso_r", "flux_iso_z"} <= set(both.schema.names)
    bright = [row for row in alone.to_pylist() if row["peak_snr"] > 12]
    matched = [near(both, row["x"], row["y"]) for row in bright]
    assert np.mean([row["away"] < 1 for row in matched]) > 0.95
    errors = np.array([[row["flux_aper_r_err"], row["flux_aper_z_err"]] for row in matched if row["x"] > 220])
    np.testing.assert_allclose(errors[:, 1] / errors[:, 0], np.sqrt(401), rtol=0.05)


def survey_of(image: np.ndarray, folder: Path, **tiling: int) -> str:
    """An image as a survey, the way a user brings it: FITS, then `ingest`."""
    fits.writeto(folder / "image.fits", image)
    return ingest([str(folder / "image.fits")], out=str(folder / "survey.zarr"), **tiling).source


def test_a_survey_without_a_psf_is_told_the_remedy(tmp_path: Path) -> None:
    bare = survey_of(np.random.default_rng(2).normal(0, 1, (64, 64)).astype(np.float32), tmp_path)
    told = dry_run(bare, bundle="segmentation").notes
    assert "no PSF" in told[-1]
    assert "--psf-from-stars, or --psf" in told[-1]
    with_psf = universe.make_survey(str(tmp_path / "psf.zarr"), shape=(64, 64), tile_size=512, halo=128)
    assert dry_run(with_psf.url, bundle="segmentation").notes == ()


@pytest.mark.shared_data
def test_a_galaxy_larger_than_window_and_halo_is_a_blend_of_parts(
    shared_data: Path, tmp_path: Path, client: object
) -> None:
    """M 51 in windows of 256 pixels and tiles whose inner boxes are smaller than its arms."""
    image = fits.getdata(shared_data / "m51_512.fits").astype(np.float32)
    image -= np.median(image[:40])
    source = survey_of(image, tmp_path, tile_size=512, halo=128)
    model = ModelBundle.load("segmentation")
    small = model.task().with_settings(window=256)
    ModelBundle.save(str(tmp_path / "small"), model.network(), replace(model.card, settings=small.to_settings()))
    tracemalloc.start()
    try:
        result = run(tmp_path, tmp_path / "catalog", client, source=source, bundle=str(tmp_path / "small"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.units_failed == 0
    table = rows(tmp_path / "catalog")
    parts = table.filter(table["area"].to_numpy() > 500)
    flags = parts["flags"].to_numpy()
    assert parts.num_rows > 10
    assert np.all(flags & ObjectFlag.BLENDED)  # the network sees no farther than 57 pixels: it takes arms for objects
    assert np.all(flags & ObjectFlag.TRUNCATED)  # their patch of light is larger than the halo
    assert len(set(table["object_id"].to_pylist())) == table.num_rows
    found_labels = read_labels(str(tmp_path / "catalog"))
    assert found_labels.contested < 0.01 * found_labels.labels.size
    assert peak < 200e6


STEP = 8
STAR = 30 * np.exp(-((np.mgrid[:STEP, :STEP] - 3.5) ** 2).sum(0) / (2 * 1.3**2))


def crowd(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
    """Stars 8 pixels apart and nothing between them."""
    image[:] = np.random.default_rng(3).normal(0, 1, image.shape)
    image += np.tile(STAR, (image.shape[-2] // STEP, image.shape[-1] // STEP)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_objects_in_one_tile(tmp_path: Path, client: object) -> None:
    """All are found, and memory is bounded by the tile, not by what is in it."""
    side = 2560
    tracemalloc.start()
    try:
        table = found(tmp_path, client, crowd, shape=(side, side), tile_size=side + 256)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    there = (side // STEP) ** 2
    assert there > 100_000
    assert 0.99 * there < table.num_rows < 1.01 * there
    assert len(set(table["object_id"].to_pylist())) == table.num_rows
    assert peak < 250 * side**2


@pytest.mark.slow
def test_a_crowd_has_the_fluxes_of_its_stars(tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = np.exp(-((np.mgrid[:15, :15] - 7) ** 2).sum(0) / (2 * 1.3**2))
    monkeypatch.setattr(universe, "_psf", lambda bands: np.tile(np.float32(kernel / kernel.sum()), (bands, 1, 1, 1, 1)))
    table = found(tmp_path, client, crowd, shape=(512, 512), tile_size=768)
    assert table.num_rows > 4000
    assert np.median(table["flux_total_r"].to_numpy()) == pytest.approx(STAR.sum(), rel=0.1)
