"""The tile store: what is written comes back, damage is seen, rows make tiles."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray
import zarr

from astroml_plugin.core import storage
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.pixels import Tile
from astroml_plugin.sky.wcs import Wcs, cut_tiles
from astroml_plugin.sources import arrays
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo, tile_name

HEADER = "\n".join(
    [
        *("CTYPE1  = 'RA---TAN'", "CTYPE2  = 'DEC--TAN'", "CRPIX1  = 10.5", "CRPIX2  = 20.5"),
        *("CRVAL1  = 150.0", "CRVAL2  = 2.0", "CDELT1  = -1E-4", "CDELT2  = 1E-4"),
    ]
)


def fill(survey: Survey, image: str = "sky", shape: tuple[int, int] = (90, 150)) -> list[TileInfo]:
    """Write and commit the tiles of one image of noise."""
    rng = np.random.default_rng(1)
    geometry = cut_tiles(*shape, survey.tile_size, survey.halo)
    first, side, count, infos = survey.reserve(len(geometry)), survey.tile_size, len(survey.bands), []
    for index, place in enumerate(geometry, first):
        pixels = rng.normal(size=(count, side, side)).astype(np.float32)
        mask = np.full(pixels.shape, index, np.uint32)
        psf = rng.random((count, 1, 1, 5, 5)).astype(np.float32) if survey.psf_shape else None
        checksum = survey.write_tile(index, Tile(pixels, pixels**2, mask, psf))
        header = Wcs(HEADER).shifted(place.outer.x0, place.outer.y0, (side, side)).header
        name = tile_name(image, place.row, place.column)
        infos.append(
            TileInfo(
                *(index, name, image, shape, place.row, place.column, place.outer, place.inner, header),
                units={"g": "nJy", "r": ""},
                zero_points={"g": 31.4, "r": None},
                has_band={"g": True, "r": False},
                has_variance=True,
                has_mask=True,
                has_psf=psf is not None,
                checksum=checksum,
            )
        )
    survey.commit(infos[2:])
    survey.commit(infos[:2])
    return infos


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    """Six tiles of 70 pixels."""
    made = Survey.create(str(tmp_path / "s.zarr"), bands=("g", "r"), tile_size=70, halo=10, psf_shape=(1, 1, 5, 5))
    fill(made)
    return made


def test_tiles_come_back_as_written(pipeline: str, survey: Survey) -> None:
    opened = pickle.loads(pickle.dumps(survey))
    infos = list(opened.iter_tiles())
    assert [info.index for info in infos] == list(range(6))
    assert infos[3].zero_points == {"g": 31.4, "r": None}
    assert infos[3].has_band == {"g": True, "r": False}
    for info in infos:
        tile = opened.read_tile(info, verify=True)
        assert (tile.mask == info.index).all()
        assert opened.tile(info.index) == info
    red = opened.read_tile(infos[2], ["r"])
    np.testing.assert_array_equal(red.image[0], opened.read_tile(infos[2]).image[1])
    assert red.psf is not None
    assert red.psf.shape == (1, 1, 1, 5, 5)
    assert opened.pixel_scale == pytest.approx(0.36, rel=1e-4)
    assert opened.index_table()["name"].to_pylist() == [info.name for info in infos]
    with pytest.raises(InputError, match="not z"):
        opened.read_tile(infos[0], ["z"])


def test_a_survey_from_before_calibrations_were_told_is_read(survey: Survey) -> None:
    for part in Path(survey.url, "tiles").glob("*.parquet"):
        pq.write_table(pq.read_table(part, partitioning=None).drop_columns(["calibrations"]), part)
    infos = list(Survey.open(survey.url).iter_tiles())
    assert [info.index for info in infos] == list(range(6))
    assert infos[3].zero_points == {"g": 31.4, "r": None}
    assert infos[3].calibrations == {"g": "", "r": ""}


def test_a_parent_image_is_rebuilt_from_its_tiles(survey: Survey) -> None:
    fill(survey, "other", (30, 30))
    parents = survey.images()
    assert set(parents) == {"sky", "other"}
    assert parents["sky"].shape == (90, 150)
    wcs = parents["sky"].wcs()
    assert wcs is not None
    np.testing.assert_allclose(wcs.to_sky(9.5, 19.5), [[150.0], [2.0]], atol=1e-9)
    assert parents["sky"].tile_of([0, 149, 149.6, -1], [0, 89, 0, 0]).tolist() == [0, 5, -1, -1]
    assert parents["other"].tile_of([5.0], [5.0]).tolist() == [6]


def test_others_open_the_store(survey: Survey) -> None:
    opened = xarray.open_zarr(survey.url, consolidated=False, chunks=None)
    assert opened["image"].dims == ("tile", "band", "y", "x")
    lazy = survey.to_dask("mask")
    assert lazy.chunksize == (1, 2, 70, 70)
    assert lazy[4].compute().min() == 4
    array = zarr.open_array(f"{survey.url}/image", mode="r")
    assert array.shards == (1, 2, 70, 70)


@pytest.fixture(params=["zarr", "zarrs"])
def pipeline(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each codec pipeline in turn."""
    if request.param == "zarrs":
        pytest.importorskip("zarrs")
    arrays.use_pipeline(request.param)
    yield request.param
    arrays.use_pipeline("auto")


@pytest.mark.parametrize("name", ["image", "variance", "mask", "psf"])
def test_a_flipped_byte_and_a_missing_shard_are_seen(pipeline: str, survey: Survey, name: str) -> None:
    info = survey.tile(3)
    (shard,) = (path for path in Path(survey.url, name, "c", "3").rglob("*") if path.is_file())
    good = shard.read_bytes()
    for position in (4, len(good) // 2, len(good) - 3):
        bad = bytearray(good)
        bad[position] ^= 1
        shard.write_bytes(bad)
        with pytest.raises(CorruptError, match=name):
            survey.read_tile(info)
    for size in (len(good) // 2, 0):
        shard.write_bytes(good[:size])
        with pytest.raises(CorruptError, match=name):
            survey.read_tile(info)
    shard.unlink()
    with pytest.raises(CorruptError, match="missing"):
        survey.read_tile(info)
    shard.write_bytes(good)
    survey.read_tile(info, verify=True)


def test_the_first_chunk_of_zarrs_is_compared_with_zarr_python(
    pipeline: str, survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = arrays.open_array(survey.url, "image")
    read = arrays.read_unit(survey.url, "image", array, 0, 0, 1)
    assert arrays._compared == ({(survey.url, "image"): True} if pipeline == "zarrs" else {})

    class Lying:
        """A decoder with one wrong bit."""

        shape, chunks, fill_value = array.shape, array.chunks, array.fill_value

        def __getitem__(self, where: object) -> np.ndarray:
            values = np.array(array[where])
            values.reshape(-1)[:1].view(np.uint32)[:] ^= 1
            return values

    arrays.use_pipeline(pipeline)  # forgets what was compared
    monkeypatch.setattr(arrays, "_through_zarrs", lambda array: isinstance(array, Lying))
    with pytest.warns(RuntimeWarning, match="otherwise than zarr-python"):
        np.testing.assert_array_equal(arrays.read_unit(survey.url, "image", Lying(), 0, 0, 1), read)
    np.testing.assert_array_equal(arrays.read_unit(survey.url, "image", Lying(), 0, 0, 1), read)


def test_a_tile_of_only_nan_is_no_missing_shard(tmp_path: Path) -> None:
    survey = Survey.create(str(tmp_path / "s.zarr"), bands=("g",), tile_size=40, halo=0, mask=False, variance=False)
    first = survey.reserve(1)
    survey.write_tile(first, Tile(np.full((1, 40, 40), np.nan, np.float32)))
    info = TileInfo(first, "a", "a", (40, 40), 0, 0, *(cut_tiles(40, 40, 40, 0)[0].outer,) * 2)
    assert np.isnan(survey.read_tile(info).image).all()


def test_a_shard_swapped_for_another_is_seen_by_verify(survey: Survey) -> None:
    one, two = Path(survey.url, "image/c/0/0/0/0"), Path(survey.url, "image/c/1/0/0/0")
    one.write_bytes(two.read_bytes())
    survey.read_tile(survey.tile(0))
    with pytest.raises(CorruptError, match="differs"):
        survey.read_tile(survey.tile(0), verify=True)


def test_reserved_tiles_exist_only_once_committed_and_indices_are_not_reused(survey: Survey) -> None:
    assert survey.reserve(2) == 6
    assert survey.reserve(1) == 8
    assert len(survey) == 6
    with pytest.raises(InputError, match="no tile 7"):
        survey.tile(7)


def test_a_reader_opened_before_more_tiles_came_reads_them(survey: Survey) -> None:
    reader = Survey.open(survey.url)
    reader.read_tile(reader.tile(0))
    fill(survey, "later", (30, 30))
    assert (reader.read_tile(reader.tile(6)).mask == 6).all()


def test_newer_format_and_foreign_stores_are_refused(survey: Survey, tmp_path: Path) -> None:
    document = json.loads(Path(survey.url, "zarr.json").read_text())
    document["attributes"]["astroml_plugin"]["format"] = 99
    Path(survey.url, "zarr.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"format 99.*upgrade"):
        Survey.open(survey.url)
    with pytest.raises(InputError, match="ingest"):
        Survey.open(str(tmp_path / "nothing.zarr"))
    zarr.create_group(tmp_path / "foreign.zarr")
    with pytest.raises(InputError, match="not a store of this package"):
        Survey.open(str(tmp_path / "foreign.zarr"))


def test_names_with_path_separators_are_refused(survey: Survey) -> None:
    with pytest.raises(InputError, match="separators"):
        fill(survey, "../evil", (30, 30))


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Survey.create(str(tmp_path / "file" / "s.zarr"), bands=("g",), tile_size=40, halo=0)


def test_a_cube_of_many_bands_keeps_its_chunks_small(tmp_path: Path) -> None:
    assert arrays.spatial_chunk(200, 4096) == 128
    survey = Survey.create(
        str(tmp_path / "s.zarr"), bands=[f"c{i:03d}" for i in range(200)], tile_size=150, halo=0, variance=False
    )
    index = survey.reserve(1)
    pixels = np.arange(200 * 150 * 150, dtype=np.float32).reshape(200, 150, 150)
    survey.write_tile(index, Tile(pixels))
    info = TileInfo(index, "a", "a", (150, 150), 0, 0, *(cut_tiles(150, 150, 150, 0)[0].outer,) * 2)
    np.testing.assert_array_equal(survey.read_tile(info, ["c007"]).image[0], pixels[7])
    assert survey.array("image").shards == (1, 200, 256, 256)


class _Files(SimpleHTTPRequestHandler):
    """A static server, as any web server in front of a folder."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    broken = False

    def do_GET(self) -> None:
        path, wanted = Path(self.translate_path(self.path)), self.headers.get("Range")
        if self.broken and "/c/" in self.path:
            self.send_error(503)
        elif wanted and path.is_file():
            self.send_part(path.read_bytes(), *wanted.removeprefix("bytes=").split("-"))
        else:
            super().do_GET()

    def send_part(self, data: bytes, first: str, last: str) -> None:
        start = int(first) if first else len(data) - int(last)
        stop = int(last) + 1 if first and last else len(data)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data[start:stop])))
        self.end_headers()
        self.wfile.write(data[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(survey: Survey) -> Iterator[tuple[str, type[_Files]]]:
    """The survey's URL on a static web server, and its handler."""

    class Handler(_Files):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(Path(survey.url).parent)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{Path(survey.url).name}", Handler
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("fast", [True, False])
def test_a_survey_behind_a_web_server_has_the_same_pixels(
    survey: Survey, web: tuple[str, type[_Files]], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fast:
        pytest.importorskip("obstore")
    monkeypatch.setattr(storage, "HAS_OBSTORE", fast)
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    remote = Survey.open(web[0])
    assert ("Object" in type(remote.array("image").store).__name__) == fast
    for info in remote.iter_tiles():
        here, there = survey.read_tile(info), remote.read_tile(info, verify=True)
        np.testing.assert_array_equal(here.image, there.image)
    Path(survey.url, "variance", "c", "0", "0", "0", "0").unlink()
    with pytest.raises(CorruptError, match="missing its shard"):
        remote.read_tile(remote.tile(0))
    web[1].broken = True
    with pytest.raises(CorruptError, match="cannot be read"):
        remote.read_tile(remote.tile(1))
