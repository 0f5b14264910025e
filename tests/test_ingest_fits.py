"""FITS of every shape into a Survey."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from astroml_plugin.compute import cluster
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.sky.wcs import Wcs, astropy_quiet, separation
from astroml_plugin.sources.ingest import IngestResult, to_survey
from astroml_plugin.sources.survey import Survey
from workflows.ingest import ingest

WCS_CARDS = {
    **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 30.0, "CRPIX2": 20.0, "CRVAL1": 150.0, "CRVAL2": 2.0},
    **{"CD1_1": -5e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 5e-5},
}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """One in-process cluster for the module."""
    with cluster.connect("local") as opened:
        yield opened


def noise(shape: tuple[int, ...] = (50, 70), seed: int = 0, dtype: str = "f4") -> np.ndarray:
    """Numbers that survive int16."""
    return np.random.default_rng(seed).integers(-500, 500, shape).astype(dtype)


def write(path: Path, data: np.ndarray, kind: Any = fits.PrimaryHDU, **cards: Any) -> str:
    """One image file."""
    header = fits.Header({**WCS_CARDS, **cards})
    kind(data, header).writeto(path)
    return str(path)


def run(client: Any, inputs: Any, out: Path, **options: Any) -> tuple[IngestResult, Survey]:
    """Ingest into tiles of 40 pixels, with the pixels as they are."""
    options = {"tile_size": 40, "halo": 5, "background": "off", **options}
    result = ingest(inputs, out=str(out), client=client, **options)
    assert not result.failed
    return result, Survey.open(str(out))


def whole(survey: Survey, image: str, what: str = "image") -> np.ndarray:
    """(band, y, x) of a parent image put together from the inner boxes, every halo checked against it."""
    infos = [info for info in survey.iter_tiles() if info.image == image]
    tiles = [getattr(survey.read_tile(info, verify=True), what) for info in infos]
    out = np.zeros((len(survey.bands), *infos[0].image_shape), tiles[0].dtype)
    for info, tile in zip(infos, tiles, strict=True):
        i, o = info.inner, info.outer
        out[:, i.y0 : i.y1, i.x0 : i.x1] = tile[:, i.y0 - o.y0 : i.y1 - o.y0, i.x0 - o.x0 : i.x1 - o.x0]
    for info, tile in zip(infos, tiles, strict=True):
        o, c = info.outer, info.outer.clipped(*info.image_shape)
        inside = tile[:, c.y0 - o.y0 : c.y1 - o.y0, c.x0 - o.x0 : c.x1 - o.x0]
        np.testing.assert_array_equal(inside, out[:, c.y0 : c.y1, c.x0 : c.x1])
    return out


@pytest.mark.parametrize("form", ["plain", "gz", "bz2", "fz", "int16", "uint16", "float64", "extension", "axes"])
def test_every_form_of_file_gives_its_pixels(tmp_path: Path, client: Any, form: str) -> None:
    data = noise(dtype={"int16": "i2", "uint16": "u2", "float64": "f8"}.get(form, "f4"))
    path = tmp_path / "field.fits"
    if form in ("gz", "bz2"):
        write(path, data)
        (tmp_path / f"field.fits.{form}").write_bytes({"gz": gzip, "bz2": bz2}[form].compress(path.read_bytes()))
        path = tmp_path / f"field.fits.{form}"
    elif form == "fz":
        path = tmp_path / "field.fits.fz"
        image = fits.CompImageHDU(data.astype("i2"), fits.Header(WCS_CARDS), compression_type="RICE_1")
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    elif form == "extension":
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, fits.Header(WCS_CARDS), name="ccd1")]).writeto(path)
    else:
        write(path, data[None, None] if form == "axes" else data)
    result, survey = run(client, str(path), tmp_path / "s.zarr")
    assert (result.units_done, result.units_skipped) == (6, 0)
    assert survey.bands == ("c000",)
    np.testing.assert_array_equal(whole(survey, "field")[0], data.astype("f4"))
    tile = survey.read_tile(survey.tile(0))
    assert (tile.mask[0, :5] == MaskBit.NO_DATA).all()
    assert np.isnan(tile.image[0, :5]).all()
    assert (whole(survey, "field", "mask") == 0).all()


def test_scaling_blank_nan_and_saturation(tmp_path: Path, client: Any) -> None:
    hdu = fits.PrimaryHDU(noise(dtype="i2"))
    hdu.data[3, 4] = -32768
    hdu.header.update({"BSCALE": 0.5, "BZERO": 100.0, "BLANK": -32768, "SATURATE": 300.0, "BUNIT": "nJy"})
    raw = np.array(hdu.data, float)
    path = tmp_path / "a.fits"
    header = hdu.header.copy()
    with path.open("wb") as file:
        file.write(header.tostring().encode())
        file.write(raw.astype(">i2").tobytes().ljust(2880 * 3, b"\0"))
    _, survey = run(client, str(path), tmp_path / "s.zarr")
    expected = raw * 0.5 + 100
    expected[3, 4] = np.nan
    np.testing.assert_array_equal(whole(survey, "a")[0], expected.astype("f4"))
    mask = whole(survey, "a", "mask")[0]
    assert mask[3, 4] == MaskBit.UNMASKED_NAN
    assert ((mask & MaskBit.SATURATED > 0) == (expected >= 300)).all()
    info = survey.tile(0)
    assert (info.header, info.units, info.zero_points) == (None, {"c000": "nJy"}, {"c000": 31.4})
    assert survey.pixel_scale is None


def test_bands_cube_and_missing_band(tmp_path: Path, client: Any) -> None:
    data = noise((3, 50, 70))
    files = [write(tmp_path / f"f1_{band}.fits", data[n]) for n, band in enumerate("gri")]
    _, survey = run(
        client,
        [*files, "-", *files[:0], write(tmp_path / "f2_r.fits", data[1]), "-"],
        tmp_path / "s.zarr",
        bands="g,r,i",
    )
    assert list(survey.images()) == ["f1", "f2"]
    np.testing.assert_array_equal(whole(survey, "f1"), data)
    second = next(info for info in survey.iter_tiles() if info.image == "f2")
    assert second.has_band == {"g": False, "r": True, "i": False}
    tile = survey.read_tile(second)
    assert np.isnan(tile.image[0]).all()
    assert (tile.mask[0] == MaskBit.NO_DATA).all()
    cube = write(tmp_path / "cube.fits", noise((200, 20, 20)))
    _, survey = run(client, cube, tmp_path / "c.zarr", tile_size=None, halo=6)
    assert (len(survey.bands), survey.tile_size) == (200, 64)
    np.testing.assert_array_equal(whole(survey, "cube"), noise((200, 20, 20)))


def test_lsst_layout(tmp_path: Path, client: Any) -> None:
    data, variance = noise(), np.abs(noise(seed=1)) + 1
    mask = np.zeros(data.shape, "i4")
    mask[1, 2], mask[3, 4], mask[5, 6] = 1 << 3, 1 << 0, 1 << 9
    planes = fits.Header({"MP_SAT": 3, "MP_BAD": 0, "HIERARCH MP_VIGNETTED": 9, "HIERARCH MP_DETECTED": 5})
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(data, fits.Header({**WCS_CARDS, "BUNIT": "nJy"}), name="IMAGE"),
        fits.ImageHDU(mask, planes, name="MASK"),
        fits.ImageHDU(variance, name="VARIANCE"),
        fits.ImageHDU(noise((9, 9)), name="KERNEL"),
    ]
    fits.HDUList(hdus).writeto(tmp_path / "calexp.fits")
    psf = write(tmp_path / "psf.fits", noise((11, 11)))
    _, survey = run(client, str(tmp_path / "calexp.fits"), tmp_path / "s.zarr", bands=["r"], psf=psf)
    np.testing.assert_array_equal(whole(survey, "calexp", "variance")[0], variance)
    bits = whole(survey, "calexp", "mask")[0]
    assert (bits[1, 2], bits[3, 4], bits[5, 6]) == (MaskBit.SATURATED, MaskBit.BAD, MaskBit.OTHER)
    assert np.count_nonzero(bits) == 3
    assert survey.tile(0).zero_points == {"r": 31.4}
    np.testing.assert_array_equal(survey.read_tile(survey.tile(2)).psf[0, 0, 0], noise((11, 11)))
    other = noise((11, 11)) + 1
    fits.writeto(tmp_path / "psf.fits", other, overwrite=True)  # under the same name, in the same process
    _, survey = run(client, str(tmp_path / "calexp.fits"), tmp_path / "again.zarr", bands=["r"], psf=psf)
    np.testing.assert_array_equal(survey.read_tile(survey.tile(2)).psf[0, 0, 0], other)


def test_several_ccds_with_weight_and_quality_files(tmp_path: Path, client: Any) -> None:
    def mosaic(name: str, arrays: list[np.ndarray], **cards: Any) -> None:
        hdus = [fits.PrimaryHDU(header=fits.Header(cards))]
        hdus += [fits.ImageHDU(a, fits.Header(WCS_CARDS), name=f"N{n}") for n, a in enumerate(arrays)]
        fits.HDUList(hdus).writeto(tmp_path / name)

    weight, quality = np.ones((50, 70), "f4") * 0.25, np.zeros((50, 70), "i2")
    weight[7, 8], quality[1, 1], quality[2, 2] = 0, 3, 5
    mosaic("c4d_ooi_g.fits", [noise(), noise((30, 30))], MAGZERO=25.5)
    mosaic("c4d_oow_g.fits", [weight, np.ones((30, 30), "f4")])
    mosaic("c4d_ood_g.fits", [quality, np.zeros((30, 30), "i2")], PLVER="V4.8.2a", INSTRUME="DECam")
    patterns = {"weight_pattern": "ooi=oow,oki=oow", "mask_pattern": "ooi=ood,oki=ood"}
    _, survey = run(client, str(tmp_path / "*.fits"), tmp_path / "s.zarr", **patterns)
    assert list(survey.images()) == ["c4d_ooi_g_N0", "c4d_ooi_g_N1"]
    bits = whole(survey, "c4d_ooi_g_N0", "mask")[0]
    assert (bits[1, 1], bits[2, 2], bits[7, 8]) == (MaskBit.SATURATED, MaskBit.COSMIC_RAY, MaskBit.BAD)
    variance = whole(survey, "c4d_ooi_g_N0", "variance")[0]
    assert variance[0, 0] == 4
    assert np.isnan(variance[7, 8])
    assert survey.tile(0).zero_points == {"c000": 25.5}


def test_a_rerun_reads_nothing_and_more_files_can_be_added(tmp_path: Path, client: Any, monkeypatch: Any) -> None:
    one, two = write(tmp_path / "one.fits", noise()), write(tmp_path / "two.fits", noise(seed=2))
    first, survey = run(client, one, tmp_path / "s.zarr")
    before = {info.name: info for info in survey.iter_tiles()}
    stamps = {path: path.stat().st_mtime_ns for path in Path(survey.url).rglob("c/*/0/0/0")}
    both, survey = run(client, [one, two], tmp_path / "s.zarr")
    assert (first.units_done, both.units_done, both.units_skipped) == (6, 6, 6)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert {info.name: info for info in survey.iter_tiles() if info.image == "one"} == before
    monkeypatch.setattr(to_survey, "exposures", None)
    again, _ = run(client, [one, two], tmp_path / "s.zarr", tile_size=None, halo=None)
    assert (again.units_done, again.units_skipped) == (0, 12)


def test_a_stopped_ingest_goes_on_where_it_was(tmp_path: Path, client: Any, monkeypatch: Any) -> None:
    path = write(tmp_path / "one.fits", noise())

    def stop(what: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(client, path, tmp_path / "s.zarr", progress=stop)
    kept = len(Survey.open(str(tmp_path / "s.zarr")))
    assert kept == 2
    result, survey = run(client, path, tmp_path / "s.zarr")
    assert (result.units_done, result.units_skipped) == (4, 2)
    np.testing.assert_array_equal(whole(survey, "one")[0], noise())


def test_remote_files_and_stores(client: Any) -> None:
    memory = fsspec.filesystem("memory")
    for name, content in (("plain.fits", None), ("packed.fits.gz", gzip.compress)):
        buffer = fits.HDUList([fits.PrimaryHDU(noise(), fits.Header(WCS_CARDS))])
        with memory.open(f"/in/{name}", "wb") as file:
            sink = io.BytesIO()
            buffer.writeto(sink)
            file.write(content(sink.getvalue()) if content else sink.getvalue())
    inputs = ["memory://in/plain.fits", "memory://in/packed.fits.gz"]
    result = ingest(inputs, out="memory://out/s.zarr", tile_size=40, halo=5, client=client)
    survey = Survey.open("memory://out/s.zarr")
    assert (result.units_done, len(survey)) == (12, 12)
    np.testing.assert_array_equal(whole(survey, "packed")[0], noise())
    np.testing.assert_array_equal(whole(survey, "plain")[0], noise())


BAD = {
    "missing": "does not exist",
    "empty": "no readable FITS",
    "truncated": "truncated",
    "table": "no image",
    "shapes": r"different shapes.*70 x 50.*60 x 50",
    "grids": r"differ by 400\.00 pixels",
    "count": "no multiple of 2",
    "clash": "already in",
    "bands": "has bands",
    "tiling": "has tile_size 40, not 50",
    "weight": "does not exist",
    "pattern": "does not apply",
    "weightshape": "one pixel grid",
    "mask_map": "mask_map",
    "hdu": "no image HDU",
    "unwritable": "cannot be written",
    "changed": "changed file",
    "name": "separators",
    "twice": "given twice",
    "psf": "PSF",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_sentence(tmp_path: Path, client: Any, case: str) -> None:
    good = write(tmp_path / "good.fits", noise())
    out, options, inputs = tmp_path / "s.zarr", {}, [good]
    if case in ("clash", "bands", "tiling", "changed"):
        run(client, good, out)
    (tmp_path / "sub").mkdir()
    if case == "missing":
        inputs = [str(tmp_path / "nope.fits")]
    elif case == "empty":
        (tmp_path / "e.fits").write_bytes(b"")
        inputs = [str(tmp_path / "e.fits")]
    elif case == "truncated":
        (tmp_path / "t.fits").write_bytes(Path(good).read_bytes()[:9000])
        inputs = [str(tmp_path / "t.fits")]
    elif case == "table":
        fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1])]).writeto(tmp_path / "t.fits")
        inputs = [str(tmp_path / "t.fits")]
    elif case in ("shapes", "grids"):
        cards = {"CRVAL2": 2.02} if case == "grids" else {}
        other = write(tmp_path / "r.fits", noise((50, 60) if case == "shapes" else (50, 70)), **cards)
        inputs, options = [good, other], {"bands": "g,r"}
    elif case == "count":
        options = {"bands": "g,r"}
    elif case == "clash":
        inputs = [write(tmp_path / "sub" / "good.fits", noise(seed=5))]
    elif case == "bands":
        options = {"bands": "g"}
    elif case == "tiling":
        options = {"tile_size": 50}
    elif case in ("weight", "pattern"):
        options = {"weight_pattern": "good=bad" if case == "weight" else "ooi=oow"}
    elif case == "weightshape":
        write(tmp_path / "good.wht.fits", noise((20, 20)))
        options = {"weight_pattern": "{stem}.wht.fits"}
    elif case == "mask_map":
        write(tmp_path / "good.m.fits", noise())
        options = {"mask_pattern": "{stem}.m.fits", "mask_map": "codes:1=NONSENSE"}
    elif case == "hdu":
        options = {"hdu": "N7"}
    elif case == "unwritable":
        (tmp_path / "file").write_text("")
        out = tmp_path / "file" / "s.zarr"
    elif case == "changed":
        os.utime(good, ns=(1, 1))
    elif case == "name":
        options = {"name": "../evil"}
    elif case == "twice":
        inputs = [good, good]
    elif case == "psf":
        write(tmp_path / "p1.fits", noise((5, 5)))
        write(tmp_path / "p2.fits", noise((7, 7)))
        inputs = [good, good.replace("good", "r")]
        write(tmp_path / "r.fits", noise())
        options = {"bands": "g,r", "psf": [str(tmp_path / "p1.fits"), str(tmp_path / "p2.fits"), good]}
    before = len(Survey.open(str(out))) if case in ("clash", "bands", "tiling", "changed") else 0
    with pytest.raises(InputError, match=BAD[case]) as caught:
        run(client, inputs, out, **options)
    assert "\n" not in str(caught.value)
    if before:
        assert len(Survey.open(str(out))) == before


@pytest.mark.shared_data
def test_real_files_keep_their_positions_and_pixels(tmp_path: Path, client: Any, shared_data: Path) -> None:
    def check(survey: Survey, image: str, path: Path, hdu: int) -> None:
        with astropy_quiet(), fits.open(path) as hdus:
            header, data = hdus[hdu].header, hdus[hdu].data.astype("f4")
            has_wcs = bool(header.get("CTYPE1", "").strip())
            original = WCS(header)
        np.testing.assert_allclose(whole(survey, image)[0], data, rtol=2e-7)
        for info in survey.iter_tiles():
            if info.image != image or not has_wcs:
                assert info.image != image or info.header is None
                continue
            box = info.inner
            x = np.array([box.x0, box.x1 - 1, box.x0, box.x1 - 1, info.outer.x0]) - 0.5
            y = np.array([box.y0, box.y0, box.y1 - 1, box.y1 - 1, info.outer.y0]) + 0.5
            sky = original.pixel_to_world(x, y).icrs
            stored = Wcs(info.header)
            px = stored.to_pixel(sky.ra.deg, sky.dec.deg)
            assert np.abs(px[0] + info.outer.x0 - x).max() < 1e-3
            assert np.abs(px[1] + info.outer.y0 - y).max() < 1e-3
            ra, dec = stored.to_sky(x - info.outer.x0, y - info.outer.y0)
            assert separation(ra, dec, sky.ra.deg, sky.dec.deg).max() * 3600 < 1e-3 * stored.pixel_scale

    singles = ["m51_512.fits", "ntt/sep_ntt_emmi_256.fits", "spitzer/spitzer_example_image.fits"]
    singles += ["sdss/frame-r-001000-1-0100.fits.bz2"]
    _, survey = run(client, [str(shared_data / name) for name in singles], tmp_path / "a.zarr", tile_size=400, halo=20)
    for name in singles:
        check(survey, Path(name).name.removesuffix(".bz2").removesuffix(".fits"), shared_data / name, 0)
    assert survey.images()["m51_512"].header is None
    assert next(i for i in survey.iter_tiles() if i.image.startswith("spitzer")).units == {"c000": "MJy/sr"}
    ooi = [
        str(shared_data / "decam_bass_mzls" / name)
        for name in ("testcase4/images/decam/**/*_oo*", "mzlsbass2/images/mosaic/**/*_oo*")
    ]
    files = sorted(name for pattern in ooi for name in glob.glob(pattern, recursive=True) if ".fits" in name)
    patterns = {"weight_pattern": "ooi=oow", "mask_pattern": "ooi=ood"}
    _, survey = run(client, files, tmp_path / "b.zarr", tile_size=128, halo=16, **patterns)
    for path in (Path(name) for name in files if "ooi" in name):
        check(survey, path.name.removesuffix(".fz").removesuffix(".fits"), path, 1)


def test_linked_files_keep_the_names_that_people_gave_them(client: Any, tmp_path: Path) -> None:
    """Data managers put the bytes into hashed files and link readable names to them."""
    (tmp_path / "objects").mkdir()
    for name, data in {"night_ooi": noise(), "night_oow": np.full((50, 70), 4.0, "f4")}.items():
        write(tmp_path / "objects" / f"{hash(name):x}", data)
        (tmp_path / f"{name}.fits").symlink_to(tmp_path / "objects" / f"{hash(name):x}")
    given = [f"{tmp_path}/objects/../night_ooi.fits"]
    result, survey = run(client, given, tmp_path / "s.zarr", weight_pattern="ooi=oow")
    assert {info.image for info in survey.iter_tiles()} == {"night_ooi"}
    assert (survey.read_tile(next(survey.iter_tiles())).variance[0, 10:30, 10:30] == 0.25).all()
    again, _ = run(client, str(tmp_path / "night_ooi.fits"), tmp_path / "s.zarr", weight_pattern="ooi=oow")
    assert (again.units_done, again.units_skipped) == (0, result.units_done)


def test_one_file_by_two_names_is_one_file(client: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.fits", noise())
    with pytest.raises(InputError, match="given twice"):
        run(client, [file, f"{tmp_path}/./a.fits"], tmp_path / "s.zarr")
