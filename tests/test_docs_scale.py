"""The page on large runs calculates right, and its rates are those of the results page to a quarter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scale.md").read_text()
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text()
TILES = 18_000 / (3000 * 0.2 / 3600) ** 2
PIXELS, GALAXIES = (3000 + 2 * 128) ** 2 / 1e6, 20e9 / TILES


def numbers(cell: str) -> float:
    return float(re.search(r"[\d.,]+", cell)[0].replace(",", ""))


def rows() -> dict[str, list[float]]:
    """First word of the work -> amount, rate, core-seconds, core-hours of 100,000 tiles and of LSST."""
    found = re.findall(r"^\| (\w+) [^|]*\|([^|]*(?:Mpix|objects) \|.*)\|$", PAGE, re.MULTILINE)
    return {name: [numbers(cell) for cell in cells.split("|")] for name, cells in found}


def test_core_hours_follow_from_amounts_and_rates() -> None:
    table = rows()
    assert list(table) == ["read", "find", "shapes", "classes", "strong", "odd"]
    amounts = {"read": 6 * PIXELS, "find": PIXELS}
    for name, (amount, rate, seconds, many, all_) in table.items():
        assert amount == pytest.approx(amounts.get(name, GALAXIES), rel=2e-3)
        exact = amounts.get(name, GALAXIES) / rate
        assert (seconds, many, all_) == pytest.approx((exact, exact * 1e5 / 3600, exact * TILES / 3600), rel=2e-2)
    seconds, many, all_ = (sum(row[column] for row in table.values()) for column in (2, 3, 4))
    told = re.search(
        r"All of it: (\d+) core-seconds per tile, ([\d,]+) core-hours for 100,000 tiles, ([\d,]+) for LSST", PAGE
    )
    assert [numbers(word) for word in told.groups()] == pytest.approx([seconds, many, all_], rel=5e-3, abs=0.6)
    assert f"{100 * seconds / 8 / 60:.0f} minutes" in PAGE
    assert f"LSST in {all_ / 1000:.0f} hours" in PAGE
    assert f"{TILES:,.0f} tiles" in PAGE


@pytest.mark.parametrize(
    ("bundle", "of_table"),
    [
        ("segmentation", "find"),
        ("ellipticity", "shapes"),
        ("morphology", "classes"),
        ("lens", "strong"),
        ("anomaly", "odd"),
    ],
)
def test_rates_are_those_that_were_measured(bundle: str, of_table: str) -> None:
    part = RESULTS.split("\n## Rates of the shipped bundles\n")[1].split("\n## ")[0]
    on_two_cores = float(re.search(rf"\n\| {bundle} \| ([\d.]+)", part)[1])
    assert on_two_cores / 2 == pytest.approx(rows()[of_table][1], rel=0.25)


def test_the_rate_of_reading_follows_from_measured_times() -> None:
    decoded = RESULTS.split("\n### ResNet-18, 480 objects a tile\n")[1].split("\n### ")[0]
    seconds = float(re.search(r"decode alone, core-s \| ([\d.]+)", decoded)[1])
    assert 16 * 3 * 1024**2 / 1e6 / seconds == pytest.approx(rows()["read"][1], rel=0.25)
