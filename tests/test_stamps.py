"""The stamp store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.sources.stamps import Stamps, open_source
from astroml_plugin.sources.survey import Survey


@pytest.fixture
def pixels() -> np.ndarray:
    """100 stamps of two bands."""
    return np.random.default_rng(3).integers(0, 255, (100, 2, 16, 12)).astype(np.uint8)


@pytest.fixture
def stamps(tmp_path: Path, pixels: np.ndarray) -> Stamps:
    """Blocks of 32, the last one short."""
    made = Stamps.create(
        str(tmp_path / "s.zarr"), bands=("g", "r"), size=(16, 12), dtype="uint8", block=32, psf_size=(5, 5)
    )
    append(made, pixels)
    return made


def append(stamps: Stamps, pixels: np.ndarray) -> None:
    """Write `pixels` as new blocks with PSFs and labels."""
    blocks = -(-len(pixels) // stamps.block)
    first = stamps.reserve(blocks)
    for number in range(blocks):
        rows = np.arange(len(pixels))[number * stamps.block : (number + 1) * stamps.block]
        psf = np.broadcast_to(rows[:, None, None, None], (len(rows), 2, 5, 5)).astype(np.float32)
        checksum = stamps.write_block(first + number, pixels[rows], None, psf)
        stamps.commit_objects(first + number, pa.table({"object_id": rows % 7, "label": rows}), checksum)


def test_blocks_come_back_in_any_order(stamps: Stamps, pixels: np.ndarray) -> None:
    append(stamps, pixels[:5])
    opened = open_source(stamps.url)
    assert isinstance(opened, Stamps)
    assert opened.count == 105
    assert [(unit.start, unit.stop) for unit in opened.units()] == [(0, 32), (32, 64), (64, 96), (96, 100), (100, 105)]
    assert opened.columns == ("label",)
    assert opened.labels(["label"])["label"].to_pylist() == [*range(100), *range(5)]
    image, variance, psf = opened.read_block(3)
    assert variance is None
    np.testing.assert_array_equal(image, pixels[96:])
    assert psf is not None
    numbers = np.array([5, 99, 3, 3, 70, 100, 104])
    image, _, psf = opened.read_rows(numbers)
    np.testing.assert_array_equal(image, np.concatenate([pixels, pixels[:5]])[numbers])
    assert psf is not None
    assert psf[:, 0, 0, 0].tolist() == [5, 99, 3, 3, 70, 0, 4]
    assert opened.read_objects(0)["ra"].null_count == 32
    with pytest.raises(InputError, match="0 to 104"):
        opened.read_rows([105])


def test_damage_is_seen(stamps: Stamps) -> None:
    (shard,) = (path for path in Path(stamps.url, "image", "c", "1").rglob("*") if path.is_file())
    good = bytearray(shard.read_bytes())
    good[len(good) // 2] ^= 4
    shard.write_bytes(good)
    with pytest.raises(CorruptError):
        stamps.read_block(1)
    with pytest.raises(CorruptError):
        stamps.read_rows(np.arange(32, 64))
    shard.unlink()
    with pytest.raises(CorruptError, match="missing"):
        stamps.read_block(1)
    with pytest.raises(CorruptError, match="missing"):
        stamps.read_rows([40])


def test_wrong_shapes_and_kinds_are_refused(stamps: Stamps, pixels: np.ndarray, tmp_path: Path) -> None:
    psf = np.zeros((4, 2, 5, 5), np.float32)
    with pytest.raises(InputError, match="shape"):
        stamps.write_block(0, pixels[:4, :, :8], None, psf)
    with pytest.raises(InputError, match="psf"):
        stamps.write_block(0, pixels[:4])
    with pytest.raises(InputError, match="stamps"):
        Survey.open(stamps.url)
    survey = Survey.create(str(tmp_path / "v.zarr"), bands=("g",), tile_size=40, halo=0)
    assert isinstance(open_source(survey.url), Survey)
    with pytest.raises(InputError, match="not stamps"):
        Stamps.open(survey.url)
    with pytest.raises(InputError, match="exists already"):
        Stamps.create(stamps.url, bands=("g",), size=(4, 4))
    with pytest.raises(InputError, match="label columns"):
        stamps.labels(["redshift"])
