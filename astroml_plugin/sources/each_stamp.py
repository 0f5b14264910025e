"""Stamps one after the other, and where they are on the sky: what people do with a store in a notebook."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core.typing import Array

_PIXELS = ("image", "variance", "psf")


class EachStamp:
    """Adds a loop over stamps and their positions to a store of blocks."""

    @abstractmethod
    def units(self) -> Sequence[Any]:
        """All blocks, in order."""

    @abstractmethod
    def read_objects(self, index: int) -> pa.Table:
        """Objects of a block."""

    @abstractmethod
    def read_block(self, index: int) -> tuple[Array, Array | None, Array | None]:
        """Pixels of a block."""

    @abstractmethod
    def labels(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Object tables of all blocks."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each stamp as name -> value: object_id, ra, dec, its labels, and its pixels as image, variance and psf."""
        for block in self.units():
            pixels = dict(zip(_PIXELS, self.read_block(block.index), strict=True))
            for place, row in enumerate(self.read_objects(block.index).to_pylist()):
                yield {**row, **{name: None if values is None else values[place] for name, values in pixels.items()}}

    def to_skycoord(self) -> Any:
        """Positions of the stamps as a SkyCoord, ICRS; NaN where a stamp has none."""
        from astropy import units as u
        from astropy.coordinates import SkyCoord

        table = self.labels(("ra", "dec"))
        ra, dec = (_floats(table, name) for name in ("ra", "dec"))
        return SkyCoord(ra * u.deg, dec * u.deg, frame="icrs")


def _floats(table: pa.Table, name: str) -> np.ndarray:
    return np.zeros(0) if name not in table.column_names else table[name].cast(pa.float64()).to_numpy()
