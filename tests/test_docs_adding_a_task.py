"""The page on adding a task is true: pip installs its project, and each command on it runs."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from plugin_projects import Installed

SIZE = 24
PAGE = Path(__file__).parents[1] / "docs" / "adding_a_task.md"


@pytest.mark.slow
def test_the_page_works(tmp_path: Path) -> None:
    text = PAGE.read_text()
    project = tmp_path / "project"
    project.mkdir()
    for block in re.findall(r"```(?:python|toml)\n(.*?)```", text, re.DOTALL):
        (project / re.match(r"# file: (\S+)\n", block)[1]).write_text(block)
    assert {file.name for file in project.iterdir()} == {
        "pyproject.toml",
        "size_task.py",
        "size_network.py",
        "size.toml",
    }
    install, *commands = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1].splitlines()
    assert install == "pip install ."
    assert [command.split()[1] for command in commands] == ["ingest", "train", "evaluate", "infer", "query", "compare"]
    installed = Installed.by_pip(project, tmp_path / "site")
    radius = write_galaxies(project / "stamps.npz")
    for command in commands:
        installed.run(command)
    metrics = json.loads((project / "size-figures" / "metrics.json").read_text())
    assert metrics["metrics"]["rms_relative"] < 0.3
    rows = pq.read_table(project / "radii.parquet").sort_by("object_id").to_pandas()
    assert len(rows) == len(radius)
    assert np.corrcoef(rows["half_light_radius"], radius[rows["object_id"]])[0, 1] > 0.9
    table = json.loads((project / "size-compare" / "compare.json").read_text())["table"]
    found = {row["method"]: row["rmse"]["value"] for row in table}
    assert sorted(found) == ["gradient_boosting", "linear", "mlp", "network", "random_forest", "svm"]
    assert 0 < found["network"] < radius.std()


def write_galaxies(file: Path, count: int = 300) -> np.ndarray:
    """An archive of round galaxies with their half-light radii, which are returned (count,)."""
    rng = np.random.default_rng(0)
    radius = rng.uniform(1.5, 5, count)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    image = np.exp(-0.5 * (x**2 + y**2) * (1.1774 / radius[:, None, None]) ** 2)
    image = (100 * image + rng.normal(size=image.shape))[:, None].astype(np.float32)
    np.savez(file, images=image, half_light_radius=radius, object_id=np.arange(count), bands=np.array(["r"]))
    return radius
