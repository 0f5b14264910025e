"""How sets of simulated stamps are divided: blocks are the units of seeds, of work and of what is on disk."""

from __future__ import annotations


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
