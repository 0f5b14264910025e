"""Label: people score the top of a catalog on a page of pictures, or from Python, and the ranking learns from them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.ranking import Ranked
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.labelling import relearn
from astroml_plugin.labelling.scorefile import ScoreFile
from astroml_plugin.labelling.server import LabelServer
from astroml_plugin.labelling.session import Session, SessionSettings


def open_labels(catalog: Place, *, path: Place | None = None, who: str | None = None) -> ScoreFile:
    """The scores of a catalog: `add(object_id, 0 … 5)`, `undo()`, `table()`.

    Args:
        catalog: path or URL of the catalog.
        path: file of the scores; default `<catalog>.scores.jsonl` beside it (here, for one on an object store).
        who: the person; default the user of this process.

    Raises:
        InputError: no catalog, or the file belongs to another one.
    """
    return ScoreFile.beside(Catalog.open(catalog), path, who)


def rerank(catalog: Place, scores: ScoreFile | pa.Table, top: int = 100, **settings: Any) -> Ranked:
    """List to look at next, learned from scores: see `astroml_plugin.labelling.relearn.rerank` for the settings."""
    return relearn.rerank(text_of(catalog), scores, top, **settings)


def label(
    catalog: Place,
    *,
    source: Place | None = None,
    scores: Place | None = None,
    who: str | None = None,
    port: int = 0,
    settings: SessionSettings | None = None,
    ready: Callable[[LabelServer], None] | None = None,
) -> int:
    """Serve the page on 127.0.0.1 until it is interrupted.

    Args:
        catalog: path or URL of the catalog.
        source: Survey or Stamps with its pixels; default the one that the catalog was made from, where it can be
            opened.
        scores: file that scores go to; default beside the catalog.
        who: the person who scores; default the user of this process.
        port: port of the page; 0 takes a free one.
        settings: what is ranked and by what.
        ready: called with the server when it listens; its `url` holds the key of this run.

    Returns:
        Number of objects that have a score, of anyone.

    Raises:
        InputError: no catalog, no such score, a named source of another catalog, a file of another catalog's scores, a
            port in use.
    """
    given = open_labels(catalog, path=scores, who=who)
    session = Session(catalog, given, settings, source)
    with LabelServer(session, port) as server:
        if ready is not None:
            ready(server)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)
    return len(given)
