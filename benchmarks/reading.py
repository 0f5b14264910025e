"""R3: decoded bytes per second against what disk, or web server, and codec give by themselves."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
from numcodecs import Zstd

from astroml_plugin.compute.cluster import cores
from astroml_plugin.core import storage
from astroml_plugin.pixels import Tile
from astroml_plugin.sources.arrays import CODECS
from astroml_plugin.sources.survey import Survey, SurveyLayout
from benchmarks import skies
from benchmarks.harness import Section, interleave, median_iqr, scratch
from tests.pages import table

TILES_SIDE, TILE, HALO = 4, 1024, 128
ROUNDS = 7
CONCURRENCY = 4
"""Tiles at once: compute threads and I/O lanes of two cores."""
LINK = 40
"""MB/s of one connection of the slow server, about what object stores give."""


def run() -> Section:
    """The images of 16 tiles of 1024² in three bands (zstd with checksums; noise, so that nothing compresses)."""
    folder = skies.noise_survey(TILES_SIDE, TILE, HALO, 100)
    parts = [_local(folder), _codecs(folder), *_over_http(folder)]
    text = (
        f"{run.__doc__} {CONCURRENCY} tiles at once, {ROUNDS} repeats, arms interleaved, warm cache. MB/s of decoded "
        "pixels, median (quartiles). Pure decode is the codec alone on bytes in memory, on all cores.\n\n"
        + "\n\n".join(text for text, _ in parts)
    )
    return Section("Reading: R3", text, {name: value for _, data in parts for name, value in data.items()})


def _local(folder: Path) -> tuple[str, dict[str, float]]:
    survey = Survey.open(str(folder / "survey.zarr"))
    files = [folder / "survey.zarr" / "image" / "c" / str(index) / "0" / "0" / "0" for index in range(len(survey))]
    held = [file.read_bytes() for file in files]
    shape, chunk = survey.array("image").shape[1:], survey.array("image").chunks[1:]
    wanted = survey.read_tile(survey.tile(1)).image
    if not np.array_equal(_decoded(held[1], shape, chunk), wanted):
        raise RuntimeError("the codec alone gives other pixels")
    arms: dict[str, Callable[[Any], Any]] = {
        "raw": lambda index: files[index].read_bytes(),
        "decode": lambda index: _decoded(held[index], shape, chunk),
        "ours": lambda index: survey._read("image", index),
    }
    rates = _rates(arms, range(len(files)), wanted.nbytes)
    ratio = [ours / min(raw, pure) for ours, raw, pure in zip(rates["ours"], rates["raw"], rates["decode"])]
    costs = {name: _core_seconds(arms[name], range(len(files))) for name in ("decode", "ours")}
    cpu_ratio = [pure / ours for pure, ours in zip(costs["decode"], costs["ours"])]
    rows = [
        ["file read alone", median_iqr(rates["raw"], 0)],
        ["codec alone, all cores", median_iqr(rates["decode"], 0)],
        ["tiles read by the engine", median_iqr(rates["ours"], 0)],
        ["**R3**", median_iqr(ratio)],
        ["codec alone ÷ engine, in CPU seconds", median_iqr(cpu_ratio)],
    ]
    return "### Local disk\n\n" + table(["what", "MB/s"], rows), {
        "R3_local": float(np.median(ratio)),
        "R3_local_cpu": float(np.median(cpu_ratio)),
    }


def _codecs(folder: Path) -> tuple[str, dict[str, float]]:
    """CPU seconds and bytes of the same tiles under each codec, read one after the other, arms in turn."""
    source = Survey.open(str(folder / "survey.zarr"))
    held = [source._read("image", index) for index in range(len(source))]
    decoded = sum(image.nbytes for image in held)
    stores = {codec: _stored_as(codec, source, held) for codec in CODECS}
    for codec, store in stores.items():
        if not np.array_equal(store._read("image", 1), held[1]):
            raise RuntimeError(f"codec {codec} gives other pixels")

    def spent(codec: str) -> float:
        started = time.process_time()
        for index in range(len(held)):
            stores[codec]._read("image", index)
        return time.process_time() - started

    times = interleave({codec: partial(spent, codec) for codec in CODECS}, ROUNDS)
    rows, data = [], {}
    for codec in CODECS:
        rate = [1e-6 * decoded / value for value in times[codec]]
        ratio = [zstd / value for zstd, value in zip(times["zstd"], times[codec])]
        files = (file for file in (Path(stores[codec].url) / "image" / "c").rglob("*") if file.is_file())
        share = sum(file.stat().st_size for file in files) / decoded
        rows.append([codec, median_iqr(rate, 0), median_iqr(ratio, 2), f"{share:.3f}"])
        data |= {f"codec_{codec}_speed": float(np.median(ratio)), f"codec_{codec}_bytes": share}
    heads = ["codec", "MB of pixels per CPU second", "speed ÷ zstd's", "bytes ÷ pixels'"]
    return "### Codecs, local disk\n\n" + table(heads, rows), data


def _stored_as(codec: str, source: Survey, held: Sequence[np.ndarray]) -> Survey:
    """A copy of images under a codec."""
    url = scratch() / f"codec-{codec}.zarr"
    shutil.rmtree(url, ignore_errors=True)
    layout = SurveyLayout(source.bands, source.tile_size, source.halo, variance=False, mask=False, codec=codec)
    made = Survey.create(str(url), layout)
    first = made.reserve(len(held))
    for index, image in enumerate(held, first):
        made.write_tile(index, Tile(image))
    return Survey.open(str(url))


def _decoded(shard: bytes, shape: Sequence[int], chunk: Sequence[int]) -> np.ndarray:
    """A shard's array by the codec alone: index at the end, then every inner chunk into its place."""
    grid = [-(-side // step) for side, step in zip(shape, chunk)]
    count = int(np.prod(grid))
    places = struct.unpack(f"<{2 * count}Q", shard[-16 * count - 4 : -4])
    codec, view, out = Zstd(), memoryview(shard), np.empty(shape, np.float32)
    for number, (offset, size) in enumerate(zip(places[::2], places[1::2])):
        corner = [at * step for at, step in zip(np.unravel_index(number, grid), chunk)]
        values = np.frombuffer(codec.decode(view[offset : offset + size]), np.float32).reshape(chunk)
        out[tuple(slice(at, at + step) for at, step in zip(corner, chunk))] = values
    return out


def _rates(
    arms: dict[str, Callable[[Any], Any]], items: Sequence[Any], nbytes: int, together: int = CONCURRENCY
) -> dict[str, list[float]]:
    """MB/s of decoded pixels of every arm; what a call gives is let go at once."""
    with ThreadPoolExecutor(max(together, cores())) as pool:

        def rate(function: Callable[[Any], Any]) -> Callable[[], float]:
            def quiet(item: Any) -> None:
                function(item)

            def call() -> float:
                started = time.perf_counter()
                list(pool.map(quiet, items))
                return len(items) * nbytes / (time.perf_counter() - started) / 1e6

            return call

        timed = {name: rate(arm) for name, arm in arms.items()}
        for arm in timed.values():
            arm()  # opens files, connections and arrays
        return interleave(timed, ROUNDS)


def _core_seconds(function: Callable[[Any], Any], items: Sequence[Any]) -> list[float]:
    """CPU seconds of one pass, again and again."""
    found = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for item in items:
            function(item)
        found.append(time.process_time() - started)
    return found


def _over_http(folder: Path) -> Iterator[tuple[str, dict[str, float]]]:
    if shutil.which("nginx") is None:
        yield "### HTTP\n\nLeft out: nginx is not installed (Debian: nginx-light).", {}
        return
    for name, title, rate in (("fast", "no limit", 0), ("link", f"{LINK} MB/s per connection", LINK)):
        with _nginx(folder, rate) as address:
            yield _one_server(folder, address, name, title)


def _one_server(folder: Path, address: str, name: str, title: str) -> tuple[str, dict[str, float]]:
    url = f"http://{address}/survey.zarr"
    here, mine = Survey.open(str(folder / "survey.zarr")), local()
    remote = Survey.open(url)
    wanted = here.read_tile(here.tile(1)).image
    if not np.array_equal(remote.read_tile(remote.tile(1)).image, wanted):
        raise RuntimeError("the tile over HTTP is another one")

    def get(index: int) -> None:
        if not hasattr(mine, "connection"):
            mine.connection = HTTPConnection(address)
        mine.connection.request("GET", f"/survey.zarr/image/c/{index}/0/0/0")
        mine.connection.getresponse().read()

    arms: dict[str, Callable[[Any], Any]] = {"raw": get, "ours": lambda index: remote._read("image", index)}
    if storage.through_obstore(url):
        plain = _without_obstore(url)
        arms["plain"] = lambda index: plain._read("image", index)
    rates = _rates(arms, range(len(here)), wanted.nbytes)
    ratio = [ours / raw for ours, raw in zip(rates["ours"], rates["raw"])]
    rows = [
        ["GET alone", median_iqr(rates["raw"], 0)],
        ["tiles read by the engine", median_iqr(rates["ours"], 0)],
        ["**R3**: engine ÷ GET", median_iqr(ratio)],
    ]
    if "plain" in rates:
        rows.insert(2, ["the same by fsspec and zarr-python, without obstore", median_iqr(rates["plain"], 0)])
    text = f"### HTTP, nginx on this machine, {title}\n\n" + table(["what", "MB/s"], rows)
    return text, {f"R3_http_{name}": float(np.median(ratio))}


def _without_obstore(url: str) -> Survey:
    """The survey with its arrays opened through fsspec."""
    has, storage.HAS_OBSTORE = storage.HAS_OBSTORE, False
    storage._remote_store.cache_clear()
    try:
        survey = Survey.open(url)
        for name in survey.array_names:
            survey.array(name)
    finally:
        storage.HAS_OBSTORE = has
        storage._remote_store.cache_clear()
    return survey


@contextmanager
def _nginx(folder: Path, megabytes: int) -> Iterator[str]:
    """A static nginx on loopback over a folder, its connections limited to so many MB/s (0: not); its address."""
    place = scratch() / "nginx"
    place.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    limit = f"limit_rate {megabytes}m;" if megabytes else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{kind}_temp_path {place / kind};" for kind in kinds)
    (place / "nginx.conf").write_text(
        f"daemon off; pid {place / 'pid'}; error_log {place / 'error.log'}; events {{ worker_connections 256; }}\n"
        f"http {{ access_log off; sendfile on; keepalive_requests 1000000; {paths} server {{ listen {address}; "
        f"root {folder}; autoindex on; {limit} }} }}\n"
    )
    process = subprocess.Popen(["nginx", "-c", str(place / "nginx.conf"), "-e", str(place / "error.log")])
    try:
        _wait_for(int(address.partition(":")[2]))
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    """Until something listens."""
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("nginx does not start")
