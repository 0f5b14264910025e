"""The page on adding a task is true: its files are installed as a package would be, trained, evaluated and used."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import SIZE, write_stamps

from astroml_plugin.cutouts import from_stamps
from astroml_plugin.training.bundle import ModelBundle
from workflows.compare import compare
from workflows.learning_curve import learning_curve

torch.set_num_threads(1)
PAGE = Path(__file__).parents[1] / "docs" / "adding_a_task.md"
MODULES = ("size_task", "size_network", "run")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files on the path, its entry points beside them as an installer writes them."""
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    points = ""
    for block in blocks:
        name = re.match(r"# file: (\S+)\n", block)
        if name:
            (tmp_path / name[1]).write_text(block)
        else:
            points += re.sub(r'\[project\.entry-points\."(.+?)"\]', r"[\1]", block).replace('"', "")
    metadata = tmp_path / "size_example-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: size-example\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in MODULES:
        sys.modules.pop(module, None)


def sizes(folder: Path) -> tuple[str, np.ndarray, np.ndarray]:
    """Stamps of round Gaussians with their half-light radii; pixels and radii."""
    rng = np.random.default_rng(0)
    radius = rng.uniform(1.5, 5, 300)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    image = np.exp(-0.5 * (x**2 + y**2) * (1.1774 / radius[:, None, None]) ** 2)
    image = (100 * image + rng.normal(size=image.shape))[:, None].astype(np.float32)
    source = write_stamps(str(folder / "stamps.zarr"), image, {"half_light_radius": radius})
    return source, image, radius


def test_the_page_works(installed: Path) -> None:
    source, image, radius = sizes(installed)
    trained, evaluated = importlib.import_module("run").run(installed / "size.toml", source, str(installed))
    assert trained.epochs == 6
    assert evaluated.metrics["rms_relative"] < 0.3
    errors = evaluated.metrics["catalog"]["columns"]["half_light_radius"]
    for name in ("rmse", "bias", "nmad", "outlier_fraction", "coverage_683"):
        assert errors[name]["low"] <= errors[name]["value"] <= errors[name]["high"]
    assert "residuals.png" in evaluated.figures
    assert (installed / "figures" / "residuals.png").read_bytes().startswith(b"\x89PNG")
    assert not {"prior", "symmetries", "accuracy"} & set(
        json.loads((installed / "figures" / "metrics.json").read_text())
    )
    model = ModelBundle.load(installed / "size")
    task, given = model.task(), from_stamps(image[:8], None, None, bands=("r",))
    inputs, flags = task.prepare(given)
    with torch.inference_mode():
        columns, _ = task.to_columns(model.network()(*inputs), given, flags)
    assert list(columns) == [column.name for column in task.columns()]
    assert np.corrcoef(columns["half_light_radius"], radius[:8])[0, 1] > 0.9


def test_its_task_is_compared_and_has_a_learning_curve(installed: Path) -> None:
    source, _, radius = sizes(installed)
    result = compare(installed / "size.toml", data=source, out=installed / "compared", folds=2, repeats=50)
    assert (result.objects, [line["method"] for line in result.table]) == (300, ["network"])
    rmse = result.table[0]["rmse"]
    assert rmse["low"] < rmse["value"] < rmse["high"] < radius.std()
    curve = learning_curve(installed / "size.toml", data=source, out=installed / "curve", sizes=[40, 80, 160], seeds=1)
    assert curve.metric == "rmse"
    assert curve.answers["network"].startswith("network: to reach rmse")
