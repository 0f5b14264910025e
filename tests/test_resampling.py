"""Stamps with pixels of another size: flux, place, widths, noise, masks, and what bundles make of them."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from universe import make_bundle, make_objects, make_survey

from astroml_plugin import cutouts as cut
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit, ObjectFlag
from astroml_plugin.cutouts.psf import psf_fwhms
from astroml_plugin.cutouts.resampling import resampled_psf
from astroml_plugin.pixels import Tile, psf_fwhm
from astroml_plugin.simulation.camera import Camera
from astroml_plugin.simulation.population import Population
from astroml_plugin.simulation.postage import StampSet
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks import scale
from astroml_plugin.tasks.ellipticity.task import EllipticityTask
from workflows.infer import dry_run, infer
from workflows.query import query

torch.set_num_threads(1)
STEPS = (0.5, 0.7605, 4 / 3, 2.0)
ODD = int(ObjectFlag.OUT_OF_DOMAIN)


def gaussian(side: int, sigma: float, x: float = 0.0, y: float = 0.0, ratio: float = 0.7) -> np.ndarray:
    """(side, side) float32 of unit integral about pixel side // 2 + (x, y), narrower along y."""
    axis = np.arange(side) - side // 2
    along_x, along_y = (np.exp(-0.5 * ((axis - at) / width) ** 2) for at, width in ((x, sigma), (y, ratio * sigma)))
    return (along_y[:, None] * along_x / (2 * math.pi * ratio * sigma**2)).astype(np.float32)


def stamps_of(image: np.ndarray, variance: np.ndarray | None = None, psf: np.ndarray | None = None) -> cut.Cutouts:
    return cut.from_stamps(
        image[:, None], None if variance is None else variance[:, None], psf, bands=("r",), pixel_scale=0.2
    )


def moments(image: np.ndarray) -> np.ndarray:
    """Flux, centre x and y from pixel side // 2, second moments xx, yy, xy."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] - image.shape[0] // 2
    flux = image.sum()
    cx, cy = (image * x).sum() / flux, (image * y).sum() / flux
    second = [(image * p * q).sum() / flux for p, q in ((x - cx, x - cx), (y - cy, y - cy), (x - cx, y - cy))]
    return np.array([flux, cx, cy, *second])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("ratio", [1.0, 0.8])
def test_gaussians_keep_flux_place_and_width(step: float, ratio: float) -> None:
    sigma = 1.3 * max(1.0, step) / ratio  # sampled by both grids
    image = gaussian(96, sigma, 0.37, -0.21, ratio)[None]
    made = cut.resampled(stamps_of(image), step)
    side = int(made.image.shape[-1])
    assert side == math.floor(96 / step + 1e-6)
    assert made.scales is not None
    assert made.scales.item() == pytest.approx(0.2 * step)
    wanted = gaussian(side, sigma / step, 0.37 / step, -0.21 / step, ratio)
    core = slice(side // 2 - 16, side // 2 + 16)
    assert np.abs(made.image[0, 0, core, core].numpy() - wanted[core, core]).max() < 0.012 * wanted.max()
    flux, x, y, xx, yy, _ = moments(made.image[0, 0].numpy().astype(np.float64))
    assert flux == pytest.approx(1, abs=2e-3)
    assert (x * step, y * step) == pytest.approx((0.37, -0.21), abs=5e-3)
    assert (xx * step**2, yy * step**2) == pytest.approx((sigma**2, (ratio * sigma) ** 2), rel=0.02)


@pytest.mark.parametrize("step", STEPS)
def test_psf_goes_the_way_of_the_image(step: float) -> None:
    one = gaussian(41, 1.6 * max(1.0, step), ratio=1.0)
    small = resampled_psf(torch.from_numpy(one)[None, None], step)
    side = int(small.shape[-1])
    assert side % 2 == 1
    made = cut.resampled(stamps_of(one[None]), step).image[0, 0].numpy()
    middle = made.shape[0] // 2
    core = slice(middle - 4, middle + 5)
    centre = slice(side // 2 - 4, side // 2 + 5)
    np.testing.assert_allclose(small[0, 0, centre, centre], made[core, core], atol=1e-7)
    assert float(small.sum()) == pytest.approx(1, abs=2e-3)
    assert psf_fwhm(small[0, 0].numpy()) * step == pytest.approx(psf_fwhm(one), rel=0.02)


@pytest.mark.parametrize("step", STEPS)
def test_variance_is_that_of_what_is_summed(step: float) -> None:
    noise = np.random.default_rng(5).normal(0, 3, (400, 64, 64)).astype(np.float32)
    made = cut.resampled(stamps_of(noise, np.full_like(noise, 9.0)), step)
    side = int(made.image.shape[-1])
    weight = torch.from_numpy(gaussian(side, 3.0 / step, ratio=1.0))
    sums = (made.image[:, 0] * weight).sum((1, 2))
    assert made.variance is not None
    told = (made.variance[0, 0] * weight.square()).sum().sqrt()
    assert float(sums.std() / told) == pytest.approx(1, abs=0.08)  # 400 sums: 3.5 %
    before = (torch.from_numpy(noise) * torch.from_numpy(gaussian(64, 3.0, ratio=1.0))).sum((1, 2)) / 9
    assert float(torch.corrcoef(torch.stack([sums, before]))[0, 1]) > 0.999  # the same noise, not another
    bare = cut.resampled(stamps_of(noise), step)
    assert bare.noise_estimated
    assert bare.variance is not None
    assert float((bare.variance.mean() / made.variance.mean()).sqrt()) == pytest.approx(1, abs=0.01)


def test_unusable_pixels_spoil_what_reads_them_and_nothing_else() -> None:
    image = np.random.default_rng(1).normal(0, 1, (2, 40, 40)).astype(np.float32)
    variance = np.ones_like(image)
    image[0, 20, 11], variance[0, 30, 30] = np.nan, 0.0
    clean = np.nan_to_num(image)
    made, full = (
        cut.resampled(stamps_of(image, variance), 0.5),
        cut.resampled(stamps_of(clean, np.ones_like(image)), 0.5),
    )
    assert made.bits is not None
    bits = made.bits[0, 0].numpy()
    assert set(np.unique(bits)) == {0, int(ObjectFlag.NONFINITE), int(ObjectFlag.MASKED)}
    row, column = np.nonzero(bits == int(ObjectFlag.NONFINITE))
    assert (row.min(), row.max(), column.min(), column.max()) == (35, 45, 17, 27)  # within 3 pixels of (40, 22)
    assert not made.bits[1].any()
    good = made.valid[0, 0]
    torch.testing.assert_close(made.image[0, 0][good], full.image[0, 0][good])
    assert float(made.image[0, 0][~good].abs().max()) == 0
    assert cut.resampled(stamps_of(clean), 0.5).bits is None


def test_a_band_of_one_value_stays_one() -> None:
    made = cut.resampled(stamps_of(np.full((2, 40, 40), 7.3, np.float32)), 4 / 3)
    assert made.image.unique().numel() == 1
    assert made.image[0, 0, 0, 0].item() == pytest.approx(7.3 * 16 / 9)


def test_an_object_has_one_stamp_whatever_the_tile() -> None:
    rng = np.random.default_rng(8)
    whole = rng.normal(0, 1, (1, 300, 300)).astype(np.float32)
    mask = np.zeros(whole.shape, np.uint32)
    mask[0, 150, 148] = int(MaskBit.SATURATED)
    x, y, jacobian = np.array([147.3, 151.9]), np.array([149.6, 152.2]), np.tile(np.eye(2) * 0.2, (2, 1, 1))
    for step in STEPS:
        found = []
        for x0, y0 in ((0, 0), (47, 31), (70, 66)):
            part = (slice(None), slice(y0, y0 + 230), slice(x0, x0 + 230))
            tile = cut.to_device(Tile(whole[part], np.ones_like(whole[part]), mask[part]), ("r",), pixel_scale=0.2)
            found.append(cut.around_resampled(tile, x, y, 32, step, origin=(x0, y0), jacobian=jacobian))
        first = found[0]
        assert first.image.shape == (2, 1, 32, 32)
        assert bool((first.flags & int(ObjectFlag.SATURATED)).all())
        assert torch.equal(first.jacobian, torch.from_numpy(jacobian) * step)
        for other in found[1:]:
            torch.testing.assert_close(other.image, first.image, atol=1e-6, rtol=0)
            assert torch.equal(other.valid, first.valid)


def test_the_object_lies_at_its_pixel_and_stamps_move_by_their_own_pixels() -> None:
    x, y = np.array([60.4, 61.2]), np.array([58.7, 63.1])
    for step in STEPS:
        for one_x, one_y in zip(x, y):
            image = gaussian(128, 2.6, one_x - 64, one_y - 64, 1.0)[None]
            tile = cut.to_device(Tile(image), ("r",))
            where = {"origin": (0, 0), "jacobian": np.full((1, 2, 2), np.nan)}
            made = cut.around_resampled(tile, np.array([one_x]), np.array([one_y]), 24, step, **where)
            moved = cut.around_resampled(
                tile, np.array([one_x + 2 * step]), np.array([one_y - step]), 24, step, **where
            )
            torch.testing.assert_close(moved.image[..., 1:, :-2], made.image[..., :-1, 2:], atol=1e-7, rtol=0)
            _, at_x, at_y, *_ = moments(made.image[0, 0].numpy().astype(np.float64))
            assert max(abs(at_x), abs(at_y)) < 0.53
    tile = cut.to_device(Tile(np.zeros((1, 60, 60), np.float32)), ("r",))
    with pytest.raises(InputError, match="halo is too small"):
        cut.around_resampled(tile, np.array([30.0]), np.array([30.0]), 48, 2.0, **where)


def test_widths_of_psfs_at_once_are_those_one_by_one() -> None:
    psf = np.stack([gaussian(25, sigma, ratio=ratio) for sigma in (0.9, 1.4, 2.2, 3.5) for ratio in (1.0, 0.8)])
    np.testing.assert_allclose(psf_fwhms(torch.from_numpy(psf)), [psf_fwhm(one) for one in psf], rtol=0.01)
    off = np.stack([gaussian(25, 1.9, 0.7 * step, 1.0 - step, ratio=1.0) for step in (-1, 0, 1, 2)])
    np.testing.assert_allclose(psf_fwhms(torch.from_numpy(off)), [psf_fwhm(one) for one in off], rtol=0.01)
    assert psf_fwhms(torch.zeros(3, 1, 9, 9)).isnan().all()
    assert psf_fwhms(torch.full((1, 1, 9, 9), torch.nan)).isnan().all()


def test_what_is_resampled_is_what_the_psf_asks_for() -> None:
    shapes = EllipticityTask.from_settings({"bands": ["r"], "pixel_scale": 0.2, "psf_fwhm": [2.6, 5.6]}).settings
    fwhm = np.array([3.0, 5.0, 2.4, 6.5, 1.5, 12.0, np.nan])
    assert scale.steps(shapes, 0.2, fwhm).tolist() == [1.0] * 7  # its own pixels
    assert scale.steps(shapes, 0.4, fwhm) == pytest.approx([1, 1, 0.5, 2**0.5, 1, 2**1.5, 1])
    assert scale.steps(shapes, 0.15, fwhm) == pytest.approx([1, 1, 2**-0.5, 4 / 3, 1, 2**1.5, 1])
    assert scale.steps(shapes, 0.15, fwhm, widest=1.4) == pytest.approx([1, 1, 2**-0.5, 4 / 3, 1, 1, 1])
    classes = EllipticityTask(shapes).with_settings(sizes="arcsec").settings
    assert scale.steps(classes, 0.4, fwhm).tolist() == [0.5] * 7
    assert scale.steps(classes, 0.205, fwhm).tolist() == [1.0] * 7
    off = EllipticityTask(classes).with_settings(resample="off").settings
    assert scale.steps(off, 0.4, fwhm).tolist() == [1.0] * 7


def test_training_tells_how_wide_its_psfs_are() -> None:
    image = np.random.default_rng(3).normal(0, 1, (40, 48, 48)).astype(np.float32)
    widths = np.linspace(1.2, 1.9, 40)
    psf = np.stack([gaussian(25, sigma, ratio=1.0) for sigma in widths])[:, None]
    task = EllipticityTask.from_settings({"bands": ["r"], "pixel_scale": 0.2})
    fitted = task.fit_to_training(pa.table({}), stamps_of(image, np.ones_like(image), psf)).settings
    assert fitted.psf_fwhm == pytest.approx((1.2 * 2.3548, 1.9 * 2.3548 * 1.03), rel=5e-3)
    assert scale.measured_range(torch.from_numpy(psf[:1])) == pytest.approx((2.826 / 1.1, 2.826 * 1.1), rel=5e-3)
    assert scale.measured_range(torch.zeros(3, 1, 9, 9)) == (0.0, 0.0)
    with pytest.raises(InputError, match="rising numbers"):
        EllipticityTask.from_settings({"psf_fwhm": [5.0, 2.0]})


def galaxies(folder: Path, pixel_scale: float, fwhm: float = 0.92) -> tuple[str, dict[str, np.ndarray]]:
    """Stamps of the same bright galaxies at a pixel scale, with constant noise per area."""
    camera = Camera(
        bands=("r",), pixel_scale=pixel_scale, gain=0.0, sky_sigma=12.5 * pixel_scale, psf_fwhm=(fwhm, fwhm)
    )
    size = 2 * math.ceil(16 + 24 * 0.2 / pixel_scale)
    made = StampSet(
        64,
        seed=77,
        block=64,
        size=size,
        psf_size=33,
        camera=camera,
        population=Population(star_fraction=0.0),
        snr=(100.0, 200.0),
    ).make(0)
    url = str(folder / f"{pixel_scale}.zarr")
    stamps = Stamps.create(
        url, bands=("r",), size=(size, size), block=48, pixel_scale=pixel_scale, psf_size=(33, 33), variance=True
    )
    for rows in (slice(0, 48), slice(48, 64)):
        number = stamps.reserve(1)
        checksum = stamps.write_block(number, made.image[rows], made.variance[rows], made.psf[rows])
        stamps.commit_objects(number, made.table.slice(rows.start, rows.stop - rows.start), checksum)
    return url, {name: made.table[name].to_numpy() for name in ("e1", "e2")}


def test_shapes_hold_on_pixels_of_any_size(tmp_path: Path) -> None:
    rmse = {}
    for pixel_scale in (0.2, 0.15, 0.263, 0.4):
        url, truth = galaxies(tmp_path, pixel_scale)
        out = str(tmp_path / f"{pixel_scale}")
        result = infer(url, bundle="ellipticity", out=out)
        assert (len(result.notes) == 0) == (pixel_scale == 0.2)
        rows = query(out, "SELECT * FROM catalog ORDER BY object_id").to_arrow()
        assert (np.asarray(rows["flags"]) & ODD == 0).mean() > 0.9
        assert rows["typicality"].null_count == (64 if pixel_scale in (0.15, 0.4) else 0)  # resampled
        wrong = np.stack([np.asarray(rows[name]) - truth[name] for name in ("e1", "e2")])
        held = np.abs(wrong) < np.stack([np.asarray(rows[f"{name}_err95"]) for name in ("e1", "e2")])
        assert held.mean() > 0.85
        rmse[pixel_scale] = float(np.sqrt((wrong**2).mean()))
    assert max(rmse.values()) < 1.2 * rmse[0.2] < 0.05
    url, _ = galaxies(tmp_path / "sharp", 0.4, 0.6)  # 1.5 pixels
    told = infer(url, bundle="ellipticity", out=str(tmp_path / "sharp"))
    assert "0.4 arcsec, trained at 0.2: taken as they are where the PSF has a FWHM" in told.notes[0]
    assert np.all(np.asarray(query(str(tmp_path / "sharp"), "SELECT flags FROM catalog").to_arrow()["flags"]) & ODD)


def test_sizes_on_the_sky_are_brought_to_the_bundle(tmp_path: Path) -> None:
    url, _ = galaxies(tmp_path, 0.4)
    bundle = make_bundle(str(tmp_path / "classes"), psf_fwhm=[2.7, 5.6])
    plain = infer(url, bundle=bundle, out=str(tmp_path / "auto"))
    assert plain.notes == dry_run(url, bundle=bundle).notes
    assert plain.notes[0].startswith("classes: pixels of 0.4 arcsec, trained at 0.2: stamps are resampled to 0.2")
    off = infer(url, bundle=bundle, out=str(tmp_path / "off"), resample="off")
    assert "all its rows are OUT_OF_DOMAIN" in off.notes[0]
    flags = {
        name: query(str(tmp_path / name), "SELECT flags FROM catalog").to_arrow()["flags"] for name in ("auto", "off")
    }
    assert not (np.asarray(flags["auto"]) & ODD).any()
    assert (np.asarray(flags["off"]) & ODD).all()
    with pytest.raises(InputError, match="resample"):  # the choice belongs to the catalog
        infer(url, bundle=bundle, out=str(tmp_path / "off"))
    whole = make_bundle(str(tmp_path / "whole"), size=128, resize="refuse")
    with pytest.raises(InputError, match=r"are 112 x 112 px of the model's 0.2, and it takes 128 x 128"):
        infer(url, bundle=whole, out=str(tmp_path / "no"))


def test_rows_of_a_survey_do_not_depend_on_its_tiles(tmp_path: Path) -> None:
    surveys = [make_survey(str(tmp_path / f"{side}.zarr"), tile_size=side, halo=32) for side in (192, 128)]
    objects = make_objects(tmp_path / "objects.parquet", 60)
    angular = make_bundle(str(tmp_path / "classes"), size=20, pixel_scale=0.3)
    shapes = make_bundle(
        str(tmp_path / "shapes"), task="ellipticity", size=20, pixel_scale=0.15, psf_fwhm=[3.0, 4.0], psf="none"
    )
    tables = []
    for number, survey in enumerate(surveys):
        out = str(tmp_path / f"catalog-{number}")
        result = infer(survey.url, bundle=[angular, shapes], objects=objects, out=out)
        assert (result.units_failed, len(result.notes)) == (0, 2)
        tables.append(query(out, "SELECT * FROM catalog ORDER BY object_id").to_arrow())
    assert tables[0].num_rows > 50
    for name in ("flags", "classes_flags", "shapes_flags", "classes_label"):
        assert tables[0][name].to_pylist() == tables[1][name].to_pylist()
    for name in ("x", "y", "classes_p_star", "shapes_e1"):
        np.testing.assert_allclose(
            *(np.asarray(table[name].to_numpy(), float) for table in tables), rtol=1e-4, atol=1e-5
        )
    large = make_bundle(str(tmp_path / "large"), size=40, pixel_scale=0.3)
    with pytest.raises(InputError, match=r"needs a halo of 3\d px for its 40 px stamps of 0.3 arcsec"):
        infer(surveys[0].url, bundle=large, objects=objects, out=str(tmp_path / "no"))
