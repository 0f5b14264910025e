"""Sections from the records of a run: at a glance, failures, where the time went, where the rows come from."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from astroml_plugin.catalog.provenance import provenance
from astroml_plugin.core import storage
from astroml_plugin.core.flags import flag_names
from astroml_plugin.reporting.charts import Axis, Bars, Chart
from astroml_plugin.reporting.pages import Block, Commands, Missing, Note, Section, Table
from astroml_plugin.reporting.run.subject import RunSubject
from astroml_plugin.reporting.run.top import score_of
from astroml_plugin.reporting.words import many, number, share
from astroml_plugin.sources.survey import Survey

GLANCE, FAILURES, TIMES, ORIGIN, NEXT = (
    "At a glance",
    "Failures",
    "Where the time went",
    "Provenance",
    "What to do next",
)
_LISTED = 40
_SLOW = 0.01
"""Part of failed units above which a run is called incomplete."""


def facts(subject: RunSubject) -> list[tuple[str, str]]:
    """Numbers below the page's title."""
    counts, last = subject.counts, _result(subject)
    units = subject.session.current.num_rows
    found = [("objects", f"{counts['objects']:,}"), ("units done", f"{units:,}")]
    found += [
        ("failed units", f"{subject.failures.num_rows:,}"),
        ("with a flag", share(counts["flagged"], counts["objects"])),
    ]
    if last.get("seconds"):
        found.append(("last run", f"{number(float(last['seconds']))} s"))
    return found


def _result(subject: RunSubject) -> dict[str, Any]:
    """Result of the last run that ended."""
    ended = [record["result"] for record in subject.records if isinstance(record.get("result"), dict)]
    return dict(ended[-1]) if ended else {}


def glance(subject: RunSubject) -> Section:
    """The catalog in a sentence, and all that a reader must know before using it."""
    counts, result = subject.counts, _result(subject)
    names = ", ".join(called for called, _ in subject.bundles.values()) or "bundles that it does not name"
    units = subject.session.current.num_rows
    failed = subject.failures.num_rows
    text = (
        f"{many(counts['rows'], 'row')} of {many(counts['objects'], 'object')}, measured by {names} in "
        f"{many(units, 'unit')} "
        f"(tiles or blocks of stamps)."
    )
    notes: list[Block] = []
    if not counts["rows"]:
        notes.append(Note("The catalog has no rows: nothing was found, or every unit failed.", bad=True))
    if failed:
        notes.append(
            Note(
                f"{many(failed, 'unit')} of {units + failed:,} failed: their objects are not in the catalog.", bad=True
            )
        )
    if subject.unplaced.num_rows:
        told = f"{many(subject.unplaced.num_rows, 'object')} of the table lie on no tile, or have no usable position."
        notes.append(Note(told))
    running = [record for record in subject.records if record.get("state") == "running"]
    if running:
        notes.append(Note(f"{many(len(running), 'run')} has not ended, or was killed: more rows may come."))
    said = [result.get("warning", ""), *result.get("notes", ()), *result.get("changed_tables", ())]
    notes += [Note(str(one)) for one in said if one]
    return Section(GLANCE, text, notes)


def failures(subject: RunSubject) -> Section | Missing | None:
    """Units that failed and objects that were not placed, by reason."""
    failed, unplaced = subject.failures, subject.unplaced
    if not failed.num_rows and not unplaced.num_rows:
        return Missing(FAILURES, "no unit failed, and every object has a place")
    blocks: list[Block] = []
    units = subject.session.current.num_rows + failed.num_rows
    if failed.num_rows:
        reasons: dict[str, list[str]] = {}
        for row in failed.to_pylist():
            reasons.setdefault(" ".join(str(row["reason"]).split()), []).append(str(row["unit"]))
        ordered = sorted(reasons.items(), key=lambda item: -len(item[1]))
        rows = [[f"{len(names):,}", reason, ", ".join(names[:3])] for reason, names in ordered[:_LISTED]]
        blocks.append(Table(("units", "reason", "for example"), rows, "Failed units", len(ordered) - len(rows)))
    if unplaced.num_rows:
        counted = Counter(str(reason) for reason in unplaced["reason"].to_pylist()).most_common(_LISTED)
        blocks.append(Table(("objects", "reason"), [[f"{n:,}", why] for why, n in counted], "Objects without a place"))
    text = (
        f"{many(failed.num_rows, 'unit')} failed ({share(failed.num_rows, units)}), "
        f"{many(unplaced.num_rows, 'object')} without a place. The same `infer` again tries failed units anew."
    )
    return Section(
        FAILURES, text, blocks, f"More than {_SLOW:.0%} failed units: mend their cause before you use counts per area."
    )


def times(subject: RunSubject) -> Section | Missing:
    """Seconds by stage, summed over all runs, and each run."""
    stages: Counter[str] = Counter()
    read: Counter[str] = Counter()
    for record in subject.records:
        stages.update({str(k): float(v) for k, v in _numbers(record.get("stages")).items()})
        read.update({str(k): int(v) for k, v in _numbers(record.get("bytes")).items()})
    if not stages:
        return Missing(TIMES, "no record of a finished run says how long its stages took")
    names, seconds = zip(*stages.most_common(), strict=True)
    places = np.arange(len(names))[::-1].astype(float)
    bars = Bars(places, np.array(seconds), sideways=True)
    ticks = list(names)[::-1]
    figure = Chart(
        "Seconds by stage",
        Axis("seconds, summed over workers"),
        Axis("", ticks=ticks),
        [bars],
        90 + 28 * len(names),
        half=False,
        legend=False,
    )
    head = ("run", "state", "units done", "rows", "seconds", "objects/s", "devices", "version")
    rows = [_run_row(record) for record in subject.records[-_LISTED:]]
    moved = ", ".join(f"{name} {size / 1e9:.3g} GB" for name, size in read.items() if size)
    text = (
        "Stages of all units together: several workers and threads work at once, so the sum is more than the "
        "wall time. "
        f"`wait` is the time that units stood before the network. Data moved: {moved or 'not recorded'}."
    )
    return Section(TIMES, text, [figure, Table(head, rows, "Runs", max(len(subject.records) - _LISTED, 0))])


def _numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    return {str(k): v for k, v in value.items() if isinstance(v, int | float) and np.isfinite(v)}


def _run_row(record: dict[str, Any]) -> list[str]:
    result = record.get("result") if isinstance(record.get("result"), dict) else {}
    assert isinstance(result, dict)
    rows, seconds = result.get("rows"), result.get("seconds")
    rate = f"{rows / seconds:,.0f}" if rows and seconds else "–"
    versions = record.get("versions")
    code = versions.get("astroml-plugin", "") if isinstance(versions, dict) else ""
    devices = ", ".join(_numbers(record.get("devices"))) or "–"
    done = result.get("units_done")
    return [
        str(record["run_id"]),
        str(record["state"]),
        number(done),
        number(rows),
        number(seconds),
        rate,
        devices,
        str(code),
    ]


def origin(subject: RunSubject) -> Section:
    """Source, bundles, settings and versions."""
    told = provenance(subject.catalog, subject.records)
    told.pop("flags", None)
    rows = [[key, _shown(value)] for key, value in told.items()]
    settings = subject.catalog.identity.get("settings")
    more = [[str(key), _shown(value)] for key, value in settings.items()] if isinstance(settings, dict) else []
    last = subject.records[-1] if subject.records else {}
    versions = last.get("versions") if isinstance(last.get("versions"), dict) else {}
    software = [[str(name), str(value)] for name, value in (versions or {}).items()]
    blocks = [
        Table(("what", "value"), rows, "Where the rows come from"),
        Table(("setting", "value"), more, "Settings that all rows depend on", folded=True),
        Table(("package", "version"), software, "Software of the last run", folded=True),
    ]
    return Section(
        ORIGIN,
        "Rows of one catalog come from one source, these bundles and these settings; others are refused.",
        blocks,
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def next_steps(subject: RunSubject) -> Section:
    """Commands that fit what is in the catalog."""
    place = shlex.quote(storage.redact(subject.catalog.url))
    names = subject.schema.names
    clean, failed, unplaced = map(shlex.quote, _ASKED)
    survey = shlex.quote(storage.redact(subject.source.url)) if isinstance(subject.source, Survey) else ""
    unflagged, ranking = subject.counts["unflagged"] > 0, _explained_by(subject)
    lines = [
        (bool(subject.failures.num_rows), "Why units failed", f"query {place} {failed}"),
        (bool(subject.unplaced.num_rows), "Objects without a place", f"query {place} {unplaced}"),
        (unflagged, "Objects without a flag, as a FITS table", f"query {place} {clean} --to clean.fits"),
        (bool(survey), "The objects on their pixels", f"show {place} --out objects.png"),
        (bool(ranking), "What the network looked at, of the first objects", f"explain {place} --by {ranking}"),
        (_ends(names, "anomaly_score"), "Score the oddest objects by eye", f"label {place}"),
        (_ends(names, "latent"), "Groups of like objects, then this page again", f"cluster {place}"),
        (_ends(names, "label"), "Thresholds and what they give", f"class-statistics {place} --evaluation report"),
        (_ends(names, "e1") and unflagged, "Mean shear", f"shear {place} --where 'flags = 0'"),
        (subject.counts["placed"] > 0, "To LSDB, TOPCAT and Aladin", f"export {place} --to hats --out sky"),
        (bool(survey), "A page about the images", f"report {survey} --out survey.html"),
        (True, "Check the catalog for damage", f"verify {place}"),
    ]
    return Section(
        NEXT,
        _all_flagged(subject),
        [Commands([(what, f"astroml-plugin {line}") for good, what, line in lines if good])],
    )


def _all_flagged(subject: RunSubject) -> str:
    """A sentence for a catalog whose objects all carry a flag; empty for others."""
    counts = subject.counts
    if not counts["objects"] or counts["unflagged"]:
        return ""
    shared = flag_names(counts["shared"])
    which = f"all have {', '.join(shared)}" if shared else "no single flag is on all of them"
    return (
        f"Every object carries a flag ({which}): `WHERE flags = 0` leaves none. The section Flags says what they mean."
    )


def _explained_by(subject: RunSubject) -> str:
    """Column whose first objects `explain` can be asked for; empty without pixels, a score or a single bundle."""
    bundles = subject.catalog.identity.get("bundles")
    if subject.source is None or not subject.counts["objects"] or not isinstance(bundles, dict) or len(bundles) != 1:
        return ""
    column, _ = score_of(subject) or ("", "")
    return shlex.quote(column) if column in subject.schema.names else ""


_ASKED = (
    'SELECT * FROM catalog WHERE flags = 0 AND "primary"',
    "SELECT * FROM failures",
    "SELECT * FROM unplaced",
)
"""SQL of the commands of `next_steps`."""


def _ends(names: Sequence[str], end: str) -> bool:
    return any(name == end or name.endswith(f"_{end}") for name in names)
