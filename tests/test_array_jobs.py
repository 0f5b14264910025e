"""Array jobs: every element finds its own shard, all units are done once, and what cannot be known is refused."""

from __future__ import annotations

import re

import pytest

from astroml_plugin.compute.array_jobs import SYSTEMS, array_shard
from astroml_plugin.core.errors import InputError
from workflows.cli import main


def slurm(index: int, first: int, last: int, *, count: int, step: int = 1) -> dict[str, str]:
    """What Slurm 22.05 sets in one element, as seen in jobs."""
    values = {"ID": index, "MIN": first, "MAX": last, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("first", "last", "step"), [(0, 3, 1), (1, 4, 1), (10, 16, 3), (4, 7, 1), (5, 5, 1), (10, 17, 3)]
)
def test_the_elements_of_a_slurm_array_are_all_shards_once(first: int, last: int, step: int) -> None:
    numbers = range(first, last + 1, step)
    last = numbers[-1]  # Slurm tells the last element that there is
    shards = [array_shard(slurm(number, first, last, count=len(numbers), step=step)) for number in numbers]
    assert shards == [(place, len(numbers)) for place in range(len(numbers))]


@pytest.mark.parametrize("numbers", [(3, 7), (0, 3, 4, 9), (3, 5, 7), (1, 2, 3, 4, 8)])
def test_a_part_of_an_array_that_is_submitted_again_is_refused_or_told_of_how_many(numbers: tuple[int, ...]) -> None:
    for number in numbers:
        told = slurm(number, numbers[0], numbers[-1], count=len(numbers))
        with pytest.raises(InputError, match=f"{len(numbers)} elements of those from .* set ASTROML_SHARDS"):
            array_shard(told)
        assert array_shard(told | {"ASTROML_SHARDS": "64"}) == (number, 64)


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({"JOB_COMPLETION_INDEX": "0", "ASTROML_SHARDS": "16"}, (0, 16)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "9", "AWS_BATCH_JOB_ARRAY_SIZE": "10"}, (9, 10)),
        ({"BATCH_TASK_INDEX": "0", "BATCH_TASK_COUNT": "1"}, (0, 1)),
        ({"PBS_ARRAY_INDEX": "8", "ASTROML_SHARDS": "8"}, (8, 8)),
        ({"PBS_ARRAYID": "1", "ASTROML_SHARDS": "8"}, (1, 8)),
        ({"LSB_JOBINDEX": "2", "ASTROML_SHARDS": "4", "SGE_TASK_ID": "undefined"}, (2, 4)),
        (
            {"SGE_TASK_ID": "21", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "50", "SGE_TASK_STEPSIZE": "10"},
            (2, 5),
        ),
    ],
)
def test_each_system_is_read(environment: dict[str, str], shard: tuple[int, int]) -> None:
    assert array_shard(environment) == shard


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "no element of an array job .*SLURM_ARRAY_TASK_ID.*give I/N"),
        ({"LSB_JOBINDEX": "0", "SGE_TASK_ID": "undefined"}, "no element of an array job"),
        ({"JOB_COMPLETION_INDEX": "3"}, "Kubernetes does not tell how many.*ASTROML_SHARDS"),
        ({"PBS_ARRAY_INDEX": "3"}, "PBS does not tell how many"),
        ({"LSB_JOBINDEX": "3"}, "LSF does not tell how many"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "3"}, "AWS Batch does not tell how many"),
        ({"JOB_COMPLETION_INDEX": "1", "BATCH_TASK_INDEX": "1", "BATCH_TASK_COUNT": "2"}, "and .* are set"),
        ({"JOB_COMPLETION_INDEX": "9", "ASTROML_SHARDS": "8"}, "ASTROML_SHARDS is 8 and JOB_COMPLETION_INDEX is 9"),
        ({"JOB_COMPLETION_INDEX": "0", "ASTROML_SHARDS": "0"}, "ASTROML_SHARDS is 0"),
        ({"JOB_COMPLETION_INDEX": "one", "ASTROML_SHARDS": "2"}, "'one', which is no whole number"),
        ({"BATCH_TASK_INDEX": "2", "BATCH_TASK_COUNT": "2"}, "there are 2 elements"),
        (slurm(4, 0, 4, count=5) | {"ASTROML_SHARDS": "4"}, "an array from 0 to 4"),  # 0 and 4 would be one shard
    ],
)
def test_what_cannot_be_known_is_one_sentence(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as told:
        array_shard(environment)
    assert "\n" not in str(told.value)


def test_shard_auto_on_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["infer", "no.zarr", "--bundle", "no", "--out", "out", "--shard", "auto"]
    for system in SYSTEMS:
        monkeypatch.delenv(system.index, raising=False)
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 2
    assert re.search("this is no element of an array job", capsys.readouterr().err)
    for name, value in slurm(12, 10, 14, count=5).items():
        monkeypatch.setenv(name, value)
    assert main(command) == 2  # there is no such source
    assert "shard 2/5 of an array job\n" in capsys.readouterr().err
