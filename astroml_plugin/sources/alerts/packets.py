"""Packets: files, members of tar archives and rows of Parquet files that hold alerts."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.alerts import avro
from astroml_plugin.sources.alerts.kinds import AUTO, AlertKind, is_read, kind_of

AVRO, TAR, PARQUET = (".avro",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), (".parquet", ".pq")
_LARGEST_MEMBER = 2**28
_ROWS = 64
"""Rows of a Parquet file that are in memory at once: each has three pictures."""
_REMEDY = "ask for it anew"


@dataclass(frozen=True)
class Packet:
    """One place to read alerts from."""

    name: str
    """File, or file and member of an archive, without credentials."""
    url: str
    """File."""
    data: bytes | None = field(default=None, repr=False)
    """Content of a member of a packed archive; None: it is in the file."""
    span: tuple[int, int] | None = None
    """First byte and number of bytes of a member of a plain archive."""
    first: int = 0
    """Number of the first alert to read."""
    stop: int | None = None
    """One past the number of the last one; None: all."""
    skip: frozenset[int] = frozenset()
    """Numbers of alerts that are not to be read."""


@dataclass(frozen=True)
class Found:
    """One record of a packet."""

    number: int
    """Number of the record there, from 0."""
    kind: AlertKind
    record: dict[str, Any] = field(repr=False)
    fields: Any = field(repr=False)
    """Names and types of the fields of `kind.record`: pairs of a name and an Avro or Arrow type."""


@dataclass(frozen=True)
class Reading:
    """How packets are read."""

    kind: str = AUTO
    """Kind of the alerts, see `kinds.CHOICES`."""
    schema: bytes | None = None
    """Schema, as JSON text, of messages that come without one."""


def is_packets(url: str) -> bool:
    """Whether a path or URL is, by its name, an Avro file or a folder of them."""
    if storage.path_of(url).lower().endswith(AVRO):
        return True
    folder = storage.is_local(url) and "*" not in url and storage.local_path(url).is_dir()
    return bool(folder and any(storage.local_path(url).glob("*.avro")))


def packets(inputs: Sequence[str], done: pa.Array) -> Iterator[Packet]:
    """Packets of files, folders, patterns and archives, in order, without those that are done.

    Args:
        inputs: paths or URLs; archives of packets and Parquet files too.
        done: names of packets that are not to be read.

    Raises:
        InputError: an input is not there, or holds no packets.
    """
    known = set(done.to_pylist())
    for url in inputs:
        for file in _files(url):
            name = storage.redact(file)
            if storage.path_of(file).lower().endswith(TAR):
                yield from _members(file, name, known)
            elif name not in known:
                yield Packet(name, file)


def _files(url: str) -> Iterator[str]:
    endings, path = (*AVRO, *TAR, *PARQUET), storage.path_of(url)
    if "*" in url:
        filesystem, pattern = storage.filesystem(url)
        found = sorted(str(name) for name in filesystem.glob(pattern))
        files = found if storage.is_local(url) else [str(filesystem.unstrip_protocol(name)) for name in found]
    elif path.lower().endswith(endings) or (storage.is_local(url) and storage.local_path(url).is_file()):
        files = [url]
    else:
        names = storage.list_files(storage.absolute(url))
        files = [storage.join(url, name) for name in names if _is_one(name, endings)]
    if not files:
        raise InputError(f"{storage.redact(url)} names no alert packets ({', '.join(endings)}): check the path")
    return storage.each_absolute(files)


def _is_one(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(endings) and not name.rpartition("/")[2].startswith(".")


def _members(url: str, name: str, known: set[str]) -> Iterator[Packet]:
    """Packets of a tar archive, read once from its beginning to its end."""
    plain = storage.is_local(url) and storage.path_of(url).lower().endswith(TAR[0])
    with (
        foreign.refusing(name, "it is no whole tar archive"),
        _opened(url) as file,
        tarfile.open(fileobj=file, mode="r:" if plain else "r|*") as archive,
    ):
        for member in archive:
            inside = f"{name}/{member.name}"
            if not member.isfile() or not _is_one(member.name, AVRO) or inside in known:
                continue
            if member.size > _LARGEST_MEMBER:
                raise InputError(f"{inside} has {member.size / 1e6:.3g} MB: unpack the archive")
            if plain:
                yield Packet(inside, url, span=(member.offset_data, member.size))
                continue
            content = archive.extractfile(member)
            assert content is not None
            yield Packet(inside, url, content.read())


def _opened(url: str) -> BinaryIO:
    if storage.is_local(url):
        return storage.local_path(url).open("rb")
    filesystem, path = storage.filesystem(url)
    opened: BinaryIO = storage.retrying(filesystem.open, path, "rb")
    return opened


def records(packet: Packet, how: Reading) -> Iterator[Found]:
    """Records of a packet, those that are to be skipped left out; what comes before a damaged place is given.

    Raises:
        InputError: it is not there, is damaged, or holds no alerts of the kind.
    """
    found = _of_parquet(packet, how) if _is_parquet(packet) else _of_avro(packet, how)
    try:
        for one in found:
            if packet.stop is not None and one.number >= packet.stop:
                return
            if one.number not in packet.skip:
                yield one
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise InputError("it does not exist") from None
    except EOFError as error:
        raise InputError("it is cut short") from error
    except Exception as error:  # readers of others raise whatever they like on damaged bytes
        if isinstance(error, storage.PERMANENT) or storage.is_remote_failure(error):
            raise
        raise InputError(f"it is damaged, or not what its schema says ({foreign.in_words(error)})") from error


def held(packet: Packet) -> Packet:
    """A packet with its content in memory, where it is a small file: it is read once then."""
    if packet.data is not None or _is_parquet(packet):
        return packet
    try:
        data = _content(packet)
    except OSError:
        return packet  # the reader says why
    return packet if data is None else replace(packet, data=data)


def count(packet: Packet) -> int | None:
    """Number of records of a packet, by the headers of its blocks; None where it is damaged, or not there."""
    try:
        if _is_parquet(packet):
            with _opened(packet.url) as file, pq.ParquetFile(file) as table:
                return int(table.metadata.num_rows)
        data = _content(packet)
        with _opened(packet.url) if data is None else io.BytesIO(data) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            return avro.count(file, size)
    except (InputError, OSError, EOFError, ValueError, KeyError, IndexError, pa.ArrowException):
        return None


def _is_parquet(packet: Packet) -> bool:
    return packet.data is None and packet.span is None and storage.path_of(packet.url).lower().endswith(PARQUET)


def _of_avro(packet: Packet, how: Reading) -> Iterator[Found]:
    data = _content(packet)
    file: BinaryIO = _opened(packet.url) if data is None else io.BytesIO(data)
    with file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if not size:
            raise InputError("it is empty")
        kind: AlertKind | None = None
        for number, reader, record in avro.records(file, size, is_read, how.schema, packet.first):
            if kind is None:
                kind = kind_of(reader.types, how.kind)
                fields = reader.fields(kind.record)
            yield Found(number, kind, record, fields)


_WHOLE = 2**22
"""Bytes up to which a file is read whole; larger ones are read block by block."""


def _content(packet: Packet) -> bytes | None:
    """Bytes of a packet; None for a large file."""
    if packet.data is not None:
        return packet.data
    if packet.span is not None:
        with _opened(packet.url) as file:
            file.seek(packet.span[0])
            return file.read(packet.span[1])
    if not storage.is_local(packet.url):
        return storage.read_bytes(packet.url)
    path = storage.local_path(packet.url)
    return path.read_bytes() if path.stat().st_size <= _WHOLE else None


def _of_parquet(packet: Packet, how: Reading) -> Iterator[Found]:
    with _opened(packet.url) as file, pq.ParquetFile(file) as table:
        names = table.schema_arrow.names
        kind = kind_of(names, how.kind)
        struct = table.schema_arrow.field(kind.record).type
        if not pa.types.is_struct(struct):
            raise InputError(f"its {kind.record} is {struct}, no record")
        fields = [(item.name, item.type) for item in struct]
        wanted, number = [name for name in names if is_read(name)], 0
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if number + rows > packet.first:
                at = number
                for batch in table.iter_batches(_ROWS, row_groups=[group], columns=wanted):
                    if at + len(batch) > packet.first and (packet.stop is None or at < packet.stop):
                        for offset, row in enumerate(batch.to_pylist()):
                            if at + offset >= packet.first:
                                yield Found(at + offset, kind, row, fields)
                    at += len(batch)
            number += rows
