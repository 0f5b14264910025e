"""The bundle `anomaly` on scenes it never saw, turned, moved, blurred and dimmed; and the command that makes it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astroml_plugin.catalog import Catalog
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.evaluation.ranking_metrics import auroc
from astroml_plugin.simulation import AnomalySet
from astroml_plugin.training import bundle as bundles
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns
from bundles import anomaly as making
from tests.anomaly_robustness import changes
from tests.anomaly_samples import population
from tests.training_samples import write_stamps
from workflows.infer import infer
from workflows.query import query

torch.set_num_threads(1)


def test_it_ships_within_its_size() -> None:
    assert "anomaly" in bundles.shipped()
    folder = Path(bundles.locate("anomaly"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 2**20
    told = (folder / "README.md").read_text()
    assert "python -m bundles anomaly" in told
    task = ModelBundle.load("anomaly").task()
    assert task.bands == ("g", "r", "i")
    assert task.settings.any_dtype
    assert set(task.settings.tails) >= {"foreign", "reconstruction", "asymmetry", "line"}


@pytest.fixture(scope="module")
def odd() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Kinds and columns of fresh scenes, six in ten ordinary."""
    pytest.importorskip("galsim")
    scenes = AnomalySet(240, seed=985, block=240, anomaly_fraction=0.4, merger=0.5, lens=0.0, ring=0.2, trail=0.3)
    block, model = scenes.make(0), ModelBundle.load("anomaly")
    given = from_stamps(block.image, block.variance, None, bands=("g", "r", "i"), pixel_scale=0.2)
    return np.array(block.table["kind"].to_pylist()), columns(model.task(), model.network(fused=True), given)


def test_it_finds_anomalies_among_fresh_galaxies(odd: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    kind, found = odd
    score = found["anomaly_score"]
    assert np.isfinite(score).all()
    assert len(np.unique(score)) == len(score)
    assert auroc(score, kind != "normal") > 0.82
    for one in ("merger", "trail"):
        chosen = (kind == "normal") | (kind == one)
        assert auroc(score[chosen], kind[chosen] == one) > 0.85, one


def test_artefacts_are_told_from_objects(odd: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    kind, found = odd
    assert np.mean(found["artefact"][kind == "normal"] == "none") > 0.9
    assert np.mean(found["artefact"][kind == "merger"] == "none") > 0.8
    assert np.mean(found["artefact"][kind == "trail"] == "trail") > 0.3


@pytest.mark.slow
def test_what_does_not_matter_changes_little() -> None:
    pytest.importorskip("galsim")
    for name, change in changes(ModelBundle.load("anomaly"), 160).items():
        assert abs(change["median"]) < 5, name
        assert change["spearman"] > (0.7 if "S/N" in name and "mag" not in name else 0.9), name


def test_eight_bit_pictures_without_psf_variance_or_position(tmp_path: Path) -> None:
    image, _ = population(48, seed=1, size=64)
    pixels = np.clip(20 + 3 * np.arcsinh((np.concatenate([image, image[:, :1]], axis=1) - 100) / 5), 0, 255)
    url = write_stamps(str(tmp_path / "pictures.zarr"), pixels.astype(np.uint8), {}, bands=("g", "r", "i"))
    result = infer(url, bundle="anomaly", out=str(tmp_path / "catalog"))
    assert (result.rows, result.units_failed) == (48, 0)
    assert "anomaly_score" in Catalog.open(result.catalog).schema.names
    scores = query(result.catalog, "SELECT anomaly_score FROM catalog").to_arrow()["anomaly_score"].to_numpy()
    assert np.isfinite(scores).all()


@pytest.mark.slow
def test_the_command_makes_a_bundle(tmp_path: Path) -> None:
    pytest.importorskip("galsim")
    pytest.importorskip("lenstronomy")
    recipe = making.anomaly_recipe()
    small = replace(
        recipe,
        training=replace(recipe.training, epochs=1),
        network_arguments={"widths": [4, 8], "judge": [1, 2]},
        split=replace(recipe.split, fractions=(0.8, 0.1, 0.1)),
    )
    options = {"scratch": str(tmp_path / "data"), "scale": 0.03, "recipe": small}
    made = making.make(out=str(tmp_path / "anomaly"), **options)
    assert made.task().settings.score.knots
    assert making.make(out=str(tmp_path / "again"), **options).card.weights_sha256 == made.card.weights_sha256
