"""Stamps cut from a survey: the very pixels that infer sees, in every format, whole after any accident, none lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.nddata import Cutout2D, NDData
from astropy.wcs import WCS, DistortionLookupTable

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit, ObjectFlag
from astroml_plugin.cutting import work
from astroml_plugin.sky.wcs import Wcs
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from astroml_plugin.training.labelled import LabelledStamps
from tests import universe
from workflows.cutouts import cutouts
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.query import query
from workflows.train import train

SHAPE = (300, 400)
COUNT = 120


def faults(image: np.ndarray, variance: np.ndarray, mask: np.ndarray) -> None:
    """Bad columns, a saturated core, NaN pixels and pixels without a variance."""
    mask[:, :, 100:102] = int(MaskBit.BAD)
    mask[:, 150:155, 200:210] |= np.uint32(MaskBit.SATURATED)
    image[:, 40:43, 60:63] = np.nan
    variance[:, 250:252, 300:330] = 0


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey of twelve tiles with faults, its objects with labels, some off every tile."""
    folder = tmp_path_factory.mktemp("cutouts")
    universe.make_survey(str(folder / "survey.zarr"), bands=("g", "r"), change=faults)
    universe.make_objects(folder / "placed.parquet", COUNT, SHAPE)
    table = pq.read_table(folder / "placed.parquet")
    lost = pa.table({"object_id": [7, 8], "ra": [10.0, float("nan")], "dec": [80.0, 2.0]})
    table = pa.concat_tables([table, lost])
    kinds = ["star" if number % 3 else "galaxy" for number in range(table.num_rows)]
    table = table.append_column("kind", pa.array(kinds)).append_column("split", pa.array(["test"] * table.num_rows))
    pq.write_table(table, folder / "objects.parquet")
    table.append_column("mag", pa.array(np.linspace(18, 25, table.num_rows))).to_pandas().to_csv(
        folder / "objects.csv", index=False
    )
    return folder


@pytest.fixture(scope="module")
def cut_stamps(sky: Path, client: object) -> Stamps:
    """Stamps of 32 pixels around all objects."""
    result = cutouts(
        str(sky / "survey.zarr"), objects=str(sky / "objects.parquet"), out=str(sky / "s.zarr"), size=32, client=client
    )
    assert (result.rows, result.unplaced, result.failed) == (COUNT, 2, ())
    assert result.tiles == 11  # the twelfth, of 16 x 16 pixels, has no object
    return Stamps.open(str(sky / "s.zarr"))


def parent(seed: int = 3) -> np.ndarray:
    """The pixels of the survey's one image."""
    image = universe.field(*SHAPE, 2, seed)
    faults(image, np.ones_like(image), np.zeros(image.shape, np.uint32))
    return image


def test_stamps_are_the_very_pixels_with_ids_labels_and_flags(sky: Path, cut_stamps: Stamps) -> None:
    table = cut_stamps.labels()
    given = pq.read_table(sky / "objects.parquet").to_pandas().set_index("object_id")
    assert sorted(table["object_id"].to_pylist()) == sorted(given.index[:COUNT])
    assert table["kind"].to_pylist() == given.loc[table["object_id"].to_pylist(), "kind"].tolist()
    np.testing.assert_allclose(table["ra"].to_numpy(), given.loc[table["object_id"].to_pylist(), "ra"], rtol=0)
    image, variance, psf = cut_stamps.read_rows(np.arange(COUNT))
    mask = cut_stamps.read_masks(np.arange(COUNT))
    assert variance is not None
    assert psf is not None
    assert mask is not None
    padded = np.pad(parent(), ((0, 0), (32, 32), (32, 32)), constant_values=np.nan)
    for number, (x, y) in enumerate(zip(table["x"].to_pylist(), table["y"].to_pylist(), strict=True)):
        left, top = int(np.floor(x + 0.5)) + 16, int(np.floor(y + 0.5)) + 16
        np.testing.assert_array_equal(image[number], padded[:, top : top + 32, left : left + 32])
    outside = np.isnan(image) & (mask & int(MaskBit.NO_DATA) > 0)
    flags = table["flags"].to_numpy()
    assert ((flags & ObjectFlag.EDGE > 0) == outside.any((1, 2, 3))).all()
    assert (flags & ObjectFlag.SATURATED).any()
    assert (flags & ObjectFlag.MASKED).any()
    unplaced = pq.read_table(sky / "s.zarr" / "objects" / "unplaced.parquet").to_pydict()
    assert dict(zip(unplaced["object_id"], unplaced["reason"], strict=True)) == {
        7: "outside every tile",
        8: "no finite position",
    }


@pytest.mark.parametrize("task", ["classify", "ellipticity"])
def test_a_bundle_gives_the_same_rows_from_the_survey_and_from_the_stamps(
    sky: Path, cut_stamps: Stamps, tmp_path: Path, client: object, task: str
) -> None:
    settings: dict[str, Any] = {"bands": ("r",)} if task == "ellipticity" else {"bands": ("g", "r")}
    bundle = universe.make_bundle(str(tmp_path / "b"), task=task, size=32, **settings)
    found = []
    for source, objects in ((sky / "survey.zarr", str(sky / "objects.parquet")), (cut_stamps.url, None)):
        out = str(tmp_path / f"c{len(found)}")
        infer(str(source), bundle=bundle, objects=objects, out=out, client=client)
        found.append(query(out, "SELECT * FROM catalog ORDER BY object_id").to_arrow())
    first, second = found
    same = set(first.column_names) - {"image", "tile", "x", "y", "_healpix_29", "primary"}
    assert {"flags", "ra", "dec"} < same
    for name in sorted(same):
        a, b = first[name].to_pandas(), second[name].to_pandas()
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5, err_msg=name)
        else:
            assert a.equals(b), name
    assert first["flags"].to_pandas().nunique() > 2


def test_fits_cutouts_have_the_pixels_and_the_wcs_of_cutout2d(sky: Path, tmp_path: Path, client: object) -> None:
    out = tmp_path / "fits"
    result = cutouts(
        str(sky / "survey.zarr"), objects=str(sky / "objects.csv"), out=str(out), size=21, bands=("r",), client=client
    )
    assert (result.rows, result.kind) == (COUNT, "fits")
    listed = pa.concat_tables([pq.read_table(file) for file in sorted((out / "objects").glob("*.parquet"))])
    assert sorted(listed["file"].to_pylist()) == sorted(file.name for file in out.glob("*.fits"))
    whole = WCS(fits.Header.fromstring(universe.header(*SHAPE), sep="\n"))
    image = parent()[1]
    for row in listed.to_pylist()[::9]:
        with fits.open(out / row["file"]) as hdus:
            hdus.verify("exception")
            assert hdus[0].header["OBJECTID"] == row["object_id"]
            assert hdus[0].header["LABEL KIND"] == row["kind"]
            assert hdus[0].header["LABEL MAG"] == pytest.approx(row["mag"])
            assert hdus["IMAGE"].header["BUNIT"] == "nJy"
            wanted = Cutout2D(image, (row["x"], row["y"]), 21, wcs=whole, mode="partial", fill_value=np.nan)
            np.testing.assert_array_equal(hdus["IMAGE"].data, wanted.data)
            for name in ("IMAGE", "VARIANCE", "MASK"):
                there = WCS(hdus[name].header).pixel_to_world_values([0, 20], [3, 20])
                np.testing.assert_allclose(there, wanted.wcs.pixel_to_world_values([0, 20], [3, 20]), rtol=0, atol=1e-9)
            assert hdus["PSF"].data.shape == (15, 15)
    again = cutouts(
        str(sky / "survey.zarr"), objects=str(sky / "objects.csv"), out=str(out), size=21, bands=("r",), client=client
    )
    assert (again.rows, again.rows_skipped) == (0, COUNT)
    with pytest.raises(InputError, match="holds other cutouts"):
        cutouts(str(sky / "survey.zarr"), objects=str(sky / "objects.csv"), out=str(out), size=22, client=client)
    several = ingest([str(out / name) for name in listed["file"].to_pylist()[:2]], out=str(tmp_path / "again.zarr"))
    tile = Survey.open(several.source).read_tile(Survey.open(several.source).tile(0))
    assert tile.variance is not None
    assert tile.psf is not None
    assert several.warnings == ()


def test_an_archive_goes_back_through_ingest(sky: Path, cut_stamps: Stamps, tmp_path: Path, client: object) -> None:
    out = tmp_path / "s.npz"
    cutouts(str(sky / "survey.zarr"), objects=str(sky / "objects.parquet"), out=str(out), size=32, client=client)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.npz", "s.unplaced.parquet"]
    with np.load(out) as archive:
        assert archive["images"].shape == (COUNT, 2, 32, 32)
    back = Stamps.open(ingest(str(out), out=str(tmp_path / "back.zarr")).source)
    assert (back.bands, back.pixel_scale, back.zero_points) == (
        cut_stamps.bands,
        cut_stamps.pixel_scale,
        cut_stamps.zero_points,
    )
    for one, two in zip(back.read_rows(np.arange(COUNT)), cut_stamps.read_rows(np.arange(COUNT)), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(back.read_masks(np.arange(COUNT)), cut_stamps.read_masks(np.arange(COUNT)))
    assert back.labels(["kind"]).equals(cut_stamps.labels(["kind"]))


def test_a_killed_cut_goes_on_and_ends_as_if_nothing_had_happened(
    sky: Path, tmp_path: Path, client: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"objects": str(sky / "objects.parquet"), "size": 24, "block": 16, "client": client}
    whole = Stamps.open(cutouts(str(sky / "survey.zarr"), out=str(tmp_path / "whole.zarr"), **settings).out)
    assert {len(block) for block in whole.units()} > {16}
    write, written = work.StampsOutput.write, []

    def dies(self: Any, block: int, *values: Any) -> None:
        if len(written) >= 3:  # two may be written at once
            raise KeyError("the power fails")
        write(self, block, *values)
        written.append(block)

    monkeypatch.setattr(work.StampsOutput, "write", dies)
    with pytest.raises(KeyError):
        cutouts(str(sky / "survey.zarr"), out=str(tmp_path / "killed.zarr"), **settings)
    monkeypatch.undo()
    result = cutouts(str(sky / "survey.zarr"), out=str(tmp_path / "killed.zarr"), **settings)
    assert result.rows + result.rows_skipped == COUNT
    assert result.rows_skipped >= 16
    killed = Stamps.open(result.out)
    assert [(block.index, block.checksum) for block in killed.units()] == [
        (block.index, block.checksum) for block in whole.units()
    ]
    assert killed.labels().equals(whole.labels())


def test_a_tile_that_cannot_be_read_is_told_and_done_later(sky: Path, tmp_path: Path, client: object) -> None:
    survey = tmp_path / "survey.zarr"
    shutil.copytree(sky / "survey.zarr", survey)
    shard = survey / "image" / "c" / "4" / "0" / "0" / "0"
    shard.rename(tmp_path / "hidden")
    settings: dict[str, Any] = {"objects": str(sky / "objects.parquet"), "size": 24, "block": 8, "client": client}
    result = cutouts(str(survey), out=str(tmp_path / "s.zarr"), **settings)
    ((what, reason),) = result.failed
    assert "missing its shard" in reason
    assert result.rows + int(what.split()[0]) == COUNT
    (tmp_path / "hidden").rename(shard)
    again = cutouts(str(survey), out=str(tmp_path / "s.zarr"), **settings)
    assert (again.failed, again.rows + again.rows_skipped) == ((), COUNT)
    assert len(set(Stamps.open(again.out).labels()["object_id"].to_pylist())) == COUNT


def test_rows_of_a_catalog_are_cut_where_they_were_measured(sky: Path, tmp_path: Path, client: object) -> None:
    bundle = universe.make_bundle(str(tmp_path / "b"), bands=("g", "r"), size=32)
    catalog = str(tmp_path / "catalog")
    infer(str(sky / "survey.zarr"), bundle=bundle, objects=str(sky / "objects.parquet"), out=catalog, client=client)
    sql = "SELECT object_id, image, x, y, p_star, flags FROM catalog WHERE x < 200"
    result = cutouts(
        str(sky / "survey.zarr"), catalog=catalog, sql=sql, out=str(tmp_path / "s.zarr"), size=32, client=client
    )
    rows = query(catalog, sql + " ORDER BY object_id").to_arrow()
    cut = Stamps.open(result.out).labels().sort_by("object_id")
    assert result.rows == rows.num_rows > 20
    again = cutouts(str(sky / "survey.zarr"), catalog=catalog, sql=sql, out=result.out, size=32, client=client)
    assert (again.rows, again.rows_skipped) == (0, result.rows)
    for name in ("object_id", "x", "y", "p_star"):
        np.testing.assert_array_equal(cut[name].to_numpy(), rows[name].to_numpy())
    assert cut["given_flags"].to_pylist() == rows["flags"].to_pylist()
    with pytest.raises(InputError, match="no column image, x, y"):
        cutouts(str(sky / "survey.zarr"), catalog=catalog, sql="SELECT object_id FROM catalog", out="x.zarr")
    universe.make_survey(str(tmp_path / "other.zarr"), bands=("g", "r"))
    with pytest.raises(InputError, match="positions are of other images"):
        cutouts(str(tmp_path / "other.zarr"), catalog=catalog, out="x.zarr")


def test_rows_that_are_asked_for_again_are_cut_once(sky: Path, tmp_path: Path, client: object) -> None:
    """Results of queries name their date and describe columns; stores move."""
    table, survey, name = pq.read_table(sky / "objects.parquet"), str(sky / "survey.zarr"), str(tmp_path / "s.zarr")
    words = pa.schema([one.with_metadata({"description": f"the {one.name}"}) for one in table.schema])
    asked = [table, table.replace_schema_metadata({"date": "2026-12-01"}), table.cast(words)]
    for number, one in enumerate(asked):
        result = cutouts(survey, objects=one, out=name, size=32, client=client)
        assert result.rows_skipped == (COUNT if number else 0)
    shutil.move(name, moved := str(tmp_path / "moved.zarr"))
    assert cutouts(survey, objects=table, out=moved, size=32, client=client).rows_skipped == COUNT
    assert len(Stamps.open(moved).labels(["kind"])) == COUNT


def test_the_same_objects_of_another_table_are_refused(sky: Path, tmp_path: Path, client: object) -> None:
    """Another order, some of the columns, a copy of the file: they would stand in the store twice."""
    survey, out = str(sky / "survey.zarr"), str(tmp_path / "s.zarr")
    cutouts(survey, objects=str(sky / "objects.parquet"), out=out, size=32, client=client)
    table = pq.read_table(sky / "objects.parquet")
    shutil.copy(sky / "objects.parquet", tmp_path / "copy.parquet")
    for other in (
        table.sort_by([("object_id", "descending")]),
        table.select(["object_id", "ra", "dec"]),
        str(tmp_path / "copy.parquet"),
    ):
        with pytest.raises(InputError, match="at the same pixels already"):
            cutouts(survey, objects=other, out=out, size=32, client=client)
    with pytest.raises(InputError, match="in memory has no rows"):
        cutouts(survey, objects=table.slice(0, 0), out=out, size=32, client=client)
    ids = pa.array(np.arange(len(table)) + 10**6)
    cutouts(survey, objects=table.set_column(0, "object_id", ids), out=out, size=32, client=client)
    assert len(Stamps.open(out).labels(["kind"])) == 2 * COUNT


def test_one_image_and_a_table_lead_to_a_bundle(tmp_path: Path, client: object) -> None:
    rng = np.random.default_rng(4)
    image = rng.normal(0, 1, (500, 600)).astype(np.float32)
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(12, 590, 24), np.arange(12, 490, 24)))
    wide = rng.random(len(x)) < 0.5
    row, column = np.mgrid[-10:11, -10:11]
    for at_x, at_y, large in zip(x, y, wide, strict=True):
        spot = 60 * np.exp(-(row**2 + column**2) / (2 * (3.5 if large else 1.2) ** 2))
        image[at_y - 10 : at_y + 11, at_x - 10 : at_x + 11] += spot
    header = fits.Header.fromstring(universe.header(500, 600), sep="\n")
    header["BUNIT"] = "nJy"
    fits.PrimaryHDU(image, header).writeto(tmp_path / "image.fits")
    ra, dec = Wcs.from_header(universe.header(500, 600)).to_sky(x, y)
    kinds = np.where(wide, "galaxy", "star")
    table = pa.table({"id": np.arange(len(x)), "ra": ra, "dec": dec, "label": kinds, "split": ["train"] * len(x)})
    survey = ingest(str(tmp_path / "image.fits"), out=str(tmp_path / "survey.zarr"), bands="r", client=client).source
    stamps = cutouts(survey, objects=table, out=str(tmp_path / "s.zarr"), size_arcsec=4.8, client=client)
    assert (stamps.size, stamps.rows) == (24, len(x))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'task = "classify"\nnetwork = "strided_cnn"\n[settings]\nnormalisation = { unit = "noise" }\n'
        "[network_arguments]\nwidths = [8, 16]\n[training]\nepochs = 4\nbatch_size = 32\nlearning_rate = 0.01\n"
        "[typicality]\nfit = false\n"
    )
    bundle = train(recipe, data=stamps.out, out=str(tmp_path / "bundle")).bundle
    infer(survey, bundle=bundle, objects=table, out=str(tmp_path / "catalog"), client=client)
    found = query(str(tmp_path / "catalog"), "SELECT object_id, label FROM catalog ORDER BY object_id").to_arrow()
    assert np.mean(np.array(found["label"].to_pylist()) == kinds) > 0.9


def test_masks_count_in_training_and_where_pixels_are_kept_on_the_node(cut_stamps: Stamps, tmp_path: Path) -> None:
    from astroml_plugin.search.node_cache import CachedStamps

    flags = cut_stamps.labels()["flags"].to_numpy()
    rows = np.flatnonzero(flags & (ObjectFlag.MASKED | ObjectFlag.SATURATED))
    for data in (LabelledStamps([cut_stamps.url]), CachedStamps([cut_stamps.url], tmp_path)):
        parts = [data.read(block, rows, ("g", "r")) for block in data.blocks]
        read = np.concatenate([part.flags.numpy() for part in parts])
        np.testing.assert_array_equal(read, flags[rows])
        sampled = data.sample(rows, len(rows), 0)
        np.testing.assert_array_equal(np.sort(sampled.flags.numpy()), np.sort(read))
        assert not sampled.image[~sampled.valid].any()


def test_tiles_of_several_kinds_share_one_unit_or_are_refused(tmp_path: Path, client: object) -> None:
    url = str(tmp_path / "survey.zarr")
    universe.make_survey(url, zero_points=[31.4])
    universe.make_survey(url, name="brighter", zero_points=[28.9], dec=2.5)
    ids, places = np.arange(4), ((50, 60), (200, 100))
    at = [Wcs.from_header(universe.header(*SHAPE, dec=dec)).to_sky(*np.transpose(places)) for dec in (2.0, 2.5)]
    table = {"object_id": ids, "ra": np.concatenate([at[0][0], at[1][0]]), "dec": np.concatenate([at[0][1], at[1][1]])}
    result = cutouts(url, objects=table, out=str(tmp_path / "s.zarr"), size=8, client=client)
    assert result.warnings == ("the tiles differ in their zero points: pixels are brought to nJy",)
    stamps = Stamps.open(result.out)
    assert stamps.zero_points == (31.4,)
    image = stamps.read_rows(np.arange(4))[0]
    names = stamps.labels()["image"].to_pylist()
    first, second = image[names.index("field")], image[names.index("brighter")]
    np.testing.assert_allclose(second, first * 10.0, rtol=1e-6)
    for options, says in (
        ({"size": 65}, "need a halo of 33 px"),
        ({"size": 0}, "cannot have 0 pixels"),
        ({"bands": ("z",)}, "has the bands r, not z"),
        ({"labels": ("kind",)}, "has no column kind"),
        ({"objects": {"object_id": [1], "ra": [0.0], "dec": [0.0]}}, r"none of the 1 objects .*outside every tile"),
        ({"out": str(tmp_path / "x.fits")}, "without a suffix for FITS"),
        ({"catalog": str(tmp_path / "c")}, "--objects TABLE or with --catalog"),
        ({"sql": "SELECT 1"}, "SQL asks a catalog"),
    ):
        keywords: dict[str, Any] = {"objects": table, "out": str(tmp_path / f"{len(says)}.zarr"), **options}
        with pytest.raises(InputError, match=says):
            cutouts(url, client=client, **keywords)


def test_words_of_text_tables_become_numbers_and_repeated_ids_stay_apart(tmp_path: Path, client: object) -> None:
    universe.make_survey(str(tmp_path / "survey.zarr"))
    ra, dec = Wcs.from_header(universe.header(*SHAPE)).to_sky([50, 200, 300], [60, 100, 250])
    words = ["1,2.5,true,007,", "2,3,false,abc,x", "1,,true,12,y"]
    lines = [f"{word},{a!r},{d!r}" for word, a, d in zip(words, ra.tolist(), dec.tolist(), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["object_id,mag,good,code,note,ra,dec", *lines]) + "\n")
    cut = cutouts(
        str(tmp_path / "survey.zarr"), objects=str(tmp_path / "t.csv"), out=str(tmp_path / "f"), size=8, client=client
    )
    listed = pa.concat_tables([pq.read_table(file) for file in sorted((tmp_path / "f" / "objects").glob("*.parquet"))])
    assert (cut.rows, listed.num_rows, len(set(listed["file"].to_pylist()))) == (3, 3, 3)
    rows = sorted(listed.to_pylist(), key=lambda row: row["x"])
    assert [(row["mag"], row["good"], row["code"], row["note"]) for row in rows] == [
        (2.5, True, "007", None),
        (3.0, False, "abc", "x"),
        (None, True, "12", "y"),
    ]
    assert [bool(row["flags"] & ObjectFlag.DUPLICATE_ID) for row in rows] == [True, False, True]


def test_lookup_tables_of_a_wcs_go_into_each_file(tmp_path: Path, client: object) -> None:
    header = fits.Header.fromstring(universe.header(90, 80), sep="\n")
    truth = WCS(header)
    bend = np.linspace(0, 2, 20).reshape(4, 5).astype(np.float32)
    for axis, table in (("cpdis1", bend), ("cpdis2", -bend)):  # astropy reads none of one axis alone, even its own
        setattr(truth, axis, DistortionLookupTable(table, (1.0, 1.0), (1.0, 1.0), (20.0, 30.0)))
    image = np.random.default_rng(2).normal(0, 1, (90, 80)).astype(np.float32)
    survey = ingest(NDData(image, wcs=truth, unit="nJy"), out=tmp_path / "s.zarr", client=client).source
    objects = {"object_id": [1], "x": [41.0], "y": [52.0]}
    cutouts(survey, objects=objects, out=str(tmp_path / "f"), size=9, client=client)
    with fits.open(tmp_path / "f" / "1.fits") as hdus:
        hdus.verify("exception")
        np.testing.assert_array_equal(hdus["IMAGE"].data, image[48:57, 37:46])
        there = WCS(hdus["IMAGE"].header, hdus).all_pix2world([[0, 0], [8, 5]], 0)
    wanted = truth.all_pix2world([[37, 48], [45, 53]], 0)
    np.testing.assert_allclose(there, wanted, rtol=0, atol=1e-9)
    assert np.abs(truth.wcs_pix2world([[37, 48]], 0) - wanted[:1]).max() > 1e-5
