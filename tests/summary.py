"""What `make test-all` saw, as tests/RESULTS.md: python -m tests.summary JUNIT.xml…"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tests.pages import machine, table

PAGE = Path(__file__).with_name("RESULTS.md")
LONG = 10.0
"""Seconds from which a test is listed by name."""


@dataclass(frozen=True)
class Test:
    """One test of a run."""

    name: str
    seconds: float
    outcome: str
    """passed, skipped, failed or error."""
    why: str = ""
    """Of what did not pass, in one line."""


def read(path: Path) -> list[Test]:
    """The tests of a JUnit file of pytest."""
    return [_test(case) for case in ElementTree.parse(path).getroot().iter("testcase")]


def _test(case: ElementTree.Element) -> Test:
    name, seconds = f"{case.get('classname')}::{case.get('name')}", float(case.get("time") or 0)
    for tag, outcome in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
        if (found := case.find(tag)) is not None:
            return Test(name, seconds, outcome, " ".join((found.get("message") or "").split())[:200])
    return Test(name, seconds, "passed")


def page(tests: list[Test]) -> str:
    """Markdown: counts, what did not pass and why, what took long."""
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in Counter(t.outcome for t in tests).most_common())
    other = [[t.name, t.outcome, t.why] for t in tests if t.outcome != "passed"]
    long = sorted((t for t in tests if t.outcome == "passed" and t.seconds >= LONG), key=lambda t: -t.seconds)
    parts = [
        "# All tests",
        f"`make test-all`, {date.today():%Y-%m-%d}, {machine()}: {counts}; "
        f"{sum(t.seconds for t in tests):,.0f} s of tests.",
    ]
    if other:
        parts += ["## Not passed", table(["test", "outcome", "reason"], other)]
    if long:
        rows = [[t.name, f"{t.seconds:.0f}"] for t in long]
        parts += [f"## Passed in {LONG:.0f} s or more", table(["test", "s"], rows)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page([test for path in sys.argv[1:] for test in read(Path(path))]))
