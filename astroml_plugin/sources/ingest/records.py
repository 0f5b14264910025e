"""Records of the archives and tables that filled a Stamps store: a rerun goes on in the same blocks."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.stamps import Stamps


@dataclass(frozen=True)
class SourceRecord:
    """Blocks that are kept for the stamps of one archive or table."""

    url: str
    """Archive or table, without credentials."""
    first_block: int
    """Index of its first block in the store."""
    blocks: int
    """Number of blocks."""
    count: int
    """Number of stamps."""

    def missing(self, stamps: Stamps) -> set[int]:
        """Indices of the blocks that are not written yet."""
        stored = {unit.index for unit in stamps.units()}
        return set(range(self.first_block, self.first_block + self.blocks)) - stored


def existing(out: str, codec: str | None = None) -> Stamps | None:
    """The store at `out`; None where there is none yet.

    Raises:
        InputError: a codec is asked for that is not the store's.
    """
    if not storage.exists(storage.join(storage.absolute(out), "zarr.json")):
        return None
    stamps = Stamps.open(out)
    stamps.refuse_other_codec(codec)
    return stamps


def recorded(stamps: Stamps | None, identity: str) -> SourceRecord | None:
    """The record of a source that was brought in before, by its digest."""
    if stamps is None:
        return None
    url = _record_url(stamps, identity)
    if not storage.exists(url):
        return None
    read = storage.read_record(url, url=str, first_block=int, blocks=int, count=int)
    return SourceRecord(read["url"], read["first_block"], read["blocks"], read["count"])


def refuse_changed(stamps: Stamps, url: str) -> None:
    """InputError where an archive of this name was brought in before: its stamps would stand there twice."""
    sources = storage.join(stamps.url, "sources")
    for name in storage.list_files(sources, ".json"):
        if storage.read_record(storage.join(sources, name), url=str)["url"] == storage.redact(url):
            raise InputError(
                f"{storage.redact(url)} is already in {storage.redact(stamps.url)}, and has changed since or is read "
                "with other options: use a new output, or another name if these are other objects"
            )


def reserve(stamps: Stamps, identity: str, url: str, count: int, blocks: int | None = None) -> SourceRecord:
    """Make room for `count` stamps and record where; `blocks` where not every block but the last is full."""
    if count < 1:
        raise InputError(f"{storage.redact(url)} holds no stamps")
    blocks = -(-count // stamps.block) if blocks is None else blocks
    record = SourceRecord(storage.redact(url), stamps.reserve(blocks), blocks, count)
    storage.write_json(_record_url(stamps, identity), asdict(record))
    return record


def _record_url(stamps: Stamps, identity: str) -> str:
    return storage.join(stamps.url, "sources", f"{identity}.json")
