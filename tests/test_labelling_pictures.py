"""Pixels of a catalog's rows and their pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from astroml_plugin import cutouts
from astroml_plugin.catalog import Catalog
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.labelling.paint import UNUSABLE, Painter, colours, png
from astroml_plugin.labelling.pixels import PixelReader, recorded_source
from astroml_plugin.sources.stamps import Stamps
from tests import universe
from tests.ranked_catalogs import DECLARED, ranked_catalog, rows, stamps_and_catalog


def noisy(bands: int, peak: float = 0.0, side: int = 48, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - side // 2
    return (rng.normal(0, 2, (bands, side, side)) + 100 + peak * np.exp(-(x**2 + y**2) / 20)).astype(np.float32)


def test_one_band_is_gray_stretched_and_brighter_where_there_is_light() -> None:
    faint, bright = noisy(1, 20), noisy(1, 2000)
    painter = Painter.of([noisy(1, seed=k) for k in range(5)], ("r",))
    assert painter.noise is not None
    assert painter.noise[0] == pytest.approx(2, rel=0.1)
    pictures = [painter.picture(image) for image in (faint, bright)]
    assert all(picture.shape == (48, 48, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert (pictures[0][..., 0] == pictures[0][..., 2]).all()
    sky, centre = np.median(pictures[0][:8]), pictures[0][24, 24, 0]
    assert sky < 60 < centre
    assert pictures[1][23, 24, 0] == 255
    assert painter.picture(faint, contrast=4)[23, 24, 0] > centre
    assert painter.picture(faint, own=True)[23, 24, 0] > centre


def test_colours_go_by_wavelength() -> None:
    assert colours(("i", "g", "r")) == ((0,), (2,), (1,))
    assert colours(("u", "g", "r", "i", "z", "y")) == ((3,), (2,), (1,))
    assert colours(("F814W", "F606W")) == ((0,), (1, 0), (1,))
    assert colours(("c000", "c001", "c002")) == ((2,), (1,), (0,))
    assert colours(("R", "G", "B")) == ((0,), (1,), (2,))
    assert colours(("r",)) == ((0,), (0,), (0,))
    image = noisy(3)
    image[2, 20:28, 20:28] += 300  # i alone: red
    picture = Painter.of([noisy(3)], ("g", "r", "i")).picture(image)
    centre = picture[24, 24].astype(int)
    assert centre[0] > centre[2] + 50


def test_a_sky_has_its_first_row_at_the_bottom_a_stored_picture_at_the_top() -> None:
    image = noisy(1)
    image[0, :4] += 500
    assert Painter.of([noisy(1)], ("r",)).picture(image)[-2, 24, 0] > 200
    stored = np.zeros((3, 8, 8), np.uint8)
    stored[0, 0], stored[2, 7] = 200, 90
    picture = Painter.of([stored], ("R", "G", "B")).picture(stored)
    assert picture[0, 0].tolist() == [200, 0, 0]
    assert picture[7, 0].tolist() == [0, 0, 90]
    assert Painter.of([stored], ("R", "G", "B")).picture(stored, contrast=2)[0, 0, 0] > 200


def test_pixels_without_a_value_are_seen_as_such() -> None:
    image, valid = noisy(2), np.ones((2, 48, 48), bool)
    image[:, :5] = np.nan
    valid[:, :, :5] = False
    valid[0, 20:, 20:] = False  # one band is left
    valid[:, :5] = False
    picture = Painter.of([image], ("g", "r")).picture(image, valid)
    assert tuple(picture[-1, 30]) == UNUSABLE
    assert tuple(picture[10, 2]) == UNUSABLE
    assert tuple(picture[10, 30]) != UNUSABLE
    blank = Painter.of([], ("r",)).picture(np.full((1, 9, 9), np.nan, np.float32), np.zeros((1, 9, 9), bool))
    assert (blank == UNUSABLE).all()
    flat = Painter.of([np.ones((1, 9, 9), np.float32)], ("r",)).picture(np.ones((1, 9, 9), np.float32), own=True)
    assert flat.shape == (9, 9, 3)
    assert Image.open(io.BytesIO(png(flat))).size == (9, 9)


def test_stamps_of_a_survey_are_those_that_models_see(tmp_path: Path) -> None:
    survey = universe.make_survey(str(tmp_path / "s.zarr"), bands=("g", "r"))
    info = list(survey.iter_tiles())[1]
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, {"source": survey.id})
    reader = PixelReader(survey.url, catalog)
    x, y = np.array([info.inner.x0 + 10.6]), np.array([info.inner.y0 + 20.4])
    row = {"object_id": 1, "tile": info.name, "x": x[0], "y": y[0]}
    image, valid = reader.stamp(row, 32)
    placed = cutouts.to_device(survey.read_tile(info), survey.bands)
    corner = (info.outer.x0, info.outer.y0)
    wanted = cutouts.around(placed, x, y, 32, origin=corner, jacobian=np.zeros((1, 2, 2)))
    np.testing.assert_array_equal(np.where(valid, image, 0), wanted.image[0].numpy())
    np.testing.assert_array_equal(valid, wanted.valid[0].numpy())
    wide, usable = reader.stamp(row, 300)  # wider than the tile
    assert wide.shape == (2, 300, 300)
    assert 0 < usable.mean() < 1
    with pytest.raises(InputError, match="no tile nowhere"):
        reader.stamp({**row, "tile": "nowhere"}, 32)


def test_stamps_are_found_by_their_object(tmp_path: Path) -> None:
    url = universe.make_stamps(str(tmp_path / "s.zarr"), count=50, block=16)
    stamps = Stamps.open(url)
    catalog = Catalog.create(str(tmp_path / "c"), DECLARED, {"source": stamps.id})
    reader = PixelReader(url, catalog)
    assert reader.side == 32
    row = {"object_id": 1000 + 37, "tile": "block_000002", "x": None, "y": None}
    image, valid = reader.stamp(row, 32)
    np.testing.assert_array_equal(image, stamps.read_rows([37])[0][0])
    assert valid.all()
    np.testing.assert_array_equal(reader.stamp(row, 10)[0], image[:, 11:21, 11:21])
    wide, usable = reader.stamp(row, 48)
    np.testing.assert_array_equal(wide[:, 8:40, 8:40], image)
    assert usable.sum() == 32 * 32
    with pytest.raises(InputError, match="no object 1"):
        reader.stamp({**row, "object_id": 1}, 32)
    with pytest.raises(InputError, match="no block_000009"):
        reader.stamp({**row, "tile": "block_000009"}, 32)


def test_damaged_pixels_are_one_sentence(tmp_path: Path) -> None:
    url, catalog = stamps_and_catalog(tmp_path)
    reader = PixelReader(url, catalog)
    row = {"object_id": 10**17, "tile": "block_000000", "x": None, "y": None}
    assert reader.stamp(row, 32)[1].all()
    shard = max(
        (path for path in (tmp_path / "stamps.zarr" / "image").rglob("*") if path.is_file()),
        key=lambda p: p.stat().st_size,
    )
    shard.write_bytes(b"x" * shard.stat().st_size)
    with pytest.raises(CorruptError):
        PixelReader(url, catalog).stamp(row, 32)


def test_pixels_of_another_source_are_refused(tmp_path: Path) -> None:
    other = universe.make_stamps(str(tmp_path / "s.zarr"), count=4)
    catalog = ranked_catalog(tmp_path / "c", rows(5), 1, source="/old/place.zarr", source_id="a" * 32)
    assert recorded_source(catalog) == "/old/place.zarr"
    with pytest.raises(InputError, match="not what the catalog was made from"):
        PixelReader(other, catalog)
