"""Objects tables of strangers in every format."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table import Table
from hypothesis import strategies as st

from astroml_plugin.catalog.objects.buckets import ObjectBuckets
from tests import universe
from tests.fuzz.drawing import changed, changes, mostly

FORMATS = {"csv": "csv", "fits": "fits", "vot": "votable", "parquet": "parquet", "cat": "sextractor"}

_IDS = ("object_id", "id", "NUMBER", "SourceID", "OBJECT_ID", "objID")
_FIRST = ("ra", "RA", "ALPHA_J2000", "X_IMAGE", "x", "coord_ra", "l", "RAJ2000")
_SECOND = ("dec", "DEC", "DELTA_J2000", "Y_IMAGE", "y", "coord_dec", "b", "DEJ2000")
_MORE = (
    "image",
    "tile",
    "flags",
    '"; DROP TABLE x; --',
    "a,b",
    "\n",
    "x" * 3000,
    "ünï",
    "",
    " ",
    "object_id",
    "p_star",
    "primary",
    "_healpix_29",
    "ra",
    "#",
    "<TD>",
    "\x00",
)
_VALUES = {
    "ids": lambda n: list(range(n)),
    "texts": lambda n: [str(i) for i in range(n)],
    "words": lambda n: ["x"] * n,
    "halves": lambda n: [i + 0.5 for i in range(n)],
    "negative": lambda n: [-i for i in range(n)],
    "beyond": lambda n: [2**63 + i for i in range(n)],
    "huge": lambda n: [i * 1e20 for i in range(n)],
    "equal": lambda n: [7] * n,
    "sky": lambda n: list(np.linspace(149.99, 150.01, n)),
    "near": lambda n: list(np.linspace(1.99, 2.01, n)),
    "nan": lambda n: [float("nan")] * n,
    "infinite": lambda n: [float("inf"), -float("inf")] * (n // 2) + [0.0] * (n % 2),
    "1e300": lambda n: [1e300] * n,
    "beyond the pole": lambda n: [99.0] * n,
    "truth": lambda n: [True] * n,
    "rows": lambda n: [[1.0, 2.0]] * n,
    "latin": lambda n: ["é"] * n,
    "nul": lambda n: ["a\x00b"] * n,
    "date": lambda n: ["2020-01-01"] * n,
    "sexagesimal": lambda n: ["10:00:00.1"] * n,
    "null": lambda n: ["null"] * n,
}
_column = st.sampled_from(sorted(_VALUES))


def table_bytes(kind: str, rows: int, columns: list[tuple[str, str]], encoding: str, end: str, quoting: str) -> bytes:
    """A table of these columns (name, kind of values) in one format; not always one that a writer would make."""
    values = {name: _VALUES[what](rows) for name, what in columns}
    if kind in ("csv", "cat"):
        separator = " " if kind == "cat" else quoting
        head = [f"#{i + 1:4d} {name:<20} text [{'deg' if len(name) < 8 else 'u'}]" for i, name in enumerate(values)]
        head = head if kind == "cat" else [separator.join(values)]
        body = [separator.join(str(column[i]) for column in values.values()) for i in range(rows)]
        return end.join([*head, *body]).encode(encoding, "replace")
    sink = io.BytesIO()
    if kind == "parquet":
        pq.write_table(pa.table({name: pa.array(column) for name, column in values.items()}), sink)
    elif kind == "fits":
        Table(values).write(sink, format="fits")
    else:
        style = {",": "tabledata", ";": "binary", "\t": "binary2"}[quoting]
        Table(values).write(sink, format="votable", tabledata_format=style)
    return sink.getvalue()


class ObjectTables:
    """Objects tables whose columns, types, encodings or bytes are foreign."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder, self.suffix = folder / f"tables_{suffix}", suffix
        self.folder.mkdir(parents=True)
        self.name = f"objects tables: {FORMATS[suffix]}"
        self.survey = universe.make_survey(str(self.folder / "survey.zarr"), shape=(100, 100), tile_size=100, halo=16)

    @property
    def strategy(self) -> st.SearchStrategy[Any]:
        """Format and rows, columns, text, changes of bytes."""
        kinds = sorted(_VALUES)
        ids = st.tuples(mostly(_IDS[:1], _IDS), mostly(("ids", "texts"), kinds))
        first = st.tuples(mostly(_FIRST[:2], _FIRST), mostly(("sky",), kinds))
        second = st.tuples(mostly(_SECOND[:2], _SECOND), mostly(("near",), kinds))
        more = st.tuples(st.sampled_from(_MORE), _column)
        columns = st.tuples(ids, first, second).map(list) | st.tuples(ids, first, second, more).map(list)
        odd = st.lists(ids | first | second | more, max_size=4)
        text = st.tuples(
            mostly(("utf-8", "latin-1"), ("utf-16", "utf-8-sig")),
            mostly(("\n", "\r\n"), ("\r", "\n\n", "\n# x\n")),
            st.sampled_from((",", ";", "\t")),
        )
        return st.tuples(mostly((2, 30), (0, 1)), columns | columns | odd, text, st.none() | changes())

    def made(self, case: Any) -> bytes | None:
        """A table; None where no writer makes one of these values."""
        rows, columns, text, edits = case
        try:
            data = table_bytes(self.suffix, rows, columns, *text)
        except Exception:
            return None
        return data if edits is None else changed(data, edits)

    def run(self, case: Any) -> None:
        """Read one."""
        data = self.made(case)
        if data is not None:
            self.read(data)

    def read(self, data: bytes) -> None:
        """Sort it by tile, as `infer` does."""
        file, out = self.folder / f"c.{self.suffix}", self.folder / "out"
        file.write_bytes(data)
        shutil.rmtree(out, ignore_errors=True)
        ObjectBuckets.build(str(file), self.survey, str(out))
