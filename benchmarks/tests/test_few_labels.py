"""How many labels pretraining saves, from two curves of scores."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.few_labels import LABELS, labels_saved


def test_labels_saved_are_read_off_the_other_curve() -> None:
    plain = np.array([0.6, 0.7, 0.8, 0.9])
    assert labels_saved(LABELS, plain, 0.7, 0) == pytest.approx(LABELS[1] / LABELS[0])
    assert labels_saved(LABELS, plain, 0.85, 1) == pytest.approx(np.sqrt(LABELS[2] * LABELS[3]) / LABELS[1])
    assert labels_saved(LABELS, plain, 0.95, 0) == pytest.approx(LABELS[3] / LABELS[0])  # no more was tried
    assert labels_saved(LABELS, plain, 0.5, 2) == pytest.approx(LABELS[0] / LABELS[2])  # none saved, some lost


def test_a_score_that_falls_by_chance_counts_as_reached_before() -> None:
    plain = np.array([0.6, 0.8, 0.79, 0.9])
    assert labels_saved(LABELS, plain, 0.8, 0) == pytest.approx(LABELS[1] / LABELS[0])
