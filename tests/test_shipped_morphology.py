"""The bundle `morphology`: ships small, takes plain uint8 pictures, and the command that makes it works on a few."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astroml_plugin.catalog import Catalog
from astroml_plugin.training import bundle as bundles
from astroml_plugin.training.bundle import ModelBundle
from bundles import morphology as making
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.query import query
from workflows.recipe import read_recipe

torch.set_num_threads(1)


def pictures(folder: Path, count: int, seed: int = 0) -> Path:
    """An archive like Galaxy Zoo's: round, spiral-ish (off-centre knots) and edge-on blobs, uint8, channel last."""
    rng = np.random.default_rng(seed)
    label = np.resize([0, 1, 3, 2, 4, 5], count)
    y, x = np.mgrid[:64, :64] - 32.0
    images = np.empty((count, 64, 64, 3))
    for number, kind in enumerate(label):
        turn = rng.uniform(0, np.pi)
        along, across = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
        width = {3: 2.0, 0: 6.0}.get(int(kind), 5.0)
        light = 160 * np.exp(-0.5 * ((along / 6) ** 2 + (across / width) ** 2))
        if kind in (1, 2):
            light += 90 * np.exp(-0.5 * (((along - 9) / 2) ** 2 + ((across - 4) / 2) ** 2))
        images[number] = light[..., None] * (1.0, 0.9, 0.8) + rng.normal(8, 2, (64, 64, 3))
    objid = np.array([str(588848900000000000 + number) for number in range(count)])
    np.savez(folder / "gz.npz", x=np.clip(images, 0, 255).astype(np.uint8), y=label, objid=objid)
    return folder / "gz.npz"


def test_it_ships_within_its_size_and_says_where_it_is_from() -> None:
    assert "morphology" in bundles.shipped()
    folder = Path(bundles.locate("morphology"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 2**20
    model = ModelBundle.load("morphology")
    assert model.card.metrics["cross_validation"]["folds"] == making.FOLDS
    known = model.known_objects()
    assert known is not None
    assert len(known.pixels) == sum(model.card.training["objects"][name] for name in ("train", "validation"))
    told = (folder / "README.md").read_text()
    assert "Galaxy Zoo" in told
    assert "SDSS" in told
    task = model.task()
    assert [column.name for column in task.columns()] == ["p_elliptical", "p_spiral", "p_edge_on", "p_arms", "label"]
    assert task.bands == ("R", "G", "B")
    assert task.settings.dtype == "uint8"


def test_pictures_without_psf_variance_or_position_become_a_catalog(tmp_path: Path) -> None:
    archive = pictures(tmp_path, 24)
    options = {"npz_map": "images=x,label=y,object_id=objid", "layout": "nyxc", "bands": "R,G,B"}
    source = ingest([str(archive)], out=str(tmp_path / "gz.zarr"), **options).source
    result = infer(source, bundle="morphology", out=str(tmp_path / "catalog"))
    assert (result.rows, result.units_failed) == (24, 0)
    names = Catalog.open(result.catalog).schema.names
    own = ["p_elliptical", "p_spiral", "p_edge_on", "p_arms", "label"]
    assert [name for name in names if name.startswith("p_") or name == "label"] == own
    table = query(result.catalog, "SELECT * FROM catalog ORDER BY object_id").to_arrow()
    assert table["object_id"][0].as_py() == 588848900000000000
    total = sum(table[name].to_numpy() for name in own[:3])
    np.testing.assert_allclose(total, 1.0, atol=1e-5)
    assert set(table["label"].to_pylist()) <= {"elliptical", "spiral", "edge_on"}


@pytest.mark.shared_data
def test_real_galaxies(tmp_path: Path, shared_data: Path) -> None:
    """Most of these were trained on: it shows that the road is right, not how good the network is."""
    source = making.ingested(str(shared_data / "gz1_sdss_rgb64_dev.npz"), str(tmp_path))
    result = infer(source, bundle="morphology", out=str(tmp_path / "catalog"))
    from astroml_plugin.sources.stamps import Stamps

    found = query(result.catalog, "SELECT object_id, label FROM catalog").to_arrow().to_pandas()
    truth = Stamps.open(source).labels().to_pandas()[["object_id", "label"]].rename(columns={"label": "zoo"})
    both = found.merge(truth, on="object_id")
    both = both[both.zoo < 4]
    names = {0: "elliptical", 1: "spiral", 2: "spiral", 3: "edge_on"}
    right = both.label == both.zoo.map(names)
    assert right.mean() > 0.85
    assert right.groupby(both.zoo.map(names)).mean().mean() > 0.78


@pytest.mark.slow
def test_the_command_makes_a_bundle(tmp_path: Path) -> None:
    recipe = read_recipe("morphology")
    small = replace(
        recipe,
        training=replace(recipe.training, epochs=2),
        network_arguments={**recipe.network_arguments, "widths": [8, 8, 8]},
        split=replace(recipe.split, fractions=(0.6, 0.2, 0.2)),
    )
    made = making.make(
        out=str(tmp_path / "morphology"),
        scratch=str(tmp_path / "data"),
        images=str(pictures(tmp_path, 240)),
        folds=2,
        recipe=small,
    )
    assert made.card.metrics["cross_validation"]["objects"] == 160
    assert made.task().settings.classes == ("elliptical", "spiral", "edge_on")
