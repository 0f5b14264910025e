"""Ingest of alert packets into Stamps; a rerun reads only packets that the store does not have."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.compute.cluster import client_of, run_window
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.core.locking import alone_in
from astroml_plugin.sources.alerts import avro
from astroml_plugin.sources.alerts.alert import COUNT, NUMBER, PACKET, Alert, columns_of, read_alert
from astroml_plugin.sources.alerts.blocks import NANOJANSKY_UNIT, BlockResult, BlockTask, StoredAlerts, write_block
from astroml_plugin.sources.alerts.kinds import BANDS, KINDS, AlertKind
from astroml_plugin.sources.alerts.packets import Packet, Reading, packets, records
from astroml_plugin.sources.ingest.options import IngestOptions
from astroml_plugin.sources.ingest.records import existing
from astroml_plugin.sources.ingest.result import IngestResult, Progress
from astroml_plugin.sources.stamps import StampLayout, Stamps

RECORD = "alerts.json"
"""File of a store: kind of its alerts, and the columns of their measurements."""
FAILURES = "failures.parquet"
"""Table of a store: packets that the last ingest could not read."""
FAILURES_SCHEMA = pa.schema([("packet", pa.string()), ("reason", pa.string()), ("time", pa.string())])

_AHEAD = 32
"""Blocks that are reserved at once; those that are not used do not exist."""
_PAYLOAD = 8_000_000
"""Bytes of members of packed archives that travel to a worker at once."""


def ingest_alerts(
    inputs: Sequence[str], out: str, options: IngestOptions, client: Any = None, progress: Progress | None = None
) -> IngestResult:
    """Add the alerts of packets; several alerts of one object are as many stamps.

    Raises:
        InputError: an input is not there, no packet can be read, or the store has other stamps.
    """
    start = time.monotonic()
    avro.fastavro()
    reading = Reading(options.kind or "auto", None if options.schema is None else storage.read_bytes(options.schema))
    stamps = existing(out, options.codec)
    for url in inputs:
        next(packets([url], pa.array([], pa.string())), None)
    if stamps is None or not _recorded(stamps):
        stamps = _created(inputs, out, options, reading, stamps)
    with alone_in(stamps.url, "ingests into"):
        run = _Run(stamps, reading, progress)
        with client_of(client) as opened:
            run.do(opened, inputs)
        run.write_failures()
    return run.result(time.monotonic() - start)


def _recorded(stamps: Stamps) -> bool:
    return storage.exists(storage.join(stamps.url, RECORD))


def _created(inputs: Sequence[str], out: str, options: IngestOptions, reading: Reading, begun: Stamps | None) -> Stamps:
    """A store for alerts like the first one that can be read; `begun` is one that was stopped before its record."""
    kind, alert, columns = _first(packets(inputs, pa.array([], pa.string())), reading)
    layout = _layout(kind, alert, options)
    if begun is not None and (begun.count or begun.differs(layout)):
        raise InputError(f"{storage.redact(begun.url)} has stamps that are no alerts: use a new output")
    stamps = begun or Stamps.create(out, layout)
    side = max(max(picture.image.shape) for picture in alert.pictures if picture is not None)
    scaled = options.checked_scale() is None and layout.pixel_scale is not None and alert.is_calibrated(kind)
    told = [[item.name, str(item.type)] for item in columns]
    like = StoredAlerts(kind.name, alert.survey, side, scaled)
    storage.write_json(storage.join(stamps.url, RECORD), {**asdict(like), "columns": told})
    return stamps


def _first(waiting: Iterable[Packet], reading: Reading) -> tuple[AlertKind, Alert, pa.Schema]:
    """Kind, alert and columns of the first packet that can be read."""
    reasons: list[str] = []
    for packet in waiting:
        try:
            for found in records(packet, reading):
                with contextlib.suppress(InputError):
                    alert = read_alert(found.record, found.kind)
                    return found.kind, alert, columns_of(found.fields, found.kind)
                reasons.append(f"{packet.name}: no alert there can be read")
        except InputError as error:
            reasons.append(f"{packet.name}: {error}")
    if not reasons:
        raise InputError("no packets are there: name files that end in .avro, or folders or archives of them")
    raise InputError(f"none of {len(reasons)} packets can be read ({reasons[0]})")


def _layout(kind: AlertKind, alert: Alert, options: IngestOptions) -> StampLayout:
    pictures = [picture for picture in alert.pictures if picture is not None]
    scale = options.checked_scale() or (kind.pixel_scale if alert.is_calibrated(kind) else None)
    jacobian = pictures[0].jacobian
    if scale is None and jacobian is not None:
        scale = round(float(np.sqrt(abs(np.linalg.det(jacobian)))), 4)
    size = options.stamp_size or max(pictures[0].image.shape)
    return StampLayout(
        bands=BANDS,
        size=(size, size),
        block=options.block,
        codec=options.codec_of_new,
        pixel_scale=scale,
        zero_points=(NANOJANSKY_UNIT,) * len(BANDS) if pictures[0].in_nanojansky else (),
        variance=any(picture.variance is not None for picture in pictures),
    )


@dataclass
class _Run:
    """One ingest on its way."""

    stamps: Stamps
    reading: Reading
    progress: Progress | None
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    results: list[BlockResult] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    blocks: int = 0
    free: list[int] = field(default_factory=list)

    def do(self, client: Any, inputs: Sequence[str]) -> None:
        """Write blocks until no packet is left."""
        record = storage.read_record(storage.join(self.stamps.url, RECORD), kind=str, columns=list)
        if record["kind"] not in KINDS:
            raise InputError(
                f"{storage.redact(self.stamps.url)} has alerts of kind {record['kind']}: update astroml-plugin"
            )
        known = {item.name for item in fields(StoredAlerts)}
        self.like = StoredAlerts(**{name: value for name, value in record.items() if name in known})
        self.columns = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in record["columns"]])
        waiting: Iterable[Packet] = self._waiting(inputs)
        while True:
            left: list[Packet] = []
            for outcome in run_window(client, write_block, self._tasks(waiting)):
                if isinstance(outcome.error, OSError):
                    told = storage.redact(str(outcome.error))
                    raise InputError(f"{storage.redact(self.stamps.url)} cannot be written: {told}") from outcome.error
                if outcome.error is not None:
                    self._lost(outcome.item, outcome.error)
                    continue
                self.results.append(outcome.value)
                self.failed += outcome.value.failed
                left += outcome.value.left
                if self.progress is not None:
                    self.progress("ingest", len(self.results), self.blocks)
            if not left:
                return
            waiting = sorted(left, key=lambda packet: (packet.name, packet.first))

    def _lost(self, task: BlockTask, error: BaseException) -> None:
        if not isinstance(error, AstromlError):
            raise error
        self.failed += [(packet.name, str(error)) for packet in task.packets]

    def _waiting(self, inputs: Sequence[str]) -> Iterator[Packet]:
        """Packets that the store does not have, or not all of."""
        done, partly = _stored(self.stamps)
        for packet in packets(inputs, done):
            skip = partly.get(packet.name)
            yield packet if skip is None else replace(packet, skip=skip)

    def _tasks(self, waiting: Iterable[Packet]) -> Iterator[BlockTask]:
        """Packets in groups of as many as a block has stamps; parts of large ones alone."""
        group: list[Packet] = []
        payload = 0
        for packet in waiting:
            if packet.stop is not None:
                yield self._task([packet])
                continue
            group.append(packet)
            payload += len(packet.data or b"")
            if len(group) == self.stamps.block or payload > _PAYLOAD:
                yield self._task(group)
                group, payload = [], 0
        if group:
            yield self._task(group)

    def _task(self, group: Sequence[Packet]) -> BlockTask:
        if not self.free:
            first = self.stamps.reserve(_AHEAD)
            self.free = list(range(first, first + _AHEAD))
        self.blocks += 1
        where = (self.stamps.url, self.name, self.free.pop(0), self.like)
        return BlockTask(*where, self.columns, self.reading, tuple(group))

    def write_failures(self) -> None:
        """Replace the table of packets that cannot be read."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        rows = [{"packet": packet, "reason": reason, "time": stamp} for packet, reason in sorted(self.failed)]
        table = pa.Table.from_pylist(rows, schema=FAILURES_SCHEMA)
        storage.write_table(storage.join(self.stamps.url, FAILURES), table)

    def result(self, seconds: float) -> IngestResult:
        """Summary."""
        written = [one for one in self.results if one.rows]
        repeated = [name for one in self.results for name in one.repeated]
        cut = sum(one.cut for one in self.results)
        notes = []
        if repeated:
            notes.append(f"{len(repeated)} alerts are there already, from other packets ({repeated[0]} and so on)")
        if cut:
            size = self.stamps.size[0]
            notes.append(
                f"{cut} alerts have larger stamps, they were cut to {size} x {size} px: --stamp-size keeps more"
            )
        return IngestResult(
            source=self.stamps.url,
            kind=self.stamps.kind,
            units_done=len(written),
            units_skipped=len(self.stamps.units()),
            rows=sum(one.rows for one in written),
            bytes=sum(one.bytes for one in written),
            seconds=seconds,
            failed=tuple(sorted(self.failed)),
            notes=tuple(notes),
        )


def _stored(stamps: Stamps) -> tuple[pa.Array, dict[str, frozenset[int]]]:
    """Names of packets whose alerts are all there; and numbers of those that are there of other packets."""
    if not stamps.count:
        return pa.array([], pa.string()), {}
    table = stamps.labels([PACKET, NUMBER, COUNT])
    groups = table.group_by(PACKET).aggregate([(NUMBER, "count"), (COUNT, "max"), (COUNT, "count")])
    there, wanted = groups[f"{NUMBER}_count"].to_numpy(), groups[f"{COUNT}_max"].fill_null(2**31 - 1).to_numpy()
    whole = pa.array((there >= wanted) & (groups[f"{COUNT}_count"].to_numpy() == there))
    names = groups[PACKET].combine_chunks()
    partly: dict[str, set[int]] = {name: set() for name in names.filter(pa.array(~np.asarray(whole))).to_pylist()}
    if partly:
        for name, number in zip(table[PACKET].to_pylist(), table[NUMBER].to_pylist()):
            if name in partly:
                partly[name].add(number)
    return names.filter(whole), {name: frozenset(numbers) for name, numbers in partly.items()}
