"""Alert packets to rows: `ingest` and `infer` of a night of ZTF packets, on all cores."""

from __future__ import annotations

import io
import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

from astroml_plugin.catalog import Catalog
from astroml_plugin.compute.cluster import connect, cores
from astroml_plugin.sources import Stamps
from astroml_plugin.sources.alerts import avro
from benchmarks.harness import Section, canary, scratch, shared_data
from tests.pages import table
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.train import train

PACKETS = 10_000
RECIPE = """
task = "classify"
network = "strided_cnn"
[settings]
label = "isdiffpos"
stamp_size = 63
[network_arguments]
widths = [8, 16, 32]
hidden = 32
[split]
by = "sky"
[training]
epochs = 1
batch_size = 64
"""


def run() -> Section | None:
    """Real ZTF packets (two schemas), written again and again under new numbers, one packet per file."""
    source = shared_data("alerts")
    if source is None:
        return None
    night, out = _night(source / "ztf"), scratch() / "alerts-out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    bundle = _bundle(night, out)
    before = canary()
    with connect("processes", workers=cores(), threads=1) as client:
        for name in ("warm-1", "warm-2"):  # each process loads its libraries once, whatever the length of the night
            some = ingest([str(file) for file in sorted(night.iterdir())[:1000]], out=out / name, client=client).source
            infer(some, bundle=bundle, out=str(out / f"{name}-catalog"), client=client)
        warm = _busy(client)
        first = _timed(lambda: ingest(night, out=out / "stamps.zarr", client=client))
        second = _timed(lambda: infer(str(out / "stamps.zarr"), bundle=bundle, out=str(out / "catalog"), client=client))
        again = _timed(lambda: ingest(night, out=out / "stamps.zarr", client=client))
        busy = _busy(client) - warm
    rows = sum(Catalog.open(str(out / "catalog")).current()["rows"].to_pylist())
    if rows != PACKETS or Stamps.open(str(out / "stamps.zarr")).count != PACKETS:
        raise AssertionError(f"{rows} rows of {PACKETS} packets")
    seconds = {"ingest": first, "infer": second, "ingest again, nothing new": again}
    told = [[name, f"{value:.1f}", f"{PACKETS / value:,.0f}"] for name, value in seconds.items()]
    both = first + second
    told.append(["packets to rows", f"{both:.1f}", f"{PACKETS / both:,.0f}"])
    text = (
        f"{run.__doc__} {PACKETS:,} packets, {cores()} processes of one thread, a strided_cnn of widths 8, 16, 32 on "
        f"63 × 63 × 3 pixels; 1,000 packets go through before, so that libraries are loaded. The workers "
        f"took {busy / PACKETS * 1e3:.2f} ms of CPU per triplet. "
        f"Load of the machine when it began: {os.getloadavg()[0]:.1f}; canary {before:.3f} s.\n\n"
    )
    data: dict[str, Any] = {**seconds, "triplets_per_s": PACKETS / both, "cpu_ms_per_triplet": busy / PACKETS * 1e3}
    return Section("Alerts", text + table(["step", "wall s", "triplets/s"], told), data)


def _timed(function: Any) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _busy(client: Any) -> float:
    """CPU seconds that the workers have used."""
    return float(sum(client.run(_cpu).values()))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _bundle(night: Path, out: Path) -> str:
    some = sorted(night.iterdir())[:400]
    stamps = ingest([str(file) for file in some], out=out / "some.zarr").source
    (out / "recipe.toml").write_text(RECIPE)
    return train(str(out / "recipe.toml"), data=[stamps], out=str(out / "bundle")).bundle


def _night(source: Path) -> Path:
    """The packets, each with a number of its own in the place of candid."""
    folder = scratch() / f"alerts-{PACKETS}"
    if (folder.parent / f"{folder.name}.done").exists():
        return folder
    folder.mkdir(exist_ok=True)
    files = sorted(source.glob("*.avro"))
    packets = [(file.read_bytes(), int(file.stem)) for file in files]
    for number in range(PACKETS):
        data, candid = packets[number % len(packets)]
        new = 10**18 + number
        (folder / f"{new}.avro").write_bytes(_numbered(data, candid, new, flip=number // len(packets) % 2 == 0))
    (folder.parent / f"{folder.name}.done").touch()
    return folder


def _numbered(data: bytes, candid: int, new: int, *, flip: bool) -> bytes:
    """A packet whose candid is another one; numbers of this size have nine bytes both. `flip`: isdiffpos is f."""
    old = _long(candid)
    where = data.index(old)
    found = data[:where] + _long(new) + data[where + len(old) :]
    if flip:
        at = found.index(_long(candid), where)  # that of the candidate; isdiffpos, a text of one letter, follows
        found = found[: at + len(old) + 1] + b"f" + found[at + len(old) + 2 :]
    if len(found) != len(data):
        raise AssertionError("the numbers differ in length")
    return found


def _long(value: int) -> bytes:
    """An integer as Avro packs it."""
    file = io.BytesIO()
    avro.fastavro().schemaless_writer(file, "long", value)
    return file.getvalue()
