"""The guard against a slower engine: what counts as slower, and CPU time by stage."""

from __future__ import annotations

import sys
import time

from benchmarks.canaries import CpuMeter, cpu_of, ratios
from benchmarks.quick import Measured, report, suspects

THEN = {
    "lens: forward": Measured(0.98, 1.0, 1.02, 0.1),
    "lens: write": Measured(0.001, 0.001, 0.001, 0.0001),
    "query": Measured(1.9, 2.0, 2.1, 0.2),
}


def _now(**changes: Measured) -> dict[str, Measured]:
    return THEN | {name.replace("_", ": "): value for name, value in changes.items()}


def test_nothing_is_suspected_of_equal_values() -> None:
    assert suspects(THEN, THEN) == []


def test_slower_is_more_than_a_share_and_out_of_the_scatter() -> None:
    assert suspects(_now(lens_forward=Measured(1.2, 1.25, 1.3, 0.1)), THEN) == ["lens: forward"]
    assert suspects(_now(lens_forward=Measured(1.05, 1.1, 1.12, 0.1)), THEN) == [], "10 %"
    assert suspects(_now(query=Measured(2.0, 2.5, 3.0, 0.2)), THEN) == [], "its own scatter reaches the accepted one"
    assert suspects(_now(lens_forward=Measured(0.1, 0.1, 0.1, 0.1)), THEN) == [], "faster"


def test_a_part_that_costs_nothing_is_not_judged() -> None:
    assert suspects(_now(lens_write=Measured(0.002, 0.002, 0.002, 0.0002)), THEN) == []
    assert suspects(_now(lens_write=Measured(0.2, 0.2, 0.2, 0.02)), THEN) == ["lens: write"]


def test_the_report_names_new_gone_and_slower() -> None:
    now = {"query": Measured(4, 4, 4, 0.4), "ingest": Measured(1, 1, 1, 0.1)}
    lines = report(now, THEN).splitlines()
    assert any(line.startswith("| query |") and "+100% **slower**" in line for line in lines)
    assert any(line.startswith("| ingest |") and line.endswith("| new |") for line in lines)
    assert any(line.startswith("| lens: forward |") and line.endswith("| gone |") for line in lines)


def test_cpu_meters_do_not_count_waiting() -> None:
    meter = CpuMeter()
    with meter.stage("read"):
        time.sleep(0.3)
    made = (sum(range(number)) for number in (2_000_000, 1))
    assert len(list(meter.each("prepare", made))) == 2
    assert meter.seconds.get("read", 0.0) < meter.seconds["prepare"] + 0.2


def test_ratios_name_arms_and_parts() -> None:
    seconds, over, canaries = ratios({"a": lambda: {"": 1.0}, "b": lambda: {"x": 2.0, "y": 3.0}}, 2)
    assert {name: len(values) for name, values in over.items()} == {"a": 2, "b: x": 2, "b: y": 2}
    assert seconds["b: y"] == [3.0, 3.0]
    assert len(canaries) == 4
    assert all(value > 0 for value in canaries)


def test_cpu_of_a_command_counts_its_children() -> None:
    burn = "sum(i * i for i in range(3_000_000))"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}], check=True)"
    assert cpu_of([sys.executable, "-c", child]) > 2 * cpu_of([sys.executable, "-c", "pass"])
