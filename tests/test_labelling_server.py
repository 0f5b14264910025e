"""The page's server: what it answers, and whom it refuses."""

from __future__ import annotations

import http.client
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from astroml_plugin.catalog import Catalog
from astroml_plugin.core.errors import InputError
from astroml_plugin.labelling.server import LARGEST_BODY, LabelServer
from astroml_plugin.labelling.session import Session, SessionSettings, sexagesimal
from tests import universe
from tests.ranked_catalogs import ranked_catalog, rows, stamps_and_catalog
from workflows.label import open_labels

SETTINGS = SessionSettings(top=10)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Catalog]:
    return stamps_and_catalog(tmp_path_factory.mktemp("server"))


@pytest.fixture
def server(made: tuple[str, Catalog], tmp_path: Path) -> Iterator[LabelServer]:
    scores = open_labels(made[1].url, path=str(tmp_path / "s.jsonl"), who="ana")
    with LabelServer(Session(made[1].url, scores, SETTINGS)) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(
    server: LabelServer,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    raw: bytes | None = None,
    **headers: str | None,
) -> tuple[int, Any, dict[str, str]]:
    """(status, body, headers) of one request as the page makes them; headers can be changed or left out (None)."""
    port = server.server_address[1]
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    sent: dict[str, str | None] = {"Host": f"127.0.0.1:{port}", "X-Token": server.token}
    if data is not None:
        sent |= {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest(method or ("GET" if data is None else "POST"), path, skip_host=True)
    for name, value in sent.items():
        if value is not None:
            connection.putheader(name, value)
    if data is not None and "Content_Length" not in headers:
        connection.putheader("Content-Length", str(len(data)))
    connection.endheaders(data)
    answer = connection.getresponse()
    content, kind = answer.read(), answer.headers.get_content_type()
    connection.close()
    return answer.status, json.loads(content) if kind == "application/json" else content, dict(answer.headers)


def test_the_page_comes_without_the_key_and_brings_nothing_from_elsewhere(server: LabelServer) -> None:
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        status, content, headers = ask(server, path, X_Token=None)
        assert status == 200
        assert headers["Content-Type"].startswith(kind)
        assert b"http://" not in content.replace(b"http://www.w3.org", b"")
        assert b"https://" not in content
        assert b"innerHTML" not in content
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert server.token.encode() not in content
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}/#{server.token}"
    assert len(server.token) >= 32


def test_the_state_has_all_that_is_shown(server: LabelServer) -> None:
    status, state, headers = ask(server, "/api/state")
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert len(state["list"]) == 10
    best = state["list"][0]
    assert isinstance(best["id"], str)
    assert int(best["id"]) > 2**53
    assert best["rank"] == 1
    assert best["ra"] is None
    assert {value["name"]: value["unit"] for value in best["values"]} == {
        "anomaly_score": "",
        "size": "pix",
        "kind": "",
    }
    assert (state["by"], state["ranked"], state["who"], state["noPixels"]) == ("anomaly_score", 24, "ana", None)
    assert state["pixelScale"] == 0.2


def test_scores_are_stored_before_they_are_confirmed(server: LabelServer) -> None:
    identity = ask(server, "/api/state")[1]["list"][3]["id"]
    status, answer, _ = ask(server, "/api/score", {"object_id": identity, "score": 4, "note": "arc"})
    assert status == 200
    assert answer["mine"] == {identity: {"score": 4, "note": "arc"}}
    assert f'"object_id": {identity}, "score": 4' in server.session.scores.path.read_text()
    open_labels(server.session.catalog.url, path=str(server.session.scores.path), who="bo").add(int(identity), 1)
    others = ask(server, "/api/scores")[1]["others"]
    assert others == {identity: [{"score": 1, "note": "", "who": "bo"}]}
    assert ask(server, "/api/undo", {})[1]["undone"] == identity
    assert ask(server, "/api/undo", {})[1]["undone"] is None


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 60_000,
        b'{"a":' * 9_000,
        b'{"object_id": "ID", "score": 3, "note": "\\ud800"}',
        b"\xff\xfe{}",
        b'{"object_id": NaN}',
    ],
)
def test_odd_requests_get_an_answer_and_store_nothing(server: LabelServer, raw: bytes) -> None:
    identity = ask(server, "/api/state")[1]["list"][0]["id"]
    status, answer, _ = ask(server, "/api/score", raw=raw.replace(b"ID", identity.encode()))
    assert status == 400
    assert answer["error"]
    assert ask(server, "/api/score", raw=b"{}", Content_Length="\u00b2")[0] == 413
    assert not ask(server, "/api/scores")[1]["mine"]


def test_pictures(server: LabelServer) -> None:
    identity = ask(server, "/api/state")[1]["list"][0]["id"]
    status, content, headers = ask(server, f"/api/picture?id={identity}")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(content)).size == (32, 32)
    wide = ask(server, f"/api/picture?id={identity}&side=48&contrast=2&own=1")[1]
    assert Image.open(io.BytesIO(wide)).size == (48, 48)
    for query, says in (
        ("id=5", "on no list"),
        ("id=x", "no object_id"),
        (f"id={identity}&side=9999", "must be 8 to 512"),
        (f"id={identity}&side=x", "are numbers"),
        (f"id={identity}&contrast=nan", "contrast"),
    ):
        status, content, _ = ask(server, f"/api/picture?{query}")
        assert status == 400
        assert says in content["error"]


def test_rankings_change_and_a_refused_one_changes_nothing(server: LabelServer) -> None:
    state = ask(server, "/api/state")[1]
    status, answer, _ = ask(server, "/api/rank", {"kind": "learned"})
    assert status == 400
    assert "at least 5" in answer["error"]
    assert ask(server, "/api/state")[1]["by"] == state["by"]
    ids = [item["id"] for item in state["list"]]
    for number, identity in enumerate(ids[:6]):
        ask(server, "/api/score", {"object_id": identity, "score": number % 6})
    learned = ask(server, "/api/rank", {"kind": "learned"})[1]
    assert learned["kind"] == "learned"
    assert "from 6 scored objects" in learned["by"]
    assert not {item["id"] for item in learned["list"]} & set(ids[:6])
    near = ask(server, "/api/rank", {"kind": "like", "object_id": ids[0]})[1]
    assert near["by"] == f"likeness to {ids[0]} in latent"
    assert ask(server, "/api/picture?id=" + near["list"][-1]["id"])[0] == 200
    assert ask(server, "/api/rank", {"kind": "score"})[1]["by"] == "anomaly_score"
    assert "no ranking 'x'" in ask(server, "/api/rank", {"kind": "x"})[1]["error"]


def test_strangers_are_refused(server: LabelServer) -> None:
    port = server.server_address[1]
    good = {"object_id": "1", "score": 5}
    assert ask(server, "/api/state", X_Token=None)[0] == 401
    assert ask(server, "/api/state", X_Token="x" * 32)[0] == 401
    assert ask(server, "/api/score", good, X_Token="é")[0] == 401
    assert ask(server, "/api/state", Host=f"evil.example:{port}")[0] == 403  # a name rebound to this machine
    assert ask(server, "/", Host="evil.example")[0] == 403
    assert ask(server, "/api/score", good, Origin="http://evil.example")[0] == 403
    assert ask(server, "/api/score", good, Origin=None)[0] == 403
    assert ask(server, "/api/state", Origin="null")[0] == 403
    assert ask(server, "/api/state", Host="localhost:1234", Origin="http://localhost:1234")[0] == 200  # an SSH tunnel
    assert ask(server, "/api/score", good, Content_Type="text/plain")[0] == 400  # what a form of another page can send
    assert ask(server, "/api/score", raw=b"[1]")[0] == 400
    assert ask(server, "/api/score", raw=b"{")[0] == 400
    assert ask(server, "/api/score", raw=b"{}", Content_Length=str(LARGEST_BODY + 1))[0] == 413
    assert ask(server, "/../session.py")[0] == 404
    assert ask(server, "/page/page.js")[0] == 404
    assert ask(server, "/api/nothing", {})[0] == 404
    assert ask(server, "/api/state", method="PUT")[0] == 501
    for body, says in (
        ({"object_id": "77", "score": 1}, "on no list"),
        ({"score": 1}, "no object_id"),
        ({"object_id": "1", "score": "4"}, "0 to 5"),
        ({"object_id": ask(server, "/api/state")[1]["list"][0]["id"], "score": 9}, "0 to 5"),
    ):
        status, answer, _ = ask(server, "/api/score", body)
        assert status == 400
        assert says in answer["error"]
    assert not server.session.scores.path.exists()


def test_a_port_in_use(server: LabelServer) -> None:
    taken = server.server_address[1]
    with pytest.raises(InputError, match=f"port {taken} is in use: choose another --port"):
        LabelServer(server.session, taken)
    with pytest.raises(InputError, match="0 to 65535"):
        LabelServer(server.session, 70_000)


def test_without_stamps_the_page_says_so_and_scores_by_numbers(tmp_path: Path) -> None:
    catalog = ranked_catalog(tmp_path / "c", rows(20), 1, source=str(tmp_path / "gone.zarr"))
    session = Session(catalog.url, open_labels(catalog.url), replace(SETTINGS, top=5))
    state = session.state()
    assert "no stamps at hand" in state["noPixels"]
    assert "--source" in state["noPixels"]
    assert state["list"][0]["sky"].startswith("00:4")
    session.add(int(state["list"][0]["id"]), 3)
    with pytest.raises(InputError, match="no stamps at hand"):
        session.picture(int(state["list"][0]["id"]))
    nameless = ranked_catalog(tmp_path / "d", rows(20), 1)
    assert "does not say where" in str(Session(nameless.url, open_labels(nameless.url)).no_pixels)
    other = universe.make_stamps(str(tmp_path / "s.zarr"), count=4)
    moved = ranked_catalog(tmp_path / "e", rows(20), 1, source=other)
    assert "not what the catalog was made from" in str(Session(moved.url, open_labels(moved.url)).no_pixels)
    with pytest.raises(InputError, match="not what the catalog was made from"):
        Session(moved.url, open_labels(moved.url), SETTINGS, other)
    with pytest.raises(InputError, match="nowhere"):
        Session(moved.url, open_labels(moved.url), SETTINGS, str(tmp_path / "nowhere"))


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    catalog = ranked_catalog(tmp_path / "c", rows(20), 1)
    scores = open_labels(catalog.url)
    for settings, says in (
        (SessionSettings(top=0), "--top must be 1 to 5000"),
        (SessionSettings(size=4), "--size is 4"),
        (SessionSettings(score="anomly_score"), "nearest are anomaly_score"),
        (SessionSettings(where="nope"), "nope"),
    ):
        with pytest.raises(InputError, match=says):
            Session(catalog.url, scores, settings)
    assert Session(catalog.url, scores, SessionSettings(where="size < 0")).state()["list"] == []
    assert len(Session(catalog.url, scores, SessionSettings(top=500)).state()["list"]) == 20


def test_numbers_as_people_read_them() -> None:
    assert sexagesimal(150.1, -2.5) == "10:00:24.00 -02:30:00.0"
    assert sexagesimal(None, 1.0) == ""
