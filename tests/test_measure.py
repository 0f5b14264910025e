"""`measure` on pixels in memory: rows are those of `infer`, bit for bit; bad input is one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io.fits import Header
from astropy.wcs import WCS

import astroml_plugin as ap
from astroml_plugin.catalog.labels import LabelMaps
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference import resident
from astroml_plugin.inference.in_memory import bands_needed
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.survey import Survey
from tests import spotter, universe
from workflows.infer import infer
from workflows.query import query

KINDS = {"one": ["kind"], "several": ["kind", "shape"], "found": ["spots"], "found and measured": ["spots", "kind"]}
PLAIN = dict.fromkeys(("x", "y"), np.array([100.0]))


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sky")
    with spotter.installed(folder / "site"):

        def holes(image: np.ndarray, spread: np.ndarray, marks: np.ndarray) -> None:
            image[0, 50:60, 50:60], marks[0, 100:110, 200:210] = np.nan, 2

        universe.make_survey(str(folder / "survey.zarr"), change=holes)
        universe.make_objects(folder / "objects.parquet", count=90)
        universe.make_bundle(str(folder / "kind"))
        universe.make_bundle(str(folder / "shape"), task="ellipticity", psf="required")
        spotter.make_bundle(str(folder / "spots"))
        yield folder


def bundles(sky: Path, names: list[str]) -> list[ap.ModelBundle]:
    return [ap.ModelBundle.load(sky / name) for name in names]


def table_of(sky: Path) -> pa.Table:
    """The objects, one id twice, in an order of their own."""
    table = pq.read_table(sky / "objects.parquet")
    ids = table["object_id"].to_numpy().copy()
    ids[4] = ids[3]
    return table.set_column(0, "object_id", pa.array(ids)).take(np.random.default_rng(2).permutation(len(ids)))


def the_tile() -> ap.Tile:
    return ap.Tile.from_arrays(universe.field(200, 220, 1), "r", wcs=Header.fromstring(universe.header(200, 220), "\n"))


ORDER = [("object_id", "ascending"), ("x", "ascending")]


def assert_equal(ours: pa.Table, theirs: pa.Table) -> None:
    ours, theirs = ours.sort_by(ORDER).combine_chunks(), theirs.sort_by(ORDER).combine_chunks()
    assert ours.num_rows == theirs.num_rows > 0
    assert ours.column_names == [name for name in theirs.column_names if name in ours.column_names]
    for name in ours.column_names:
        assert ours[name].combine_chunks().cast(theirs[name].type).equals(theirs[name].combine_chunks()), name


@pytest.mark.parametrize("kind", list(KINDS))
def test_rows_are_those_of_infer_bit_for_bit(sky: Path, tmp_path: Path, client: object, kind: str) -> None:
    names, found = KINDS[kind], "spots" in KINDS[kind]
    objects = None if found else table_of(sky)
    urls = [str(sky / name) for name in names]
    infer(str(sky / "survey.zarr"), bundle=urls, out=str(tmp_path / "c"), objects=objects, client=client)
    survey, measured = Survey.open(str(sky / "survey.zarr")), []
    for info in survey.iter_tiles():
        tile = ap.Tile.from_survey(survey, info)
        one = ap.measure(tile, objects, bundles(sky, names), outside="leave")
        measured.append(one.table)
        if found:
            np.testing.assert_array_equal(one.labels, LabelMaps.open(str(tmp_path / "c")).read(info.index))
            assert one.unplaced is None
        else:
            assert one.unplaced is not None
            assert one.table.num_rows + one.unplaced.num_rows == 90
    everything = pa.concat_tables(measured)
    assert everything.schema.equals(ap.declared_schema(bundles(sky, names)), check_metadata=True)
    assert_equal(everything, query(str(tmp_path / "c"), "SELECT * FROM catalog").to_arrow())
    assert (everything["flags"].to_numpy() != 0).any()


def test_rows_come_in_the_order_given_and_nothing_given_is_changed(sky: Path) -> None:
    tile = the_tile()
    before = tile.image.copy()
    ids = np.array([7, 3, 9, 3])
    given = {"object_id": ids, "x": np.array([0.0, 100, 219.4, 50]), "y": np.array([199.4, 100, 0, 60])}
    table = ap.measure(tile, given, bundles(sky, ["kind"])).table
    np.testing.assert_array_equal(table["object_id"], ids)
    np.testing.assert_array_equal(table["x"], given["x"])
    np.testing.assert_array_equal(table["flags"].to_numpy() & 64 > 0, ids == 3)
    np.testing.assert_array_equal(table["flags"].to_numpy() & 1 > 0, [True, False, True, False])
    np.testing.assert_array_equal(tile.image, before)
    ra, _ = WCS(Header.fromstring(universe.header(200, 220), "\n")).all_pix2world(given["x"], given["y"], 0)
    np.testing.assert_allclose(table["ra"], ra, rtol=0, atol=1e-9)
    by_sky = ap.measure(tile, {"object_id": ids, "ra": table["ra"], "dec": table["dec"]}, bundles(sky, ["kind"])).table
    assert by_sky["p_star"].equals(table["p_star"])
    assert ap.measure(tile, table.slice(0, 0), bundles(sky, ["kind"])).table.schema.equals(table.schema)


def test_a_part_of_an_image_gives_the_rows_of_the_whole(sky: Path) -> None:
    """Pixels in a larger parent, cut as a pipeline cuts its patches: outer boxes end at the image's border."""
    image, header = universe.field(200, 220, 1), universe.header(200, 220)
    given = {"object_id": np.arange(3), "x": np.array([10.0, 60, 99]), "y": np.array([5.0, 60, 150])}
    whole = ap.measure(the_tile(), given, bundles(sky, ["kind"])).table
    place = ap.TilePlace("image", "image_r0_c0", (200, 220), corner=(0, 0), inner=Box(0, 0, 100, 200))
    psf = np.random.default_rng(0).random((1, 4, 4, 5, 5))
    part = ap.Tile.from_arrays(image[:, :, :130], "r", wcs=Header.fromstring(header, "\n"), place=place, psf=psf)
    assert part.info.outer == Box(-30, -30, 130, 230)
    assert part.image.shape == (1, 260, 160)
    assert part.psf is not None
    assert part.psf.shape[3:] == (5, 5)
    assert ap.measure(part, given, bundles(sky, ["kind"])).table.equals(whole)
    inside = ap.TilePlace("image", shape=(200, 220), corner=(20, 30), inner=Box(50, 60, 100, 120))
    small = ap.Tile.from_arrays(image[0, 30:150, 20:130], ["r"], place=inside)
    assert small.info.outer == Box(20, 30, 130, 150)
    assert np.shares_memory(small.image, image)
    one = ap.measure(small, {"object_id": [1], "x": [60.0], "y": [60.0]}, bundles(sky, ["kind"])).table
    assert one["p_star"][0].equals(whole["p_star"][1])
    assert one["ra"].null_count == 1
    with pytest.raises(InputError, match="must lie in both"):
        ap.Tile.from_arrays(image, "r", place=ap.TilePlace(inner=Box(0, 0, 300, 100)))
    thin = ap.TilePlace(shape=(200, 220), corner=(20, 30), inner=Box(22, 32, 100, 120))
    with pytest.raises(InputError, match=r"needs a halo of 16 px .* the tile has 2: give one with more pixels"):
        ap.measure(
            ap.Tile.from_arrays(image[0, 30:150, 20:130], "r", place=thin),
            {"object_id": [1], "x": [60.0], "y": [60.0]},
            bundles(sky, ["kind"]),
        )


ONE = {"object_id": np.array([1]), "x": np.array([50.0]), "y": np.array([50.0])}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "far": ({"objects": {**ONE, "x": [500.0]}}, r"1 of 1 objects .* the first is 1 \(x 500, y 50: outside every tile"),
    "nowhere": ({"objects": {**ONE, "x": [np.nan]}}, "no finite position"),
    "no id": ({"objects": {**ONE, "object_id": [np.nan]}}, "1.* without an id|int64"),
    "no objects": ({"objects": None}, "no bundle here finds objects"),
    "no positions": ({"objects": {"object_id": [1]}}, "has no position columns"),
    "no bundle": ({"bundles": []}, "no bundle given"),
    "band": ({"tile": ("g",)}, "band r is missing: the source has g|g"),
    "psf": ({"bundles": ["shape"]}, "needs the PSF of each object"),
    "objects and finder": ({"bundles": ["spots"]}, "finds the objects itself"),
    "useless": ({"workers": 4}, "would do nothing for one tile"),
    "unknown": ({"bnad": "r"}, "did you mean 'band'"),
    "outside": ({"outside": "drop"}, "choose one of refuse, leave"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_one_sentence(sky: Path, case: str) -> None:
    given, message = BAD[case]
    named = {"tile": ("r",), "objects": ONE, "bundles": ["kind"], **given}
    names, bands = named.pop("bundles"), named.pop("tile")
    tile = ap.Tile.from_arrays(universe.field(200, 220, 1), bands)
    with pytest.raises(InputError, match=message):
        ap.measure(tile, named.pop("objects"), bundles(sky, names), **named)


PIXELS = np.zeros((40, 50), np.float32)
BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "bands": ({"bands": ["g", "r"]}, r"shape \(40, 50\) and there are 2 bands"),
    "one band twice": ({"bands": ["r", "r"]}, "give each its own name"),
    "variance": ({"variance": np.ones((40, 49))}, r"variance has shape \(1, 40, 49\), the image \(1, 40, 50\)"),
    "mask": ({"mask": np.full((40, 50), 0.5)}, "mask holds float64"),
    "negative mask": ({"mask": np.full((40, 50), -1)}, "mask holds int64"),
    "psf": ({"psf": np.ones((2, 5, 5))}, r"PSF has shape \(2, 5, 5\)"),
    "words": ({"image": np.full((40, 50), "a")}, "no real numbers"),
    "zero points": ({"zero_points": [25, 26]}, "2 zero points for the bands r"),
    "zero point": ({"zero_points": 0.0}, "no AB magnitude"),
    "whose": ({"zero_points": {"g": 25.0}}, "zero_points names g"),
    "no sky": ({"wcs": WCS(naxis=2)}, "WCS cannot be used"),
    "no wcs": ({"wcs": 5}, "a WCS of type int"),
}


@pytest.mark.parametrize("case", list(BAD_ARRAYS))
def test_arrays_that_make_no_tile_are_one_sentence(case: str) -> None:
    given, message = BAD_ARRAYS[case]
    named = {"image": PIXELS, "bands": "r", **given}
    with pytest.raises(InputError, match=message):
        ap.Tile.from_arrays(named.pop("image"), named.pop("bands"), **named)


def test_positions_on_the_sky_need_a_wcs(sky: Path) -> None:
    tile = ap.Tile.from_arrays(PIXELS, "r")
    with pytest.raises(InputError, match="the tile has no WCS"):
        ap.measure(tile, {"object_id": [1], "ra": [1.0], "dec": [1.0]}, bundles(sky, ["kind"]))


@pytest.mark.slow
def test_a_forked_process_has_threads_of_its_own() -> None:
    """A pipeline may measure, fork, and measure again: the threads of the parent would never answer."""
    code = (
        "import os, torch; from astroml_plugin.inference import resident as r; do = lambda: r.on_forward_thread('cpu', "
        "lambda: 7); assert do() == 7; pid = os.fork(); pid or os._exit(do()); print(os.waitpid(pid, 0)[1] >> 8)"
    )
    told = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert told.stdout.strip() == "7", told.stderr


def test_models_stay_and_threads_share_them(sky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resident.release()
    made, real = [], resident._load
    monkeypatch.setattr(resident, "_load", lambda *given: made.append(given[0].name) or real(*given))
    tile, kind = the_tile(), ap.ModelBundle.from_bytes(bundles(sky, ["kind"])[0].to_zip())
    given = {"object_id": np.arange(40), "x": np.linspace(0, 219, 40), "y": np.linspace(0, 199, 40)}
    first = ap.measure(tile, given, kind).table
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: ap.measure(tile, given, [kind, str(sky / "kind")][:1]).table, range(8)))
    assert all(table.equals(first) for table in tables)
    assert ap.measure(tile, given, str(sky / "kind")).table.equals(first)
    assert made == ["kind"]


def test_bands_that_bundles_need(sky: Path) -> None:
    kind = bundles(sky, ["kind"])
    assert bands_needed(kind, ["g", "r", "i"]) == ("r",)
    assert bands_needed(kind, ["g", "r"], options=ap.MeasureOptions(zero_point=(31.4, 27.0))) == ("g", "r")
    with pytest.raises(InputError, match="band r is missing"):
        bands_needed(kind, ["g"])


@pytest.mark.parametrize(("given", "words"), [(None, "no bundle given"), ((), "no bundle given"), (5, "not 5")])
def test_no_bundle_is_said_in_a_sentence(given: object, words: str) -> None:
    for function, more in ((ap.declared_schema, ()), (bands_needed, (["r"],))):
        with pytest.raises(InputError, match=words):
            function(given, *more)
