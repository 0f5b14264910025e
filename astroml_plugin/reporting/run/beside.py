"""Annotations beside a catalog that sections are about: clusters and explanations, the newest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from astroml_plugin.catalog.annotation_files import all_annotations
from astroml_plugin.catalog.query import query
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError
from astroml_plugin.reporting.pages import Block
from astroml_plugin.reporting.run.subject import RunSubject

CLUSTERS, EXPLANATION = "clusters", "explain"


@dataclass(frozen=True)
class Beside:
    """One annotation."""

    name: str
    """Name, also of its view."""
    kind: str
    """clusters, explain, classes or distances."""
    about: Mapping[str, Any]
    """Facts of its making."""
    columns: tuple[str, ...]
    """Names of its columns."""


def all_beside(subject: RunSubject) -> list[Beside]:
    """Annotations of the catalog that can be read, the newest first."""
    if "beside" not in subject.shared:
        subject.shared["beside"] = _all(subject)
    found: list[Beside] = subject.shared["beside"]
    return found


def _all(subject: RunSubject) -> list[Beside]:
    if storage.is_web(subject.catalog.url):
        return []
    found = []
    for one in all_annotations(subject.catalog.url):
        try:
            record = one.record()
        except AstromlError:  # `verify` says what is wrong with it
            continue
        if record is not None:
            identity = record["identity"]
            kind = EXPLANATION if EXPLANATION in identity else str(identity.get("kind", ""))
            names = tuple(str(column["name"]) for column in record["columns"])
            found.append((str(record["about"].get("made", "")), Beside(one.name, kind, record["about"], names)))
    return [one for _, one in sorted(found, key=lambda pair: pair[0], reverse=True)]


def newest(
    subject: RunSubject,
    known: Sequence[Beside],
    count: int,
    about: Callable[[RunSubject, Beside], tuple[str, list[Block]]],
) -> tuple[str, list[Block]]:
    """Paragraphs and blocks of the first annotations, as `about` tells each; the others are named.

    Args:
        subject: the page's.
        known: annotations of one kind, the newest first.
        count: how many are shown.
        about: of one annotation.
    """
    told = [about(subject, one) for one in known[:count]]
    texts, blocks = [text for text, _ in told], [block for _, made in told for block in made]
    if len(known) > count:
        texts.append(f"Not shown: {', '.join(one.name for one in known[count:])}.")
    return "\n\n".join(texts), blocks


def joined(subject: RunSubject, text: str) -> pa.Table:
    """Rows of a SELECT that joins annotations.

    Raises:
        CorruptError: rows of the catalog have no annotation yet; says what to do.
    """
    return query(subject.catalog.url, text, memory=subject.options.memory).to_arrow()
