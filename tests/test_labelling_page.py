"""The page in a real browser: what a person sees and what their keys do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from astroml_plugin.catalog import Catalog
from astroml_plugin.labelling.server import LabelServer
from astroml_plugin.labelling.session import Session, SessionSettings
from tests.browser import Browser, chromium
from tests.ranked_catalogs import ranked_catalog, rows, stamps_and_catalog
from workflows.label import open_labels

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium")

READY = "typeof state !== 'undefined' && state && cells.length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    opened = Browser()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return stamps_and_catalog(tmp_path_factory.mktemp("page"), colour=True)[1]


@contextmanager
def served(catalog: Catalog, path: Path, **settings: object) -> Iterator[LabelServer]:
    chosen = SessionSettings(**{"top": 12, **settings})  # type: ignore[arg-type]
    session = Session(catalog.url, open_labels(catalog.url, path=str(path), who="ana"), chosen)
    with LabelServer(session) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def stored(server: LabelServer) -> dict[int, int]:
    server.session.scores.refresh()
    return {key: score.score for key, score in server.session.scores.mine().items()}


def test_a_person_scores_undoes_and_comes_back(browser: Browser, catalog: Catalog, tmp_path: Path) -> None:
    browser.events.clear()
    with served(catalog, tmp_path / "s.jsonl") as server:
        ids = server.session.ranking.table["object_id"].to_pylist()
        browser.open(server.url)
        browser.wait(READY)
        assert "anomaly_score" in browser.text("by")
        assert browser.value("location.href") == server.url.split("#")[0]  # the key is not left in the address
        browser.wait(
            "document.querySelectorAll('.cell img').length === 12 && document.getElementById('large').complete"
        )
        assert browser.value("document.getElementById('large').naturalWidth") == 32
        browser.press("5", "3", "0", "1")  # each goes on to the next
        browser.wait("Object.keys(state.mine).length === 4 && current === 4")
        assert browser.value("[...document.querySelectorAll('.badge')].map((b) => b.textContent).join('')") == "5301"
        browser.press("ArrowLeft", "4")
        browser.wait("state.mine[state.list[3].id].score === 4")
        browser.press("u")
        browser.wait("state.mine[state.list[3].id].score === 1 && current === 3")
        browser.press("n")
        browser.command("Input.insertText", text="arc? 5")
        browser.press("Enter")
        browser.wait("state.mine[state.list[3].id].note === 'arc? 5' && document.activeElement.id !== 'note'")
        browser.wait("document.getElementById('toast').textContent === 'Note stored.'")
        assert stored(server) == dict(zip(ids[:4], (5, 3, 0, 1), strict=True))
    with served(catalog, tmp_path / "s.jsonl") as server:  # another day
        browser.open(server.url)
        browser.wait(READY)
        browser.wait("current === 4")
        assert browser.text("counts").startswith("4 of 12 scored here")
        browser.press("f")
        assert browser.value("document.querySelectorAll('.cell.hidden').length") == 4
        assert stored(server) == dict(zip(ids[:4], (5, 3, 0, 1), strict=True))
    assert browser.complaints() == []
    assert all(host.startswith("127.0.0.1:") for host in browser.hosts())


def test_rankings_are_named_and_change(browser: Browser, catalog: Catalog, tmp_path: Path) -> None:
    browser.events.clear()
    with served(catalog, tmp_path / "s.jsonl") as server:
        browser.open(server.url)
        browser.wait(READY)
        browser.press("r")
        browser.wait("document.getElementById('toast').className === 'bad'")
        assert "at least 5" in browser.text("toast")
        assert "anomaly_score" in browser.text("by")
        browser.press("5", "4", "3", "0", "1", "2")
        browser.press("r")  # waits for the scores before it
        browser.wait("state.kind === 'learned'")
        assert "from 6 scored objects" in browser.text("by")
        first = browser.value("state.list[0].id")
        browser.press("m")
        browser.wait("state.kind === 'like'")
        assert f"likeness to {first} in latent" in browser.text("by")
        browser.press("b")
        browser.wait("state.kind === 'score'")
        browser.press("]", "s", "-", "x")
        browser.wait("document.getElementById('large').naturalWidth === 48")
        assert "48 px · 9.6″" in browser.text("view")
        assert "own stretch · contrast 1.5" in browser.text("view")
        browser.press("?")
        assert browser.value("document.getElementById('help').open")
        browser.press("5")  # is no score while the keys are explained
        assert len(stored(server)) == 6
    refused = [told for told in browser.complaints() if "400 (Bad Request)" not in told]
    assert refused == []


def test_without_stamps_people_score_by_numbers(browser: Browser, tmp_path: Path) -> None:
    table = rows(8, first=0)
    catalog = ranked_catalog(tmp_path / "c", table, 1, source=str(tmp_path / "gone.zarr"))
    with served(catalog, tmp_path / "s.jsonl") as server:
        browser.open(server.url)
        browser.wait(READY)
        assert "no stamps at hand" in browser.text("banner")
        assert browser.value("getComputedStyle(document.getElementById('banner')).display") != "none"
        browser.wait("document.querySelectorAll('.cell .numbers').length === 8")
        assert "RA, Dec" in browser.text("info")
        browser.press("2")
        browser.wait("Object.keys(state.mine).length === 1 && unanswered === 0")
        order = np.lexsort([np.asarray(table["object_id"]), -np.asarray(table["anomaly_score"])])
        assert stored(server) == {int(np.asarray(table["object_id"])[order[0]]): 2}


def test_a_score_that_was_not_stored_is_not_shown_as_stored(
    browser: Browser, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(catalog, tmp_path / "s.jsonl") as server:
        browser.open(server.url)
        browser.wait(READY)

        def full(object_id: int, score: int, note: str = "") -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(server.session.scores, "add", full)
        browser.press("5")
        browser.wait("document.getElementById('toast').className === 'bad'")
        assert "was not scored: No space left on device" in browser.text("toast")
        assert browser.value("Object.keys(state.mine).length") == 0
        assert browser.value("document.querySelectorAll('.badge').length") == 0


def test_without_the_key_the_page_shows_nothing(browser: Browser, catalog: Catalog, tmp_path: Path) -> None:
    with served(catalog, tmp_path / "s.jsonl") as server:
        browser.open(server.url.split("#")[0] + "#wrong")
        browser.wait("!document.getElementById('banner').hidden")
        assert "open the address that the command printed" in browser.text("banner")
        assert browser.value("cells.length") == 0
