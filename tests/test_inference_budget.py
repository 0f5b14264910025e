"""Reading ahead within a budget of bytes: never more at once, nothing stuck, the same rows."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.inference import budget as budgets
from astroml_plugin.inference.budget import ByteBudget
from tests import universe
from tests.test_infer import assert_same, rows
from workflows.infer import infer


def test_no_more_is_held_than_the_budget_and_a_large_unit_goes_in_alone() -> None:
    budget, seen = ByteBudget(100), []

    def work(size: int) -> None:
        for _ in range(20):
            with budget.holding(size):
                seen.append((size, budget.held))
                time.sleep(0.001)

    threads = [threading.Thread(target=work, args=(size,)) for size in (30, 40, 60, 250)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(seen) == 80
    assert max(held for size, held in seen if size < 250) <= 100
    assert {held for size, held in seen if size == 250} == {250}
    assert max(held for _, held in seen if held < 250) > 60  # several at once
    assert budget.held == 0


def test_a_failing_unit_gives_its_bytes_back() -> None:
    budget = ByteBudget(10)
    with pytest.raises(ValueError, match="bad unit"), budget.holding(10):
        raise ValueError("bad unit")
    assert budget.held == 0


def test_workers_of_a_host_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "MEMORY_LIMIT", 8 * 10**9)
    budgets.share_host(4)
    assert budgets.budget(None).limit <= 10**9
    budgets.share_host(1)
    assert budgets.budget(5).limit == 5


def test_a_run_with_room_for_one_unit_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = universe.make_survey(str(tmp_path / "survey.zarr"))
    settings = {
        "bundle": universe.make_bundle(str(tmp_path / "kind")),
        "objects": universe.make_objects(tmp_path / "objects.parquet"),
    }
    infer(survey.url, out=str(tmp_path / "free"), threads=2, **settings)
    highest = []
    holding = ByteBudget.holding

    def noted(self: ByteBudget, count: int) -> object:
        highest.append(self.held)
        return holding(self, count)

    monkeypatch.setattr(ByteBudget, "holding", noted)
    monkeypatch.setattr("astroml_plugin.inference.options._LEAST_MEMORY", 1)
    infer(survey.url, out=str(tmp_path / "tight"), threads=2, memory=1, **settings)
    assert max(highest) <= max(info.bytes for info in survey.iter_tiles())
    assert_same(rows(tmp_path / "free"), rows(tmp_path / "tight"))
    with pytest.raises(InputError, match="hold no unit"):
        infer(survey.url, out=str(tmp_path / "none"), memory=0, **settings)
