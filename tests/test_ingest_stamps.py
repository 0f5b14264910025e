"""Archives and picture folders into Stamps."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest.npz import parse_ids
from astroml_plugin.sources.stamps import Stamps
from workflows.ingest import ingest

RNG = np.random.default_rng(4)
PIXELS = RNG.integers(0, 255, (50, 8, 10, 3)).astype(np.uint8)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_other_names_and_layout(tmp_path: Path, save: Any) -> None:
    ids = np.array([f"{123456789012345600 + n % 49}" for n in range(50)])
    save(
        tmp_path / "a.npz",
        x=PIXELS,
        y=np.arange(50),
        objid=ids,
        w=np.ones((50, 2)),
        note=np.array(["a"] * 50),
        junk=np.ones(3),
    )
    out = str(tmp_path / "s.zarr")
    options: dict[str, Any] = {
        "out": out,
        "npz_map": "images=x,label=y,object_id=objid",
        "layout": "nyxc",
        "bands": "i,r,g",
        "block": 16,
    }
    result = ingest(str(tmp_path / "a.npz"), **options)
    assert (result.kind, result.units_done, result.rows) == ("stamps", 4, 50)
    stamps = Stamps.open(out)
    assert (stamps.bands, stamps.size, stamps.dtype) == (("i", "r", "g"), (8, 10), np.uint8)
    np.testing.assert_array_equal(stamps.read_rows(np.arange(50))[0], PIXELS.transpose(0, 3, 1, 2))
    labels = stamps.labels()
    assert labels.column_names == ["object_id", "ra", "dec", "label", "w", "note"]
    assert labels["object_id"].to_pylist() == [int(value) for value in ids]
    assert ingest(str(tmp_path / "a.npz"), **options).units_skipped == 4
    next(Path(out, "objects").glob("block_000002*")).unlink()
    again = ingest(str(tmp_path / "a.npz"), **options)
    assert (again.units_done, again.units_skipped, again.rows) == (1, 3, 16)
    assert Stamps.open(out).labels()["label"].to_pylist() == list(range(50))


def test_a_changed_archive_is_not_brought_in_a_second_time(tmp_path: Path) -> None:
    out = str(tmp_path / "s.zarr")
    np.savez(tmp_path / "a.npz", images=PIXELS[:, :, :, 0])
    ingest(str(tmp_path / "a.npz"), out=out)
    os.utime(tmp_path / "a.npz", (1, 1))
    with pytest.raises(InputError, match=r"a\.npz is already in .*s\.zarr, and has changed"):
        ingest(str(tmp_path / "a.npz"), out=out)
    assert Stamps.open(out).labels().num_rows == 50
    np.savez(tmp_path / "b.npz", images=PIXELS[:20, :, :, 0])
    assert ingest(str(tmp_path / "b.npz"), out=out).rows == 20


def test_npz_of_the_contract(tmp_path: Path) -> None:
    images = RNG.normal(size=(20, 2, 8, 8))
    extra = {"bands": np.array(["g", "r"]), "pixel_scale": 0.2, "ra": np.arange(20.0), "dec": np.zeros(20)}
    np.savez(tmp_path / "a.npz", images=images, variance=images**2, psf=np.ones((20, 5, 5)), **extra)
    ingest([str(tmp_path / "a.npz")], out=str(tmp_path / "s.zarr"))
    stamps = Stamps.open(str(tmp_path / "s.zarr"))
    assert (stamps.bands, stamps.pixel_scale, stamps.dtype) == (("g", "r"), 0.2, np.float32)
    image, variance, psf = stamps.read_block(0)
    np.testing.assert_array_equal(image, images.astype("f4"))
    np.testing.assert_array_equal(variance, (images**2).astype("f4"))
    assert psf is not None
    assert psf.shape == (20, 2, 5, 5)
    assert stamps.read_objects(0)["ra"].to_pylist() == list(range(20))
    assert stamps.read_objects(0)["object_id"].to_pylist() == list(range(20))


@pytest.mark.parametrize(
    ("arrays", "options", "says"),
    [
        ({"images": np.array([{"a": 1}] * 3)}, {}, "Python objects"),
        ({"pictures": PIXELS}, {}, "no array 'images'"),
        ({"x": PIXELS}, {"npz_map": "images=z"}, "no array z"),
        ({"images": PIXELS}, {"layout": "yxcn"}, "layout"),
        ({"images": PIXELS[:, :, :, 0]}, {"layout": "nyxc"}, "layout"),
        ({"images": PIXELS}, {"layout": "nyxc", "bands": "g"}, "has 3 bands"),
        ({"images": PIXELS[:0]}, {"layout": "nyxc"}, "no stamps"),
        ({"images": PIXELS[:, :, :, 0] * 1e-60}, {}, "beyond float32"),
        ({"images": PIXELS[:2], "object_id": np.array(["99999999999999999999", "1"])}, {"layout": "nyxc"}, "64 bits"),
        ({"images": PIXELS[:2], "object_id": np.array(["J1234", "1"])}, {"layout": "nyxc"}, "whole numbers"),
    ],
)
def test_bad_archives_are_one_clear_sentence(tmp_path: Path, arrays: Any, options: Any, says: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=says):
        ingest(str(tmp_path / "a.npz"), out=str(tmp_path / "s.zarr"), **options)


def test_arrays_that_belong_to_no_stamp_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from workflows.cli import main

    scene = {"images": np.ones((5, 12, 10), np.float32), "mask": np.zeros((5, 12, 10), int), "notes": np.arange(7)}
    np.savez(tmp_path / "a.npz", **scene)
    result = ingest([str(tmp_path / "a.npz")], out=str(tmp_path / "s.zarr"))
    assert result.left_out == ("mask (5, 12, 10)", "notes (7,)")
    assert main(["ingest", str(tmp_path / "a.npz"), "--out", str(tmp_path / "t.zarr")]) == 0
    assert "left out: mask (5, 12, 10), notes (7,)" in capsys.readouterr().err


def test_damaged_and_absent_archives(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK no")
    for name in ("a.npz", "b.npz"):
        with pytest.raises(InputError, match=name):
            ingest(str(tmp_path / name), out=str(tmp_path / "s.zarr"))
    np.savez(tmp_path / "c.npz", images=PIXELS)
    data = bytearray((tmp_path / "c.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "c.npz").write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        ingest(str(tmp_path / "c.npz"), out=str(tmp_path / "t.zarr"), layout="nyxc")


def test_ids_are_kept_exactly() -> None:
    assert parse_ids(np.array(["1237648720693755918", " 7"]), "t").tolist() == [1237648720693755918, 7]
    assert parse_ids(np.array([2**53 - 1.0]), "t").tolist() == [2**53 - 1]
    for bad in (np.array([2**63], np.uint64), np.array([0.5]), np.array([np.nan]), np.array([2.0**60])):
        with pytest.raises(InputError, match="t: ids"):
            parse_ids(bad, "t")


def pictures(folder: Path, suffix: str = "png") -> str:
    """Ten pictures with a table."""
    (folder / "img").mkdir()
    rows = ["id_str,file_loc,label"]
    for n in range(10):
        path = folder / "img" / f"{n}.{suffix}"
        if suffix == "fits":
            fits.PrimaryHDU(PIXELS[n, :, :, 0].astype("f4")).writeto(path)
        else:
            Image.fromarray(PIXELS[n]).save(path)
        rows.append(f"{900000000000000000 + n},img/{n}.{suffix},{n % 3}")
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    return str(folder / "t.csv")


@pytest.mark.parametrize("suffix", ["png", "jpg", "fits"])
def test_a_folder_of_pictures(tmp_path: Path, suffix: str) -> None:
    table, out = pictures(tmp_path, suffix), str(tmp_path / "s.zarr")
    result = ingest(str(tmp_path), table=table, out=out, block=4)
    assert (result.units_done, result.rows, result.failed) == (3, 10, ())
    stamps = Stamps.open(out)
    assert stamps.labels()["object_id"].to_pylist()[3] == 900000000000000003
    assert stamps.columns == ("label",)
    image = stamps.read_rows(np.arange(10))[0]
    if suffix == "png":
        np.testing.assert_array_equal(image, PIXELS[:10].transpose(0, 3, 1, 2))
    assert stamps.bands == (("c000",) if suffix == "fits" else ("red", "green", "blue"))
    assert ingest(str(tmp_path), table=table, out=out, block=4).units_skipped == 3


@pytest.mark.parametrize("kind", ["archive", "pictures"])
@pytest.mark.parametrize("left", ["an empty store", "an array of a store that was being made"])
def test_an_ingest_that_was_killed_at_its_start_can_be_run_again(tmp_path: Path, kind: str, left: str) -> None:
    out, undisturbed = tmp_path / "s.zarr", tmp_path / "u.zarr"
    options: dict[str, Any] = {"block": 4}
    if kind == "archive":
        np.savez(tmp_path / "a.npz", images=PIXELS[:10, :, :, 0])
        given = str(tmp_path / "a.npz")
    else:
        given, options["table"] = str(tmp_path), pictures(tmp_path)
    ingest(given, out=str(undisturbed), **options)
    shutil.copytree(undisturbed, out)
    for block in [*(out / "objects").glob("block*"), *out.glob("*/c")]:
        block.unlink() if block.is_file() else shutil.rmtree(block)
    for record in Path(out, "sources").glob("*.json"):
        record.unlink()
    if left != "an empty store":
        (out / "zarr.json").unlink()
    assert ingest(given, out=str(out), **options).rows == 10
    np.testing.assert_array_equal(
        Stamps.open(str(out)).read_rows(np.arange(10))[0], Stamps.open(str(undisturbed)).read_rows(np.arange(10))[0]
    )


def test_an_array_of_somebody_else_is_not_written_over(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS[:10, :, :, 0])
    (tmp_path / "s.zarr" / "image").mkdir(parents=True)
    (tmp_path / "s.zarr" / "image" / "0.0").write_bytes(b"values")
    with pytest.raises(InputError, match="choose another output"):
        ingest(str(tmp_path / "a.npz"), out=str(tmp_path / "s.zarr"))
    assert (tmp_path / "s.zarr" / "image" / "0.0").read_bytes() == b"values"


def test_a_bad_picture_fails_its_block_and_the_rest_is_kept(tmp_path: Path) -> None:
    table, out = pictures(tmp_path), str(tmp_path / "s.zarr")
    Image.fromarray(PIXELS[0][:4]).save(tmp_path / "img" / "5.png")
    result = ingest(str(tmp_path), table=table, out=out, block=4)
    assert [unit for unit, _ in result.failed] == ["block_000001"]
    assert "one size" in result.failed[0][1]
    Image.fromarray(PIXELS[5]).save(tmp_path / "img" / "5.png")
    assert ingest(str(tmp_path), table=table, out=out, block=4).units_done == 1
    assert Stamps.open(out).labels()["label"].to_pylist() == [n % 3 for n in range(10)]


@pytest.mark.parametrize(
    ("text", "says"),
    [("a,b\n1,2\n", "id_str"), ("id_str,file_loc\n", "no rows"), ("id_str,file_loc\n1,x.png\n", "does not exist")],
)
def test_bad_tables(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        ingest(str(tmp_path), table=str(tmp_path / "t.csv"), out=str(tmp_path / "s.zarr"))


COUNT = {"images": PIXELS[:3, :, :, 0]}
PAIR = np.zeros(3, [("a", "i4"), ("b", "f4")])


@pytest.mark.parametrize(
    ("arrays", "options", "says"),
    [
        ({"variance": np.ones((3, 10))}, {}, r"array variance has shape \(3, 10\)"),
        ({"ra": np.ones((3, 2)), "dec": np.ones(3)}, {}, r"array ra of shape \(3, 2\) .* is no ra: save one number"),
        ({"ra": PAIR, "dec": np.ones(3)}, {}, "array ra of shape .* is no ra"),
        ({"dec": np.ones(3, "V8")}, {}, "array dec of shape .* is no dec"),
        ({"object_id": np.ones((3, 2), int)}, {}, "array object_id of shape .* is no object_id"),
        ({"object_id": PAIR}, {}, "array object_id of shape .* is no object_id"),
        ({"note": np.zeros(3, "V8")}, {}, "array note as a column cannot be read"),
        ({"images": np.zeros((3, 8, 8), complex)}, {}, "array images .* complex128 holds no pixels"),
        ({"z": np.zeros(3, complex)}, {}, "array z as a column cannot be read"),
        ({"psf": np.ones((3, 1, 1))}, {}, r"PSFs of \(1, 1\) pixels hold no PSF: save them with 3 pixels"),
        ({"psf": np.ones((3, 5, 1))}, {}, "hold no PSF"),
        ({"bands": np.array([b"\xff"])}, {}, "array bands cannot be read"),
        ({"bands": np.zeros(1, "V4")}, {}, "array bands .* holds no names"),
        *(({"pixel_scale": value}, {}, "pixel_scale must hold one number above 0") for value in (0.0, -1.0, np.nan)),
        *(({}, {"pixel_scale": value}, "--pixel-scale .*a number above 0") for value in (0.0, -1.0, float("nan"))),
        ({}, {"block": 0}, "--block 0: give a whole number from 1 on"),
        ({}, {"tile_size": 64, "halo": 4}, "--tile-size, --halo would do nothing for stamps"),
        ({}, {"roles": "SCI=image", "psf": "p.fits"}, "--roles, --psf would do nothing for stamps"),
    ],
)
def test_odd_arrays_and_useless_options_are_one_clear_sentence(
    tmp_path: Path, arrays: Any, options: Any, says: str
) -> None:
    np.savez(tmp_path / "a.npz", **{**COUNT, **arrays})
    with pytest.raises(InputError, match=says):
        ingest(str(tmp_path / "a.npz"), out=str(tmp_path / "s.zarr"), **options)


@pytest.mark.parametrize("options", [{"layout": "nyx"}, {"npz_map": "images=x"}, {"block": 4}, {"pixel_scale": 0.2}])
def test_options_of_stamps_are_refused_for_images(tmp_path: Path, options: Any) -> None:
    fits.PrimaryHDU(np.ones((30, 30), "f4")).writeto(tmp_path / "a.fits")
    with pytest.raises(InputError, match="would do nothing for FITS images, only for stamps"):
        ingest(str(tmp_path / "a.fits"), out=str(tmp_path / "s.zarr"), **options)


@pytest.mark.parametrize("twice", ["kind", "file_loc", "id_str"])
def test_a_table_of_pictures_with_one_name_twice_is_refused(tmp_path: Path, twice: str) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "p.png")
    (tmp_path / "t.csv").write_text(f"id_str,file_loc,kind,{twice}\n1,p.png,a,b\n")
    with pytest.raises(InputError, match=rf"two columns named {twice}: rename"):
        ingest(str(tmp_path), out=str(tmp_path / "s.zarr"), table=str(tmp_path / "t.csv"))
