"""Rows of a bundle are the same alone and beside any other, flags included, whatever the bands' own faults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astroml_plugin.core.flags import MaskBit, ObjectFlag
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.inference import run_unit
from astroml_plugin.training.bundle import ModelBundle
from tests import universe
from workflows.infer import plan

BANDS = ("g", "r", "i")
SIDE = 420


def _spoil(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
    """Faults of every kind, each in one band only."""
    mask[0, :, :90] = int(MaskBit.NO_DATA)  # g ends within the stamps of some objects, others have none of it
    mask[2, 100:110, :] = int(MaskBit.SATURATED)
    mask[0, 200:204, 200:300] = int(MaskBit.COSMIC_RAY)
    image[2, 260:262, 100:300] = np.nan
    variance[0, 300:310, 250:] = np.nan
    variance[1, 350, 350] = 0


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    universe.make_survey(
        *(str(folder / "survey.zarr"),), shape=(SIDE, SIDE), tile_size=804, halo=192, bands=BANDS, change=_spoil
    )
    at = np.arange(5.0, SIDE, 41)
    x, y = (axis.ravel() for axis in np.meshgrid(at, at))
    ids = np.arange(len(x))
    ids[7] = ids[8]
    pq.write_table(pa.table({"object_id": ids, "x": x, "y": y}), folder / "objects.parquet")
    return folder


def _rows(sky: Path, out: Path, bundles: Sequence[str], objects: bool = True) -> pa.Table:
    given = str(sky / "objects.parquet") if objects else None
    url = str(sky / "survey.zarr")
    options = {} if objects else {"options": {"band": "r"}}
    for unit in plan(url, bundle=list(bundles), out=str(out), objects=given, device="cpu", **options):
        run_unit(unit)
    parts = [pq.read_table(part) for part in sorted((out / "parts").rglob("*.parquet"))]
    return pa.concat_tables(parts).sort_by([("x", "ascending"), ("y", "ascending"), ("object_id", "ascending")])


def _assert_own_columns_equal(alone: pa.Table, beside: pa.Table, bundle: str) -> None:
    """All columns that `bundle` gives alone stand beside others too, bit by bit."""
    names = [name for name in beside.column_names if name.startswith(f"{bundle}_")]
    assert f"{bundle}_flags" in names
    for name in names:
        one = alone[name.removeprefix(f"{bundle}_")].combine_chunks()
        assert beside[name].combine_chunks().cast(one.type).equals(one) or _same_bits(one, beside[name]), name


def _same_bits(one: pa.Array, two: pa.ChunkedArray) -> bool:
    return one.to_numpy(zero_copy_only=False).tobytes() == two.to_numpy().tobytes()


def test_rows_are_the_same_alone_and_beside_any_other_bundle(sky: Path, tmp_path: Path) -> None:
    names = ("ellipticity", "lens", "anomaly")
    alone = {name: _rows(sky, tmp_path / name, [name]) for name in names}
    together = _rows(sky, tmp_path / "all", names)
    for name in names:
        _assert_own_columns_equal(alone[name], together, name)
    common = together["flags"].to_numpy()
    pixels = int(ObjectFlag.EDGE | ObjectFlag.MASKED | ObjectFlag.NONFINITE | ObjectFlag.SATURATED)
    read = np.bitwise_or.reduce([together[f"{name}_flags"].to_numpy() for name in names])
    np.testing.assert_array_equal(common & (pixels & ~int(ObjectFlag.NONFINITE)), read & pixels & ~4)
    np.testing.assert_array_equal(common & 64, read & 64)
    shapes, lenses = (alone[name]["flags"].to_numpy() & int(ObjectFlag.SATURATED) for name in ("ellipticity", "lens"))
    assert not shapes.any()
    assert lenses.any()


def test_detections_are_the_same_beside_a_bundle_that_reads_more_bands(sky: Path, tmp_path: Path) -> None:
    alone = _rows(sky, tmp_path / "alone", ["segmentation"], objects=False)
    beside = _rows(sky, tmp_path / "beside", ["segmentation", "lens"], objects=False)
    assert alone.num_rows == beside.num_rows > 20
    _assert_own_columns_equal(alone, beside, "segmentation")


def test_flags_of_stored_stamps_are_of_the_pixels_that_are_read() -> None:
    image = np.random.default_rng(0).normal(size=(3, 2, 64, 64)).astype(np.float32)
    image[0, 0, 2, 2] = np.nan  # beyond the 48 pixels of the stamp
    image[1, 1, 32, 32] = np.nan  # in a band that is not read
    image[2, 0, 32, 32] = np.nan
    task = ModelBundle.load("ellipticity").task()
    given = from_stamps(image, None, None, bands=("r", "g"), pixel_scale=0.2)
    assert task.cut_flags(given.select("r")).tolist() == [0, 0, int(ObjectFlag.NONFINITE)]
    assert given.flags.tolist() == [int(ObjectFlag.NONFINITE)] * 3


def test_objects_without_a_band_have_null_values_and_no_edge(sky: Path, tmp_path: Path) -> None:
    table = _rows(sky, tmp_path / "lens", ["lens"])
    without = table["x"].to_numpy() < 89 - 32  # g begins at x = 90
    partly = (table["x"].to_numpy() >= 90 - 32) & (table["x"].to_numpy() < 90 + 32)
    x, faults = table["x"].to_numpy(), int(ObjectFlag.MASKED | ObjectFlag.NONFINITE | ObjectFlag.SATURATED)
    faulty = table["flags"].to_numpy() & faults > 0  # in one band, near some objects
    for name in ("p_lens", "p_other", "label"):  # over 15 % of the weight about the object is lost up to x = 98
        null = table[name].is_null().to_numpy()
        assert null[x < 97].all(), name
        assert not null[(x >= 100) & ~faulty].any(), name
    flags = table["flags"].to_numpy()
    inside = np.abs(table["y"].to_numpy() - SIDE / 2) < SIDE / 2 - 33
    inside &= table["x"].to_numpy() > 33
    assert np.all(flags[without] & int(ObjectFlag.OUT_OF_DOMAIN))
    assert not np.any(flags[without & inside] & int(ObjectFlag.EDGE))
    assert np.all(flags[partly] & int(ObjectFlag.EDGE))


def test_a_band_that_was_not_observed_has_no_fluxes(tmp_path: Path) -> None:
    def change(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
        mask[0, :, :150] = int(MaskBit.NO_DATA)
        image[2] = 0

    url = str(tmp_path / "survey.zarr")
    universe.make_survey(url, shape=(200, 300), tile_size=592, halo=146, bands=BANDS, change=change)
    for unit in plan(url, bundle="segmentation", out=str(tmp_path / "c"), device="cpu"):
        run_unit(unit)
    (part,) = (tmp_path / "c" / "parts").rglob("*.parquet")
    table = pq.read_table(part)
    x, flags = table["x"].to_numpy(), table["flags"].to_numpy()
    for kind in ("iso", "aper", "total"):
        for end in ("", "_err"):
            null = table[f"flux_{kind}_g{end}"].is_null().to_numpy()
            assert null[x < 135].all()
            assert not null[x > 165].any()
            assert table[f"flux_{kind}_r{end}"].null_count == 0
            assert table[f"flux_{kind}_i{end}"].null_count == table.num_rows
    inside = (x > 20) & (x < 125) & (np.abs(table["y"].to_numpy() - 100) < 80)
    assert inside.sum() > 3
    assert not np.any(flags[inside] & int(ObjectFlag.EDGE))
