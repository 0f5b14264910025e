"""Alert packets made here, in the forms of surveys: for tests and the code blocks of docs/alerts.md."""

import gzip
import io
import json
from pathlib import Path

import fastavro
import numpy as np
from astropy.io import fits

CUTOUTS = ("Science", "Template", "Difference")
_CUTOUT = {
    "type": "record",
    "name": "cutout",
    "fields": [{"name": "fileName", "type": "string"}, {"name": "stampData", "type": "bytes"}],
}
_CANDIDATE = {
    "type": "record",
    "name": "candidate",
    "fields": [
        *({"name": name, "type": "double"} for name in ("jd", "ra", "dec")),
        *({"name": name, "type": ["null", "float"], "default": None} for name in ("magpsf", "magzpsci", "rb")),
        *({"name": name, "type": "float"} for name in ("xpos", "ypos")),
        {"name": "fid", "type": "int", "default": None},  # what strict readers refuse
        {"name": "candid", "type": ["null", "long"], "default": None},
        {"name": "objectidps1", "type": ["null", "long"], "default": None},
        {"name": "isdiffpos", "type": "string"},
    ],
}
SCHEMA = {
    "type": "record",
    "name": "alert",
    "namespace": "ztf",
    "fields": [
        {"name": "publisher", "type": "string"},
        {"name": "objectId", "type": "string"},
        {"name": "candid", "type": "long"},
        {"name": "candidate", "type": _CANDIDATE},
        {"name": "prv_candidates", "type": ["null", {"type": "array", "items": "ztf.candidate"}], "default": None},
        {"name": "cutoutScience", "type": ["null", _CUTOUT], "default": None},
        *({"name": f"cutout{name}", "type": ["null", "ztf.cutout"], "default": None} for name in CUTOUTS[1:]),
    ],
}
FIRST_CANDID = 2475433850015015001


def picture(values: np.ndarray, **cards: object) -> bytes:
    """A gzip'd FITS file of an image."""
    header = fits.Header(list(cards.items()))
    file = io.BytesIO()
    fits.PrimaryHDU(values.astype(">f4"), header).writeto(file)
    return gzip.compress(file.getvalue(), 1, mtime=0)


def alert(number: int, *, size: int = 21, missing: tuple[str, ...] = (), shape=None, **fields) -> dict:
    """A record of an alert: a source of a brightness that its number tells, in the difference and science stamps."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:size, :size] - size // 2
    source = (100 + number) * np.exp(-(x**2 + y**2) / 4)
    template = random.normal(50, 1, (size, size))
    noise = random.normal(0, 1, (size, size))
    pixels = dict(zip(CUTOUTS, (template + source + noise, template, source + noise), strict=True))
    rows, columns = shape or (slice(None), slice(None))
    candid = FIRST_CANDID + number
    candidate = {
        **{"jd": 2460000.5 + number, "ra": (10 + 0.01 * number) % 360, "dec": -5 + 0.001 * number, "magpsf": 18.5},
        **{"magzpsci": 26.25, "rb": 0.9, "xpos": 500.0, "ypos": 500.0, "fid": 1, "candid": candid},
        **{"objectidps1": 2**60 + 2 * number + 1, "isdiffpos": "t", **fields},
    }
    cutouts = {
        f"cutout{name}": None
        if name in missing
        else {"fileName": f"{candid}_{name}.fits.gz", "stampData": picture(values[rows, columns])}
        for name, values in pixels.items()
    }
    named = {"publisher": "test", "objectId": f"ZTF18aaaa{number % 7}", "candid": candid}
    return {**named, "candidate": candidate, "prv_candidates": [candidate, candidate], **cutouts}


def schema() -> dict:
    """The schema as fastavro writes by it: without the default that it refuses."""
    return json.loads(json.dumps(SCHEMA).replace('"type": "int", "default": null', '"type": "int"'))


def write_packet(path: Path, *alerts: dict, codec: str = "null", lenient: bool = True) -> Path:
    """A container of alerts; `lenient`: with the default that strict readers refuse."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    fastavro.writer(file, fastavro.parse_schema(schema(), _force=True), alerts, codec=codec)
    data = file.getvalue()
    if lenient:
        data = _with_schema(data, json.dumps(SCHEMA).encode())
    path.write_bytes(data)
    return path


def _with_schema(data: bytes, text: bytes) -> bytes:
    """A container whose header holds another text of its schema."""
    source, target = io.BytesIO(data), io.BytesIO()
    header = fastavro.schemaless_reader(source, fastavro.schema.parse_schema(HEADER, _force=True))
    header["meta"]["avro.schema"] = text
    fastavro.schemaless_writer(target, fastavro.schema.parse_schema(HEADER, _force=True), header)
    return target.getvalue() + source.read()


HEADER = {
    "type": "record",
    "name": "Header",
    "fields": [
        {"name": "magic", "type": {"type": "fixed", "name": "Magic", "size": 4}},
        {"name": "meta", "type": {"type": "map", "values": "bytes"}},
        {"name": "sync", "type": {"type": "fixed", "name": "Sync", "size": 16}},
    ],
}


def write_night(folder: Path, count: int, first: int = 0) -> Path:
    """A folder with one packet per alert."""
    for number in range(first, first + count):
        write_packet(folder / f"{FIRST_CANDID + number}.avro", alert(number))
    return folder


def message(record: dict, number: int = 7) -> bytes:
    """A record as Kafka's registries pack it: 0, the schema's number, the bytes."""
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(schema(), _force=True), record)
    return b"\0" + number.to_bytes(4, "big") + file.getvalue()
