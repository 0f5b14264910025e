"""Simulated detections: every kind with its truth, artefacts that look like none of the others, the command."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("galsim")

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping, to_mapping
from astroml_plugin.simulation import DetectionSet, make_design, preset
from astroml_plugin.simulation.artefacts import KINDS
from astroml_plugin.training.recipe import Recipe
from bundles import objects as making
from workflows.recipe import read_recipe

SMALL = DetectionSet(96, seed=3, block=64)


def test_every_kind_has_its_truth() -> None:
    made = SMALL.make(0)
    assert made.image.shape == made.variance.shape == (64, 1, 48, 48)  # type: ignore[union-attr]
    assert np.isfinite(made.image).all()
    table = made.table.to_pandas()
    assert set(table.kind) == set(DetectionSet.CLASSES)
    size = np.hypot(table.e1, table.e2)
    assert (size[table.kind == "edge_on"] > 0.45).all()
    assert (size[table.kind == "late"] < 0.5).all()
    assert (table.sersic_n[table.kind == "early"] > 2.5).all()
    assert table.half_light_radius[table.kind == "star"].isna().all()
    assert (table.artefact.notna() == (table.kind == "artefact")).all()
    snr = table.snr[table.kind != "artefact"]
    assert snr.between(5.9, 401).all()
    assert table.psf_fwhm.between(0.46, 1.2).all()


def test_some_galaxies_are_real(shared_data: Path) -> None:
    catalog = str(shared_data / "cosmos_real26")
    table = replace(SMALL, count=256, block=256, hst=catalog, real=0.5).make(0).table.to_pandas()  # type: ignore[union-attr]
    real = table["class"] == "real"
    shares = {name: float(real[table.kind == name].mean()) for name in DetectionSet.CLASSES}
    assert [name for name, share in shares.items() if share == 0] == ["star", "edge_on", "artefact"]
    assert all(0.2 < shares[name] < 0.8 for name in ("early", "late", "irregular"))
    assert table.e1[real].isna().all()
    with pytest.raises(InputError, match="real galaxies"):
        replace(SMALL, real=1.5)


def test_some_stamps_end_at_a_level() -> None:
    made, whole = SMALL.make(0), replace(SMALL, clipped=0.0).make(0)
    level = np.array(made.table["clip"].to_pylist(), float)
    ends = np.isfinite(level)
    assert 5 <= ends.sum() <= 30
    sigma = SMALL.camera.sky_sigma
    assert ((level[ends] >= 4 * sigma) & (level[ends] <= 400 * sigma)).all()
    highest = made.image.max((1, 2, 3))
    assert (highest[ends] <= level[ends] + 1e-3).all()
    assert np.isnan(np.array(whole.table["clip"].to_pylist(), float)).all()
    cut = np.minimum(whole.image, np.where(ends, level, np.inf)[:, None, None, None].astype(np.float32))
    np.testing.assert_array_equal(made.image, cut)
    with pytest.raises(InputError, match="clipped"):
        DetectionSet(1, clipped=2.0)


def test_blocks_are_made_again_and_differ() -> None:
    once, again, other = SMALL.make(0), SMALL.make(0), SMALL.make(1)
    np.testing.assert_array_equal(once.image, again.image)
    assert len(other.table) == 32
    assert other.table["object_id"].to_pylist() == list(range(64, 96))
    assert not np.array_equal(once.image[:32], other.image)
    assert from_mapping(DetectionSet, to_mapping(SMALL), "here") == SMALL


def test_neighbours_say_nothing_of_the_kind() -> None:
    """Rims of stamps: as much light beside stars as beside artefacts and galaxies that fade out."""
    made = DetectionSet(400, seed=5, block=400, neighbours=200.0, snr=(6.0, 8.0), early=0.3, disk=0.15).make(0)
    kind = np.array(made.table["kind"].to_pylist())
    rim = np.concatenate([made.image[:, 0, :6].reshape(400, -1), made.image[:, 0, -6:].reshape(400, -1)], axis=1)
    bright = rim.max(1) > 25
    quiet = np.array([name in (None, "cosmic_ray", "hot_pixels") for name in made.table["artefact"].to_pylist()])
    shares = {name: bright[(kind == name) & quiet].mean() for name in ("star", "early", "artefact")}
    assert max(shares.values()) - min(shares.values()) < 0.25, shares


@pytest.mark.parametrize("name", sorted(KINDS))
def test_an_artefact_is_seen_at_the_centre(name: str) -> None:
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((48, 48)).astype(np.float32)
        made = KINDS[name](rng, noise, 4.0)
        assert made.shape == (48, 48)
        assert np.isfinite(made).all()
        found.append(made[22:27, 22:27].sum() / 5)
    assert np.median(found) > (1.5 if name == "noise_peak" else 3)  # 1 is the noise


def test_a_peak_of_the_noise_is_not_taken_from_a_neighbour() -> None:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((48, 48)).astype(np.float32)
    noise[5:12, 6:13] += 60
    made = KINDS["noise_peak"](rng, noise, 4.0)
    assert made[20:29, 20:29].max() < 5


def test_what_is_no_detection_is_refused() -> None:
    with pytest.raises(InputError, match="one band"):
        replace(SMALL, camera=replace(SMALL.camera, bands=("g", "r")))
    with pytest.raises(InputError, match="add up to 1"):
        replace(SMALL, star=0.5)
    with pytest.raises(InputError, match="single stamps"):
        replace(SMALL, design=make_design("shear"))
    assert isinstance(preset("detections"), DetectionSet)


def test_kinds_come_in_their_shares() -> None:
    made = DetectionSet(160, seed=9, block=160, star=0.5, early=0.0, disk=0.0, irregular=0.0, artefact=0.5).make(0)
    counts = Counter(made.table["kind"].to_pylist())
    assert set(counts) == {"star", "artefact"}
    assert 55 <= counts["star"] <= 105


@pytest.mark.slow
def test_the_command_makes_a_bundle(tmp_path: Path) -> None:
    recipe: Recipe = read_recipe("objects")
    small = replace(recipe, training=replace(recipe.training, epochs=2))
    made = making.make(out=str(tmp_path / "objects"), scratch=str(tmp_path / "data"), scale=0.001, recipe=small)
    assert made.task().settings.classes == DetectionSet.CLASSES
    assert made.task().takes_any_band
    assert made.known_objects() is None
    assert not (tmp_path / "objects" / "training_objects.safetensors").exists()
