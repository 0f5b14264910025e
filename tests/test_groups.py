"""Units that travel together: how many, in which order, and that none is lost or done twice."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from distributed import Client

from astroml_plugin.compute.cluster import WorkerDiedError, connect, groups, run_window, watching, window
from astroml_plugin.compute.cluster.groups import LARGEST, RATE, TARGET, Answer, Line, in_lane

POISON = 77


def answers(seconds: float, count: int = 1) -> list[Answer]:
    return [Answer(None, None, seconds)] * count


def test_units_of_unknown_length_travel_alone() -> None:
    line = Line(iter(range(5)))
    assert [line.group(4), line.group(4)] == [(0,), (1,)]
    assert line.taken == 2


@pytest.mark.parametrize(
    ("seconds", "size"), [(TARGET, 1), (TARGET / 1.5, 1), (TARGET / 4, 4), (TARGET / 20.5, 20), (0.0, LARGEST)]
)
def test_groups_take_about_the_same_time(seconds: float, size: int) -> None:
    line = Line(iter(range(1000)))
    line.heard(answers(seconds))
    assert len(line.group(4)) == size


def test_the_mean_follows_the_units() -> None:
    line = Line(iter(range(1000)))
    line.heard(answers(0.0))
    line.heard(answers(10.0, 200))
    assert len(line.group(4)) == 1


@pytest.mark.parametrize("seconds", [0.5, 1.0])
def test_a_large_cluster_gets_no_more_tasks_than_one_scheduler_bears(seconds: float) -> None:
    lanes = 3000
    line = Line(iter(range(10**6)))
    line.heard(answers(seconds))
    assert lanes / (len(line.group(lanes)) * seconds) <= RATE


def test_a_short_timeout_makes_short_tasks() -> None:
    assert Line(iter(()), limit=0.02).seconds(4) == 0.02


def test_the_last_units_are_spread_over_all_lanes() -> None:
    line = Line(iter(range(64)), total=64)
    line.heard(answers(0.0))
    sizes = []
    while group := line.group(4):
        sizes.append(len(group))
    assert sum(sizes) == 64
    assert sizes[0] == 8
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-4:] == [1, 1, 1, 1]


def test_a_slow_source_is_not_waited_for() -> None:
    def slow() -> Iterator[int]:
        for value in range(10):
            time.sleep(TARGET / 3)
            yield value

    line = Line(slow())
    line.heard(answers(0.0))
    assert line.group(4) == (0,)


def test_units_that_come_back_are_next() -> None:
    line = Line(iter(range(10)))
    line.give_back((7, 8))
    line.give_back(())
    line.give_back((5, 6), singly=True)
    assert [line.group(4) for _ in range(4)] == [(7, 8), (5,), (6,), (0,)]


def test_a_task_whose_time_is_over_begins_no_further_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = SimpleNamespace(state=SimpleNamespace(nthreads=4), address="inproc://here", periodic_callbacks={})
    monkeypatch.setattr(groups, "get_worker", lambda: worker)

    def nap(value: int) -> int:
        time.sleep(0.03)
        return -value

    found = in_lane(nap, range(1, 10), 4, 0.03)
    assert 1 < len(found) < 9
    assert [answer.value for answer in found] == [-value for value in range(1, len(found) + 1)]
    assert all(answer.seconds >= 0.03 for answer in found)
    assert len(in_lane(nap, range(3), 4, 0.0)) == 1


def odd_ones_fail(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value


def test_many_short_units_are_few_tasks_and_each_has_its_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks: list[Any] = []
    submit = Client.submit

    def counted(*arguments: Any, **settings: Any) -> Any:
        tasks.append(arguments)
        return submit(*arguments, **settings)

    monkeypatch.setattr(Client, "submit", counted)
    with connect("local", threads=1) as client:
        outcomes = list(run_window(client, odd_ones_fail, range(1000)))
    assert Counter(outcome.item for outcome in outcomes) == Counter(range(1000))
    assert all(outcome.value == outcome.item for outcome in outcomes if outcome.item % 2 == 0)
    assert all(str(outcome.error) == f"{outcome.item} is odd" for outcome in outcomes if outcome.item % 2)
    assert len(tasks) < 100


class LostResult:
    """A future that was finished, and whose result was lost with its worker while it was being fetched."""

    key, status = "task", "finished"

    def result(self, timeout: float) -> Any:
        self.status = "pending"  # Dask would do the task again
        raise TimeoutError


def test_a_result_that_was_lost_on_its_way_is_not_waited_for() -> None:
    future = LostResult()
    held = window._Window(
        cast(Client, None), abs, 2, None, inflight={future: watching.Flight((1, 2), "tcp://gone", 0.0)}
    )
    settled = window._settle(held, future)
    assert (list(settled.outcomes), list(settled.orphans)) == ([], [1, 2])


def once(folder: str, value: int) -> int:
    """A unit that leaves a line when it is done; one of them kills its worker."""
    if value == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    with Path(folder, str(value)).open("a") as file:
        file.write("done\n")
    return value


@pytest.mark.slow
def test_what_was_finished_before_its_worker_died_is_not_done_again(tmp_path: Path) -> None:
    def survived(value: int) -> str | None:
        return "kept" if (tmp_path / str(value)).exists() else None

    with connect("processes", workers=2, threads=1) as client:
        work = partial(once, str(tmp_path))
        outcomes = {outcome.item: outcome for outcome in run_window(client, work, range(120), survived=survived)}
    assert sorted(outcomes) == list(range(120))
    assert isinstance(outcomes.pop(POISON).error, WorkerDiedError)
    assert all(outcome.value in (item, "kept") for item, outcome in outcomes.items())
    kept = [item for item, outcome in outcomes.items() if outcome.value == "kept"]
    assert {(tmp_path / str(item)).read_text() for item in kept} <= {"done\n"}


def test_a_unit_whose_rows_are_there_is_not_tried_again() -> None:
    held = window._Window(cast(Client, None), abs, 2, None)
    assert window._once_more(held, 3, lambda item: f"kept {item}").value == "kept 3"
