"""Compressed files: unpacked exactly, and refused before they fill the memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from astroml_plugin.catalog.objects.readers import open_table
from astroml_plugin.core import archives
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest.opening import open_fits
from workflows.ingest import ingest

PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3), st.sampled_from(list(PACK)), st.integers(0, 9))
def test_streams_are_unpacked_exactly(parts: list[bytes], suffix: str, zeros: int) -> None:
    data = b"".join(PACK[suffix](part) for part in parts) + bytes(4 * zeros)
    assert archives.unpack(data, suffix, "x") == b"".join(parts)


@pytest.mark.parametrize("suffix", PACK)
def test_pieces_larger_than_a_step(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_STEP", 1000)
    content = np.random.default_rng(0).bytes(5000) + bytes(100_000) + np.random.default_rng(1).bytes(5000)
    assert archives.unpack(PACK[suffix](content), suffix, "x") == content


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("cut", [0, 1, 10, -1, -9])
def test_damaged_files_are_told(suffix: str, cut: int) -> None:
    with pytest.raises((OSError, EOFError, archives.zlib.error, lzma.LZMAError)):
        archives.unpack(PACK[suffix](b"light" * 100)[:cut], suffix, "x")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 2**20)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("suffix", PACK)
def test_bombs_are_refused_while_they_unpack(suffix: str) -> None:
    with pytest.raises(InputError, match=r"x has .* MB and unpacks to more than .* GB.*unpack it yourself"):
        archives.unpack(PACK[suffix](bytes(2**26)), suffix, "x")
    assert len(archives.unpack(PACK[suffix](bytes(2**20)), suffix, "x")) == 2**20


@pytest.mark.usefixtures("small")
def test_bombs_of_fits_and_tables_are_refused(tmp_path: Path) -> None:
    image = io.BytesIO()
    fits.PrimaryHDU(np.zeros((3000, 3000), np.float32)).writeto(image)
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(image.getvalue()))
    with pytest.raises(InputError, match="unpacks to more"), open_fits(str(tmp_path / "a.fits.gz")):
        pass
    with zipfile.ZipFile(tmp_path / "a.fits.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.fits.gz", gzip.compress(image.getvalue()))
        archive.writestr("notes.txt", bytes(2**22))
    with pytest.raises(InputError, match="unpacks to more"), open_fits(str(tmp_path / "a.fits.zip")):
        pass
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"object_id,ra,dec" + b" " * 2**26))
    with pytest.raises(InputError, match="unpacks to more"), open_table(str(tmp_path / "a.csv.gz"), None):
        pass


def member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], size: int, kind: str = "<f4") -> None:
    """An array of zeros whose header says `shape`, with `size` bytes."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
        for start in range(0, size, 2**22):
            file.write(bytes(min(2**22, size - start)))


def refused(folder: Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        ingest([str(folder / "a.npz")], out=str(folder / "s.zarr"), bands="r", pixel_scale=0.2)
    assert not (folder / "s.zarr").exists()


@pytest.mark.usefixtures("small")
def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        member(archive, "images", (4, 1, 16, 16), 4096)
        member(archive, "label", (4, 2**22), 2**26)
    refused(tmp_path, "unpacks to more than")


def test_a_header_that_claims_more_than_there_is_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        member(archive, "images", (10**9, 1, 64, 64), 1000)
    refused(tmp_path, r"array images .* has 1\.64e\+13 bytes, the archive 1e\+03")


def test_one_object_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        member(archive, "images", (4, 1, 16, 16), 4096)
        member(archive, "label", (4, 2**20), 2**24)
    refused(tmp_path, "array label has 4.19 MB per object")


def test_small_arrays_are_small(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        member(archive, "images", (4, 1, 16, 16), 4096)
        member(archive, "bands", (2**24 + 1,), 2**26 + 4, "<U1")
        member(archive, "object_id", (4,), 32, "<i8")
    with pytest.raises(InputError, match=r"array bands has 67\.1 MB"):
        ingest([str(tmp_path / "a.npz")], out=str(tmp_path / "s.zarr"))
