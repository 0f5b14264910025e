"""Labels of unequal trust and several surveys: how often objects are drawn, and figures by domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from training_samples import gaussians, write_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.training.batches import StampBatches
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.domains import source_names
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.sampling import SamplingSettings, expected_draws
from tests import universe
from workflows.evaluate import evaluate
from workflows.train import train

torch.set_num_threads(1)

RECIPE = """
task = "regress"
[settings]
targets = ["flux"]
stamp_size = 16
[network_arguments]
widths = [4, 8]
hidden = 8
[training]
epochs = 2
batch_size = 16
[split]
fractions = [0.5, 0.2, 0.3]
check_pixels = false
[typicality]
fit = false
"""


def made(url: Path, count: int, seed: int, **columns: object) -> str:
    rng = np.random.default_rng(seed)
    labels = {"flux": rng.uniform(1, 2, count).tolist(), **columns}
    ids = np.arange(count) + 1000 * seed
    return write_stamps(str(url), gaussians(rng.uniform(-0.2, 0.2, (count, 2)), rng), {"object_id": ids, **labels})


def test_draws_follow_weights_and_balance() -> None:
    table = pa.table({"trust": [2.0, 1.0, 1.0, 0.0], "domain": ["a", "a", "b", "b"]})
    assert expected_draws(SamplingSettings(), table) is None
    np.testing.assert_allclose(expected_draws(SamplingSettings(weight="trust"), table), [2, 1, 1, 0])
    balanced = expected_draws(SamplingSettings("trust", "domain"), table)
    np.testing.assert_allclose(balanced, [4 / 3, 2 / 3, 2, 0])
    with pytest.raises(InputError, match=r"gives no weight .* for 2 of 3"):
        expected_draws(SamplingSettings(weight="w"), pa.table({"w": [1.0, None, -1.0]}))
    with pytest.raises(InputError, match="all objects of a value of 'domain' have weight 0"):
        expected_draws(SamplingSettings("w", "domain"), pa.table({"w": [1.0, 0.0], "domain": ["a", "b"]}))
    with pytest.raises(InputError, match="label column 'survey' is missing"):
        expected_draws(SamplingSettings(balance="survey"), table)


@pytest.mark.parametrize("memory", [1e9, 3e4])
def test_each_object_is_drawn_as_often_as_expected_up_to_one(tmp_path: Path, memory: float) -> None:
    data = LabelledStamps(made(tmp_path / "s.zarr", 90, 1))
    expected = np.random.default_rng(0).gamma(1.0, 1.0, 90)
    expected[:5] = 0
    expected *= 90 / expected.sum()
    how = {"bands": ("r",), "batch_size": 8, "memory": memory}
    stream = StampBatches(data, np.arange(90), torch.arange(90), expected=expected, **how)
    total = np.zeros(90)
    for epoch in range(40):
        rows = np.concatenate([batch.rows for batch in stream.epoch(epoch)])
        counts = np.bincount(rows, minlength=90)
        assert (np.abs(counts - expected) < 1).all()
        assert abs(len(rows) - 90) <= 1
        total += counts
    np.testing.assert_allclose(total / 40, expected, atol=0.35)
    again = [batch.rows.tolist() for batch in stream.epoch(3)]
    assert again == [batch.rows.tolist() for batch in stream.epoch(3)]
    assert all((batch.targets.numpy() == batch.rows).all() for batch in stream.epoch(1))


def test_two_surveys_are_two_domains_in_card_and_evaluation(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE + '[sampling]\nbalance = "domain"\nweight = "trust"\n')
    urls = []
    for name, count, seed in (("north", 120, 1), ("south", 60, 2)):
        trust = np.random.default_rng(seed).uniform(0, 2, count).tolist()
        urls.append(made(tmp_path / f"{name}.zarr", count, seed, trust=trust))
    result = train(tmp_path / "r.toml", data=urls, out=tmp_path / "b")
    card = ModelBundle.load(tmp_path / "b").card
    domains = card.training["domains"]
    assert {name: sum(found.values()) for name, found in domains.items()} == {"north": 120, "south": 60}
    assert card.training["sampling"] == {"weight": "trust", "balance": "domain"}
    told = result.metrics["test"]["domains"]
    assert {name: one["count"] for name, one in told.items()} == {n: one["test"] for n, one in domains.items()}
    assert told["north"]["rmse"] != told["south"]["rmse"]
    found = evaluate(urls, bundle=tmp_path / "b", out=tmp_path / "e")
    assert found.split == "test"
    assert found.metrics["domains"]["north"]["rmse"] == pytest.approx(told["north"]["rmse"], rel=1e-3)


def test_a_table_for_two_surveys_trains_on_both_and_tells_what_is_on_none(tmp_path: Path) -> None:
    universe.make_survey(str(tmp_path / "north.zarr"))
    universe.make_survey(str(tmp_path / "south.zarr"), name="south", dec=-40.0, zero_points=[27.0])
    tables = []
    for number, dec in enumerate((2.0, -40.0)):
        universe.make_objects(tmp_path / "o.parquet", 60, seed=number)
        table = pq.read_table(tmp_path / "o.parquet")
        shifted = table["dec"].to_numpy() + (dec - 2.0)
        ra = 150 + (table["ra"].to_numpy() - 150) * np.cos(np.radians(2.0)) / np.cos(np.radians(dec))
        tables.append(pa.table({"object_id": np.arange(60) + 100 * number, "ra": ra, "dec": shifted}))
    tables.append(pa.table({"object_id": [900], "ra": [10.0], "dec": [0.0]}))
    table = pa.concat_tables(tables)
    table = table.append_column("flux", pa.array(np.random.default_rng(0).uniform(1, 2, len(table))))
    (tmp_path / "r.toml").write_text(RECIPE.replace("check_pixels = false", 'leaks = "drop"'))
    data = [tmp_path / "north.zarr", tmp_path / "south.zarr"]
    result = train(tmp_path / "r.toml", data=data, labels=table, out=tmp_path / "b")
    lost = [note for note in result.notes if "lie on none of the 2 surveys" in note]
    assert len(lost) == 1
    counts = ModelBundle.load(tmp_path / "b").card.training["domains"]
    assert set(counts) == {"north", "south"}
    assert min(sum(one.values()) for one in counts.values()) > 50


def test_a_cache_cannot_draw_unequally(tmp_path: Path) -> None:
    text = RECIPE.replace("batch_size = 16", "batch_size = 16\ncache = true") + '[sampling]\nweight = "trust"\n'
    (tmp_path / "r.toml").write_text(text)
    url = made(tmp_path / "s.zarr", 40, 1, trust=[1.0] * 40)
    with pytest.raises(InputError, match="a training cache draws all objects alike"):
        train(tmp_path / "r.toml", data=url, out=tmp_path / "b")


def test_sources_are_called_by_their_last_names() -> None:
    assert source_names(["/a/north.zarr", "s3://b/south.view", "/c/north.zarr"]) == ["north 1", "south", "north 2"]
