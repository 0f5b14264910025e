"""What a person sees of a search while it runs."""

from __future__ import annotations

import io
import math

import pytest

from astroml_plugin.search.study import Trial
from astroml_plugin.search.tuning import SearchProgress
from workflows import progress
from workflows.progress import Reporter, search_rows


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def standing(epochs: int, fraction: float | None, best: Trial | None = None, failed: int = 0) -> SearchProgress:
    ended = {"finished": 1, "stopped": 4, "failed": failed}
    value = math.nan if best is None else -1.23456789
    return SearchProgress(ended, [(7, 3), (9, 0)], best, "validation_loss", value, 10, epochs, fraction, 754.0)


def test_rows_say_what_is_best_runs_was_stopped_and_is_left() -> None:
    assert search_rows(standing(41, 0.5, Trial(5, {}))) == [
        ("best", "validation_loss -1.2346 in trial 5"),
        ("running", "7 (epoch 3), 9 (epoch 0)"),
        ("finished", "1"),
        ("stopped", "4"),
        ("epochs", "41"),
        ("left", "about 13 min"),
    ]
    rows = dict(search_rows(standing(1, None, failed=2)))
    assert (rows["best"], rows["failed"]) == ("none yet", "2")


def test_a_terminal_shows_a_table_that_is_redrawn() -> None:
    shown = Terminal()
    with Reporter(shown) as report:
        report.search(standing(41, 0.5))
        first = shown.getvalue()
        report.search(standing(42, 0.6, Trial(5, {})))
    assert "none yet" in first
    after = shown.getvalue().removeprefix(first)
    assert "validation_loss -1.2346 in trial 5" in after
    assert "\x1b[1A" in after  # the cursor went up: the table was drawn over


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    with Reporter(log) as report:
        for epochs in range(5):
            report.search(standing(epochs, 0.5))
            now[0] += 4
        report.search(standing(99, 1.0))
    lines = log.getvalue().splitlines()
    assert [line.partition("epochs ")[2].partition(",")[0] for line in lines] == ["0", "3", "99"]
    assert lines[0].startswith("search: best none yet, running 7 (epoch 3), 9 (epoch 0), finished 1, stopped 4")
