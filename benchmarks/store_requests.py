"""What a run asks an object store for: requests and bytes of one tile, and of the run as a whole."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from benchmarks import skies
from benchmarks.harness import Section
from tests.object_store import Network, S3Server, in_environment
from tests.pages import table
from workflows.infer import infer
from workflows.query import query

SIDES, SIZE, HALO, PER_TILE = (4, 8), 512, 64, 400
READ, WRITE = "survey", "catalog"


class Counting(Network):
    """A proxy that counts requests by bucket folder and method, and neither waits nor fails."""

    def __init__(self, upstream: int) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()
        super().__init__(upstream, delay=(0.0, 0.0), every=2**62)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        place = READ if re.search(r"survey\.zarr", request.path) else WRITE if "catalog" in request.path else "other"
        method = "LIST" if "list-type" in request.path else "PUT" if request.command == "POST" else request.command
        self.counted[place, method] += 1
        super().handle(request)


def run() -> Section:
    """`infer` of 16 and of 64 tiles of 512² in three bands, 400 objects each, on S3 (moto), by one process."""
    bundle = skies.bundle("small", 48)
    server = S3Server()
    found = {side**2: _one_run(server, skies.noise_survey(side, SIZE, HALO, PER_TILE), bundle) for side in SIDES}
    server.stop()
    few, many = sorted(found)
    kinds = sorted({kind for one in found.values() for kind in one["requests"]})
    slopes = {kind: (found[many]["requests"][kind] - found[few]["requests"][kind]) / (many - few) for kind in kinds}
    rows = [
        [place, method, f"{slopes[place, method]:.2f}", found[few]["requests"][place, method]]
        for place, method in kinds
    ]
    stored = found[many]["stored"] / many
    written = found[many]["written"] / found[many]["rows"]
    text = (
        f"{run.__doc__} Requests are counted by a proxy; per tile is the slope between both runs.\n\n"
        + table(["of", "method", "per tile", f"run of {few} tiles"], rows)
        + f"\n\nShards of a tile: {stored / 1e6:.1f} MB, {stored / (SIZE**2 * 3):.2f} bytes per pixel and band: "
        "the image, of noise, hardly compresses; variance and mask, of one value each, take nothing. "
        f"The catalog: {written:.0f} bytes per row of {found[many]['columns']} columns, in parts of {PER_TILE} rows."
    )
    data = {
        "per_tile": {" ".join(kind): slope for kind, slope in slopes.items()},
        "stored": stored,
        "bytes_per_row": written,
    }
    return Section("Requests to an object store", text, data)


def _one_run(server: S3Server, folder: Path, bundle: str) -> dict[str, Any]:
    bucket = f"bench-{uuid.uuid4().hex[:8]}"
    with in_environment(server.port) as store:
        store.mkdir(bucket)
        store.put(f"{folder / 'survey.zarr'}/", f"{bucket}/survey.zarr/", recursive=True)
        store.put(str(folder / "objects.parquet"), f"{bucket}/objects.parquet")
    counting = Counting(server.port)
    with in_environment(counting.port):
        url = f"s3://{bucket}"
        infer(f"{url}/survey.zarr", bundle=bundle, objects=f"{url}/objects.parquet", out=f"{url}/catalog")
    counting.close()
    with in_environment(server.port) as store:
        sizes = {name: info["size"] for name, info in store.find(bucket, detail=True).items()}
        measured = query(f"s3://{bucket}/catalog", "SELECT * FROM catalog").to_arrow()
        store.rm(bucket, recursive=True)
    shards = sum(size for name, size in sizes.items() if re.search(r"survey\.zarr/(image|variance|mask|psf)/c/", name))
    parts = sum(size for name, size in sizes.items() if re.search(r"catalog/parts/.*\.parquet$", name))
    return {
        "requests": counting.counted,
        "stored": shards,
        "written": parts,
        "rows": measured.num_rows,
        "columns": measured.num_columns,
    }
