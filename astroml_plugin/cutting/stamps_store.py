"""Cut stamps into a store of stamps."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from astroml_plugin.catalog.objects.buckets import ObjectBuckets
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import RawStamps
from astroml_plugin.cutting.plan import CutPlan
from astroml_plugin.sources.ingest.records import existing, recorded, refuse_changed, reserve
from astroml_plugin.sources.stamps import StampLayout, Stamps

_PLACE = ("object_id", "image", "x", "y")
_LOOKED_AT = 10_000
"""Objects of a table that are looked for in a store."""


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


def place_in_store(plan: CutPlan, out: str, source: str, buckets: ObjectBuckets) -> CutPlan:
    """The plan with its blocks reserved in the store at `out`, which is made where there is none.

    Args:
        plan: of the cut.
        out: URL of the store.
        source: how the objects are called in the store's records.
        buckets: the objects.

    Raises:
        InputError: the store has other stamps, or these objects were cut into it already.
    """
    stamps = existing(out)
    record = recorded(stamps, plan.identity)
    layout = plan.settings.layout
    if stamps is None:
        stamps = Stamps.create(out, layout)
    _refuse_other(stamps, layout)
    if record is None:
        refuse_changed(stamps, source)
        _refuse_known(stamps, buckets)
        record = reserve(stamps, plan.identity, source, plan.rows, plan.blocks)
    return plan.at(stamps.url, record.first_block)


def _refuse_known(stamps: Stamps, buckets: ObjectBuckets) -> None:
    """InputError where a store has objects of a table at the same pixels already: they would stand there twice."""
    looked: set[tuple[Any, ...]] = set()
    for unit in buckets.units():
        looked |= _places(buckets.read(unit))
        if len(looked) >= _LOOKED_AT:
            break
    found = sum(len(looked & _places(stamps.read_objects(block.index))) for block in stamps.units())
    if found:
        raise InputError(
            f"{storage.redact(stamps.url)} has {found} of the first {len(looked)} objects at the same pixels already, "
            "from another table or another version: use a new output, or leave these objects out"
        )


def _places(objects: pa.Table) -> set[tuple[Any, ...]]:
    """Id, image and place of objects; none of stamps that were not cut here."""
    if not set(_PLACE) <= set(objects.column_names):
        return set()
    return set(zip(*(objects[name].to_pylist() for name in _PLACE), strict=True))


def _refuse_other(stamps: Stamps, layout: StampLayout) -> None:
    block = ("stamps per block", stamps.block, layout.rows) if stamps.block != layout.rows else None
    if found := stamps.differs(layout) or block:
        name, held, wanted = found
        raise InputError(
            f"{storage.redact(stamps.url)} has {name} {held}, these stamps {wanted}: use a new output"
            + (f" or --block {held}" if found is block else "")
        )
