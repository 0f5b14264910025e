"""Objects sorted to the units that own them: complete, unique, resumable, whatever the chunks and tilings."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from astroml_plugin.catalog.objects import ObjectBuckets, ObjectSettings
from astroml_plugin.catalog.objects.placing import NO_IMAGE, NO_POSITION, OUTSIDE, _orders, _SkyIndex
from astroml_plugin.core.errors import InputError
from astroml_plugin.sky.wcs import Wcs, cut_tiles, separation
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo, tile_name


def header(ra: float, dec: float, width: int, height: int, scale: float = 0.2) -> str:
    """A TAN WCS centred on an image."""
    cards = fits.Header()
    cards["CTYPE1"], cards["CTYPE2"], cards["RADESYS"] = "RA---TAN", "DEC--TAN", "ICRS"
    cards["CRPIX1"], cards["CRPIX2"], cards["CRVAL1"], cards["CRVAL2"] = (width + 1) / 2, (height + 1) / 2, ra, dec
    cards["CDELT1"], cards["CDELT2"] = -scale / 3600, scale / 3600
    cards["NAXIS1"], cards["NAXIS2"] = width, height
    return "\n".join(card.image.rstrip() for card in cards.cards)


def survey_of(folder: Path, images: dict[str, str | None], size: int = 1000, tile: int = 300, halo: int = 20) -> Survey:
    """A survey whose tile table is complete (its pixels are never read here)."""
    survey = Survey.create(str(folder), bands=["r"], tile_size=tile, halo=halo, variance=False, mask=False)
    rows = []
    for image, cards in images.items():
        wcs = None if cards is None else Wcs.from_header(cards)
        for cut in cut_tiles(size, size, tile, halo):
            shifted = None if wcs is None else wcs.shifted(cut.outer.x0, cut.outer.y0, (tile, tile)).header
            name = tile_name(image, cut.row, cut.column)
            place = (len(rows), name, image, (size, size), cut.row, cut.column, cut.outer, cut.inner, shifted)
            rows.append(TileInfo(*place, checksum="c"))
    survey.reserve(len(rows))
    survey.commit(rows)
    return survey


def two_images() -> dict[str, str | None]:
    """Two images of 200 arcsec that overlap by half."""
    return {"b": header(10.0, 0.0, 1000, 1000), "a": header(10.0 - 100 / 3600, 0.0, 1000, 1000)}


def write(path: Path, **columns: object) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def sky_table(path: Path, count: int = 3000, seed: int = 1) -> str:
    generator = np.random.default_rng(seed)
    ra, dec = 10.0 + generator.uniform(-0.08, 0.06, count), generator.uniform(-0.04, 0.04, count)
    return write(path, object_id=np.arange(count) + 2**60, ra=ra, dec=dec)


def all_rows(buckets: ObjectBuckets) -> pa.Table:
    units = buckets.units().items()
    return pa.concat_tables([buckets.read(unit).append_column("unit", pa.array([unit] * n)) for unit, (n, _) in units])


def test_rows_with_primary_and_unplaced_are_the_objects(tmp_path: Path) -> None:
    survey = survey_of(tmp_path / "s", two_images())
    buckets = ObjectBuckets.build(
        sky_table(tmp_path / "o.parquet"), survey, str(tmp_path / "w"), chunk_rows=700, partition_rows=500
    )
    rows = all_rows(buckets)
    unplaced = buckets.unplaced()
    primary = rows.filter(rows["primary"])
    assert primary.num_rows + unplaced.num_rows == 3000 == buckets.rows
    assert sorted(primary["object_id"].to_pylist() + unplaced["object_id"].to_pylist()) == [
        i + 2**60 for i in range(3000)
    ]
    assert rows.num_rows == buckets.placed > primary.num_rows
    pairs = list(zip(rows["object_id"].to_pylist(), rows["image"].to_pylist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert set(unplaced["reason"].to_pylist()) == {OUTSIDE}


def test_each_row_lies_in_its_tiles_inner_box_and_agrees_with_the_wcs(tmp_path: Path) -> None:
    survey = survey_of(tmp_path / "s", two_images())
    buckets = ObjectBuckets.build(sky_table(tmp_path / "o.parquet", 800), survey, str(tmp_path / "w"))
    for info in survey.iter_tiles():
        rows = buckets.read(info.name)
        x, y = rows["x"].to_numpy(), rows["y"].to_numpy()
        assert info.inner.contains(x, y).all()
        expected = Wcs.from_header(two_images()[info.image] or "").to_pixel(
            rows["ra"].to_numpy(), rows["dec"].to_numpy()
        )
        np.testing.assert_allclose([x, y], expected, atol=1e-9)
        assert rows.column_names == ["object_id", "image", "x", "y", "ra", "dec", "primary", "duplicate"]


def test_primary_is_farthest_from_the_edge_with_ties_by_image_name(tmp_path: Path) -> None:
    survey = survey_of(tmp_path / "s", {"b": header(10.0, 0.0, 1000, 1000), "a": header(10.0, 0.0, 1000, 1000)})
    table = write(tmp_path / "o.parquet", id=[5], ra=[10.0], dec=[0.0])
    rows = all_rows(ObjectBuckets.build(table, survey, str(tmp_path / "w")))
    assert dict(zip(rows["image"].to_pylist(), rows["primary"].to_pylist(), strict=True)) == {"a": True, "b": False}
    survey = survey_of(tmp_path / "s2", two_images())
    table = write(tmp_path / "o2.parquet", id=[5], ra=[10.0 - 20 / 3600], dec=[0.0])
    rows = all_rows(ObjectBuckets.build(table, survey, str(tmp_path / "w2")))
    assert dict(zip(rows["image"].to_pylist(), rows["primary"].to_pylist(), strict=True)) == {"a": False, "b": True}


def test_chunks_and_partitions_do_not_change_the_rows_of_a_unit(tmp_path: Path) -> None:
    survey = survey_of(tmp_path / "s", two_images())
    table = sky_table(tmp_path / "o.parquet")
    one = ObjectBuckets.build(table, survey, str(tmp_path / "w1"))
    many = ObjectBuckets.build(table, survey, str(tmp_path / "w2"), chunk_rows=101, partition_rows=50)
    assert one.units() == many.units()
    assert all(one.read(unit).equals(many.read(unit)) for unit in one.units())


def test_another_tiling_gives_the_same_rows(tmp_path: Path) -> None:
    table = sky_table(tmp_path / "o.parquet")
    tables = []
    for tile, halo in ((300, 20), (517, 3)):
        survey = survey_of(tmp_path / f"s{tile}", two_images(), tile=tile, halo=halo)
        rows = all_rows(ObjectBuckets.build(table, survey, str(tmp_path / "w"))).drop_columns(["unit"])
        tables.append(rows.sort_by([("object_id", "ascending"), ("image", "ascending")]).combine_chunks())
    assert tables[0].equals(tables[1])


def test_duplicate_ids_are_marked_wherever_they_are(tmp_path: Path) -> None:
    survey = survey_of(tmp_path / "s", {"a": None})
    x = np.linspace(0, 999, 10)
    ids = [1, 2, 3, 4, 5, 6, 7, 1, 9, -9]
    table = write(tmp_path / "o.parquet", object_id=[*ids, 4], x=[*x, 5000.0], y=[*x, 0.0])
    buckets = ObjectBuckets.build(table, survey, str(tmp_path / "w"), chunk_rows=3)
    rows = all_rows(buckets)
    marked = [i for i, twice in zip(rows["object_id"].to_pylist(), rows["duplicate"].to_pylist(), strict=True) if twice]
    assert sorted(marked) == [1, 1, 4]  # the other 4 lies outside
    assert rows["ra"].null_count == 10


def test_pixel_boxes_are_half_open_at_half_pixels(tmp_path: Path) -> None:
    survey = survey_of(tmp_path / "s", {"a": None})  # tiles step by 260
    x = [-0.5, -0.51, 259.49, 259.5, 999.49, 999.5]
    table = write(tmp_path / "o.parquet", id=range(6), x=x, y=[0.0] * 6)
    buckets = ObjectBuckets.build(table, survey, str(tmp_path / "w"))
    rows = all_rows(buckets)
    units = dict(zip(rows["object_id"].to_pylist(), rows["unit"].to_pylist(), strict=True))
    assert units == {0: "a_r0_c0", 2: "a_r0_c0", 3: "a_r0_c1", 4: "a_r0_c3"}
    assert sorted(buckets.unplaced()["object_id"].to_pylist()) == [1, 5]


def test_positions_that_are_none_are_reported_not_lost(tmp_path: Path) -> None:
    survey = survey_of(tmp_path / "s", two_images())
    ra = pa.array([10.0, None, float("nan"), float("inf"), 10.0, 190.0])
    table = write(tmp_path / "o.parquet", id=range(6), ra=ra, dec=[0.0, 0.0, 0.0, 0.0, 91.0, 0.0])
    unplaced = ObjectBuckets.build(table, survey, str(tmp_path / "w")).unplaced()
    reasons = dict(zip(unplaced["object_id"].to_pylist(), unplaced["reason"].to_pylist(), strict=True))
    assert reasons == {1: NO_POSITION, 2: NO_POSITION, 3: NO_POSITION, 4: NO_POSITION, 5: OUTSIDE}


def test_pixel_positions_name_their_image(tmp_path: Path) -> None:
    survey = survey_of(tmp_path / "s", two_images())
    table = write(
        tmp_path / "o.parquet", id=[1, 2, 3], x=[500.0, 499.5, 1.0], y=[500.0, 499.5, 1.0], image=["a", "b", "zz"]
    )
    buckets = ObjectBuckets.build(table, survey, str(tmp_path / "w"))
    rows = all_rows(buckets).sort_by("object_id")
    assert rows["image"].to_pylist() == ["a", "b"]
    assert rows["ra"][1].as_py() == pytest.approx(10.0)
    assert buckets.unplaced()["reason"].to_pylist() == [NO_IMAGE]
    table = write(tmp_path / "o2.parquet", id=[1], x=[500.0], y=[500.0])
    with pytest.raises(InputError, match="2 images: give a column `image`"):
        ObjectBuckets.build(table, survey, str(tmp_path / "w"))


@pytest.mark.parametrize("after", ["place", "sort"])
def test_a_killed_build_goes_on_where_it_stopped(tmp_path: Path, after: str) -> None:
    survey = survey_of(tmp_path / "s", two_images())
    table = sky_table(tmp_path / "o.parquet")

    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == after and done > 1000:
            raise KeyboardInterrupt

    sizes = {"chunk_rows": 500, "partition_rows": 400}
    with pytest.raises(KeyboardInterrupt):
        ObjectBuckets.build(table, survey, str(tmp_path / "w"), progress=stop, **sizes)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "w").rglob("*.placed.parquet")}
    assert len(kept) >= 3
    seen: list[str] = []
    buckets = ObjectBuckets.build(table, survey, str(tmp_path / "w"), progress=lambda s, d, t: seen.append(s), **sizes)
    assert buckets.units() == ObjectBuckets.build(table, survey, str(tmp_path / "fresh")).units()
    assert not list((tmp_path / "w").rglob("*.placed.parquet"))
    again: list[str] = []
    ObjectBuckets.build(table, survey, str(tmp_path / "w"), progress=lambda s, d, t: again.append(s), **sizes)
    assert seen
    assert not again


def test_an_unknown_unit_and_an_unknown_folder(tmp_path: Path) -> None:
    survey = survey_of(tmp_path / "s", {"a": None})
    table = write(tmp_path / "o.parquet", id=[1], x=[1.0], y=[1.0])
    buckets = ObjectBuckets.build(table, survey, str(tmp_path / "w"), settings=ObjectSettings(frame="pixel"))
    assert buckets.read("a_r1_c1").num_rows == 0
    with pytest.raises(InputError, match="no sorted objects table"):
        ObjectBuckets.open(str(tmp_path / "none"))


def test_the_sky_index_finds_every_disc_that_holds_a_position() -> None:
    generator = np.random.default_rng(3)
    dec = np.degrees(np.arcsin(generator.uniform(-1, 1, 400)))
    dec[:20], dec[20:40] = 90 - generator.uniform(0, 3, 20), -90 + generator.uniform(0, 3, 20)
    radii = generator.choice([0.05, 0.7, 3.0, 9.9, 20.0], 400)
    discs = list(zip(generator.uniform(0, 360, 400).tolist(), dec.tolist(), radii.tolist(), strict=True))
    index = _SkyIndex([*discs, None])
    ra, dec = generator.uniform(0, 360, 3000), np.degrees(np.arcsin(generator.uniform(-1, 1, 3000)))
    dec[:300] = 90 - generator.uniform(0, 5, 300)
    for number, (a, d, r) in enumerate(discs[:200]):  # positions right at the discs too
        ra[number + 400], dec[number + 400] = a, np.clip(d + 0.9 * r * generator.uniform(-1, 1), -90, 90)
    found = {(number, int(o)) for number, which in index.candidates(np.arange(3000), ra, dec) for o in which}
    inside = {(n, int(o)) for n, (a, d, r) in enumerate(discs) for o in np.flatnonzero(separation(ra, dec, a, d) <= r)}
    assert inside <= found
    assert _orders(np.array([10.0, 0.05])).tolist() == [1, 8]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_million_objects_in_bounded_memory(tmp_path: Path) -> None:
    side = 10
    images = {f"i{k}": header(10.0 + (k % side) * 0.05, (k // side) * 0.05, 1000, 1000) for k in range(side * side)}
    survey = survey_of(tmp_path / "s", images)
    generator = np.random.default_rng(0)
    with pq.ParquetWriter(
        tmp_path / "o.parquet", pa.schema([("id", pa.int64()), ("ra", pa.float64()), ("dec", pa.float64())])
    ) as writer:
        for start in range(0, 10_000_000, 1_000_000):
            ra, dec = generator.uniform(9.98, 10.47, 1_000_000), generator.uniform(-0.02, 0.47, 1_000_000)
            writer.write_table(pa.table({"id": np.arange(start, start + 1_000_000), "ra": ra, "dec": dec}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    buckets = ObjectBuckets.build(str(tmp_path / "o.parquet"), survey, str(tmp_path / "w"))
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    sys.stderr.write(f"peak above start: {peak:.0f} MB\n")
    primary = sum(int(np.sum(buckets.read(unit)["primary"].to_numpy())) for unit in buckets.units())
    assert primary + buckets.unplaced_rows == 10_000_000
    assert peak < 900
