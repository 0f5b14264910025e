"""The top of a catalog with its pixels, near-duplicates folded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astroml_plugin.catalog.ranking import Ranked, top
from astroml_plugin.catalog.ranking.names import numeric_columns
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError
from astroml_plugin.core.flags import flag_names
from astroml_plugin.labelling.session import sexagesimal
from astroml_plugin.reporting.pages import Block, Missing, Note, Pictures, Section, Table
from astroml_plugin.reporting.run.classes import labels_of, text_columns
from astroml_plugin.reporting.run.subject import RunSubject
from astroml_plugin.reporting.run.thumbnails import pictures
from astroml_plugin.reporting.words import many, number

TITLE, DUPLICATES = "Top of the list", "Near-duplicates"
MOST = 200
"""Objects that a page shows at most."""

_SCORES = ("anomaly_score",)
_SIGNALS = ("snr", "peak_snr")


def score_of(subject: RunSubject) -> tuple[str, str] | None:
    """(score, why this one): what was asked for, an anomaly score, the rarest class, or a signal-to-noise ratio."""
    if subject.options.by:
        return subject.options.by, "as asked for"
    names = numeric_columns(subject.schema)
    for ends, why in ((_SCORES, "the catalog's anomaly score"), (_SIGNALS, "nothing rarer is known of these objects")):
        found = [name for name in names if any(name == end or name.endswith(f"_{end}") for end in ends)]
        if found:
            return found[0], why
        if ends is _SCORES and (rare := _rarest(subject)) is not None:
            return rare
    return None


def _rarest(subject: RunSubject) -> tuple[str, str] | None:
    """Probability of the class that the fewest objects are called."""
    for column in text_columns(subject.schema):
        if not column.endswith("label"):
            continue
        prefix = column.removesuffix("label")
        found = labels_of(subject, column)
        known = [name for name in reversed(found.names) if f"{prefix}p_{name}" in subject.schema.names]
        if known:
            return f"{prefix}p_{known[0]}", f"the probability of {known[0]}, the rarest class of {column}"
    return None


def ranked(subject: RunSubject) -> tuple[Ranked, str] | None:
    """The list and why it is ranked so; None where nothing ranks the catalog."""
    if "ranked" not in subject.shared:
        chosen = score_of(subject) if subject.counts["objects"] else None
        url, count = subject.catalog.url, subject.options.top
        subject.shared["ranked"] = chosen and (top(url, count, score=chosen[0]), chosen[1])
    found: tuple[Ranked, str] | None = subject.shared["ranked"]
    return found


def section(subject: RunSubject) -> Section | Missing:
    """Stamps of the first objects by a score, with their numbers."""
    if not subject.counts["objects"]:
        return Missing(TITLE, "the catalog has no rows")
    made = ranked(subject)
    if made is None:
        return Missing(TITLE, "no column ranks the objects: give one by --by")
    found, why = made
    if not len(found):
        return Missing(TITLE, f"no object has a finite {found.by}")
    rows = found.table.to_pylist()
    blocks: list[Block] = []
    try:
        blocks.append(Pictures(pictures(subject.pixels(), rows, _caption)))
        seen = "Each picture is stretched in the same way; violet pixels cannot be used."
    except AstromlError as error:
        blocks.append(Note(f"No pictures: {storage.redact(str(error))}"))
        seen = ""
    head = ("rank", "object_id", found.by, "stands for", "ra", "dec", "flags", "tile")
    cells = [
        [
            *(str(row["rank"]), str(row["object_id"]), number(row["rank_score"]), str(1 + row["folded"])),
            *("–" if row[name] is None else f"{row[name]:.6f}" for name in ("ra", "dec")),
            *(", ".join(flag_names(row["flags"])) or "none", row["tile"]),
        ]
        for row in rows
    ]
    blocks.append(Table(head, cells, "The list", folded=True))
    text = (
        f"The first {many(len(found), 'object')} of {found.ranked:,} with a finite {found.by}, highest first ({why}). "
        f"Rows within 1 arcsec of a better one, and rows of the same id, are folded into it "
        f"({many(found.folded, 'row', 'rows')} here). {seen}"
    )
    return Section(TITLE, text, blocks)


def _caption(row: Mapping[str, Any]) -> list[str]:
    lines = [f"{row['rank']}. {row['object_id']}", f"score {number(row['rank_score'])}"]
    if sky := sexagesimal(row["ra"], row["dec"]):
        lines.append(sky)
    if flags := flag_names(row["flags"]):
        lines.append(", ".join(flags))
    return lines


def duplicates(subject: RunSubject) -> Section | Missing:
    """Rows that are the same object: in overlaps, by their ids, and on the list."""
    if not subject.counts["rows"]:
        return Missing(DUPLICATES, "the catalog has no rows")
    counts = subject.counts
    row = subject.session.row('SELECT count(*) FILTER ("primary" AND flags & 64 <> 0) AS repeated FROM catalog')
    rows = [
        ["rows where images overlap, another row is primary", f"{counts['rows'] - counts['objects']:,}"],
        ["objects whose id occurs more than once in the input (DUPLICATE_ID)", f"{row['repeated']:,}"],
    ]
    made = ranked(subject)
    blocks: list[Block] = []
    if made is not None and len(made[0]):
        folded = [one for one in made[0].table.to_pylist() if one["folded"]]
        rows.append([f"rows folded into others in the top {len(made[0])}", f"{made[0].folded:,}"])
        cells = [[str(one["rank"]), str(one["object_id"]), str(one["folded"])] for one in folded[:40]]
        blocks = [
            Table(("rank", "object_id", "rows folded into it"), cells, "Objects of the list that stand for several")
        ]
    text = 'One object on the sky can have several rows. Count objects by `WHERE "primary"`.'
    if subject.session.doubt:
        blocks.insert(0, Note(subject.session.doubt, bad=True))
    return Section(
        DUPLICATES,
        text,
        [Table(("kind", "rows"), rows, "Rows of the same object"), *blocks],
        "Rows of a list are folded within 1 arcsec (`rank --fold-radius`); images overlap as docs/catalog.md says.",
    )
