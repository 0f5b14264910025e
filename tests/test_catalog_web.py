"""Catalogs behind a plain web server: the answers of the folder, or one sentence; nothing is listed or written."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from catalogs import DECLARED, IDENTITY, small_catalog, unit_rows

from astroml_plugin.catalog import Catalog, compact, ranking
from astroml_plugin.catalog.checking import verify
from astroml_plugin.catalog.primary import INDEX
from astroml_plugin.catalog.query import query
from astroml_plugin.core import storage, web
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from tests.overlaps import Image, catalog_of, sky
from workflows.cli import main
from workflows.ingest import ingest


class Server(SimpleHTTPRequestHandler):
    """Files and nothing else: a folder is refused, parts of files are given where `ranges` says so."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    ranges = False
    refuses = ""
    asked: ClassVar[list[str]] = []

    def send_head(self):  # type: ignore[no-untyped-def]
        path = Path(self.translate_path(self.path))
        self.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        if self.refuses and self.refuses in self.path:
            self.send_error(403)
            return None
        if path.is_dir():
            self.send_error(404)
            return None
        return super().send_head()

    def end_headers(self) -> None:
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def do_GET(self) -> None:
        wanted, path = self.headers.get("Range"), Path(self.translate_path(self.path))
        if not (self.ranges and wanted and path.is_file()):
            super().do_GET()
            return
        self.asked.append(f"GET {self.path} {wanted}")
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        data = path.read_bytes()
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}")
        self.send_header("Content-Length", str(len(data[first : last + 1])))
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_message(self, format: str, *args: object) -> None:
        pass


Served = tuple[Path, str, type[Server]]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A folder, its URL, and the server's handler."""
    monkeypatch.setattr(storage, "ATTEMPTS", 1)

    class Handler(Server):
        asked: ClassVar[list[str]] = []

    folder = tmp_path / "www"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}", Handler
    server.shutdown()
    server.server_close()


def rows_of(url: str, text: str | None = None) -> list[dict[str, object]]:
    return sorted(query(url, text).to_arrow().to_pylist(), key=str)


@pytest.mark.parametrize(
    ("merged", "ranges", "whole"), [(False, False, 1 << 22), (True, False, 100), (True, True, 100)]
)
def test_the_answers_are_those_of_the_folder(
    served: Served, monkeypatch: pytest.MonkeyPatch, merged: bool, ranges: bool, whole: int
) -> None:
    folder, address, handler = served
    monkeypatch.setattr(web, "_WHOLE", whole)
    monkeypatch.setattr(web, "_BUFFER", 4096)
    handler.ranges = ranges
    catalog, _ = small_catalog(folder / "a cat [1]", units=3)
    catalog.write_unplaced(pa.table({"object_id": [3], "reason": ["outside every tile"]}))
    if merged:
        compact(catalog)
    url = f"{address}/a cat [1]"
    assert rows_of(url) == rows_of(catalog.url)
    assert query(url, cone=(10.5, 0, 0.2)).rows == query(catalog.url, cone=(10.5, 0, 0.2)).rows
    assert rows_of(url, "SELECT object_id FROM unplaced") == [{"object_id": 3}]
    assert query(url, "SELECT * FROM failures").rows == 0
    if ranges:
        assert any(" bytes=" in line for line in handler.asked)
    assert not any(line.startswith(("PUT", "POST", "DELETE")) for line in handler.asked)


def test_which_rows_count_is_told_over_http(served: Served) -> None:
    folder, address, _ = served
    images = [Image("deep", depth=26.5), Image("shallow", dec=2.01, depth=24.0)]
    catalog, url = catalog_of(folder / "two", images, sky()), f"{address}/two"
    assert rows_of(url) == rows_of(catalog.url)
    assert {row["primary"] for row in rows_of(url, 'SELECT DISTINCT "primary" FROM catalog')} == {True, False}
    assert verify(url).is_whole
    (folder / "two" / INDEX).unlink()
    with pytest.raises(CorruptError, match="verify CATALOG --repair"):
        query(url)


def test_rank_verify_and_files(served: Served, tmp_path: Path) -> None:
    folder, address, _ = served
    catalog, _ = small_catalog(folder / "cat", units=2)
    url = f"{address}/cat"
    assert ranking.top(url, 3, score="flux").table["object_id"].to_pylist() == (
        ranking.top(catalog.url, 3, score="flux").table["object_id"].to_pylist()
    )
    assert main(["query", url, "SELECT ra, dec FROM catalog", "--to", str(tmp_path / "a.fits")]) == 0
    table = Table.read(tmp_path / "a.fits")
    assert (len(table), table.meta["CATALOG"], table.meta["RUN1"]) == (40, url, catalog.runs()[0]["run_id"])
    found = verify(url)
    assert (found.files, found.rows, found.damages) == (2, 40, ())
    assert main(["verify", url]) == 0


def test_damage_is_found_over_http(served: Served) -> None:
    folder, address, _ = served
    small_catalog(folder / "cat", units=3)
    url = f"{address}/cat"
    part = sorted((folder / "cat" / "parts").glob("*/*.parquet"))[0]
    whole = part.read_bytes()
    first = pq.read_metadata(part).row_group(0).column(0)
    end = first.data_page_offset + first.total_compressed_size  # values are last; a flip in what nobody reads is none
    part.write_bytes(whole[: end - 8] + bytes(byte ^ 255 for byte in whole[end - 8 : end]) + whole[end:])
    assert [damage.rows for damage in verify(url).damages] == [20]
    part.unlink()
    assert [damage.rows for damage in verify(url).damages] == [20]
    with pytest.raises(CorruptError, match="20 rows of 1 units have no file any more"):
        query(url)
    manifest = next((folder / "cat" / "manifest").iterdir())
    named = manifest.read_bytes()
    manifest.write_bytes(named[:40] + bytes(40) + named[80:])  # what it names is named nowhere else
    with pytest.raises(CorruptError, match=r"manifest/.* is gone or damaged"):
        query(url)
    manifest.unlink()
    with pytest.raises(CorruptError, match=r"manifest/.* is gone or damaged"):
        query(url)


def test_what_cannot_be_known_is_one_sentence(served: Served) -> None:
    folder, address, handler = served
    catalog, _ = small_catalog(folder / "cat", units=2)
    url = f"{address}/cat"
    with pytest.raises(InputError, match="there is no catalog at"):
        query(f"{address}/none")
    index = folder / "cat" / "index.json"
    kept = index.read_text()
    index.unlink()
    with pytest.raises(InputError, match=r"no index.json.*compact CATALOG"):
        query(url)
    index.write_text("{")
    with pytest.raises(CorruptError, match="damaged"):
        query(url)
    assert verify(catalog.url, repair=True).is_whole
    assert query(url).rows == 40

    other = catalog.start_run({"kind": "infer"})  # goes on, or was killed
    catalog.commit_manifest(other, [catalog.write_part("im_9", "b" * 16, unit_rows("im_9", 5))])
    with pytest.raises(InputError, match=r"goes on or was killed.*compact CATALOG"):
        query(url)
    catalog.finish_run(other)
    assert query(url).rows == query(catalog.url).rows == 45
    index.write_text(kept)
    with pytest.raises(InputError, match="older than its last run"):
        query(url)
    handler.refuses = "schema.json"
    with pytest.raises(Exception, match="403"):
        query(url)


def test_nothing_is_written_to_a_web_server(served: Served, tmp_path: Path) -> None:
    folder, address, handler = served
    catalog, _ = small_catalog(folder / "cat", units=2)
    url = f"{address}/cat"
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    for act in (
        lambda: compact(url),
        lambda: verify(url, repair=True),
        lambda: query(catalog.url, to=f"{address}/a.parquet"),
        lambda: Catalog.create(f"{address}/new", DECLARED, IDENTITY),
    ):
        with pytest.raises(InputError, match="nothing can be written"):
            act()
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
    assert main(["query", url, "SELECT 1", "--to", f"{address}/a.csv"]) == 2
    assert not any(line.startswith(("PUT", "POST", "DELETE")) for line in handler.asked)


def test_sql_reads_no_other_file_of_the_server(served: Served) -> None:
    folder, address, _ = served
    small_catalog(folder / "cat", units=1)
    pq.write_table(pa.table({"a": [1]}), folder / "other.parquet")
    root = web.WebFiles.folder(f"{address}/cat")
    for name in (f"{address}/other.parquet", f"{root}/parts/../../other.parquet", f"{root}/schema.json"):
        with pytest.raises(InputError, match=r"disabled|Permission|query failed"):
            query(f"{address}/cat", f"SELECT * FROM read_parquet('{name}')")


def test_the_index_follows_every_change(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "cat", units=2)

    def named() -> list[str]:
        return list(json.loads((tmp_path / "cat" / "index.json").read_text())["manifests"])

    assert named() == catalog.manifest_names()
    compact(catalog)
    assert named() == catalog.manifest_names()
    catalog.rebuild_manifest()
    assert named() == catalog.manifest_names()
    shutil.copy(next((tmp_path / "cat" / "manifest").iterdir()), tmp_path / "cat" / "manifest" / "more.parquet")
    assert [(damage.path, damage.mended) for damage in verify(catalog.url).damages] == [("index.json", False)]
    assert verify(catalog.url, repair=True).is_whole
    assert verify(catalog.url).damages == ()


def test_archives_and_images_come_from_servers_that_give_no_parts(served: Served, tmp_path: Path) -> None:
    """Such servers answer a request for some bytes with the whole file: it was cut into the wrong pixels."""
    folder, url, _ = served
    pixels = np.random.default_rng(1).normal(size=(40, 50)).astype("f4")
    fits.PrimaryHDU(pixels).writeto(folder / "a.fits")
    np.savez(folder / "a.npz", images=np.broadcast_to(pixels, (3, 40, 50)))
    ingest(f"HTTP{url[4:]}/a.npz?token=x#y", out=str(tmp_path / "stamps.zarr"))
    np.testing.assert_array_equal(Stamps.open(str(tmp_path / "stamps.zarr")).read_images(0)[2, 0], pixels)
    ingest(f"{url}/a.fits?token=x", out=str(tmp_path / "survey.zarr"), halo=2)
    survey = Survey.open(str(tmp_path / "survey.zarr"))
    info = next(iter(survey.iter_tiles()))
    tile, box, outer = survey.read_tile(info).image[0], info.inner, info.outer
    inner = tile[box.y0 - outer.y0 : box.y1 - outer.y0, box.x0 - outer.x0 : box.x1 - outer.x0]
    np.testing.assert_array_equal(inner, pixels[box.y0 : box.y1, box.x0 : box.x1])
    np.savez(folder / "scene.npz", images=np.stack([pixels, pixels + 1]), filters=np.array(["g", "r"]))
    ingest(f"{url}/scene.npz?token=x", out=str(tmp_path / "scene.zarr"), background="off")
    scene = Survey.open(str(tmp_path / "scene.zarr"))
    assert (scene.bands, [info.image for info in scene.iter_tiles()]) == (("g", "r"), ["scene"])
    for name in ("no.npz", "no.fits"):
        with pytest.raises(InputError, match=rf"{name} does not exist"):
            ingest(f"{url}/{name}", out=str(tmp_path / name))
    with pytest.raises(InputError, match="nothing can be written to"):
        ingest(str(folder / "a.npz"), out=f"{url}/new.zarr")
