"""Cut stamps as FITS files, one per object: image, variance, mask and PSF, each with the WCS of the stamp."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import RawStamps
from astroml_plugin.cutting.fits_cards import TileCards
from astroml_plugin.cutting.plan import CutPlan, CutSettings
from astroml_plugin.pixels import stamp_origin
from astroml_plugin.sources.stamps import block_name
from astroml_plugin.sources.tile_table import TileInfo

_RECORD = "cutouts.json"
_LISTED = re.compile(r"block_(\d+)-(\d+)\.parquet$")
_WRITERS = 4
"""Files of a block that are written at once."""


class FitsFolder:
    """A folder of FITS cutouts, with a table of what is in it for each block.

    Args:
        settings: of the cut.
        tiles: those of which stamps will be written.
    """

    def __init__(self, settings: CutSettings, tiles: Sequence[TileInfo] = ()) -> None:
        self.url, self.settings = settings.out, settings
        self._tiles = {info.name: info for info in tiles}
        self._tile: tuple[str, TileCards] | None = None

    def present(self) -> set[int]:
        """Numbers of the blocks whose files are all there."""
        names = storage.list_files(storage.join(self.url, "objects"), ".parquet")
        return {int(found[1]) for name in names if (found := _LISTED.search(name))}

    def write(self, block: int, stamps: RawStamps, objects: pa.Table) -> None:
        """Write the files of one block, each whole or not at all, then the table that lists them."""
        rows = objects.to_pylist()
        names = [self._file_name(row, block, number) for number, row in enumerate(rows)]
        size = self.settings.size
        left, top = (stamp_origin(objects[axis].to_numpy(), size) for axis in "xy")
        with ThreadPoolExecutor(_WRITERS, "fits") as pool:
            writing = []
            for number, row in enumerate(rows):
                data = self._cards(row["tile"]).file(stamps, number, int(left[number]), int(top[number]), row)
                writing.append(pool.submit(storage.write_atomic, storage.join(self.url, names[number]), data))
            for future in writing:
                future.result()
        listed = objects.add_column(1, "file", pa.array(names))
        storage.write_table(storage.join(self.url, "objects", f"{block_name(block)}-{len(rows)}.parquet"), listed)

    def _cards(self, name: str) -> TileCards:
        if self._tile is None or self._tile[0] != name:
            self._tile = name, TileCards.of(self._tiles[name], self.settings.layout)
        return self._tile[1]

    def _file_name(self, row: dict[str, Any], block: int, number: int) -> str:
        """`<object_id>.fits`; with block and number where the id is no name for one stamp alone."""
        alone = not (self.settings.every_image or row["flags"] & int(ObjectFlag.DUPLICATE_ID))
        return f"{row['object_id']}.fits" if alone else f"{row['object_id']}-{block}-{number}.fits"


def place_in_folder(plan: CutPlan, out: str) -> CutPlan:
    """The plan with its blocks in the folder `out`.

    Raises:
        InputError: it holds other cutouts, or FITS files of others.
    """
    url = storage.absolute(out)
    place = storage.join(url, _RECORD)
    if storage.exists(place):
        if storage.read_record(place, identity=str)["identity"] != plan.identity:
            raise InputError(f"{storage.redact(url)} holds other cutouts: choose another output")
    elif any("/" not in name for name in storage.list_files(url, ".fits")):
        raise InputError(f"{storage.redact(url)} holds FITS files of others: choose another output")
    else:
        storage.write_json(place, {"identity": plan.identity, "rows": plan.rows})
    return plan.at(url, 0)
