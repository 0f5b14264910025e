"""Archives of arrays and FITS images of strangers."""

from __future__ import annotations

import contextlib
import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from hypothesis import strategies as st

from tests import universe
from tests.fuzz.drawing import changed, changes
from workflows.ingest import ingest

_STAMPS = 6
_FOREIGN_ARRAYS: tuple[Any, ...] = (
    *(np.array(5), np.array([], "f4"), np.array([None, 1], object), np.array(["x" * 1000] * _STAMPS)),
    *(np.zeros((_STAMPS, 0, 8, 8), "f4"), np.zeros((_STAMPS, 1, 1, 1), "f4"), np.zeros((_STAMPS, 1, 8, 9), "f4")),
    *(np.zeros(_STAMPS, [("a", "f4"), ("b", "i4")]), np.arange(_STAMPS).astype("M8[D]"), np.zeros(_STAMPS, "V7")),
    *(np.full(_STAMPS, 2**63, "u8"), np.zeros(_STAMPS, "i8"), np.array([b"\xff\xfe"] * _STAMPS)),
    *(
        np.array(["\ud800"] * _STAMPS),
        np.arange(_STAMPS).astype("m8[s]"),
        np.zeros((_STAMPS, 0)),
        np.zeros((_STAMPS, 3), "S4"),
    ),
    *(
        np.zeros((_STAMPS, 2, 2, 2, 2), "f4"),
        np.zeros(_STAMPS, "f2"),
        np.zeros(_STAMPS, "c16"),
        np.zeros(_STAMPS, np.longdouble),
    ),
    *(
        np.zeros(_STAMPS, [("a", "f4", (2,)), ("b", "V3")]),
        np.full(_STAMPS, np.nan),
        np.full(_STAMPS, 1e300),
        np.zeros((0, 1, 8, 8)),
    ),
)
_RESHAPED = (
    lambda a: a[:4],
    lambda a: a[None],
    lambda a: np.full(a.shape, np.nan),
    lambda a: np.asfortranarray(a),
    lambda a: a.astype("c8"),
    lambda a: a.astype(">f8"),
    lambda a: a.astype(bool),
    lambda a: a.astype("f2"),
    lambda a: a.astype("U20"),
    lambda a: a[..., None],
    lambda a: a.T,
)
_NAMES = (
    "",
    "../x",
    "a/b",
    "tile",
    "flags",
    "p_star",
    "x y",
    '"',
    "\x00z",
    "_unit",
    "é",
    "a" * 300,
    "object_id ",
    "OBJECT_ID",
    "image",
    "pixel_scale",
    "bands",
    "psf",
    "variance",
    "mask",
    "zero_point",
    "x\ny",
)
_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1, 64, 64), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 1, 8, 8), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (6,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 9223372036854775807, 9223372036854775807), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': 6, }",
    "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (6,), }",
    "{'descr': '<f4', 'fortran_order': 1, 'shape': (6,), }",
    "{'descr': 'x', 'fortran_order': False, 'shape': (6,), }",
    "{'descr': '<f4', 'shape': (6,), }",
    "__import__('os').system('true')",
    "[" * 3000,
    "{'descr': ('<f4', (2, 1000000000)), 'fortran_order': False, 'shape': (6,), }",
    "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (6,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 1, 8, 8), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1, 8, 8), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (6,), }",
)


def _npy(header: str, values: bytes) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values


class Archives:
    """Archives of stamps whose arrays, headers or bytes are foreign."""

    name = "npz archives"
    strategy = st.tuples(
        st.lists(
            st.tuples(
                st.integers(0, 6),
                st.sampled_from([("foreign", i) for i in range(len(_FOREIGN_ARRAYS))])
                | st.sampled_from([("reshaped", i) for i in range(len(_RESHAPED))])
                | st.sampled_from([("header", i) for i in range(len(_HEADERS))]),
            ),
            max_size=2,
        ),
        st.none() | st.sampled_from(_NAMES),
        st.booleans(),
        st.none() | changes(),
    )

    def __init__(self, folder: Path, client: Any) -> None:
        self.folder, self.client = folder / "archives", client
        self.folder.mkdir(parents=True)
        rng = np.random.default_rng(1)
        images = rng.normal(size=(_STAMPS, 1, 8, 8)).astype("f4")
        self.base: dict[str, Any] = {
            "images": images,
            "object_id": np.arange(_STAMPS),
            "label": np.array(["a", "b"] * 3),
            "ra": np.linspace(0, 1, _STAMPS),
            "psf": np.ones((_STAMPS, 1, 5, 5), "f4"),
            "variance": np.ones_like(images),
            "pixel_scale": np.array(0.2),
        }

    def made(self, case: Any) -> bytes:
        """An archive."""
        edits, name, compressed, byte_edits = case
        arrays, raw = dict(self.base), {}
        for which, (what, number) in edits:
            key = list(self.base)[which]
            if what == "foreign":
                arrays[key] = _FOREIGN_ARRAYS[number]
            elif what == "header":
                raw[key] = _npy(_HEADERS[number], b"\0" * 1000)
            else:
                with contextlib.suppress(Exception):
                    arrays[key] = _RESHAPED[number](arrays[key])
        if name is not None:
            arrays[name] = np.arange(_STAMPS)
        sink = io.BytesIO()
        kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        with zipfile.ZipFile(sink, "w", kind) as archive:
            for key, values in arrays.items():
                entry = io.BytesIO()
                if key in raw:
                    entry.write(raw[key])
                else:
                    np.lib.format.write_array(entry, np.asarray(values), allow_pickle=True)
                archive.writestr(f"{key}.npy", entry.getvalue())
        data = sink.getvalue()
        return data if byte_edits is None else changed(data, byte_edits)

    def run(self, case: Any) -> None:
        """Ingest one."""
        try:
            data = self.made(case)
        except Exception:
            return  # zipfile writes no such archive
        self.read(data)

    def read(self, data: bytes) -> None:
        """Ingest it."""
        file, out = self.folder / "c.npz", self.folder / "out"
        file.write_bytes(data)
        shutil.rmtree(out, ignore_errors=True)
        ingest(str(file), out=str(out), client=self.client)


_KEYS = (
    "CTYPE1",
    "CTYPE2",
    "CRVAL1",
    "CRPIX1",
    "CD1_1",
    "CD2_2",
    "CUNIT1",
    "BUNIT",
    "MAGZERO",
    "ZEROPNT",
    "PHOTZP",
    "FLUXMAG0",
    "SATURATE",
    "GAIN",
    "FILTER",
    "OBJECT",
    "EXTNAME",
    "EXTVER",
    "BSCALE",
    "BZERO",
    "BLANK",
    "RADESYS",
    "EQUINOX",
    "LONPOLE",
    "LATPOLE",
    "PV1_1",
    "A_ORDER",
    "A_2_0",
    "A_999_0",
    "PC1_1",
    "CDELT1",
    "DATE-OBS",
    "EXPTIME",
    "WCSAXES",
    "MJD-OBS",
    "INHERIT",
    "CHECKSUM",
    "DATASUM",
    "MP_BAD",
    "PLVER",
    "INSTRUME",
    "CD1_2",
    "AP_ORDER",
    "NAXIS3",
    "GCOUNT",
    "PCOUNT",
    "GROUPS",
    "TELESCOP",
    "ZIMAGE",
    "ZCMPTYPE",
    "WAT0_001",
    "D2IMARR1",
    "CPDIS1",
)
_VALUES = (
    "x",
    0,
    -1,
    1e308,
    -1e308,
    1e-308,
    10**15,
    True,
    False,
    "",
    "../../x",
    "RA---SIP",
    "RA---TPV",
    "RA---ZPN",
    "GLON-CAR",
    "FREQ",
    "deg",
    "nJy",
    "erg/s/" + "x" * 40,
    "nan",
    "count",
    "=1+1",
    "it''s",
    99,
    1000,
    2,
    -5,
    1 + 2j,
    "LOOKUP",
    "WCSAXES",
    "variance",
    "MASK",
    "SCI",
    "T",
    31.4,
    4_000_000_000,
)
_CARDS = (
    b"NAXIS   =                    0",
    b"NAXIS   =                  999",
    b"NAXIS1  =                   -5",
    b"NAXIS1  =           4000000000",
    b"NAXIS2  =            999999999",
    b"BITPIX  =                    7",
    b"BITPIX  =                  -64",
    b"SIMPLE  =                    F",
    b"END",
    b"CONTINUE  'abc",
    b"NAXIS   =                    3",
    b"BZERO   =                  nan",
    b"XTENSION= 'BINTABLE'",
    b"NAXIS1  = 'text    '",
    b"BITPIX  =                 16.5",
    b"BLANK   =                 1e10",
    b"BSCALE  = 'x'",
    b"EXTEND  =                    7",
    b"NAXIS2  =                    1",
    b"GROUPS  =                    T",
    b"HIERARCH a b = 3",
    b"COMMENT \xff\xfe",
    b"=",
    b"CRVAL1  = 1.0.0",
    b"CTYPE1  =                  7.5",
    b"EXTNAME =                    3",
)


class Images:
    """FITS images whose cards are foreign."""

    name = "FITS image headers"
    strategy = st.tuples(
        st.lists(st.tuples(st.sampled_from(_KEYS), st.sampled_from(_VALUES)), max_size=3),
        st.sampled_from(("f4", "f4", "f8", "i2", "u1", "i4", "i8")),
        st.sampled_from(("primary", "primary", "extension", "compressed", "with table", "cube", "roles")),
        st.lists(st.tuples(st.integers(0, 35), st.sampled_from(_CARDS)), max_size=2),
        st.none() | changes(4),
    )

    def __init__(self, folder: Path, client: Any) -> None:
        self.folder, self.client = folder / "images", client
        self.folder.mkdir(parents=True)
        self.header = fits.Header.fromstring(universe.header(32, 32), sep="\n")
        self.pixels = np.random.default_rng(1).normal(0, 20, (32, 32))

    def made(self, case: Any) -> bytes:
        """A file."""
        keys, kind, layout, cards, edits = case
        header, pixels = self.header.copy(), self.pixels.astype(kind)
        for key, value in keys:
            with contextlib.suppress(Exception):
                header[key] = value
        hdus = {
            "primary": lambda: [fits.PrimaryHDU(pixels, header)],
            "extension": lambda: [fits.PrimaryHDU(), fits.ImageHDU(pixels, header)],
            "compressed": lambda: [fits.PrimaryHDU(), fits.CompImageHDU(pixels.astype("f4"), header)],
            "cube": lambda: [fits.PrimaryHDU(pixels[None], header)],
            "with table": lambda: [
                fits.PrimaryHDU(pixels, header),
                fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1])]),
            ],
            "roles": lambda: [
                fits.PrimaryHDU(),
                fits.ImageHDU(pixels, header, "SCI"),
                fits.ImageHDU(pixels, header, "VAR"),
                fits.ImageHDU(pixels.astype("i4"), header, "MASK"),
            ],
        }[layout]()
        sink = io.BytesIO()
        fits.HDUList(hdus).writeto(sink, output_verify="ignore")
        data = bytearray(sink.getvalue())
        for place, card in cards:
            data[80 * place : 80 * place + 80] = card.ljust(80)
        if edits is not None:
            data[:2880] = changed(bytes(data[:2880]), edits)
        return bytes(data)

    def run(self, case: Any) -> None:
        """Ingest one."""
        try:
            data = self.made(case)
        except Exception:
            return  # astropy writes no such file
        self.read(data)

    def read(self, data: bytes) -> None:
        """Ingest it."""
        file, out = self.folder / "c.fits", self.folder / "out"
        file.write_bytes(data)
        shutil.rmtree(out, ignore_errors=True)
        ingest(str(file), out=str(out), client=self.client, bands="r", tile_size=32, halo=4)
