"""How sets of simulated stamps are divided: blocks are the units of seeds, of work and of what is on disk."""

from __future__ import annotations

import numpy as np

from astroml_plugin.core.errors import InputError


class Blocks:
    """Blocks of a set: a base of frozen dataclasses with `count`, `block` and `seed`."""

    count: int
    block: int
    seed: int

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.count // self.block)

    @property
    def rows(self) -> int:
        """Stamps in a whole block."""
        return self.block

    def block_length(self, index: int) -> int:
        """How many of `count` block `index` holds; the last may hold fewer."""
        return min(self.block, self.count - index * self.block)

    def generator(self, kind: int, index: int) -> np.random.Generator:
        """Random numbers of block `index`; sets of different kinds share none.

        Raises:
            InputError: there is no such block.
        """
        if not 0 <= index < self.blocks:
            raise InputError(f"no block {index} in {self.count} stamps: there are {self.blocks}")
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, kind, index])))
