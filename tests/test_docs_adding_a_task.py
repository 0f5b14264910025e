"""The page on adding a task is true: its files are installed as a package would be, trained, evaluated and used."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import SIZE, write_stamps

from astroml_plugin.cutouts import from_stamps
from astroml_plugin.training.bundle import ModelBundle

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


def test_the_page_works(installed: Path) -> None:
    rng = np.random.default_rng(0)
    radius = rng.uniform(1.5, 5, 300)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    image = np.exp(-0.5 * (x**2 + y**2) * (1.1774 / radius[:, None, None]) ** 2)
    image = (100 * image + rng.normal(size=image.shape))[:, None].astype(np.float32)
    source = write_stamps(str(installed / "stamps.zarr"), image, {"half_light_radius": radius})
    trained, evaluated = importlib.import_module("run").run(installed / "size.toml", source, str(installed))
    assert trained.epochs == 6
    assert evaluated.metrics["rms_relative"] < 0.3
    model = ModelBundle.load(installed / "size")
    task, given = model.task(), from_stamps(image[:8], None, None, bands=("r",))
    inputs, flags = task.prepare(given)
    with torch.inference_mode():
        columns, _ = task.to_columns(model.network()(*inputs), given, flags)
    assert list(columns) == [column.name for column in task.columns()]
    assert np.corrcoef(columns["half_light_radius"], radius[:8])[0, 1] > 0.9
