"""Files that somebody cuts short while they are read: an error, where a memory map would end the process."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from astroml_plugin.catalog.objects.fits_tables import open_fits as open_tables
from astroml_plugin.core.errors import CorruptError
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.ingest.opening import open_fits
from astroml_plugin.sources.ingest.pixels import Pixels, read_box


@pytest.mark.parametrize("kind", [">f4", ">f8", ">i2", "u1"])
@pytest.mark.parametrize(
    "box",
    [Box(0, 0, 300, 40), Box(5, 3, 60, 9), Box(100, 7, 300, 40)],
    ids=["rows", "narrow", "wide"],
)
def test_a_box_is_what_astropy_reads(tmp_path: Path, kind: str, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astroml_plugin.sources.ingest.pixels._AT_ONCE", 1000)
    pixels = np.random.default_rng(1).integers(0, 200, (2, 40, 300)).astype(kind)
    file = str(tmp_path / "cube.fits")
    fits.PrimaryHDU(pixels).writeto(file)
    with open_fits(file) as opened:
        found = read_box(opened, Pixels(file, 0, 1), box)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, pixels[1, box.y0 : box.y1, box.x0 : box.x1])


def test_an_image_that_is_cut_short_under_the_reader_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "image.fits"
    fits.PrimaryHDU(np.zeros((2000, 600), np.float32)).writeto(file)
    with open_fits(str(file)) as opened:
        read_box(opened, Pixels(str(file), 0), Box(0, 1900, 600, 2000))
        file.write_bytes(file.read_bytes()[: 2 * 2880])
        with pytest.raises(CorruptError, match=r"ends before its pixels do.*fetch it again"):
            read_box(opened, Pixels(str(file), 0), Box(0, 1900, 600, 2000))


def test_a_table_that_is_cut_short_under_the_reader_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "table.fits"
    Table({"ra": np.arange(20_000.0), "flag": np.arange(20_000) % 2 == 0}).write(file)
    with open_tables(str(file)) as tables:
        parts = tables[0].chunks(["ra", "flag"], 5_000)
        first = next(parts)
        assert first["ra"].to_pylist()[-1] == 4_999
        assert first["flag"].to_pylist()[:2] == [True, False]
        file.write_bytes(file.read_bytes()[: 30 * 2880])
        with pytest.raises(CorruptError, match="before row 10000 of its table: check it or fetch it again"):
            list(parts)
