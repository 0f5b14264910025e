"""PSFs of a tile's cells: what is made of one is made once for the tile, not once for each stamp of the cell."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.compute.device import sent

Made = TypeVar("Made", Tensor, tuple[Tensor, ...])
"""One tensor, or several, with an entry for each PSF along the first axis."""


@dataclass(frozen=True, eq=False)
class CellPsfs:
    """The PSFs of a tile's cells, and what has been made of them."""

    psf: Tensor
    """(cell, band, psf_y, psf_x), one after another along x, then along y."""
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of_tile(cls, psf: Tensor) -> CellPsfs:
        """The cells of a tile with PSFs (band, cell_y, cell_x, psf_y, psf_x)."""
        return cls(psf.permute(1, 2, 0, 3, 4).flatten(0, 1))

    def __len__(self) -> int:
        return int(self.psf.shape[0])

    def knows(self, what: Hashable) -> bool:
        """Whether it has been made."""
        return what in self._made

    def made(self, what: Hashable, make: Callable[[Tensor], Any]) -> Any:
        """`make` of all cells' PSFs, once; two threads may both make it, and find the same."""
        if what not in self._made:
            self._made[what] = make(self.psf)
        return self._made[what]

    def changed(self, what: Hashable, make: Callable[[Tensor], Tensor]) -> CellPsfs:
        """Cells with other PSFs, made once."""
        found: CellPsfs = self.made(("changed", what), lambda psf: CellPsfs(make(psf)))
        return found


@dataclass(frozen=True, eq=False)
class StampPsfs:
    """The PSFs of n stamps as those of a tile's cells."""

    psf: Tensor
    """(n, band, psf_y, psf_x): copies, one for each stamp."""
    cells: CellPsfs
    index: Tensor
    """(n,) int64 on the device: number of each stamp's cell."""

    @classmethod
    def at(cls, cells: CellPsfs, numbers: Tensor) -> StampPsfs:
        """PSFs of stamps that lie in the cells of these numbers, (n,) int64."""
        return cls(cells.psf[numbers], cells, numbers)

    def take(self, index: Tensor | slice) -> StampPsfs:
        """PSFs of the stamps of an index (n',) or slice."""
        return StampPsfs.at(self.cells, self.index[index])

    def changed(self, what: Hashable, make: Callable[[Tensor], Tensor]) -> StampPsfs | None:
        """PSFs that `make` makes of these, called once for all cells; None where those are more than the stamps."""
        return StampPsfs.at(self.cells.changed(what, make), self.index) if self._pays(("changed", what)) else None

    def of_each(self, what: Hashable, make: Callable[[Tensor], Made]) -> Made:
        """`make` of each stamp's PSF, n entries; called once for all cells if they are fewer than the stamps."""
        if not self._pays(what):
            return make(self.psf)
        made = self.cells.made(what, make)
        found: Any = made[self.index] if isinstance(made, Tensor) else tuple(values[self.index] for values in made)
        return cast(Made, found)

    def _pays(self, what: Hashable) -> bool:
        return self.cells.knows(what) or len(self.cells) <= len(self.index)


def cell_numbers(psf: Tensor, across: np.ndarray, up: np.ndarray) -> Tensor:
    """(n,) int64 on the PSF's device: the cell of each object, as `CellPsfs.of_tile` numbers them.

    Args:
        psf: of the tile, (band, cell_y, cell_x, psf_y, psf_x).
        across, up: (n,) fractions of the tile along x and y; outside of [0, 1) the nearest cell counts.
    """
    cells_y, cells_x = (int(count) for count in psf.shape[1:3])
    row = np.clip(up * cells_y, 0, cells_y - 1).astype(np.int64)
    column = np.clip(across * cells_x, 0, cells_x - 1).astype(np.int64)
    return sent(torch.from_numpy(row * cells_x + column), psf.device)
