"""What the long tests of reliability counted, as tests/RELIABILITY.md; the counts are kept beside it as JSON."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from tests.pages import machine, table

PAGE = Path(__file__).with_name("RELIABILITY.md")
COUNTS = Path(__file__).with_name("reliability.json")

SECTIONS = {
    "fuzz": (
        "Inputs of strangers",
        "Each input ended in success or in one sentence with exit status 2: none in a traceback, none took longer than "
        "the deadline or more memory than the bound. `tests/test_fuzz.py` draws them, always the same ones.",
        ("kind", "inputs", "read", "refused in one sentence"),
    ),
    "bit rot": (
        "Single bits that flip",
        "One bit of a file of a small catalog flips, then the catalog is verified and asked. `tests/test_bit_rot.py`.",
        (
            "file",
            "flips",
            "told by verify",
            "without effect on any value",
            "silent to verify",
            "told by query",
            "silent to query",
        ),
    ),
    "crash points": (
        "Processes killed at every step",
        "SIGKILL just before or just after one operation on files, then the same command again; the result is compared "
        "with that of an undisturbed run. `tests/test_crash_points.py`.",
        ("command", "operations", "points tried", "killed there", "rows lost", "doubled", "changed", "ended badly"),
    ),
    "other user": (
        "Another user of the machine",
        "A process of another user, which knows all addresses, against every server that is started here. "
        "`tests/test_other_user.py`.",
        ("server", "listens on", "attempts", "reached code, pixels or scores"),
    ),
}
"""Section -> title, text, head of its table."""


def keep(section: str, rows: Sequence[Sequence[Any]]) -> None:
    """Replace the rows of a section that have the same first cell, add the others, and write the page anew."""
    with COUNTS.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        counts: dict[str, Any] = json.loads(text) if text else {}
        held = counts.setdefault(section, {})
        held |= {str(row[0]): list(row[1:]) for row in rows}
        counts["machine"] = f"{date.today():%Y-%m-%d}, {machine()}"
        file.truncate(0)
        file.write(json.dumps(counts, indent=1, sort_keys=True) + "\n")
        PAGE.write_text(page(counts))


def page(counts: dict[str, Any]) -> str:
    """The page in Markdown."""
    parts = ["# Reliability and security, counted", f"`make test-all` writes this page. Last: {counts['machine']}."]
    for section, (title, text, head) in SECTIONS.items():
        if section in counts:
            rows = [[name, *cells] for name, cells in sorted(counts[section].items())]
            sums = [sum(column) if all(isinstance(cell, int) for cell in column) else "" for column in zip(*rows)][1:]
            shown = [
                [f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in [*rows, ["all", *sums]]
            ]
            parts += [f"## {title}", text, table(head, shown)]
    return "\n\n".join(parts) + "\n"
