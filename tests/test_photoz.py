"""A photo-z plug-in costs three files and 95 lines, and every verb knows it without a line of the package touched."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from plugin_projects import Installed

PROJECT = Path(__file__).with_name("photoz")


@pytest.mark.slow
def test_photometric_redshifts_from_three_small_files(tmp_path: Path) -> None:
    files = [file for file in PROJECT.iterdir() if file.is_file()]
    assert len(files) <= 3
    assert sum(len(file.read_text().splitlines()) for file in files) <= 95
    project = tmp_path / "project"
    project.mkdir()
    for file in files:
        shutil.copy(file, project)
    installed = Installed.by_pip(project, tmp_path / "site")
    z = write_galaxies(project / "stamps.npz")
    installed.run("astroml-plugin ingest stamps.npz --out stamps.zarr")
    installed.run("astroml-plugin train photoz.toml --data stamps.zarr --out photoz")
    installed.run("astroml-plugin evaluate stamps.zarr --bundle photoz --out figures")
    installed.run("astroml-plugin infer stamps.zarr --bundle photoz --out catalog")
    installed.run(
        'astroml-plugin query catalog "SELECT object_id, z, z_err, p_z, p_z[1] AS first FROM catalog" --to z.parquet'
    )
    installed.run("astroml-plugin compare photoz.toml --data stamps.zarr --out compared --folds 2")
    metrics = json.loads((project / "figures" / "metrics.json").read_text())
    assert "prior" not in metrics
    assert "symmetries" not in metrics
    rows = pq.read_table(project / "z.parquet").sort_by("object_id")
    p = np.stack(rows["p_z"].to_pylist())
    assert p.shape == (len(z), 12)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(p[:, 0].astype(np.float32), rows["first"].to_numpy())
    assert np.corrcoef(rows["z"].to_numpy(), z)[0, 1] > 0.9
    table = json.loads((project / "compared" / "compare.json").read_text())["table"]
    assert 0 < table[0]["nmad"]["value"] < 0.1


def write_galaxies(file: Path, count: int = 360, size: int = 16) -> np.ndarray:
    """An archive of galaxies in three bands whose colours follow their redshifts, which are returned (count,)."""
    rng = np.random.default_rng(1)
    z = rng.uniform(0.02, 0.58, count)
    y, x = np.mgrid[:size, :size] - size // 2
    light = 1000 * np.exp(-0.5 * (x**2 + y**2) / 4)
    colours = np.stack([1 - 1.2 * z, 0.4 + 0 * z, 0.2 + 1.2 * z], axis=1)
    image = colours[:, :, None, None] * light * rng.uniform(0.5, 2, (count, 1, 1, 1))
    image = (image + rng.normal(0, 3, image.shape)).astype(np.float32)
    np.savez(file, images=image, z=z, object_id=np.arange(count), bands=np.array(["g", "r", "i"]))
    return z
