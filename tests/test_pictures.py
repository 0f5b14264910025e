"""Calibrated pixels shown as the colour pictures of Galaxy Zoo: stretch, scaling and sizes as references have them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io.fits import Header
from PIL import Image

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Cutouts, Picture, from_stamps, shown, sizes
from astroml_plugin.cutouts.pictures import triangles
from astroml_plugin.inference import measure
from astroml_plugin.sources.tile import Tile
from astroml_plugin.sources.tile_arrays import TilePlace
from astroml_plugin.training.bundle import ModelBundle
from tests.test_input_unit import stored
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.query import query

torch.set_num_threads(1)

PICTURE = Picture(bands=("i", "r", "g"), weights=(0.86, 1.0, 1.368), radius=9.4)
NAMES = ("R", "G", "B")


def galaxies(scales: tuple[float, ...], side: int = 129, noise: float = 0.0, peak: float = 2.0) -> np.ndarray:
    """Round exponential disks of these scale lengths (pixels) with colours in g, r, i; (n, 3, side, side) float32."""
    y, x = np.mgrid[:side, :side] - float(side // 2)
    radius = np.hypot(x, y)
    light = np.stack([peak * np.exp(-radius / scale) for scale in scales])
    image = light[:, None] * np.reshape([0.3, 0.75, 1.0], (3, 1, 1))
    return (image + np.random.default_rng(3).normal(0, noise, image.shape)).astype(np.float32)


def stamps(image: np.ndarray, scale: float = 0.396, zero: float | None = 22.5) -> Cutouts:
    return from_stamps(image, None, None, bands=("g", "r", "i"), pixel_scale=scale, zero_points=(zero,) * 3)


def test_the_stretch_is_that_of_lupton() -> None:
    from astropy.visualization.lupton_rgb import AsinhMapping

    light = np.random.default_rng(1).normal(0, 0.05, (3, 40, 40)) + galaxies((6.0,), 40, peak=30.0)[0]
    light[:, :3] *= [[[9.0]], [[0.1]], [[0.2]]]  # one colour, beyond white
    reference = AsinhMapping(0, PICTURE.stretch, PICTURE.softening).make_rgb_image(*light)
    ours = PICTURE.stretched(torch.from_numpy(light)[None].float())[0].numpy().transpose(1, 2, 0)
    assert reference.max() == 255
    assert np.abs(ours - reference).max() <= 1
    assert np.mean(ours != reference) < 0.02  # a level of float32 rounding


@pytest.mark.parametrize("step", [0.31, 1.0, 2.37])
def test_scaling_is_that_of_image_programs(step: float) -> None:
    plane, middle, size = np.random.default_rng(2).uniform(0, 255, (101, 101)).astype(np.float32), (50.3, 49.2), 32
    weights = [triangles(torch.tensor([step]), torch.tensor([place]), size, 101)[0] for place in middle]
    ours = (weights[1] @ torch.from_numpy(plane) @ weights[0].T).numpy()
    left, top = (place + 0.5 - (size // 2 + 0.5) * step for place in middle)
    box = (left, top, left + size * step, top + size * step)
    reference = np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR, box=box))
    np.testing.assert_allclose(ours, reference, atol=0.02)


def test_a_picture_is_stretched_and_scaled_as_the_references_do() -> None:
    from astropy.visualization.lupton_rgb import AsinhMapping

    given = galaxies((2.0, 3.0, 4.0))
    made = shown(stamps(given), PICTURE, 64, NAMES)
    assert made.bands == NAMES
    assert made.image.dtype == torch.uint8
    assert made.unsized is not None
    assert not made.unsized.any()
    for number, image in enumerate(given):
        light = image[::-1] * np.reshape(np.float32(PICTURE.weights), (3, 1, 1))
        radius = float(sizes(torch.from_numpy(light.mean(0)[None])).radius)
        grey = AsinhMapping(0, PICTURE.stretch, PICTURE.softening).make_rgb_image(*light)
        step = radius / PICTURE.radius
        box = (64.5 - 32.5 * step, 64.5 - 32.5 * step, 64.5 + 31.5 * step, 64.5 + 31.5 * step)
        wanted = [
            Image.fromarray(grey[..., band].astype(np.float32)).resize((64, 64), Image.Resampling.BILINEAR, box=box)
            for band in range(3)
        ]
        difference = np.abs(made.image[number].numpy() - np.stack([np.asarray(one) for one in wanted]))
        assert difference.max() < 0.51  # of a grey level


def test_sizes_are_petrosian() -> None:
    light = torch.from_numpy(galaxies((2.0, 4.0, 8.0), 193)[:, 2])
    found = sizes(light)
    assert found.known.all()
    np.testing.assert_allclose(found.radius.numpy(), 3.83 * np.array([2.0, 4.0, 8.0]), rtol=0.03)
    beside = light.clone()
    beside[:, 96 - 20 : 96 - 16, 96 + 18 : 96 + 22] += 5.0
    np.testing.assert_allclose(sizes(beside).radius.numpy(), found.radius.numpy(), rtol=0.03)


def test_pixels_units_and_sides_make_no_difference() -> None:
    """The same galaxies at half the pixel scale, in nJy, and in larger stamps."""
    plain = shown(stamps(galaxies((3.0, 5.0))), PICTURE, 64, NAMES).image.float()
    fine = galaxies((6.0, 10.0), 257) / 4 * 10 ** (0.4 * (31.4 - 22.5))
    made = shown(stamps(fine, 0.198, 31.4), PICTURE, 64, NAMES).image.float()
    assert (plain - made).abs().mean() < 1.0
    wide = shown(stamps(galaxies((3.0, 5.0), 200)), PICTURE, 64, NAMES).image.float()
    assert (plain - wide).abs().mean() < 0.5
    assert plain.mean() > 3


def test_what_has_no_size_says_so_and_lost_pixels_are_left_out() -> None:
    noise = np.random.default_rng(5).normal(0, 0.03, (3, 3, 129, 129)).astype(np.float32)
    made = shown(stamps(noise), PICTURE, 64, NAMES)
    assert made.unsized is not None
    assert made.unsized.all()
    holed = galaxies((4.0, 4.0))
    holed[1, :, 60:63, 70:73] = np.nan
    found = shown(stamps(holed), PICTURE, 64, NAMES)
    assert (found.flags & int(ObjectFlag.NONFINITE) > 0).tolist() == [False, True]
    seen = found.valid[1]
    assert 0 < (~seen).sum() < 200
    assert (found.image[0].float() - found.image[1].float())[seen].abs().max() < 12


def sky(scale: float) -> str:
    """Header of a TAN projection of this many arcsec per pixel."""
    step = scale / 3600
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 250.0}
    return Header({**cards, "CRPIX2": 250.0, "CDELT1": -step, "CDELT2": step}).tostring(sep="\n")


def tile(noise: float = 0.01) -> tuple[Tile, dict[str, np.ndarray]]:
    """Three disks, one of them from the side, on a sky in g, r, i of 0.396 arcsec per pixel."""
    image = np.random.default_rng(0).normal(0, noise, (3, 500, 500)).astype(np.float32)
    for (x, y), scale in zip(((180, 200), (330, 180), (260, 330)), (2.5, 4.0, 5.0), strict=True):
        image[:, y - 64 : y + 65, x - 64 : x + 65] += galaxies((scale,))[0]
    objects = {"object_id": np.arange(3), "x": np.array([180.2, 330.0, 260.0]), "y": np.array([200.0, 180.0, 330.0])}
    place = TilePlace(halo=128)
    return Tile.from_arrays(image, ("g", "r", "i"), wcs=sky(0.396), zero_points=22.5, place=place), objects


def test_a_tile_is_measured() -> None:
    given, objects = tile()
    found = measure(given, objects, "morphology")
    rows = found.table.to_pandas()
    assert len(rows) == 3
    np.testing.assert_allclose(rows[["p_elliptical", "p_spiral", "p_edge_on"]].sum(axis=1), 1.0, atol=1e-5)
    assert any("colour pictures" in sentence for sentence in found.notes)
    assert rows.p_edge_on.max() < 0.5  # round ones


def test_what_is_not_calibrated_is_refused() -> None:
    given, objects = tile()
    with pytest.raises(InputError, match="zero point"):
        measure(replace(given, info=replace(given.info, zero_points={})), objects, "morphology")
    nowhere = Tile.from_arrays(given.image, ("g", "r", "i"), zero_points=22.5)
    with pytest.raises(InputError, match="arcsec per pixel"):
        measure(nowhere, objects, "morphology")
    with pytest.raises(InputError, match="band R, G, B is missing"):
        measure(Tile.from_arrays(given.image[:2], ("g", "r"), zero_points=22.5), objects, "morphology")


def test_stored_stamps_become_pictures(tmp_path: Path) -> None:
    image = galaxies((1.2, 1.6, 2.0), 64, 0.01)
    source = stored(str(tmp_path / "s.zarr"), image, np.ones_like(image), (22.5,) * 3)
    result = infer(source, bundle="morphology", out=str(tmp_path / "catalog"))
    table = query(result.catalog, "SELECT * FROM catalog").to_arrow()
    assert (result.rows, result.units_failed) == (3, 0)
    assert set(table["label"].to_pylist()) <= {"elliptical", "spiral", "edge_on"}


@pytest.mark.shared_data
def test_a_scene_of_another_survey_is_measured(tmp_path: Path, shared_data: Path) -> None:
    """HSC, five bands at 0.168 arcsec, 58 x 48 pixels: no galaxy of Galaxy Zoo, and flagged as none."""
    source = ingest(shared_data / "hsc_cosmos_35.npz", out=str(tmp_path / "s.zarr")).source
    with np.load(shared_data / "hsc_cosmos_35.npz") as archive:
        places = archive["catalog"]
    objects = pa.table({"object_id": np.arange(7), "x": places["x"], "y": places["y"]})
    pq.write_table(objects, tmp_path / "objects.parquet")
    options = {"bundle": "morphology", "objects": str(tmp_path / "objects.parquet")}
    with pytest.raises(InputError, match="arcsec per pixel"):
        infer(source, out=str(tmp_path / "catalog"), **options)
    with np.load(shared_data / "hsc_cosmos_35.npz") as archive:
        scene = Tile.from_arrays(archive["images"], tuple(archive["filters"]), wcs=sky(0.168), zero_points=27.0)
    rows = measure(scene, objects, "morphology").table.to_pandas()
    assert len(rows) == 7
    assert (np.asarray(rows["flags"], int) & int(ObjectFlag.OUT_OF_DOMAIN) > 0).all()


@pytest.mark.shared_data
def test_pictures_of_galaxy_zoo_have_the_radius_of_the_recipe(shared_data: Path) -> None:
    with np.load(shared_data / "gz1_sdss_rgb64_dev.npz") as archive:
        grey = torch.from_numpy(archive["x"][:800].transpose(0, 3, 1, 2).copy()).float()
    picture = ModelBundle.load("morphology").task().settings.picture
    light = picture.linear(grey)[:, 1:, 1:]
    light = light - light[:, :3].flatten(1).median(1).values[:, None, None]
    found = sizes(light)
    assert found.known.float().mean() > 0.98
    radius = found.radius[found.known]
    assert float(radius.median()) == pytest.approx(picture.radius, rel=0.03)
    low, high = radius.quantile(torch.tensor([0.16, 0.84])).tolist()
    assert high / low < 1.3  # pictures are scaled to the size of their galaxy
