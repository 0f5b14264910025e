"""Stores that are compressed otherwise: the same pixels, the same refusals of damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.pixels import Tile
from astroml_plugin.sources import Stamps, Survey, arrays
from astroml_plugin.sources.plain_shards import PlainShards
from workflows.ingest import ingest

PIXELS = np.random.default_rng(3).normal(100, 3, (2, 96, 96)).astype(np.float32)


@pytest.fixture(params=["zarr", "zarrs"])
def pipeline(request: pytest.FixtureRequest) -> Any:
    if request.param == "zarrs":
        pytest.importorskip("zarrs")
    arrays.use_pipeline(request.param)
    yield request.param
    arrays.use_pipeline("auto")


def shard(url: Path, name: str = "image") -> Path:
    return url / name / "c" / "0" / "0" / "0" / "0"


@pytest.mark.parametrize("codec", arrays.CODECS)
def test_every_codec_gives_the_pixels_back_and_tells_damage(tmp_path: Path, pipeline: str, codec: str) -> None:
    survey = Survey.create(str(tmp_path / "s.zarr"), bands=("g", "r"), tile_size=96, halo=8, mask=False, codec=codec)
    survey.write_tile(survey.reserve(1), Tile(PIXELS, np.ones_like(PIXELS)))
    survey = Survey.open(survey.url)
    assert survey.codec == codec
    np.testing.assert_array_equal(survey._read("image", 0), PIXELS)
    np.testing.assert_array_equal(
        survey._read("image", 0, (slice(None), slice(3, 9), slice(90, 96))), PIXELS[:, 3:9, 90:]
    )
    damaged = bytearray(shard(tmp_path / "s.zarr").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard(tmp_path / "s.zarr").write_bytes(damaged)
    with pytest.raises(CorruptError, match="is damaged"):
        Survey.open(survey.url)._read("image", 0)


def test_what_is_not_compressed_lies_in_the_file_as_it_is(tmp_path: Path) -> None:
    survey = Survey.create(str(tmp_path / "s.zarr"), bands=("g", "r"), tile_size=96, halo=8, codec="none")
    survey.write_tile(survey.reserve(1), Tile(PIXELS, np.ones_like(PIXELS), np.zeros(PIXELS.shape, np.uint32)))
    assert PIXELS.tobytes() in shard(tmp_path / "s.zarr").read_bytes()
    assert shard(tmp_path / "s.zarr", "mask").stat().st_size < PIXELS.nbytes / 100  # masks are compressed all the same


@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16"])
@pytest.mark.parametrize("unit", [6, 7])
def test_shards_without_compression_are_read_as_zarr_reads_them(tmp_path: Path, unit: int, dtype: str) -> None:
    """Any box, over chunks that the array's end cuts; units of 7 rows do not lie in one shard, whose chunks have 3."""
    layout = arrays.ArrayLayout(("row", "y", "x"), (50, 70), unit, (3, 16, 16), dtype, 1, codec="none")
    arrays.create_array(str(tmp_path), "image", layout)
    values = np.random.default_rng(1).integers(2, 200, (2 * unit, 50, 70)).astype(dtype)
    made = arrays.open_array(str(tmp_path), "image", read_only=False)
    made.resize(values.shape)
    arrays.write_unit(made, 0, values)
    array = arrays.open_array(str(tmp_path), "image")
    assert PlainShards.of(array) is not None
    rng = np.random.default_rng(2)
    for _ in range(40):
        places = (np.sort(rng.choice(side + 1, 2, False)) for side in (unit, 50, 70))
        rows, *region = (slice(int(start), int(stop)) for start, stop in places)
        found = arrays.read_unit(
            str(tmp_path), "image", array, 1, unit + rows.start, unit + rows.stop, (region[0], region[1])
        )
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, values[unit:][rows, region[0], region[1]])
    np.testing.assert_array_equal(arrays.read_unit(str(tmp_path), "image", array, 0, 0, unit), values[:unit])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held[:10], "damaged"),
        (lambda held: held[: len(held) // 2], "damaged"),
        (lambda held: held[:-1], "damaged"),
        (lambda held: held[:-20] + bytes([held[-20] ^ 1]) + held[-19:], "damaged"),
        (lambda held: b"", "damaged|missing its shard"),
        (None, "missing its shard"),
    ],
    ids=["few bytes", "half", "a byte less", "a bit of the index", "empty", "no file"],
)
def test_damage_of_shards_without_compression_is_told(tmp_path: Path, change: Any, said: str) -> None:
    survey = Survey.create(str(tmp_path / "s.zarr"), bands=("g", "r"), tile_size=96, halo=8, mask=False, codec="none")
    survey.write_tile(survey.reserve(1), Tile(PIXELS, np.ones_like(PIXELS)))
    file = shard(tmp_path / "s.zarr")
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change(file.read_bytes()))
    with pytest.raises(CorruptError, match=said):
        Survey.open(survey.url)._read("image", 0)


def test_ingest_takes_a_codec_and_a_store_keeps_it(tmp_path: Path) -> None:
    fits.writeto(tmp_path / "a.fits", PIXELS[0])
    fits.writeto(tmp_path / "b.fits", PIXELS[1])
    np.savez(tmp_path / "s.npz", images=PIXELS[None], bands=np.array(["g", "r"]))
    np.savez(tmp_path / "t.npz", images=PIXELS[None] + 1, bands=np.array(["g", "r"]))
    for suffix, kind, out in (("fits", Survey, "s.zarr"), ("npz", Stamps, "t.zarr")):
        first, second = ("a", "b") if suffix == "fits" else ("s", "t")
        url = str(tmp_path / out)
        ingest(str(tmp_path / f"{first}.{suffix}"), out=url, codec="lz4")
        assert kind.open(url).codec == "lz4"
        ingest(str(tmp_path / f"{second}.{suffix}"), out=url)
        with pytest.raises(InputError, match="is compressed by lz4, not zstd: leave --codec away"):
            ingest(str(tmp_path / f"{second}.{suffix}"), out=url, codec="zstd")
    with pytest.raises(InputError, match="codec must be one of zstd, lz4, none, not 'gzip'"):
        ingest(str(tmp_path / "a.fits"), out=str(tmp_path / "u.zarr"), codec="gzip")


def test_an_unknown_codec_of_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="codec 'gzip' is none of zstd, lz4, none"):
        Stamps.create(str(tmp_path / "s.zarr"), bands=("g",), size=(8, 8), codec="gzip")
