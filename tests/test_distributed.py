import json
from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import NO_TYPICALITY, ellipticity_stamps, gaussians, write_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.training import distributed
from astroml_plugin.training.bundle import ModelBundle
from tests import pretended_gpus
from workflows.train import TrainExecution, train

torch.set_num_threads(1)

RECIPE = """
task = "ellipticity"
[settings]
stamp_size = 24
psf = "none"
any_band = true
[network_arguments]
widths = [6, 12]
hidden = 24
pooling = "grid"
[training]
epochs = 4
batch_size = 24
learning_rate = 0.005
ema = 0.9
[split]
fractions = [0.6, 0.2, 0.2]
"""


def test_alone_nothing_is_shared() -> None:
    one = distributed.ALONE
    assert one.first
    assert one.broadcast_flag(True)
    assert one.share(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    for device in ("cpu", "cuda:1"):
        with distributed.joined_group(device) as group:
            assert group == distributed.Group(0, 1, device)
    assert np.sort(np.concatenate([distributed.Group(rank, 3).share(np.arange(10)) for rank in range(3)])).tolist() == [
        *range(10)
    ]


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    source = ellipticity_stamps(str(tmp_path / "s.zarr"), 401)
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE + NO_TYPICALITY)
    told: list[tuple] = []
    result = train(
        recipe,
        data=source,
        out=tmp_path / "b",
        execution=TrainExecution(processes=2),
        progress=lambda *note: told.append(note),
    )
    records = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [0, 1, 2, 3]
    assert records[-1]["validation_loss"] < records[0]["validation_loss"]
    assert [note[1] for note in told] == list(range(1, len(told) + 1))
    assert result.objects + sum(ModelBundle.load(tmp_path / "b").card.training["objects"].values()) > 401
    with pytest.raises(InputError, match="made with another recipe, seed or data"):
        train(recipe, data=source, out=tmp_path / "b")  # alone it is another training


@pytest.mark.slow
def test_two_processes_train_the_same_network_again(tmp_path: Path) -> None:
    source = ellipticity_stamps(str(tmp_path / "s.zarr"), 401)
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE)
    first, again = (
        train(recipe, data=source, out=tmp_path / out, execution=TrainExecution(processes=2)) for out in ("b", "c")
    )
    assert again.metrics == first.metrics


@pytest.mark.slow
def test_what_stops_a_process_is_said_in_one_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = write_stamps(
        str(tmp_path / "s.zarr"), gaussians(np.zeros((40, 2)), rng), {"e1": [0.0] * 40, "e2": [0.0] * 40}
    )
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE)
    with pytest.raises(InputError, match=r"^label column 'e1' is 0 for all"):
        train(recipe, data=source, out=tmp_path / "b", execution=TrainExecution(processes=2))


@pytest.mark.parametrize("gpus", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_each_process_has_a_gpu_of_its_own_and_talks_on_it(gpus: int, tmp_path: Path) -> None:
    distributed.spawn(2, pretended_gpus.exchange, gpus, str(tmp_path))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "cuda:0 True", "1": "cuda:1 True"}


def test_more_processes_than_gpus_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^2 processes cannot train on 1 GPU, each .*: give --processes 1, or --dev"):
        distributed.spawn(2, pretended_gpus.exchange, 1, str(tmp_path))
