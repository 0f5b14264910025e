"""HTTP from both sides: servers that answer anything, and requests of anybody to the page of `label`."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from astropy.io import fits
from hypothesis import strategies as st

from astroml_plugin.catalog.objects.buckets import ObjectBuckets
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.labelling.server import LabelServer
from astroml_plugin.labelling.session import Session, SessionSettings
from astroml_plugin.sources.survey import Survey
from astroml_plugin.training.bundle import ModelBundle
from tests import universe
from tests.catalogs import small_catalog
from tests.fuzz.drawing import NUMBERS, changed, changes, mostly
from tests.ranked_catalogs import ranked_catalog, rows
from workflows.ingest import ingest
from workflows.label import open_labels
from workflows.query import query
from workflows.recipe import read_recipe

SECRET = b"only this machine may read it"


class _Answers:
    """A server that reads one request per connection and answers with what `answer` makes of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.case: Any = None
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            connection.settimeout(10)
            asked = b""
            while b"\r\n\r\n" not in asked:
                more = connection.recv(65536)
                if not more:
                    return
                asked += more
            connection.sendall(self.answer(asked))

    def answer(self, asked: bytes) -> bytes:
        """Bytes of an answer: that of an honest server, bent as the case says."""
        how, edits, number = self.case
        line, *headers = asked.split(b"\r\n")
        method, path, _ = (line.decode("latin-1") + "  ").split(" ", 2)
        file = self.folder / path.split("?")[0].strip("/")
        wanted = next((h.split(b"=")[1].decode() for h in headers if h.lower().startswith(b"range: bytes=")), None)
        data, status, more = b"", "404 Not Found", []
        if file.is_file():
            data, status = file.read_bytes(), "200 OK"
            if wanted is not None:
                first, _, last = wanted.partition("-")
                low = int(first or 0)
                high = min(int(last or len(data) - 1), len(data) - 1)
                more.append(f"Content-Range: bytes {low}-{high}/{len(data)}")
                data, status = data[low : high + 1], "206 Partial Content"
        length = len(data)
        if how == "changed":
            data = changed(data, edits)
            length = len(data)
        elif how == "truncated":
            data = data[: number % (len(data) + 1)]
        elif how == "longer":
            length = len(data) + number % 1000 + 1
        elif how == "shorter":
            length = number % (len(data) + 1)
        elif how == "huge":
            length = 10**15
        elif how == "html":
            data, status = b"<html><body>sign in</body></html>", "200 OK"
            length, more = len(data), ["Content-Type: text/html"]
        elif how == "status":
            status = (
                "204 No Content",
                "401 Unauthorized",
                "403 Forbidden",
                "404 Not Found",
                "416 Range Not Satisfiable",
                "429 Too Many Requests",
                "500 Error",
                "503 Busy",
                "999 ?",
                "200",
                "abc",
                "100 Continue",
            )[number % 12]
        elif how == "redirect":
            secret = (self.folder / "secret").as_uri()
            where = (
                secret,
                f"http://127.0.0.1:{self.port}{path}",
                "http://127.0.0.1:1/",
                "",
                "gopher://x",
                "//[",
                secret + "#x",
            )
            status, more, data, length = "302 Found", [f"Location: {where[number % 7]}"], b"", 0
        elif how == "range":
            more = [f"Content-Range: bytes {number % 100}-{number % 7}/{number % 50}"]
            status = "206 Partial Content"
        elif how == "whole":
            data = file.read_bytes() if file.is_file() else b""
            status, length, more = "200 OK", len(data), []
        elif how == "chunked":
            more.append("Transfer-Encoding: chunked")
            data = b"zz\r\n" + data
        elif how == "encoding":
            more.append(f"Content-Encoding: {('gzip', 'deflate', 'br', 'x')[number % 4]}")
        elif how == "headers":
            more.append("X: " + "y" * (number % 100_000))
        elif how == "garbage":
            return changed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", edits)
        elif how == "nothing":
            return b""
        head = [f"HTTP/1.1 {status}", f"Content-Length: {length}", "Accept-Ranges: bytes", "Connection: close", *more]
        body = b"" if method == "HEAD" else data
        return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body


_WAYS = (
    "changed",
    "truncated",
    "longer",
    "shorter",
    "huge",
    "html",
    "status",
    "redirect",
    "range",
    "whole",
    "chunked",
    "encoding",
    "headers",
    "garbage",
    "nothing",
    "honest",
)


class Http:
    """Data at URLs whose server answers garbage, wrong lengths, other ranges, pages, redirects to files."""

    name = "answers over HTTP"
    remote = True
    strategy = st.tuples(
        st.sampled_from(("recipe", "bundle", "table", "parquet", "archive", "image", "survey", "catalog")),
        st.sampled_from(_WAYS),
        changes(),
        NUMBERS,
    )

    def __init__(self, folder: Path, client: Any) -> None:
        self.folder, self.client = folder / "http", client
        self.folder.mkdir()
        served = self.folder / "served"
        served.mkdir()
        (served / "r.toml").write_bytes((Path(__file__).parents[2] / "workflows/recipes/classify.toml").read_bytes())
        universe.make_bundle(str(served / "bundle"))
        self.survey = universe.make_survey(str(served / "survey.zarr"), shape=(60, 60), tile_size=48, halo=8)
        (served / "t.csv").write_text("object_id,ra,dec\n1,150.0,2.0\n2,150.0,2.0\n")
        universe.make_objects(served / "t.parquet", 5, (60, 60))
        np.savez(served / "a.npz", images=np.ones((3, 1, 8, 8), "f4"), object_id=np.arange(3))
        fits.PrimaryHDU(np.ones((32, 32), "f4")).writeto(served / "i.fits")
        small_catalog(served / "catalog", 2, 5)
        (served / "secret").write_bytes(SECRET)
        self.server = _Answers(served)
        self.url = f"http://127.0.0.1:{self.server.port}"
        self.out = self.folder / "out"

    def run(self, case: Any) -> None:
        """Read one thing."""
        what, *self.server.case = case
        shutil.rmtree(self.out, ignore_errors=True)
        fsspec.filesystem("http").invalidate_cache()
        out, url = str(self.out), self.url
        steps: dict[str, Callable[[], Any]] = {
            "recipe": lambda: read_recipe(f"{url}/r.toml"),
            "bundle": lambda: ModelBundle.load(f"{url}/bundle").network(),
            "table": lambda: ObjectBuckets.build(f"{url}/t.csv", self.survey, out),
            "parquet": lambda: ObjectBuckets.build(f"{url}/t.parquet", self.survey, out),
            "archive": lambda: ingest(f"{url}/a.npz", out=out, client=self.client),
            "image": lambda: ingest(f"{url}/i.fits", out=out, client=self.client, bands="r", tile_size=32, halo=4),
            "survey": lambda: self._survey(f"{url}/survey.zarr"),
            "catalog": lambda: query(f"{url}/catalog"),
        }
        steps[what]()
        if case[1] == "redirect":
            raise AssertionError(f"{what} was read through a redirect")

    def _survey(self, url: str) -> None:
        survey = Survey.open(url)
        for tile in survey.iter_tiles():
            survey.read_tile(tile)

    def close(self) -> None:
        """Stop the server."""
        self.server.socket.close()


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """No pauses between tries of one read."""
    pause, storage.time.sleep = storage.time.sleep, lambda seconds: None
    try:
        yield
    finally:
        storage.time.sleep = pause


_METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "G ET", "\x00", "")
_PATHS = (
    "/",
    "/api/state",
    "/api/picture?id=ID",
    "/api/score",
    "/api/score",
    "/api/rank",
    "/api/undo",
    "/api/scores",
    "//[",
    "/../../etc/passwd",
    "/page.js/../../server.py",
    "http://evil/",
    "/api/picture?id=ID&side=1e9",
    "/api/picture?id=ID&side=-1",
    "/api/picture?id=ID&contrast=nan",
    "/api/picture?id=" + "9" * 5000,
    "/\x00",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/" + "a" * 70_000,
    "/api/picture?id=ID&side=99999999",
    "/api/picture?id=ID&contrast=1e400",
    "*",
    "",
)
_BODIES = (
    '{"object_id":"ID","score":3}',
    '{"object_id":"ID","score":3,"note":"\\ud800"}',
    '{"object_id":"ID","score":6}',
    '{"object_id":"ID","score":true}',
    "[" * 60_000,
    '{"a":' * 9_000,
    "{}",
    "",
    "null",
    '{"kind":"like","object_id":"ID"}',
    '{"kind":"score"}',
    '{"kind":"learned"}',
    '{"kind":{"a":1}}',
    '{"object_id":"ID","score":NaN}',
    '{"object_id":"ID","score":1e400}',
    '{"object_id":1e400,"score":1}',
    '{"object_id":"999","score":3}',
    '{"object_id":"ID","score":' + "9" * 5000 + "}",
    '{"object_id":"ID","score":3,"note":"' + "x" * 3000 + '"}',
    '{"object_id":["x"],"score":3}',
    '{"object_id":"ID","score":3,"note":5}',
    '{"object_id":"ID"}',
)


class Page:
    """Requests to the page of `label`: each has an answer, and only one with the key writes."""

    name = "requests to the page of label"
    strategy = st.tuples(
        mostly(("GET", "POST"), _METHODS),
        mostly(_PATHS[:8], _PATHS),
        mostly(_BODIES[:1], _BODIES),
        mostly(("right",), ("none", "wrong", "é")),
        mostly(("page",), ("none", "null", "http://evil.com", "other port")),
        mostly(("right", "localhost"), ("evil.com", "", "[::1]", "127.0.0.1:1@evil.com", "[::1")),
        mostly((None,), (-1, 70_000, "abc", "²", "1e3", "9" * 30, "9" * 5000, "٣", "0x5")),
        mostly(("application/json",), ("text/plain", "")),
        mostly(("HTTP/1.1",), ("HTTP/1.0", "HTTP/9.9", "HTTP/", "")),
        st.none() | st.none() | st.none() | changes(3),
    )

    def __init__(self, folder: Path) -> None:
        catalog = ranked_catalog(folder / "labelled", rows(30))
        scores = open_labels(catalog.url, path=str(folder / "page.jsonl"), who="ana")
        self.server = LabelServer(Session(catalog.url, scores, SessionSettings(top=10)))
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.id = str(self.server.session.state()["list"][0]["id"])
        self.scores = scores.path

    def request(self, case: Any) -> tuple[bytes, bool]:
        """Bytes of a request, and whether it comes from the page."""
        method, path, body, token, origin, host, length, kind, version, edits = case
        here = f"127.0.0.1:{self.server.server_address[1]}"
        body = body.replace("ID", self.id).encode()
        headers = {
            "Host": here if host == "right" else host,
            "X-Token": {"right": self.server.token, "none": None, "wrong": "x" * 32}.get(token, token),
            "Origin": {"page": f"http://{here}", "none": None, "other port": "http://127.0.0.1:1"}.get(origin, origin),
            "Content-Length": len(body) if length is None else length,
            "Content-Type": kind,
        }
        lines = [f"{method} {path.replace('ID', self.id)} {version}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
        data = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8") + body
        mine = token == "right" and origin == "page" and host in ("right", "localhost", "[::1]")
        return (data, mine) if edits is None else (changed(data, edits), True)  # the change may leave all as it was

    def run(self, case: Any) -> None:
        """Ask once."""
        data, mine = self.request(case)
        before = self.scores.read_bytes() if self.scores.exists() else b""
        answer = self.ask(data)
        after = self.scores.read_bytes() if self.scores.exists() else b""
        assert mine or before == after, "someone else has written a score"
        if data.strip() and case[9] is None:
            assert answer, "no answer at all"
            status = answer.split(b" ", 2)[1] if answer.startswith(b"HTTP/") else b"200"
            assert status != b"500", answer[:300]
            assert mine or self.server.token.encode() not in answer
            assert mine or not answer.startswith(b"HTTP/1.1 200") or case[1] in ("/", "/page.js") or case[0] == "GET"
        if b" 200 " not in answer[:20]:
            raise InputError(f"the page refuses: {answer[:60]!r}")

    def ask(self, data: bytes) -> bytes:
        """The answer to one request."""
        found = b""
        with (
            socket.create_connection(self.server.server_address, timeout=30) as connection,
            contextlib.suppress(OSError),
        ):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                found += more
        return found

    def close(self) -> None:
        """Stop the server."""
        self.server.shutdown()
        self.server.server_close()
