"""Objects tables as the world writes them: the right objects, or one sentence that says what to do."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table

from astroml_plugin.catalog.objects import ObjectBuckets, ObjectSettings, read_chunks
from astroml_plugin.catalog.objects.given import GivenTable
from astroml_plugin.core.errors import InputError
from tests.test_objects_buckets import survey_of, two_images

IDS = [1, 2, 3, 4]
RA = [10.0, 11.5, 359.999, 0.25]
DEC = [-1.0, 0.5, 89.9, -0.003]


def read(path: Path | str, **settings: object) -> dict[str, list]:
    chunks = list(read_chunks(str(path), ObjectSettings(**settings), 3))  # type: ignore[arg-type]
    assert all(0 < chunk.num_rows <= 3 for chunk in chunks)
    table = pa.concat_tables(chunks).to_pydict()
    return {name: table[name] for name in ("object_id", "ra", "dec")}


def right(found: dict[str, list]) -> None:
    assert found["object_id"] == IDS
    np.testing.assert_allclose(found["ra"], RA, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["dec"], DEC, rtol=0, atol=1e-10)


def hdu(which: slice, name: str, **more: np.ndarray) -> fits.BinTableHDU:
    columns = {"NUMBER": IDS[which], "ALPHA_J2000": RA[which], "DELTA_J2000": DEC[which], **more}
    made = fits.BinTableHDU(Table(columns))
    made.name = name
    return made


def header_cards() -> fits.BinTableHDU:
    return fits.BinTableHDU.from_columns(
        [fits.Column("Field Header Card", "80A", array=["x" * 80])], name="LDAC_IMHEAD"
    )


FIRST, LAST = slice(0, 2), slice(2, 4)


def test_a_table_per_ccd_is_one_list(tmp_path: Path) -> None:
    fits.HDUList([fits.PrimaryHDU(), hdu(FIRST, "CCD1"), hdu(LAST, "CCD2")]).writeto(tmp_path / "t.fits")
    right(read(tmp_path / "t.fits"))
    assert read(tmp_path / "t.fits", objects_table="ccd2")["object_id"] == [3, 4]
    assert read(tmp_path / "t.fits", objects_table="1")["object_id"] == [1, 2]
    assert read(tmp_path / "t.fits", columns="object_id=#row")["object_id"] == [0, 1, 2, 3]
    with pytest.raises(InputError, match="no table 'CCD3': it has CCD1, CCD2"):
        read(tmp_path / "t.fits", objects_table="CCD3")


def test_tables_that_differ_are_not_mixed(tmp_path: Path) -> None:
    other = hdu(LAST, "STARS", MAG=np.ones(2))
    fits.HDUList([fits.PrimaryHDU(), hdu(FIRST, "GALAXIES"), other]).writeto(tmp_path / "t.fits")
    with pytest.raises(InputError, match="choose one of GALAXIES, STARS with --objects-table"):
        read(tmp_path / "t.fits")
    assert read(tmp_path / "t.fits", objects_table="STARS")["object_id"] == [3, 4]


def test_pixel_positions_of_several_ccds_need_their_images(tmp_path: Path) -> None:
    both = [fits.BinTableHDU(Table({"id": [1], "x": [2.0], "y": [3.0]}), name=name) for name in ("A", "B")]
    fits.HDUList([fits.PrimaryHDU(), *both]).writeto(tmp_path / "t.fits")
    with pytest.raises(InputError, match="no column says on which image each lies: choose one of A, B"):
        read(tmp_path / "t.fits")


def test_ldac_under_any_name(tmp_path: Path) -> None:
    pairs = [header_cards(), hdu(FIRST, "LDAC_OBJECTS"), header_cards(), hdu(LAST, "LDAC_OBJECTS")]
    fits.HDUList([fits.PrimaryHDU(), *pairs]).writeto(tmp_path / "t.fits")
    right(read(tmp_path / "t.fits"))
    shutil.copy(tmp_path / "t.fits", tmp_path / "t.cat")
    right(read(tmp_path / "t.cat"))
    assert read(tmp_path / "t.cat", objects_table="4")["object_id"] == [3, 4]


def test_columns_that_are_not_needed_never_matter(tmp_path: Path) -> None:
    pixels = {"image": np.zeros((2, 3, 3)), "VIGNET": np.zeros((2, 5))}
    fits.HDUList([fits.PrimaryHDU(), hdu(FIRST, "A", **pixels), hdu(LAST, "B", **pixels)]).writeto(tmp_path / "t.fits")
    right(read(tmp_path / "t.fits"))
    struct = pa.array([{"bytes": b"x", "path": "a"}] * 4)
    for number, column in enumerate((struct, pa.array([[1.0, 2.0]] * 4), pa.array([b"\x89PNG"] * 4))):
        columns = {"object_id": IDS, "ra": RA, "dec": DEC, "image": column}
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
        right(read(tmp_path / f"{number}.parquet"))
    with pytest.raises(InputError, match="must hold names of images"):
        read(tmp_path / "2.parquet", columns="image=image")


def votable(*bodies: str, null: str = "") -> str:
    values = f'<VALUES null="{null}"/>' if null else ""
    fields = (
        f'<FIELD name="id" datatype="long">{values}</FIELD><FIELD name="ra" datatype="double" unit="deg"/>'
        f'<FIELD name="dec" datatype="double" unit="deg">{values}</FIELD>'
    )
    tables = (
        f'<TABLE name="t{number}"><PARAM name="p" datatype="int" value="3"><VALUES null="2"/></PARAM>{fields}'
        f"<DATA><TABLEDATA>{body}</TABLEDATA></DATA></TABLE>"
        for number, body in enumerate(bodies)
    )
    return (
        '<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>'
        f"{''.join(tables)}</RESOURCE></VOTABLE>"
    )


def cells(which: slice, ids: list[int] | None = None) -> str:
    rows = zip((ids or IDS)[which], RA[which], DEC[which], strict=True)
    return "".join(f"<TR><TD>{i}</TD><TD>{a!r}</TD><TD>{d!r}</TD></TR>" for i, a, d in rows)


def test_every_table_of_a_votable(tmp_path: Path) -> None:
    (tmp_path / "t.vot").write_text(votable(cells(FIRST), "", cells(LAST)))
    right(read(tmp_path / "t.vot"))
    assert read(tmp_path / "t.vot", objects_table="t2")["object_id"] == [3, 4]
    from astropy.io.votable import parse

    parse(tmp_path / "t.vot").to_xml(str(tmp_path / "b.vot"), tabledata_format="binary2")
    right(read(tmp_path / "b.vot"))


def test_null_ids_of_a_votable_are_no_objects(tmp_path: Path) -> None:
    (tmp_path / "t.vot").write_text(votable(cells(slice(None), [1, -999, 3, 4]), null="-999"))
    with pytest.raises(InputError, match=r"1 rows without an id \(row 1 .*object_id=#row"):
        read(tmp_path / "t.vot")
    (tmp_path / "d.vot").write_text(votable(cells(slice(None)).replace("0.5", "-999.0"), null="-999"))
    assert np.isnan(read(tmp_path / "d.vot")["dec"][1])


def test_units_that_astropy_writes_in_parquet(tmp_path: Path) -> None:
    table = QTable([IDS, np.radians(RA) * u.rad, np.radians(DEC) * u.rad], names=["object_id", "ra", "dec"])
    table.write(tmp_path / "t.parquet")
    right(read(tmp_path / "t.parquet"))
    told = {
        n: {"unit": unit, "ucd": "", "utype": "", "description": ""}
        for n, unit in zip(table.colnames, ("", "rad", "rad"))
    }
    table.write(tmp_path / "v.parquet", format="parquet.votable", metadata=told)
    right(read(tmp_path / "v.parquet"))


@pytest.mark.parametrize("key", [b"table_meta_yaml", b"IVOA.VOTable-Parquet.content"])
def test_units_of_parquet_that_cannot_be_read_are_told(tmp_path: Path, key: bytes) -> None:
    """They were lost in silence: radians were taken for degrees."""
    table = pa.table({"object_id": IDS, "ra": np.radians(RA), "dec": np.radians(DEC)})
    pq.write_table(table.replace_schema_metadata({key: b"datatype: ["}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=rf"units of .*t.parquet cannot be read \({key.decode()}: .*ra=ra.deg"):
        read(tmp_path / "t.parquet")
    right(read(tmp_path / "t.parquet", columns="ra=ra[rad],dec=dec[rad]"))


def test_ecsv_with_its_units_and_delimiters(tmp_path: Path) -> None:
    table = QTable([IDS, np.radians(RA) * u.rad, DEC * u.deg, ["a b"] * 4], names=["object_id", "ra", "dec", "name"])
    table["fluxes"] = np.zeros((4, 2))
    for delimiter in (",", " "):
        table.write(tmp_path / "t.ecsv", delimiter=delimiter, overwrite=True)
        right(read(tmp_path / "t.ecsv"))
        right(read(tmp_path / "t.ecsv", format="csv"))


def rows(delimiter: str = ",") -> list[str]:
    return [delimiter.join((str(i), repr(a), repr(d))) for i, a, d in zip(IDS, RA, DEC, strict=True)]


TEXTS: dict[str, bytes] = {
    "comma in quotes": ('"mag, r",object_id,ra,dec\n' + "".join(f"1.0,{row}\n" for row in rows())).encode(),
    "latin-1": ("object_id,ra,dec,Größe\n" + "".join(f"{row},ä\n" for row in rows())).encode("latin-1"),
    "utf-16": ("object_id,ra,dec,Größe\n" + "".join(f"{row},1\n" for row in rows())).encode("utf-16"),
    "utf-16 without mark": ("\n".join(["object_id,ra,dec", *rows()])).encode("utf-16-be"),
    "mark": ("\n".join(["object_id,ra,dec", *rows()])).encode("utf-8-sig"),
    "mark and crlf": ("\r\n".join(["object_id\tra\tdec", *rows("\t")])).encode("utf-8-sig"),
    "ids 1.0": ("object_id,ra,dec\n" + "".join(row.replace(",", ".0,", 1) + "\n" for row in rows())).encode(),
    "commented header": ("# made by hand\n# object_id,ra,dec\n" + "\n".join(rows())).encode(),
    "topcat": ("# object_id ra    dec\n  " + "\n  ".join(rows("    "))).encode(),
    "blanks": ('object_id ra dec "a name"\n' + "".join(row + ' "x y"\n' for row in rows(" "))).encode(),
    "comment at the end": ("\n".join(["object_id,ra,dec", *rows(), "# end"])).encode(),
    "plus signs": ("\n".join(["object_id,ra,dec", *(row.replace(",", ",+", 1) for row in rows())])).encode(),
    "packed": gzip.compress("\n".join(["object_id,ra,dec", *rows()]).encode("utf-16")),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_of_every_kind(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("t.csv.gz" if kind == "packed" else "t.csv")
    path.write_bytes(TEXTS[kind])
    right(read(path))


@pytest.mark.parametrize(
    "name", ["none.csv", "none.fits", "none.vot", "none.ecsv", "none.parquet", "none.cat", "no/t.csv"]
)
@pytest.mark.parametrize("where", ["", "memory://absent"])
def test_a_table_that_is_not_there(tmp_path: Path, where: str, name: str) -> None:
    with pytest.raises(InputError, match=rf"the objects table .*{name} does not exist"):
        read(f"{where or tmp_path}/{name}")


def test_what_numpy_saves(tmp_path: Path) -> None:
    for delimiter in (" ", ","):
        header = delimiter.join(("object_id", "ra", "dec"))
        np.savetxt(tmp_path / "t.csv", np.column_stack([IDS, RA, DEC]), delimiter=delimiter, header=header)
        right(read(tmp_path / "t.csv"))
    np.savetxt(tmp_path / "t.csv", np.column_stack([IDS, RA, DEC]), delimiter=",")
    with pytest.raises(InputError, match="begins with numbers: give it a first line with the names"):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"id,ra,dec\n1.5,1,2\n", "'1.5' .* exactly"),
        (b"id,ra,dec\n1237648720693755904.0,1,2\n", "exactly"),
        (b"id,ra,dec\n1E5,1,2\n", "'1E5' .* no whole number"),
        (b"id,ra,dec\n,1,2\n", "without an id"),
        (b"id,ra,ra,dec\n1,1,2,3\n", "two columns named ra"),
        (b"\x00\x01\x00\x00id", "zero bytes"),
        (b"id ra dec\n1 2\n", "a row has 2 values and there are 3 names"),
        (b"id,ra,dec\n1,00:42:44.3,+41:16:09\n", r"'00:42:44.3', and nothing says .* 'ra=ra\[hourangle\]'"),
        (b"id,ra,dec\n1,1,41:76:09\n", "'41:76:09', which is no angle"),
        (b"id,ra,dec\n1,1," + b"x" * 900 + b"\n", "'x{40}…', which is neither"),
        (b"id,ra,dec\n1,1,41:16:xx\n", "'41:16:xx', which is neither"),
    ],
)
def test_text_that_cannot_be_used(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ra", "dec", "columns", "expected"),
    [
        ("00h42m44.3s", "+41d16m09s", None, (10.684583333333, 41.269166666667)),
        ("0 42 44.3", "-00 16 09", "ra=ra[hourangle]", (10.684583333333, -0.269166666667)),
        ("10:41:04.5", "-0:16:09", "ra=ra[deg]", (10.684583333333, -0.269166666667)),
        ("00:42:44.3", "41.269166666667", "ra=ra[h:m:s]", (10.684583333333, 41.269166666667)),
        ("00h42.738333333m", "41:16.15", None, (10.684583333333, 41.269166666667)),
        ("10°41′04.5″", "\N{MINUS SIGN}0°16′09″", None, (10.684583333333, -0.269166666667)),
        ("0.7123055555556", "0", "ra=ra[hourangle]", (10.684583333333, 0.0)),
        ("", "1:00:00", None, (np.nan, 1.0)),
    ],
)
def test_sexagesimal_text(
    tmp_path: Path, ra: str, dec: str, columns: str | None, expected: tuple[float, float]
) -> None:
    (tmp_path / "t.csv").write_text(f"id,ra,dec\n5,{ra},{dec}\n")
    found = read(tmp_path / "t.csv", columns=columns)
    np.testing.assert_allclose([found["ra"][0], found["dec"][0]], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("unit", "scale"),
    [("rad", 180 / np.pi), ("radians", 180 / np.pi), ("DEGREES", 1), ("deg (J2000)", 1), ("arcsec", 1 / 3600)],
)
def test_units_however_they_are_written(tmp_path: Path, unit: str, scale: float) -> None:
    columns = [fits.Column("id", "K", array=[1]), *(fits.Column(n, "D", unit=unit, array=[0.5]) for n in ("ra", "dec"))]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "t.fits")
    assert read(tmp_path / "t.fits")["ra"] == pytest.approx([0.5 * scale], rel=1e-14)


def test_a_unit_that_is_no_angle_is_refused(tmp_path: Path) -> None:
    Table([[1], [0.5] * u.pix, [0.5] * u.deg], names=["id", "ra", "dec"]).write(tmp_path / "t.fits")
    with pytest.raises(InputError, match=r"has the unit 'pix', which is no unit of angles: .* 'ra=ra\[deg\]'"):
        read(tmp_path / "t.fits")
    assert read(tmp_path / "t.fits", columns="ra=ra[deg]")["ra"] == [0.5]
    with pytest.raises(InputError, match="'pc' in --columns ra=ra"):
        read(tmp_path / "t.fits", columns="ra=ra[pc]")


def test_sexagesimal_columns_of_votables_say_their_unit(tmp_path: Path) -> None:
    head = '<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>'
    fields = (
        '<FIELD name="id" datatype="int"/>'
        '<FIELD name="RAJ2000" datatype="char" arraysize="*" unit="&quot;h:m:s&quot;"/>'
        '<FIELD name="DEJ2000" datatype="char" arraysize="*" unit="&quot;d:m:s&quot;"/>'
    )
    row = "<TR><TD>5</TD><TD>00 42 44.3</TD><TD>-00 16 09</TD></TR>"
    (tmp_path / "t.vot").write_text(
        f"{head}{fields}<DATA><TABLEDATA>{row}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    )
    found = read(tmp_path / "t.vot")
    assert (found["ra"][0], found["dec"][0]) == pytest.approx((10.684583333333, -0.269166666667))


def test_folders_and_patterns(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    (folder / "deep").mkdir(parents=True)
    pq.write_table(pa.table({"object_id": IDS[:3], "ra": RA[:3], "dec": DEC[:3]}), folder / "a.parquet")
    last = pa.table({"object_id": pa.array(IDS[3:], pa.int32()), "dec": DEC[3:], "ra": RA[3:]})
    pq.write_table(last, folder / "deep" / "b.parquet")
    pq.write_metadata(last.schema, folder / "_metadata")
    (folder / "_hidden.parquet").write_bytes(b"x")
    right(read(folder))
    right(read(folder, format="parquet"))
    shutil.copy(folder / "deep" / "b.parquet", folder / "b.parquet")
    right({name: values[:4] for name, values in read(folder / "[ab].parquet").items()})
    (tmp_path / "1.csv").write_text("object_id,ra,dec\n" + "\n".join(rows()[:2]))
    (tmp_path / "2.csv").write_text("object_id,ra,dec\n" + "\n".join(rows()[2:]))
    right(read(tmp_path / "*.csv"))
    before = GivenTable(str(folder)).identity()
    pq.write_table(last.rename_columns(["object_id", "dec", "RA"]), folder / "b.parquet")
    assert GivenTable(str(folder)).identity() != before
    with pytest.raises(InputError, match=r"b\.parquet has no column ra and .*a\.parquet has"):
        read(folder)
    (tmp_path / "3.csv").write_text("object_id,ra,dec,mag\n1,2,3,4")
    with pytest.raises(InputError, match=r"columns differ: give one of 1\.csv, 2\.csv, 3\.csv"):
        read(tmp_path / "*.csv")
    (tmp_path / "empty").mkdir()
    for wrong, says in ((tmp_path / "empty", "has no Parquet file"), (tmp_path / "*.vot", "check the pattern")):
        with pytest.raises(InputError, match=says):
            read(wrong)


def hats(folder: Path, *, collection: bool = False) -> Path:
    """A catalogue of two partitions, with a thumbnail that repeats rows, as hats-import writes it."""
    root = folder / "sky" if collection else folder
    table = pa.table({"object_id": IDS, "mean_ra": RA, "mean_dec": DEC, "_healpix_29": [0, 1, 2, 3]})
    for (order, pixel), part in (((0, 4), table.slice(0, 1)), ((1, 10), table.slice(1))):
        place = root / "dataset" / f"Norder={order}" / "Dir=0"
        place.mkdir(parents=True)
        pq.write_table(part, place / f"Npix={pixel}.parquet")
    pq.write_table(table.slice(0, 1), root / "dataset" / "data_thumbnail.parquet")
    pq.write_metadata(table.schema, root / "dataset" / "_common_metadata")
    (root / "partition_info.csv").write_text("Norder,Npix\n0,4\n1,10\n")
    (root / "hats.properties").write_text(
        "#HATS catalog\nobs_collection=sky\ndataproduct_type=object\nhats_nrows=4\nhats_col_ra=mean_ra\n"
        "hats_col_dec=mean_dec\n"
    )
    if collection:
        (folder / "collection.properties").write_text("obs_collection=c\nhats_primary_table_url=sky\n")
        shutil.copytree(root, folder / "sky_margin")
    return root


@pytest.mark.parametrize("collection", [False, True])
def test_hats_catalogues_and_collections(tmp_path: Path, collection: bool) -> None:
    hats(tmp_path / "h", collection=collection)
    right(read(tmp_path / "h"))


def test_hats_catalogues_that_cannot_be_used(tmp_path: Path) -> None:
    root = hats(tmp_path / "h")
    properties = (root / "hats.properties").read_text()
    (root / "hats.properties").write_text(properties.replace("=object", "=margin"))
    with pytest.raises(InputError, match="of type 'margin', which lists no objects"):
        read(root)
    (root / "hats.properties").write_text(properties.replace("nrows=4", "nrows=5"))
    with pytest.raises(InputError, match="says it has 5 rows and has 4: copy it anew"):
        read(root)
    (root / "hats.properties").write_text(properties)
    (root / "dataset" / "Norder=0" / "Dir=0" / "Npix=4.parquet").unlink()
    with pytest.raises(InputError, match="lacks 1 of its 2 partitions, the first is Norder=0, Npix=4"):
        read(root)


def _csv_of(path: Path, table: Table) -> Path:
    table.write(path / "t.csv")
    return path / "t.csv"


def _fits_of(path: Path, table: Table) -> Path:
    both = [fits.PrimaryHDU(), fits.BinTableHDU(table[:20], name="A"), fits.BinTableHDU(table[20:], name="B")]
    fits.HDUList(both).writeto(path / "t.fits")
    return path / "t.fits"


def _saved(name: str, **options: object) -> Callable[[Path, Table], Path]:
    def save(path: Path, table: Table) -> Path:
        table.write(path / name, **options)
        return path / name

    return save


def _hats_of(path: Path, table: Table) -> Path:
    for number in range(2):
        place = path / "h" / "dataset" / "Norder=1" / "Dir=0"
        place.mkdir(parents=True, exist_ok=True)
        table[number::2].write(place / f"Npix={number}.parquet")
    (path / "h" / "properties").write_text(f"dataproduct_type=object\nhats_nrows={len(table)}\n")
    return path / "h"


@pytest.mark.parametrize(
    "make",
    [
        _csv_of,
        _fits_of,
        _hats_of,
        _saved("t.parquet"),
        _saved("t.ecsv"),
        _saved("t.vot", format="votable"),
        _saved("b.vot", format="votable", tabledata_format="binary2"),
    ],
)
def test_rows_with_primary_and_unplaced_are_the_objects_in_every_format(
    tmp_path: Path, make: Callable[[Path, Table], Path]
) -> None:
    generator = np.random.default_rng(4)
    ra, dec = 10.0 + generator.uniform(-0.2, 0.2, 50), generator.uniform(-0.1, 0.1, 50)
    ra[3], dec[7] = np.nan, 95.0
    path = make(tmp_path, Table({"object_id": np.arange(50) + 2**60, "ra": ra, "dec": dec}))
    buckets = ObjectBuckets.build(str(path), survey_of(tmp_path / "s", two_images()), str(tmp_path / "w"))
    placed = [buckets.read(unit) for unit in buckets.units()]
    primary = [i for rows in placed for i in rows.filter(rows["primary"])["object_id"].to_pylist()]
    assert 0 < len(primary) < 48
    assert sorted(primary + buckets.unplaced()["object_id"].to_pylist()) == (np.arange(50) + 2**60).tolist()
