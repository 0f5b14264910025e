"""The bundle `objects`: ships small, takes any band and several, tells stars, galaxies and artefacts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from astroml_plugin.cutouts import from_stamps
from astroml_plugin.training import bundle as bundles
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns

torch.set_num_threads(1)

COLUMNS = ["p_star", "p_early", "p_late", "p_edge_on", "p_irregular", "p_artefact", "label"]


def test_it_ships_within_its_size_and_says_where_it_is_from() -> None:
    folder = Path(bundles.locate("objects"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 2**20
    model = ModelBundle.load("objects")
    assert [column.name for column in model.task().columns()] == COLUMNS
    assert model.typicality() is not None
    assert "python -m bundles objects" in (folder / "README.md").read_text()


def test_bright_objects_are_told_apart() -> None:
    """One band; and three of it with more noise of their own, which are better together than one of them."""
    pytest.importorskip("galsim")
    from astroml_plugin.simulation import DetectionSet

    made = DetectionSet(256, seed=907, block=256, snr=(20.0, 100.0), clipped=0.0).make(0)
    kind = np.array(made.table["kind"].to_pylist(), object)
    model = ModelBundle.load("objects")
    task, network = model.task(), model.network()
    stamps = from_stamps(made.image, made.variance, made.psf, bands=("z",), pixel_scale=0.2)
    found = columns(task, network, stamps)
    group = {"star": "star", "artefact": "artefact"}
    called = np.array([group.get(name, "galaxy") for name in found["label"]], object)
    true = np.array([group.get(name, "galaxy") for name in kind], object)
    assert {name: (called[true == name] == name).mean() > 0.93 for name in group} == dict.fromkeys(group, True)
    assert (called[true == "galaxy"] == "galaxy").mean() > 0.93
    noise = np.random.default_rng(0).normal(0, 3, (256, 3, 48, 48)) * np.sqrt(made.variance)
    three = (made.image + noise).astype(np.float32)
    spread, psf = np.repeat(10 * made.variance, 3, 1), np.repeat(made.psf, 3, 1)
    whole = columns(task, network, from_stamps(three, spread, psf, bands=("g", "r", "i"), pixel_scale=0.2))
    alone = columns(task, network, from_stamps(three[:, 1:2], spread[:, :1], psf[:, :1], bands=("r",), pixel_scale=0.2))
    right = [np.mean(np.array(one["label"], object) == kind) for one in (whole, alone)]
    assert right[0] > right[1] + 0.03
    assert not np.array_equal(whole["p_star"], alone["p_star"])
