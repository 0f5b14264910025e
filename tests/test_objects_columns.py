"""Objects tables of every format become the same objects; ids stay exact; what cannot be read says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import FK5, AltAz, EarthLocation, SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table

from astroml_plugin.catalog.objects import OBJECT_SCHEMA, ObjectSettings, read_chunks
from astroml_plugin.core.errors import InputError

BIG = 2**62 + 1
IDS = [BIG, BIG + 2, -5, 0, 7]
RA = [10.0, 11.5, 359.999, 0.0, 12.25]
DEC = [-1.0, 0.5, 89.9, -89.9, 3.125]


def read(path: Path | str, rows: int = 2, **settings: object) -> pa.Table:
    chunks = list(read_chunks(str(path), ObjectSettings(**settings), rows))  # type: ignore[arg-type]
    assert all(0 < chunk.num_rows <= rows for chunk in chunks)
    assert all(chunk.schema.equals(OBJECT_SCHEMA) for chunk in chunks)
    return pa.concat_tables(chunks)


def plain() -> Table:
    return Table({"SourceID": IDS, "RA": RA, "DEC": DEC, "mag": [1.0] * 5})


def as_parquet(path: Path) -> str:
    pq.write_table(pa.table({"SourceID": IDS, "RA": RA, "DEC": DEC}), path / "t.parquet")
    return str(path / "t.parquet")


def as_csv(path: Path) -> str:
    lines = ["# made by hand", "SourceID,RA,DEC,name"]
    lines += [f"{i},{a!r},{d!r},\"x, y\"" for i, a, d in zip(IDS, RA, DEC)]  # fmt: skip
    (path / "t.csv").write_text("\n".join(lines) + "\n")
    return str(path / "t.csv")


def as_gzipped_tsv(path: Path) -> str:
    import gzip

    lines = ["SourceID\tRA\tDEC", *(f"{i}\t{a!r}\t{d!r}" for i, a, d in zip(IDS, RA, DEC))]
    with gzip.open(path / "t.tsv.gz", "wt") as file:
        file.write("\n".join(lines))
    return str(path / "t.tsv.gz")


def as_fits(path: Path) -> str:
    plain().write(path / "t.fits")
    return str(path / "t.fits")


def as_votable_text(path: Path) -> str:
    plain().write(path / "t.vot", format="votable")
    return str(path / "t.vot")


def as_votable_binary(path: Path) -> str:
    plain().write(path / "b.xml", format="votable", tabledata_format="binary2")
    return str(path / "b.xml")


@pytest.mark.parametrize("make", [as_parquet, as_csv, as_gzipped_tsv, as_fits, as_votable_text, as_votable_binary])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_every_format_gives_the_same_objects(tmp_path: Path, make: Callable[[Path], str], rows: int) -> None:
    table = read(make(tmp_path), rows)
    assert table["object_id"].to_pylist() == IDS
    assert table["ra"].to_pylist() == RA
    assert table["dec"].to_pylist() == DEC
    assert table["x"].null_count == 5


def test_a_remote_table(tmp_path: Path) -> None:
    import fsspec

    for make, name in ((as_csv, "t.csv"), (as_fits, "t.fits"), (as_parquet, "t.parquet")):
        fsspec.filesystem("memory").pipe_file(f"/objects/{name}", Path(make(tmp_path)).read_bytes())
        assert read(f"memory://objects/{name}")["object_id"].to_pylist() == IDS


def test_galactic_positions_become_icrs(tmp_path: Path) -> None:
    Table({"id": [1, 2], "l": [18.38, 0.0], "b": [0.24, 90.0]}).write(tmp_path / "t.fits")
    table = read(tmp_path / "t.fits")
    sky = SkyCoord([18.38, 0.0] * u.deg, [0.24, 90.0] * u.deg, frame="galactic").icrs
    np.testing.assert_allclose(table["ra"].to_numpy(), sky.ra.deg)
    np.testing.assert_allclose(table["dec"].to_numpy(), sky.dec.deg)


def test_columns_in_radians_become_degrees(tmp_path: Path) -> None:
    Table({"id": [1], "coord_ra": [np.pi] * u.rad, "coord_dec": [0.5] * u.rad}).write(tmp_path / "t.fits")
    table = read(tmp_path / "t.fits")
    assert table["ra"].to_pylist() == pytest.approx([180.0])
    assert table["dec"].to_pylist() == pytest.approx([np.degrees(0.5)])


def test_right_ascensions_in_hours_become_degrees(tmp_path: Path) -> None:
    table = Table({"id": [1], "ra": [10.5], "dec": [-2.0]})
    table["ra"].unit, table["dec"].unit = "h", u.deg
    table.write(tmp_path / "t.fits")
    assert read(tmp_path / "t.fits")["ra"].to_pylist() == pytest.approx([157.5])


@pytest.mark.parametrize(("settings", "shift"), [({}, 1), ({"pixel_origin": 0}, 0), ({"pixel_origin": 1}, 1)])
def test_image_names_start_at_one_unless_told(tmp_path: Path, settings: dict[str, int], shift: int) -> None:
    pq.write_table(pa.table({"NUMBER": [1], "X_IMAGE": [10.0], "Y_IMAGE": [20.5]}), tmp_path / "t.parquet")
    table = read(tmp_path / "t.parquet", **settings)
    assert (table["x"].to_pylist(), table["y"].to_pylist()) == ([10.0 - shift], [20.5 - shift])


def test_mapping_and_frame_choose_columns(tmp_path: Path) -> None:
    columns = {"id": [1], "name": [9], "ra": [1.0], "dec": [2.0], "x": [3.0], "y": [4.0], "r2": [5.0], "image": ["a"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet")["ra"].to_pylist() == [1.0]
    assert read(tmp_path / "t.parquet", frame="pixel").to_pylist()[0]["x"] == 3.0
    mapped = read(tmp_path / "t.parquet", columns="object_id=name, ra=r2").to_pylist()[0]
    assert (mapped["object_id"], mapped["ra"], mapped["image"]) == (9, 5.0, "a")
    assert read(tmp_path / "t.parquet", columns={"x": "r2"})["x"].to_pylist() == [5.0]
    assert read(tmp_path / "t.parquet", columns="object_id=#row")["object_id"].to_pylist() == [0]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["12", " 9223372036854775807 ", "-3"], [12, 2**63 - 1, -3]),
        (np.array([1, 2**63 - 1], np.uint64), [1, 2**63 - 1]),
        ([1.0, 2.0**53], [1, 2**53]),
        (pa.array(["7", "8"]).dictionary_encode(), [7, 8]),
        (np.array([3], np.int16), [3]),
    ],
)
def test_ids_are_kept_exactly(tmp_path: Path, ids: object, expected: list[int]) -> None:
    table = pa.table({"id": ids, "ra": [0.0] * len(expected), "dec": [0.0] * len(expected)})
    pq.write_table(table, tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet")["object_id"].to_pylist() == expected


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (["9223372036854775808"], "'9223372036854775808' .* beyond int64"),
        (np.array([2**63], np.uint64), "9223372036854775808 .* beyond int64"),
        ([1.5], "1.5 .* exactly"),
        ([2.0**53 + 2], "9007199254740994.0 .* exactly"),
        (["J1234+56"], "'J1234\\+56' .* no whole number"),
        ([None], "1 rows without an id"),
    ],
)
def test_ids_that_int64_cannot_hold_are_refused(tmp_path: Path, ids: object, says: str) -> None:
    pq.write_table(pa.table({"id": ids, "ra": [0.0], "dec": [0.0]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=says):
        read(tmp_path / "t.parquet")


def test_large_text_ids_in_csv_stay_exact(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,ra,dec\n1237648720693755918,1,2\n")
    assert read(tmp_path / "t.csv")["object_id"].to_pylist() == [1237648720693755918]


def test_masked_and_strange_positions_stay_as_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,ra,dec\n1,,2\n2,nan,3\n3,inf,1\n4,5,6\n")
    ra = read(tmp_path / "t.csv")["ra"].to_pylist()
    assert ra[3] == 5.0
    assert not any(value is not None and np.isfinite(value) for value in ra[:3])
    masked = Table({"id": [1, 2], "ra": MaskedColumn([1.0, 2.0], mask=[True, False]), "dec": [0.0, 0.0]})
    masked.write(tmp_path / "t.vot", format="votable")
    ra = read(tmp_path / "t.vot")["ra"].to_pylist()
    assert ra[1] == 2.0
    assert ra[0] is None or np.isnan(ra[0])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", "id,ra,dec\n", "has no rows"),
        ("t.csv", "", "has no rows"),
        ("t.csv", "id,mag\n1,2\n", "no position columns"),
        ("t.csv", "ra,dec\n1,2\n", "no object id column .* object_id=#row"),
        ("t.csv", "id,ra,dec\n1,abc,2\n", "abc"),
        ("t.csv", "id,ra,dec\n1,2\n", "cannot be read"),
        ("t.txt", "x", "use --objects-format"),
        ("t.parquet", "not parquet", "cannot be read"),
        ("t.fits", "not fits", "is it FITS"),
        ("t.vot", "not xml", "is it a VOTable"),
        ("t.cat", "not a catalogue", "is it ASCII_HEAD|no object id"),
    ],
)
@pytest.mark.filterwarnings("ignore:File may have been truncated")
def test_tables_that_cannot_be_used(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=says) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    path = as_parquet(tmp_path)
    for settings, says in (
        ({"columns": "object_id"}, "not of the form"),
        ({"columns": "name=RA"}, "maps name"),
        ({"columns": "ra=nope"}, "no column for ra=nope"),
        ({"frame": "fk5"}, "frame 'fk5'"),
        ({"frame": "pixel"}, "no position columns x, y"),
        ({"format": "xlsx"}, "format 'xlsx'"),
    ):
        with pytest.raises(InputError, match=says):
            read(path, **settings)
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "none.parquet")
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    with pytest.raises(InputError, match="no table extension"):
        read(tmp_path / "image.fits")


def test_an_empty_fits_table(tmp_path: Path) -> None:
    plain()[:0].write(tmp_path / "t.fits")
    with pytest.raises(InputError, match="has no rows"):
        read(tmp_path / "t.fits")


@pytest.mark.shared_data
def test_real_catalogues(shared_data: Path) -> None:
    ntt = read(shared_data / "ntt" / "sep_ntt_emmi_256.sextractor.cat", 50)
    assert ntt["object_id"].to_pylist()[:2] == [1, 2]
    assert ntt["x"].to_pylist()[0] == pytest.approx(165.0857 - 1)
    assert ntt["y"].to_pylist()[1] == pytest.approx(12.2372 - 1)
    spitzer = shared_data / "spitzer" / "spitzer_example_catalog.xml"
    with pytest.raises(InputError, match="object_id=#row"):
        read(spitzer)
    table = read(spitzer, 100, columns="object_id=#row")
    assert table["object_id"].to_pylist() == list(range(224))
    assert np.all((table["ra"].to_numpy() > 275) & (table["ra"].to_numpy() < 277))


@pytest.mark.parametrize("suffix", ["ecsv", "parquet"])
def test_tables_of_photutils_need_no_mapping(tmp_path: Path, suffix: str) -> None:
    table = QTable({"label": [4, 9], "xcentroid": [1.5, 2.5], "ycentroid": [3.0, 4.0]})
    path = tmp_path / f"pixels.{suffix}"
    table.write(path)
    found = read(path)
    assert found["object_id"].to_pylist() == [4, 9]
    assert found["x"].to_pylist() == [1.5, 2.5]
    frames: list[Any] = ["icrs", "galactic", "fk4", "fk5", "geocentrictrueecliptic", FK5(equinox="J1975")]
    for number, frame in enumerate([*frames, AltAz(obstime="J2020", location=EarthLocation(1, 2, 3))]):
        expected = number < len(frames)
        sky = SkyCoord([10.0, 11.0], [2.0, 3.0], unit="deg", frame="icrs")
        path = tmp_path / f"{number}.{suffix}"
        QTable({"label": [4, 9], "sky_centroid": sky.transform_to(frame), "xcentroid": [1.5, 2.5]}).write(path)
        if expected:
            np.testing.assert_allclose(read(path)["ra"].to_pylist(), [10.0, 11.0], atol=1e-8)
            np.testing.assert_allclose(read(path)["dec"].to_pylist(), [2.0, 3.0], atol=1e-8)
        else:
            with pytest.raises(InputError, match="no position columns"):
                read(path)


def test_a_column_of_labels_is_no_id(tmp_path: Path) -> None:
    Table({"label": [0, 1], "ra": [1.0, 2.0], "dec": [1.0, 2.0]}).write(tmp_path / "t.csv")
    with pytest.raises(InputError, match="no object id column"):
        read(tmp_path / "t.csv")
