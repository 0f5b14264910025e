"""Cores of this process: what it is bound to, what its job and its container allow, and which workers share them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from astroml_plugin.compute import job_limits
from astroml_plugin.compute.cluster import cores, hosts
from astroml_plugin.compute.cluster.hosts import competing
from astroml_plugin.inference import resident


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """64 cores, no job, no control groups; a folder in the place of /sys/fs/cgroup."""
    for name in ("SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(job_limits, "_GROUPS", tmp_path)
    monkeypatch.setattr(job_limits, "_MINE", tmp_path / "mine")
    return tmp_path


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_cores_are_those_that_a_process_is_bound_to(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores() == 64
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 7}, raising=False)
    assert cores() == 3
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "2")
    assert cores() == 2


@pytest.mark.parametrize(
    ("mine", "groups", "found"),
    [
        ("0::/\n", {".": "200000 100000"}, 2),  # docker run --cpus 2, version 2
        ("0::/\n", {".": "250000 100000"}, 3),
        ("0::/\n", {".": "50000 100000"}, 1),
        ("0::/\n", {".": "max 100000"}, 64),
        ("0::/user.slice/mine\n", {"user.slice/mine": "max 100000", "user.slice": "400000 100000"}, 4),
        ("0::/../elsewhere\n", {}, 64),
        ("0::/\n", {".": "nonsense"}, 64),
        ("", {}, 64),
    ],
)
def test_a_container_has_the_cores_that_its_group_gives_it(
    machine: Path, mine: str, groups: dict[str, str], found: int
) -> None:
    (machine / "mine").write_text(mine)
    for folder, text in groups.items():
        group(machine / folder, cpu__max=text)
    assert cores() == found


@pytest.mark.parametrize(("quota", "found"), [("300000", 3), ("-1", 64), ("0", 64)])
def test_control_groups_of_version_1(machine: Path, quota: str, found: int) -> None:
    (machine / "mine").write_text("5:memory:/x\n4:cpu,cpuacct:/docker/ab\n")
    group(machine / "cpu" / "docker" / "ab", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    assert cores() == found


def test_a_job_has_the_smaller_of_two_limits_of_memory(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CPUS_ON_NODE", "4"), ("MEM_PER_CPU", "100"), ("MEM_PER_NODE", "64000")):
        monkeypatch.setenv(f"SLURM_{name}", value)  # the last one inherited from the job that submitted this one
    assert job_limits.job_memory() == 400 * 2**20


EAST, WEST, ALL = tuple(range(32)), tuple(range(32, 64)), tuple(range(64))


@pytest.mark.parametrize(
    ("workers", "found"),
    [
        ([("a", ("", ALL))] * 4, {("", ALL): 4}),
        ([("a", ("", EAST))] * 4 + [("a", ("", WEST))] * 4, {("", EAST): 4, ("", WEST): 4}),
        ([("a", ("", EAST))] * 2 + [("b", ("", EAST))], {("", EAST): 2}),
        ([("a", ("", EAST)), ("a", ("", ALL))], {("", EAST): 2, ("", ALL): 2}),
        ([("a", ("7", ALL)), ("a", ("8", ALL))], {("7", ALL): 1, ("8", ALL): 1}),  # two jobs, counted apart
        ([("a", ("", ()))] * 2, {("", ()): 2}),  # a system that does not say
        ([], {}),
    ],
)
def test_workers_share_cores_with_those_of_the_same_socket_and_job(workers: list, found: dict) -> None:  # type: ignore[type-arg]
    assert competing(workers) == found


def test_eight_workers_on_two_sockets_use_all_cores(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(WEST), raising=False)
    monkeypatch.setattr(resident, "_share", resident.Share(1, 1))
    counts = competing([("a", ("", EAST))] * 4 + [("a", hosts.own_claim())] * 4)
    resident.take_share(2, 8, counts[hosts.own_claim()])
    assert resident._share == resident.Share(2, 4)
    resident.take_share(2, 8)
    assert resident._share == resident.Share(2, 2)
    resident.take_share(2, 1)
