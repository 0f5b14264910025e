"""A tile as a file: read again bit for bit, by parts, and refused in one sentence where it is damaged."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, Sip

import astroml_plugin as ap
from astroml_plugin.core.errors import AstromlError, CorruptError, InputError
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.tile_file import read_component
from tests import universe

PLANES = ("image", "variance", "mask", "psf")
BOX = Box(20, 30, 75, 90)


def the_tile(**changes: object) -> ap.Tile:
    image = universe.field(100, 120, 2)
    image[0, 5, 5], image[1, 7, 7] = np.nan, -0.0
    mask = np.zeros(image.shape, np.uint32)
    mask[1, 40, 50] = 1 << 31
    given = {
        "variance": np.abs(image) + 1,
        "mask": mask,
        "psf": np.random.default_rng(0).random((2, 3, 4, 7, 5)),
        "wcs": universe.header(100, 120),
        "zero_points": [31.4, None],
    }
    place = ap.TilePlace("tract", "tract_patch7", (900, 800), (0, 0), Box(0, 0, 90, 80))
    return ap.Tile.from_arrays(image, ["g", "r"], **{**given, **changes}, place=place)  # type: ignore[arg-type]


def equal(one: ap.Tile, other: ap.Tile) -> None:
    for name in PLANES:
        ours, theirs = getattr(one, name), getattr(other, name)
        if theirs is None:
            assert ours is None
            continue
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours.view(np.uint32), np.ascontiguousarray(theirs).view(np.uint32))
    assert one.info == other.info
    assert (one.bands, one.notes) == (other.bands, other.notes)


@pytest.mark.parametrize("lacking", [(), ("variance", "psf"), ("mask", "wcs")])
def test_a_file_gives_the_tile_again(tmp_path: Path, lacking: tuple[str, ...]) -> None:
    tile = replace(the_tile(**dict.fromkeys(lacking)), notes=("a guess: sky – none",))
    tile.write(tmp_path / "tile.fits")
    equal(ap.Tile.from_file(tmp_path / "tile.fits"), tile)
    equal(ap.Tile.from_file(tmp_path / "tile.fits", BOX), tile.part(BOX))
    equal(ap.Tile.from_file(tmp_path / "tile.fits", BOX, ["r"]), tile.part(BOX, ["r"]))
    one = ap.Tile.from_file(tmp_path / "tile.fits", bands=["r"])
    equal(one, tile.part(bands=["r"]))
    np.testing.assert_array_equal(one.image[0], tile.image[1])
    with (tmp_path / "tile.fits").open("rb") as stream:
        equal(ap.Tile.from_file(stream, BOX), tile.part(BOX))
    for name in PLANES:
        whole, part = read_component(tmp_path / "tile.fits", name), read_component(tmp_path / "tile.fits", name, BOX)
        np.testing.assert_array_equal(whole, getattr(tile, name))
        np.testing.assert_array_equal(part, getattr(tile.part(BOX), name))
    assert read_component(tmp_path / "tile.fits", "bands") == ["g", "r"]
    wcs = read_component(tmp_path / "tile.fits", "wcs", BOX)
    if tile.wcs is None:
        assert wcs is None
    else:
        far = BOX.x0 - tile.info.outer.x0, BOX.y0 - tile.info.outer.y0
        np.testing.assert_allclose(wcs.to_sky(0, 0), tile.wcs.to_sky(*far), rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="exists"):
        tile.write(tmp_path / "tile.fits")
    assert [file.name for file in tmp_path.iterdir()] == ["tile.fits"]


def test_a_part_reads_little_of_the_file(tmp_path: Path) -> None:
    tile = ap.Tile.from_arrays(np.zeros((3, 900, 900), np.float32), ["g", "r", "i"], variance=np.ones((3, 900, 900)))
    tile.write(tmp_path / "tile.fits")

    class Counting(io.FileIO):
        read_bytes = 0

        def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
            data = super().read(-1 if size is None else size)
            self.read_bytes += len(data)
            return data

    with Counting(tmp_path / "tile.fits") as stream:
        ap.Tile.from_file(stream, Box(10, 10, 40, 40))
        assert stream.read_bytes < (tmp_path / "tile.fits").stat().st_size / 20


def test_viewers_find_planes_bands_and_sky(tmp_path: Path) -> None:
    tile = the_tile()
    tile.write(tmp_path / "tile.fits")
    with fits.open(tmp_path / "tile.fits") as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "IMAGE", "VARIANCE", "MASK", "PSF", "TILE"]
        header = hdus["IMAGE"].header
        assert (header["BAND0"], header["BAND1"]) == ("g", "r")
        sky = WCS(header, naxis=2)
        np.testing.assert_array_equal(hdus["MASK"].data, tile.mask)
        assert hdus["MASK"].header["MP_SATURATED"] == 2
    assert tile.wcs is not None
    np.testing.assert_allclose(sky.all_pix2world([3], [4], 0), tile.wcs.to_sky([3], [4]), rtol=0, atol=1e-10)


def test_damage_is_never_pixels(tmp_path: Path) -> None:
    """Cut short anywhere, or altered anywhere: one sentence, or the tile as it was."""
    tile = the_tile()
    tile.write(tmp_path / "tile.fits")
    data = (tmp_path / "tile.fits").read_bytes()
    random = np.random.default_rng(5)
    refused = 0
    cuts = [data[:size] for size in random.integers(0, len(data), 40)]
    flips = []
    for place in random.integers(0, len(data), 160):
        altered = bytearray(data)
        altered[place] ^= 1 << int(random.integers(8))
        flips.append(bytes(altered))
    for harmed in [*cuts, *flips, b"", b"no FITS at all" * 300]:
        (tmp_path / "harmed.fits").write_bytes(harmed)
        try:
            found = ap.Tile.from_file(tmp_path / "harmed.fits")
        except AstromlError:
            refused += 1
        else:
            for name in PLANES:
                np.testing.assert_array_equal(getattr(found, name), getattr(tile, name))
    assert refused > 150


def test_a_wcs_as_astropy_writes_it_is_stored(tmp_path: Path) -> None:
    """Its cards begin with WCSAXES, and sizes of the array stand behind them."""
    sky = WCS(fits.Header.fromstring(universe.header(100, 120), sep="\n"))
    sky.sip = Sip(np.full((3, 3), 1e-7), np.full((3, 3), 1e-7), None, None, sky.wcs.crpix)
    sky.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    for number, wcs in enumerate((sky, sky.to_header(relax=True))):
        tile = the_tile(wcs=wcs)
        tile.write(tmp_path / f"{number}.fits")
        equal(ap.Tile.from_file(tmp_path / f"{number}.fits"), tile)
        seen = WCS(fits.getheader(tmp_path / f"{number}.fits", "IMAGE"), naxis=2)
        np.testing.assert_allclose(seen.all_pix2world([3], [4], 0), tile.wcs.to_sky([3], [4]), rtol=0, atol=1e-10)  # type: ignore[union-attr]


def test_other_files_are_refused(tmp_path: Path) -> None:
    fits.writeto(tmp_path / "image.fits", np.zeros((5, 5), np.float32))
    with pytest.raises(CorruptError, match="holds no tile"):
        ap.Tile.from_file(tmp_path / "image.fits")
    with pytest.raises(InputError, match="does not exist"):
        ap.Tile.from_file(tmp_path / "none.fits")
    tile = the_tile()
    tile.write(tmp_path / "tile.fits")
    for box in (Box(0, 0, 0, 5), Box(-1000, 0, 5, 5)):
        with pytest.raises(InputError, match="does not lie in tile"):
            tile.part(box)
    with pytest.raises(InputError, match="band i is missing"):
        ap.Tile.from_file(tmp_path / "tile.fits", bands="i")
    with pytest.raises(InputError, match="no component"):
        read_component(tmp_path / "tile.fits", "weight")
    fits.setval(tmp_path / "tile.fits", "TILEVER", value=9)
    with pytest.raises(CorruptError, match="format 9"):
        ap.Tile.from_file(tmp_path / "tile.fits")
