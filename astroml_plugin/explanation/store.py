"""Explanations on disk, `explanations/NAME` in a catalog's folder: record, summaries by block, maps, judged objects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.explanation.summaries import Layout
from astroml_plugin.explanation.trust import SCHEMA
from astroml_plugin.sources import arrays

FOLDER, RECORD, BLOCKS, MAPS, ARRAY = "explanations", "explanation.json", "blocks", "maps.zarr", "attribution"
JUDGED = "judged"
_BLOCK = re.compile(r"(\d+)\.parquet")


@dataclass(frozen=True)
class ExplanationStore:
    """The folder of one explanation."""

    url: str
    """URL of the folder."""

    @classmethod
    def of(cls, catalog: str, name: str) -> ExplanationStore:
        """The explanation of that name of a catalog; nothing is read."""
        return cls(storage.join(catalog, FOLDER, name))

    def record(self) -> dict[str, Any] | None:
        """How it is made; None where it was never begun.

        Raises:
            InputError: the record is damaged.
        """
        place = storage.join(self.url, RECORD)
        if not storage.exists(place):
            return None
        return storage.read_record(place, identity=dict, bands=list, side=int, rows=int, block=int, number=str)

    def begin(self, record: dict[str, Any], dtype: str) -> None:
        """Make the array of maps, all of them missing, and write the record.

        Args:
            record: its rows, block, bands, side and more.
            dtype: of the maps; "none" makes no array.
        """
        if dtype != "none":
            bands, side, block = record["bands"], record["side"], record["block"]
            url = storage.join(self.url, MAPS)
            chunk = (min(block, 64), len(bands), side, side)
            layout = arrays.ArrayLayout(
                ("object", "band", "y", "x"), (len(bands), side, side), block, chunk, dtype, float("nan")
            )
            arrays.create_group(url, {"kind": "attributions", "bands": list(bands), "number": record["number"]}, [])
            arrays.create_array(url, ARRAY, layout)
            arrays.open_array(url, ARRAY, read_only=False).resize((record["rows"], *layout.shape))
        storage.write_json(storage.join(self.url, RECORD), record)

    def done(self) -> set[int]:
        """Numbers of the blocks that are there."""
        names = storage.list_files(storage.join(self.url, BLOCKS), ".parquet")
        return {int(found[1]) for name in names if (found := _BLOCK.fullmatch(name))}

    def write(self, block: int, start: int, table: pa.Table, maps: np.ndarray | None) -> None:
        """Write a block: its maps from row `start` on, then the summaries that make it exist."""
        if maps is not None:
            arrays.write_unit(arrays.open_array(storage.join(self.url, MAPS), ARRAY, read_only=False), start, maps)
        storage.write_table(self._place(block), table)

    def read(self, block: int) -> pa.Table:
        """The summaries of one block."""
        return storage.read_table(self._place(block))

    def judged(self) -> pa.Table:
        """Objects that were judged, `trust.SCHEMA`, each once; none where nobody has asked."""
        names = sorted(storage.list_files(storage.join(self.url, JUDGED), ".parquet"))
        parts = [storage.read_table(storage.join(self.url, JUDGED, name)) for name in names]
        whole = pa.concat_tables([SCHEMA.empty_table(), *parts])
        return (
            whole.group_by(["object_id", "tile"], use_threads=False)
            .aggregate([(name, "first") for name in SCHEMA.names[2:]])
            .rename_columns(SCHEMA.names)
            .sort_by([("object_id", "ascending"), ("tile", "ascending")])
        )

    def write_judged(self, table: pa.Table) -> None:
        """Write judged objects, under a name that follows from which they are."""
        name = storage.digest(*(table[key].to_pylist() for key in SCHEMA.names[:2]))
        storage.write_table(storage.join(self.url, JUDGED, f"{name}.parquet"), table.cast(SCHEMA))

    def has_maps(self) -> bool:
        """Whether it was made with maps."""
        return storage.exists(storage.join(self.url, MAPS, ARRAY, "zarr.json"))

    def maps(self) -> Any:
        """The Zarr array of maps (object, band, y, x).

        Raises:
            InputError: none were written.
        """
        if not self.has_maps():
            raise InputError(f"{storage.redact(self.url)} has no maps: explain again under another name, with maps")
        return arrays.open_array(storage.join(self.url, MAPS), ARRAY)

    def layout(self) -> Layout:
        """Sizes of its vectors."""
        record = self.record()
        if record is None:
            raise InputError(f"there is no explanation at {storage.redact(self.url)}: make it by the verb explain")
        return Layout(tuple(record["bands"]), int(record["side"]))

    def _place(self, block: int) -> str:
        return storage.join(self.url, BLOCKS, f"{block:06d}.parquet")
