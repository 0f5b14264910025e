"""Array jobs: every element finds its own shard, all units are done once, and what cannot be known is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from astroml_plugin.compute.array_jobs import SYSTEMS, array_shard
from astroml_plugin.core.errors import InputError
from workflows.cli import _parser, main
from workflows.verbs.arguments import settings


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


SAYS = {
    "the element": "echo 'JobId=15 ArrayJobId=12 ArrayTaskId=2 JobName=x JobState=RUNNING Reason=None'",
    "another job": "echo 'JobId=13 ArrayJobId=12 ArrayTaskId=2 JobName=x JobState=RUNNING Reason=None'",
    "has ended": "echo 'JobId=15 ArrayJobId=12 ArrayTaskId=2 JobName=x JobState=COMPLETED Reason=None'",
    "unknown": "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
    "no answer": "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
}
"""What `scontrol --oneliner show job 12_2` of Slurm 22.05 says in a job."""


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        ("the element", None),
        ("no answer", None),
        ("", None),  # as in a container, where no scontrol is
        ("another job", "SLURM_ARRAY_TASK_ID is inherited: element 12_2 is not this job, 15"),
        ("unknown", "SLURM_ARRAY_TASK_ID is inherited: element 12_2 is not this job, 15"),
        ("has ended", "SLURM_ARRAY_TASK_ID is inherited: job 15 has ended"),
    ],
)
def test_a_job_that_an_element_submitted_is_not_that_element(says: str, sentence: str | None, tmp_path: Path) -> None:
    if says:
        (tmp_path / "scontrol").write_text(
            f'#!/bin/sh\n[ "$*" = "--oneliner show job 12_2" ] || exit 9\n{SAYS[says]}\n'
        )
        (tmp_path / "scontrol").chmod(0o755)
    environment = slurm(2, 0, 3, count=4) | {"SLURM_ARRAY_JOB_ID": "12", "SLURM_JOB_ID": "15", "PATH": str(tmp_path)}
    if sentence is None:
        assert array_shard(environment) == (2, 4)
        return
    with pytest.raises(InputError, match=sentence):
        array_shard(environment)


@pytest.mark.parametrize(
    ("name", "mine", "others"),
    [
        ("PBS_ARRAY_INDEX", "4711[3].server", ["4712.server", "4711[4].server", "4711[30].server"]),
        ("PBS_ARRAYID", "4711-3.server", ["4712.server", "4711-33.server"]),
        ("PBS_ARRAYID", "4711[3].server.site.org", ["4713.server-3x"]),
        ("AWS_BATCH_JOB_ARRAY_INDEX", "0d1e-44:3", ["0d1e-43", "0d1e-44:13"]),
    ],
)
def test_systems_that_name_the_element_are_believed_where_the_name_fits(
    name: str, mine: str, others: list[str]
) -> None:
    job = "AWS_BATCH_JOB_ID" if name.startswith("AWS") else "PBS_JOBID"
    assert array_shard({name: "3", "ASTROML_SHARDS": "8", job: mine}) == (3, 8)
    for other in others:
        with pytest.raises(InputError, match=re.escape(f"{name} is inherited: this job is {other}, no element")):
            array_shard({name: "3", "ASTROML_SHARDS": "8", job: other})


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


@pytest.mark.parametrize(("word", "found"), [("auto", "2/5 of an array job"), ("3/4", ""), ("9/4", "is no shard")])
def test_a_shard_may_stand_in_a_file(
    word: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in slurm(12, 10, 14, count=5).items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "run.toml"
    file.write_text(
        f'source = "no.zarr"\nbundle = ["no"]\nout = "out"\n[execution]\nshard = "{word}"\nbatch = "auto"\n'
    )
    assert main(["infer", "--config", str(file)]) == 2
    told = capsys.readouterr().err
    assert found in told
    assert ("shard in --config: '9/4' is no shard" in told) == (word == "9/4")
    given = settings(_parser().parse_args(["infer", "--config", str(file), "--shard", "1/2"]))
    assert (given["execution"].shard, given["execution"].batch) == ((1, 2), None)
