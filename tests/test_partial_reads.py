"""Few objects on a large tile: only the chunks they touch are read, and the rows are those of the whole tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astroml_plugin import cutouts as cut
from astroml_plugin.core.errors import CorruptError
from astroml_plugin.pixels import SparseTile, Tile
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources import arrays, partial_reads
from astroml_plugin.sources.survey import Survey
from tests import universe
from tests.test_infer import assert_same, rows
from workflows.infer import infer

BANDS = ("g", "r")


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """One tile of 10 x 10 chunks (the last ones cut off), with masked pixels around its image."""
    folder = tmp_path_factory.mktemp("sparse")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 2 * 4 * 64 * 64)
        return universe.make_survey(str(folder / "survey.zarr"), shape=(420, 500), tile_size=600, halo=40, bands=BANDS)


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """On small tiles a call costs more than its pixels: without this cost, the choice is that of a large tile."""
    monkeypatch.setattr(partial_reads, "LOCAL", partial_reads.ReadCost(latency=1e-4, rate=1e9))


def positions(survey: Survey, count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    inner = survey.tile(0).inner.clipped(420, 500)
    rng = np.random.default_rng(seed)
    return rng.uniform(inner.x0, inner.x1 - 1, count), rng.uniform(inner.y0, inner.y1 - 1, count)


def test_boxes_are_the_chunks_that_stamps_touch_and_no_others() -> None:
    left, top = np.array([10, 60, 130, 390]), np.array([0, 60, 10, 390])
    boxes = partial_reads.chunk_boxes(left, top, 8, 64, (400, 400))
    seen = np.zeros((400, 400), int)
    for box in boxes:
        seen[box.y0 : box.y1, box.x0 : box.x1] += 1
    assert seen.max() == 1
    for x0, y0 in zip(left, top):
        assert seen[y0 : y0 + 8, x0 : x0 + 8].all()
    assert Box(0, 0, 192, 64) in boxes  # three chunks in a row are one read
    assert Box(384, 384, 400, 400) in boxes  # the last chunk ends with the tile
    assert seen.sum() == (3 + 2) * 64 * 64 + 16 * 16


def test_few_objects_pay_and_many_do_not() -> None:
    rng = np.random.default_rng(0)

    def chosen(count: int, store: partial_reads.ReadCost) -> bool:
        left, top = rng.integers(0, 4032, (2, count))
        boxes = partial_reads.chunk_boxes(left, top, 64, 512, (4096, 4096))
        return partial_reads.is_cheaper(boxes, (4096, 4096), 36, 3, store)

    for store in (partial_reads.ReadCost(2e-3, 1e9), partial_reads.REMOTE):
        assert chosen(3, store)
        assert not chosen(1000, store)


@pytest.mark.parametrize("bands", [None, ("r",)])
def test_stamps_of_a_sparse_read_are_those_of_the_whole_tile(survey: Survey, bands: tuple[str, ...] | None) -> None:
    info = survey.tile(0)
    x, y = positions(survey, 3)
    read = survey.read_around(info, x, y, 32, bands)
    assert isinstance(read, SparseTile)
    whole = survey.read_tile(info, bands)
    assert read.nbytes < whole.nbytes / 3
    names, corner = bands or BANDS, (info.outer.x0, info.outer.y0)
    jacobian = np.full((3, 2, 2), np.nan)
    few, all_ = (
        cut.around(cut.to_device(tile, names), x, y, 32, origin=corner, jacobian=jacobian) for tile in (read, whole)
    )
    for name in ("image", "variance", "valid", "psf", "flags"):
        np.testing.assert_array_equal(getattr(few, name).numpy(), getattr(all_, name).numpy(), err_msg=name)
    assert few.flags.any() or few.valid.all()


def test_many_objects_read_the_whole_tile(survey: Survey) -> None:
    assert isinstance(survey.read_around(survey.tile(0), *positions(survey, 2000), 32), Tile)


def test_a_missing_shard_is_an_error_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 4 * 64 * 64)
    survey = universe.make_survey(str(tmp_path / "survey.zarr"), shape=(420, 500), tile_size=600, halo=40)
    x, y = positions(survey, 3)
    next((tmp_path / "survey.zarr" / "image" / "c").glob("0/0/0/0")).unlink()
    with pytest.raises(CorruptError, match="missing its shard"):
        survey.read_around(survey.tile(0), x, y, 32)


def test_the_catalog_is_the_same_however_tiles_are_read(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = positions(survey, 4)
    pq.write_table(pa.table({"object_id": np.arange(4), "x": x, "y": y}), tmp_path / "few.parquet")
    bundle = universe.make_bundle(str(tmp_path / "kind"), bands=BANDS)
    settings = {"bundle": bundle, "objects": str(tmp_path / "few.parquet")}
    seen = []
    is_cheaper = partial_reads.is_cheaper

    def noted(*arguments: object) -> bool:
        seen.append(is_cheaper(*arguments))
        return seen[-1]

    monkeypatch.setattr(partial_reads, "is_cheaper", noted)
    infer(survey.url, out=str(tmp_path / "sparse"), **settings)
    assert seen == [True]
    monkeypatch.setattr(partial_reads, "is_cheaper", lambda *arguments: False)
    infer(survey.url, out=str(tmp_path / "whole"), **settings)
    assert_same(rows(tmp_path / "sparse"), rows(tmp_path / "whole"))
