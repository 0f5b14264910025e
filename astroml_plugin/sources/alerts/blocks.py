"""One block of stamps from packets: what a worker does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F32, F64, I64
from astroml_plugin.sources.alerts.alert import Alert, Place, objects_table, read_alert
from astroml_plugin.sources.alerts.kinds import KINDS, AlertKind
from astroml_plugin.sources.alerts.packets import Packet, Reading, count, held, records
from astroml_plugin.sources.alerts.pictures import Picture, fitted, middle
from astroml_plugin.sources.stamps import Stamps

NANOJANSKY_UNIT = 31.4
"""AB magnitude of one nJy."""


@dataclass(frozen=True)
class StoredAlerts:
    """Facts that hold for all alerts of a store, as those of the first packet are."""

    kind: str
    """Kind."""
    survey: str = ""
    """First letters of the names of their objects."""
    side: int = 0
    """Side of whole pictures of that survey in pixels; 0: not known."""
    scaled: bool = False
    """Whether the store has the pixel scale of that survey, which nobody stated."""


@dataclass(frozen=True)
class BlockTask:
    """Packets that go into one block."""

    stamps: str
    """Store."""
    run: str
    """Name of this ingest: workers keep an open store as long as it lasts."""
    index: int
    """Block."""
    like: StoredAlerts
    """Facts of all alerts of the store."""
    columns: pa.Schema = field(repr=False)
    """Columns of their measurements."""
    reading: Reading = field(repr=False)
    packets: tuple[Packet, ...] = field(repr=False)


@dataclass(frozen=True)
class BlockResult:
    """Outcome of a task."""

    rows: int = 0
    """Stamps written."""
    bytes: int = 0
    """Bytes of their pixels."""
    failed: tuple[tuple[str, str], ...] = ()
    """(packet, reason) of what could not be read."""
    left: tuple[Packet, ...] = ()
    """Packets, or parts of them, for which there was no room."""
    repeated: tuple[str, ...] = ()
    """Packets of alerts that the store has from other packets."""
    cut: int = 0
    """Alerts whose pictures are larger than the stamps."""


@dataclass(frozen=True)
class _Known:
    """Alerts that a store has, by number; some surveys begin their numbers anew, so that the place counts too."""

    ids: I64
    """(n,) sorted."""
    places: F64
    """(n, 2): ra, dec."""

    @classmethod
    def of(cls, stamps: Stamps) -> _Known:
        if not stamps.count:
            return cls(np.zeros(0, np.int64), np.zeros((0, 2)))
        table = stamps.labels(["object_id", "ra", "dec"])
        ids, ra, dec = (table[name].to_numpy() for name in ("object_id", "ra", "dec"))
        order = np.argsort(ids, kind="stable")
        return cls(ids[order], np.stack([ra, dec], axis=1)[order])

    def has(self, alert: Alert) -> bool:
        """Whether an alert of the same number and place is there."""
        same = slice(*(int(np.searchsorted(self.ids, alert.identifier, side)) for side in ("left", "right")))
        if same.start == same.stop:
            return False
        there, place = self.places[same], (alert.ra, alert.dec)
        return bool(((there == place) | (np.isnan(there) & np.isnan(place))).all(axis=1).any())


@lru_cache(maxsize=2)
def _known(stamps: str, run: str) -> _Known:
    """Alerts that the store had when the run began, or when this worker joined."""
    del run
    return _Known.of(Stamps.open(stamps))


@dataclass
class _Block:
    """Alerts of a block in the making."""

    task: BlockTask
    stamps: Stamps
    alerts: list[Alert] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    images: list[F32] = field(default_factory=list)
    variances: list[F32] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    left: list[Packet] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    cut: int = 0

    @property
    def room(self) -> int:
        return self.stamps.block - len(self.alerts)

    @property
    def kind(self) -> AlertKind:
        return KINDS[self.task.like.kind]

    def take(self, packet: Packet, known: _Known) -> None:
        """Read a packet, or as much of it as there is room for."""
        given, packet = packet, held(packet)
        total = count(packet)
        if total is not None and packet.stop is None and total - packet.first > self.stamps.block:
            starts = range(packet.first, total, self.stamps.block)
            parts = [replace(packet, first=start, stop=min(start + self.stamps.block, total)) for start in starts]
            packet, self.left = parts[0], [*self.left, *(replace(part, data=given.data) for part in parts[1:])]
        if not self.room or (total is not None and (packet.stop or total) - packet.first > self.room):
            self.left.append(replace(packet, data=given.data))
            return
        try:
            for found in records(packet, self.task.reading):
                if not self.room:  # a damaged packet, whose length nothing tells
                    self.left.append(replace(packet, data=given.data, first=found.number))
                    return
                self._add(packet, found.number, total, found.kind, found.record, known)
        except InputError as error:
            self.failed.append((packet.name, str(error)))

    def _add(
        self, packet: Packet, number: int, total: int | None, kind: AlertKind, record: dict[str, object], known: _Known
    ) -> None:
        name = packet.name if total == 1 else f"{packet.name}, alert {number}"
        try:
            self._check_kind(kind)
            alert = read_alert(record, kind)
            self._check_survey(alert)
            image, variance = self._pixels(alert)
        except InputError as error:
            self.failed.append((name, str(error)))
            return
        if known.has(alert):
            self.repeated.append(name)
            return
        self.alerts.append(alert)
        self.places.append(Place(packet.name, number, total))
        self.images.append(image)
        if variance is not None:
            self.variances.append(variance)

    def _check_kind(self, kind: AlertKind) -> None:
        if kind.name != self.task.like.kind:
            raise InputError(
                f"it is an alert of kind {kind.name}, the store has {self.task.like.kind}: use a new output"
            )

    def _check_survey(self, alert: Alert) -> None:
        like = self.task.like
        if like.scaled and alert.survey != like.survey:
            raise InputError(
                f"its object {alert.object_name} is of another survey than {like.survey}, whose pixel scale "
                f"({self.stamps.pixel_scale} arcsec) the store has: use a new output"
            )

    def _pixels(self, alert: Alert) -> tuple[F32, F32 | None]:
        """Image and variance (band, y, x) of an alert; NaN where it has none."""
        size = self.stamps.size[0]
        wanted = self.stamps.zero_points[0] is not None
        if any(picture.in_nanojansky != wanted for picture in alert.pictures if picture is not None):
            units = ("another unit", "nJy")
            raise InputError(f"its stamps are in {units[not wanted]}, the store's in {units[wanted]}: use a new output")
        place = _place(alert, self.kind)
        side = self.task.like.side if alert.survey == self.task.like.survey else 0
        self.cut += any(max(picture.image.shape) > size for picture in alert.pictures if picture is not None)
        empty = np.full((size, size), np.nan, np.float32)

        def plane(picture: Picture | None, values: F32 | None) -> F32:
            if picture is None or values is None:
                return empty
            return fitted(values, size, middle(values.shape, place, side))

        image = np.stack([plane(one, None if one is None else one.image) for one in alert.pictures])
        if not self.stamps.has_variance:
            return image, None
        return image, np.stack([plane(one, None if one is None else one.variance) for one in alert.pictures])

    def write(self) -> BlockResult:
        """Write the block, its objects last: it exists from then on."""
        told = (tuple(self.failed), tuple(self.left), tuple(self.repeated), self.cut)
        if not self.alerts:
            return BlockResult(0, 0, *told)
        image = np.stack(self.images)
        variance = np.stack(self.variances) if self.stamps.has_variance else None
        table = objects_table(self.alerts, self.places, self.task.columns, self.kind)
        self.stamps.commit_objects(self.task.index, table, self.stamps.write_block(self.task.index, image, variance))
        return BlockResult(len(image), image.nbytes, *told)


def _place(alert: Alert, kind: AlertKind) -> tuple[float, float] | None:
    """(y, x) of an alert in its image, where it says so."""
    if kind.edge is None:
        return None
    x, y = (alert.fields.get(name) for name in kind.edge)
    if not isinstance(x, int | float) or not isinstance(y, int | float):
        return None
    return float(y), float(x)


def write_block(task: BlockTask) -> BlockResult:
    """Read packets and write them as one block, if any can be read.

    Raises:
        OSError: the store cannot be written.
    """
    stamps = Stamps.open(task.stamps)
    block = _Block(task, stamps)
    known = _known(task.stamps, task.run)
    for packet in task.packets:
        block.take(packet, known)
    return block.write()
