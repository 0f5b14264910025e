"""The rule that chooses the weights of signs: it finds the sign that tells, and no id decides and judges."""

import numpy as np
import pytest

from astroml_plugin.tasks.anomaly.signs import SIGNS
from benchmarks import picture_weights


def test_the_sign_that_tells_gets_the_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_weights, "_SAMPLES", 3)
    random = np.random.default_rng(0)
    odd = np.arange(300) < 20
    tails = {name: np.zeros(300) for name in SIGNS}
    tails["line"] = random.exponential(size=300)
    tails["asymmetry"] = random.exponential(size=300) + 2 * odd
    found = picture_weights.chosen(tails, odd)
    assert set(found) == set(SIGNS)
    assert found["asymmetry"] > found["line"]
    assert found["critic"] == 0


def test_half_of_the_pictures_decide() -> None:
    ids = np.arange(587722952767439450, 587722952767439470)
    assert picture_weights.deciding(ids).sum() == 10
