"""Cut stamps into a store of stamps."""

from __future__ import annotations

import pyarrow as pa

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import RawStamps
from astroml_plugin.cutting.plan import CutPlan
from astroml_plugin.sources.ingest.records import existing, recorded, refuse_changed, reserve
from astroml_plugin.sources.stamps import StampLayout, Stamps


class StampsOutput:
    """Blocks of a store that exists.

    Args:
        url: of the store.
    """

    def __init__(self, url: str) -> None:
        self.stamps = Stamps.open(url)

    def present(self) -> set[int]:
        """Numbers of the blocks that are there."""
        return {block.index for block in self.stamps.units()}

    def write(self, block: int, stamps: RawStamps, objects: pa.Table) -> None:
        """Write one block: pixels, then the table that makes it exist."""
        checksum = self.stamps.write_block(
            block, stamps.image, stamps.variance, stamps.psf, mask=stamps.mask if self.stamps.has_mask else None
        )
        self.stamps.commit_objects(block, objects, checksum)


def place_in_store(plan: CutPlan, out: str, source: str) -> CutPlan:
    """The plan with its blocks reserved in the store at `out`, which is made where there is none.

    Args:
        plan: of the cut.
        out: URL of the store.
        source: how the objects are called in the store's records.

    Raises:
        InputError: the store has other stamps, or these objects were cut into it otherwise.
    """
    stamps = existing(out)
    record = recorded(stamps, plan.identity)
    layout = plan.settings.layout
    if stamps is None:
        stamps = Stamps.create(out, layout)
    _refuse_other(stamps, layout)
    if record is None:
        refuse_changed(stamps, source)
        record = reserve(stamps, plan.identity, source, plan.rows, plan.blocks)
    return plan.at(stamps.url, record.first_block)


def _refuse_other(stamps: Stamps, layout: StampLayout) -> None:
    block = ("stamps per block", stamps.block, layout.rows) if stamps.block != layout.rows else None
    if found := stamps.differs(layout) or block:
        name, held, wanted = found
        raise InputError(
            f"{storage.redact(stamps.url)} has {name} {held}, these stamps {wanted}: use a new output"
            + (f" or --block {held}" if found is block else "")
        )
