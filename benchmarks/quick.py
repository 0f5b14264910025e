"""Has the engine become slower? CPU time of each stage against accepted values: `make bench-quick`, three minutes."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.canaries import quartiles, ratios
from benchmarks.quick_arms import arms
from tests.pages import machine, table

REPEATS = 7
MORE = 0.15
"""Share by which a median must have grown."""
SHARE = 0.01
"""A part that costs less than this share of its group is shown, and not judged."""
ACCEPTED = Path(__file__).with_name("quick.json")


@dataclass(frozen=True)
class Measured:
    """CPU time of one thing, in canaries: quartiles over the rounds."""

    low: float
    median: float
    high: float
    seconds: float
    """Median CPU seconds, as measured."""

    @staticmethod
    def of(over: list[float], seconds: list[float]) -> Measured:
        """From what each round gave."""
        return Measured(*quartiles(over), float(np.median(seconds)))


def slower(now: Measured, then: Measured) -> bool:
    """Whether it grew by more than 15 % and out of the scatter of both."""
    return now.median > (1 + MORE) * then.median and now.low > then.high


def suspects(now: Mapping[str, Measured], then: Mapping[str, Measured]) -> list[str]:
    """Names of what became slower, of those that both have and that cost enough to matter."""
    groups: dict[str, float] = {}
    for name, one in now.items():
        group = name.partition(":")[0]
        groups[group] = groups.get(group, 0.0) + one.median
    return [
        name
        for name, one in now.items()
        if name in then and one.median >= SHARE * groups[name.partition(":")[0]] and slower(one, then[name])
    ]


def measure(then: Mapping[str, Measured], repeats: int) -> tuple[dict[str, Measured], list[float]]:
    """Every arm in turn; what looks slower than `then` is measured once more, and all its rounds count."""
    chosen = arms()
    seconds, over, canaries = ratios(chosen, repeats)

    def found() -> dict[str, Measured]:
        return {name: Measured.of(over[name], seconds[name]) for name in over}

    again = {name.partition(":")[0] for name in suspects(found(), then)}
    if again:
        more_seconds, more_over, more_canaries = ratios({name: chosen[name] for name in again}, repeats)
        canaries += more_canaries
        for name in more_over:
            seconds[name] += more_seconds[name]
            over[name] += more_over[name]
    return found(), canaries


def report(now: Mapping[str, Measured], then: Mapping[str, Measured]) -> str:
    """A table of all measures beside the accepted ones."""
    bad, rows = suspects(now, then), []
    for name, one in now.items():
        mine = f"{one.median:.3f} ({one.low:.3f} to {one.high:.3f})"
        if name not in then:
            rows.append([name, f"{1e3 * one.seconds:.3f}", mine, "–", "new"])
            continue
        change = one.median / then[name].median - 1
        verdict = f"{change:+.0%}" + (" **slower**" if name in bad else "")
        rows.append([name, f"{1e3 * one.seconds:.3f}", mine, f"{then[name].median:.3f}", verdict])
    rows += [[name, "–", "–", f"{one.median:.3f}", "gone"] for name, one in then.items() if name not in now]
    return table(["what", "CPU ms", "in canaries (quartiles)", "accepted", "change"], rows)


def accepted(text: str, place: str) -> dict[str, Measured] | None:
    """The values that were accepted on a machine; None where there are none."""
    entry = json.loads(text).get(place)
    return None if entry is None else {name: Measured(**values) for name, values in entry["values"].items()}


def main() -> int:
    """Measure, print what got slower, and with `--accept` keep the values as those to compare with.

    Returns:
        0: nothing got slower; 1: something did; 2: nothing was accepted on this machine yet.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quick", description=main.__doc__)
    parser.add_argument("--accept", action="store_true", help=f"write the values to {ACCEPTED.name}")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="rounds")
    options = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    text, place = (ACCEPTED.read_text() if ACCEPTED.exists() else "{}"), machine()
    then = accepted(text, place)
    started = time.monotonic()
    now, canaries = measure({} if options.accept else then or {}, options.repeats)
    print(report(now, then or {}))
    low, middle, high = quartiles(canaries)
    print(f"\nThe canary took {1e3 * middle:.0f} ms of CPU ({1e3 * low:.0f} to {1e3 * high:.0f}).")
    print(f"All of it took {time.monotonic() - started:.0f} s.")
    if options.accept:
        every = json.loads(text) | {place: _entry(now, middle)}
        ACCEPTED.write_text(json.dumps(every, indent=1) + "\n")
        print(f"These values are accepted now: commit {ACCEPTED.name}, and say in the message why they changed.")
        return 0
    if then is None:
        print(f"No values are accepted for this machine ({place}): run `make bench-quick-accept` on main first.")
        return 2
    bad = suspects(now, then)
    print(f"Slower: {', '.join(bad)}." if bad else "Nothing got slower.")
    return 1 if bad else 0


def _entry(now: Mapping[str, Measured], canary: float) -> dict[str, Any]:
    """What is kept for a machine."""
    rounded = {
        name: {field: float(f"{value:.4g}") for field, value in asdict(one).items()} for name, one in now.items()
    }
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": told.stdout.strip(),
        "torch": version("torch"),
        "canary": round(canary, 4),
        "values": rounded,
    }


if __name__ == "__main__":
    sys.exit(main())
