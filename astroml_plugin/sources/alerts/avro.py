"""Records of Avro files and messages, by strict schemas or lenient ones; fields that nobody asks for are skipped."""

from __future__ import annotations

import bz2
import contextlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, BinaryIO

from astroml_plugin.core.archives import allowed_bytes
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.alerts.skipping import Skip, UnknownTypeError, skipper

MAGIC = b"Obj\x01"
"""First bytes of an Avro container."""

_HEADER = {
    "type": "record",
    "name": "Header",
    "fields": [
        {"name": "magic", "type": {"type": "fixed", "name": "Magic", "size": 4}},
        {"name": "meta", "type": {"type": "map", "values": "bytes"}},
        {"name": "sync", "type": {"type": "fixed", "name": "Sync", "size": 16}},
    ],
}
_REFERENCE = frozenset({"type", "name", "namespace", "fields", "items", "values", "symbols", "size"})
"""Attributes of a schema that say how bytes are read; defaults among the others are what strict readers refuse."""

_WIRE_HEADER = 5
"""Bytes before a message in the format of Kafka's schema registries: 0, then the schema's number."""

Wanted = Callable[[str], bool]


def fastavro() -> Any:
    """The library.

    Raises:
        InputError: it is not installed.
    """
    try:
        import fastavro as library
    except ImportError as error:
        raise InputError("alert packets need fastavro: pip install 'astroml-plugin[alerts]'") from error
    return library


@dataclass(frozen=True)
class _Run:
    """Neighbouring fields of a record that are all wanted, or all skipped."""

    schema: Any
    reader: Any = None
    """A record without fields, where they are skipped by fastavro."""
    skip: Skip | None = None
    """Passes over them, where they are skipped here."""


@dataclass(frozen=True)
class RecordReader:
    """Reads records of one schema."""

    runs: tuple[_Run, ...]
    types: Mapping[str, Any]
    """Top field -> type, with full names."""
    named: Mapping[str, Any]
    """Named type -> definition."""
    known: dict[str, list[tuple[str, Any]]] = field(default_factory=dict, repr=False)
    """Answers of `fields`: packets of one schema share a reader."""

    def fields(self, name: str) -> list[tuple[str, Any]]:
        """Names and types of the fields of the record, or of null or the record, that a top field is; else none."""
        if name in self.known:
            return self.known[name]
        given = self.types[name]
        kinds = [self.named.get(str(one), one) for one in (given if isinstance(given, list) else [given])]
        records = [one for one in kinds if isinstance(one, dict) and one.get("type") == "record"]
        self.known[name] = [(item["name"], item["type"]) for one in records[:1] for item in one["fields"]]
        return self.known[name]

    def read(self, file: io.BytesIO) -> dict[str, Any]:
        """The next record of a file, its wanted fields only."""
        read = fastavro().schemaless_reader
        record: dict[str, Any] = {}
        for run in self.runs:
            if run.skip is not None:
                file.seek(run.skip(file.getvalue(), file.tell()))
            else:
                record |= read(file, run.schema, run.reader)
        return record


@lru_cache(maxsize=64)
def record_reader(schema: bytes, wanted: Wanted) -> RecordReader:
    """Reader of the records of a schema.

    Args:
        schema: JSON text.
        wanted: which top fields are read.

    Raises:
        InputError: it is no schema of records.
    """
    library = fastavro()
    try:
        whole = library.parse_schema(_bare(json.loads(schema)), _force=True)
        if isinstance(whole, list) or whole.get("type") != "record":
            raise InputError("its schema describes no records")
        plain = {name: value for name, value in whole.items() if not name.startswith("__")}
        named: dict[str, Any] = {}
        _collect(plain, named)
        groups: list[tuple[bool, list[Any]]] = []
        for item in plain["fields"]:
            if not groups or groups[-1][0] != wanted(item["name"]):
                groups.append((wanted(item["name"]), []))
            groups[-1][1].append(item)
        runs = [_run(library, fields, keep, named) for keep, fields in groups]
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"its schema is no Avro schema ({type(error).__name__}: {str(error)[:200]})") from error
    return RecordReader(tuple(runs), {item["name"]: item["type"] for item in plain["fields"]}, named)


def _run(library: Any, fields: list[Any], keep: bool, named: Mapping[str, Any]) -> _Run:
    seen: set[str] = set()
    if not keep:
        with contextlib.suppress(UnknownTypeError):
            return _Run(None, skip=skipper([item["type"] for item in fields], named))
    whole = {"type": "record", "name": "Run", "fields": [_with_definitions(item, named, seen) for item in fields]}
    empty = None if keep else library.parse_schema({"type": "record", "name": "Run", "fields": []}, _force=True)
    return _Run(library.parse_schema(whole, _force=True), empty)


def _bare(schema: Any) -> Any:
    """A schema without defaults, documentation and logical types: numbers stay what the bytes hold."""
    if isinstance(schema, list):
        return [_bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: value if name == "symbols" else _bare(value) for name, value in schema.items() if name in _REFERENCE}


def _collect(schema: Any, named: dict[str, Any]) -> None:
    """Named types by full name."""
    if isinstance(schema, dict):
        if schema.get("type") in ("record", "error", "enum", "fixed"):
            named.setdefault(schema["name"], schema)
        schema = list(schema.values())
    if isinstance(schema, list):
        for item in schema:
            _collect(item, named)


def _with_definitions(schema: Any, named: Mapping[str, Any], seen: set[str]) -> Any:
    """A schema whose references to types outside it are replaced by their definitions, once each."""
    if isinstance(schema, str) and schema in named:
        if schema in seen:
            return schema
        schema = named[schema]
    if isinstance(schema, list):
        return [_with_definitions(item, named, seen) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in ("record", "error", "enum", "fixed"):
        seen.add(schema["name"])
    return {
        name: _with_definitions(value, named, seen) if name in ("type", "fields", "items", "values") else value
        for name, value in schema.items()
    }


def records(
    file: BinaryIO, size: int, wanted: Wanted, schema: bytes | None, first: int = 0
) -> Iterator[tuple[int, RecordReader, dict[str, Any]]]:
    """Records of a file from one on, each with its number in the file and its reader.

    Args:
        file: at its beginning.
        size: its bytes.
        wanted: which top fields are read.
        schema: JSON text for a file that is one message without a schema of its own.
        first: number of the first record; whole blocks before it are passed over.

    Raises:
        InputError: it is neither a container nor a message of this schema, or is cut short.
    """
    head = file.read(_WIRE_HEADER)
    file.seek(0)
    if head.startswith(MAGIC):
        yield from _of_container(file, size, wanted, first)
        return
    if schema is None:
        if len(head) == _WIRE_HEADER and head[0] == 0:
            number = int.from_bytes(head[1:], "big")
            raise InputError(
                f"it is a message without its schema (number {number} of a registry): give the schema with --schema "
                f"FILE.avsc"
            )
        raise InputError("it is no Avro file: it does not begin with 'Obj'")
    data = file.read()
    body = io.BytesIO(data[_WIRE_HEADER:] if data[:1] == b"\0" else data)
    reader = record_reader(schema, wanted)
    found = reader.read(body)
    if body.read(1):
        raise InputError("bytes are left after the record: the schema of --schema is not the one it was written with")
    yield 0, reader, found


def _of_container(
    file: BinaryIO, size: int, wanted: Wanted, first: int
) -> Iterator[tuple[int, RecordReader, dict[str, Any]]]:
    header = _header(file)
    reader = record_reader(header["meta"].get("avro.schema", b"null"), wanted)
    codec = header["meta"].get("avro.codec", b"null").decode("ascii", "replace")
    for number, rows, length in _blocks(file, size, header["sync"]):
        if number + rows <= first:
            continue
        block = io.BytesIO(_unpacked(file.read(length), codec))
        for one in range(number, number + rows):
            found = reader.read(block)
            if one >= first:
                yield one, reader, found
        if block.read(1):
            raise InputError("it is damaged: bytes are left at the end of a block")


def count(file: BinaryIO, size: int) -> int:
    """Number of records of a file at its beginning; blocks are passed over unread. A message is one.

    Raises:
        InputError: it is cut short.
    """
    begins = file.read(len(MAGIC)) == MAGIC
    file.seek(0)
    return sum(rows for _, rows, _ in _blocks(file, size, _header(file)["sync"])) if begins else 1


def _header(file: BinaryIO) -> dict[str, Any]:
    library = fastavro()
    found: dict[str, Any] = library.schemaless_reader(file, _header_schema())
    return found


@lru_cache(maxsize=1)
def _header_schema() -> Any:
    return fastavro().parse_schema(_HEADER)


def _blocks(file: BinaryIO, size: int, marker: bytes) -> Iterator[tuple[int, int, int]]:
    """(records before it, records, bytes) of each block, the file at its first byte; it may be left unread."""
    number = 0
    while (start := file.tell()) < size:
        rows, length = _long(file), _long(file)
        start = file.tell()
        if rows < 0 or not 0 <= length <= size - start - len(marker):
            raise InputError("it is cut short or damaged: a block reaches beyond its end")
        yield number, rows, length
        number += rows
        file.seek(start + length)
        if file.read(len(marker)) != marker:
            raise InputError("it is damaged: a block does not end with the file's marker")


def _long(file: BinaryIO) -> int:
    """The next integer, as Avro packs it."""
    value = shift = 0
    while shift < 64:
        byte = file.read(1)
        if not byte:
            raise InputError("it is cut short")
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return (value >> 1) ^ -(value & 1)
    raise InputError("it is damaged: a number has too many bytes")


_DECODERS: Mapping[str, Callable[[], Any]] = {
    "deflate": partial(zlib.decompressobj, wbits=-15),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
}
"""Codec -> what unpacks a block; `snappy` and `zstandard` would need other libraries."""


def _unpacked(data: bytes, codec: str) -> bytes:
    if codec == "null":
        return data
    if codec not in _DECODERS:
        raise InputError(
            f"its blocks are packed by {codec}, and null, {', '.join(_DECODERS)} are read: write it with one of these"
        )
    decoder = _DECODERS[codec]()
    found: bytes = decoder.decompress(data, allowed_bytes(len(data)))
    if not decoder.eof:
        raise InputError("it is damaged, or unpacks to more than is allowed")
    return found
