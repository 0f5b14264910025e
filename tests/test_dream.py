"""Pictures of what a network has learned: of numbers, filters and feature maps, for bundles of several kinds."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from astroml_plugin.core.errors import InputError
from tests import planted, universe
from workflows.cli import main
from workflows.dream import dream, show

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stamps with a planted mark, and a bundle that has learned it."""
    folder = tmp_path_factory.mktemp("marked")
    planted.store(str(folder / "stamps.zarr"), "corner")
    planted.bundle(str(folder / "marks"), "corner")
    return folder


def _picture(file: str) -> np.ndarray:
    return matplotlib.image.imread(file)[..., :3]


def test_numbers_filters_and_maps_are_drawn(marked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = marked / "dreams"
    words = ["dream", str(marked / "marks"), "--data", str(marked / "stamps.zarr"), "--out", str(out)]
    assert main([*words, "--steps", "12", "--rate", "0.05", "--channels", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [Path(one).name for one in found["files"]] == ["numbers.png", "filters.png", "feature_maps.png"]
    assert set(found["numbers"]) == {"logit_plain", "logit_marked"}  # not their probabilities, not `called`
    assert all(after > before + 1 for before, after in found["numbers"].values())
    assert found["numbers"]["logit_plain"][0] == pytest.approx(-found["numbers"]["logit_marked"][0], abs=1e-4)
    assert len(found["layers"]) == 3  # it has no more
    for file in found["files"]:
        picture = _picture(file)
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 0.05
    assert main([*words, "--steps", "2", "--numbers", "logit_marked", "--layers", found["layers"][0]]) == 0
    said = capsys.readouterr().out
    assert "logit_marked:" in said
    assert "logit_plain" not in said


def test_a_bundle_is_looked_into_without_data(tmp_path: Path) -> None:
    bundle = universe.make_bundle(str(tmp_path / "shape"), task="ellipticity", psf="required")
    found = dream(bundle, out=tmp_path / "out", steps=3, channels=2)
    assert set(found.numbers) == {"e1", "e2"}
    assert "raised" in show(found)
    assert all(Path(one).exists() for one in found.files)


def test_what_cannot_be_drawn_is_one_sentence(marked: Path) -> None:
    bundle, survey = str(marked / "marks"), str(marked / "survey.zarr")
    universe.make_survey(survey)
    wrong: list[tuple[str, dict[str, object]]] = [
        ("did you mean 'logit_marked'", {"numbers": ("logit_market",)}),
        ("the layers of this network", {"layers": ("nothing",)}),
        ("is a survey: cut stamps", {"data": survey}),
        ("must be 1 or more", {"channels": 0}),
        ("--steps is 0: give 1 or more", {"steps": 0}),
        ("--jitter is -1: give 0 or more", {"jitter": -1}),
        ("a dream needs a rate", {"rate": float("nan")}),
    ]
    for said, options in wrong:
        with pytest.raises(InputError, match=said):
            dream(bundle, out=marked / "none", **options)
    assert not (marked / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lens", "segmentation", "anomaly", "morphology", "ellipticity"])
def test_shipped_bundles_are_looked_into(name: str, tmp_path: Path) -> None:
    found = dream(name, out=tmp_path, steps=2, channels=2, objects=1)
    assert found.numbers
    assert len(found.files) == (3 if found.layers else 1)
