"""The scripts of deploy/slurm without Slurm: what they hand on, when they stop, and what they do at their walltime."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import ssl
import stat
import subprocess
import time
from pathlib import Path

import pytest
from distributed import Security

from astroml_plugin.compute.cluster import certificates
from astroml_plugin.compute.cluster.job_credentials import FILES, node_settings, write_authority, write_credentials
from workflows.cli import _parser

SLURM = Path(__file__).parents[1] / "deploy" / "slurm"
SCRIPTS = sorted(path.name for path in SLURM.glob("*.sbatch"))

FAKES = {
    "scontrol": """
        if [ "$1" = show ]; then
            [ -z "${RECORD:-}" ] || echo "$RECORD"
            printf '   Requeue=1\\n   Command=%s a b\\n   Command=%s c\\n' "$SCRIPT" "$SCRIPT"
            exit
        fi
        echo "$@" >> "$PLACE/requeued"; kill -TERM "$PPID"
    """,
    "squeue": 'echo "$LEFT $LIMIT"',
    "astroml-plugin": """
        if [ "$1" = --version ]; then echo 'astroml-plugin 1'; exit; fi
        env > "$PLACE/environment"
        printf '%s\\n' "$@" > "$PLACE/given.part"; mv "$PLACE/given.part" "$PLACE/given"
        trap 'exit 143' TERM
        for _ in $(seq "${NAPS:-0}"); do sleep 0.1; done
        exit "${STATUS:-0}"
    """,
    "sbatch": 'printf "%s\\n" "$*" >> "$PLACE/submitted"; echo 17',
}
"""Commands of a cluster, as much of them as the scripts use."""


class Job:
    """A script in its folder, with commands that are ours."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "bin").mkdir()
        for name, text in FAKES.items():
            (place / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
            (place / "bin" / name).chmod(0o755)

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a script as Slurm would: a copy of it."""
        copy = self.place / "slurm_script"
        copy.write_text((SLURM / script).read_text())
        settings = {"SLURM_JOB_ID": "7", "PLACE": str(self.place), "SCRIPT": str(SLURM / script)} | environment
        path = f"{self.place / 'bin'}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", str(copy), *arguments],
            env={**os.environ, "PATH": path, **settings},
            cwd=self.place,
            stderr=subprocess.PIPE,
            text=True,
        )

    def given(self, name: str = "given") -> list[str]:
        """Lines of a file that the commands wrote."""
        path = self.place / name
        return path.read_text().splitlines() if path.exists() else []

    def wait_until_it_works(self) -> None:
        """Wait until the command has begun."""
        end = time.monotonic() + 30
        while not self.given():
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.mark.parametrize("name", [*SCRIPTS, "job.sh", "submit.sh"])
def test_scripts_parse(name: str) -> None:
    subprocess.run(["bash", "-n", SLURM / name], check=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_warns_before_the_walltime_and_names_its_log(name: str) -> None:
    text = (SLURM / name).read_text()
    for line in ("--signal=B:USR1@120", "--requeue", "--open-mode=append", "--time="):
        assert f"#SBATCH {line}" in text
    assert re.search(r"#SBATCH --output=%x-.*%N\.log", text)
    assert '"$@"' in text


@pytest.mark.parametrize(("script", "more"), [("infer-array.sbatch", ["--shard", "auto"]), ("finish.sbatch", [])])
def test_everything_is_handed_on(job: Job, script: str, more: list[str]) -> None:
    words = ["a survey.zarr", "--bundle", "segmentation", "--bundle", "lens", "--out", "c", "--prior", "lens=0.001"]
    run = job.start(script, *words)
    assert run.communicate()[1].count("astroml-plugin 1, start 0: astroml-plugin infer") == 1
    assert (run.returncode, job.given()) == (0, ["infer", *words, *more])
    options = _parser().parse_args([*job.given()[:-1], "0/1"] if more else job.given())
    assert options.bundle == ["segmentation", "lens"]


@pytest.mark.parametrize(
    ("left", "limit"), [("1:58", "2:00"), ("2:50", "3:00"), ("2:10", "4:00:00"), ("3:00", "1-00:00:00")]
)
def test_a_warning_that_comes_early_stops_nothing_yet(job: Job, left: str, limit: str) -> None:
    run = job.start("infer-array.sbatch", "x", NAPS="10", LEFT=left, LIMIT=limit)
    job.wait_until_it_works()
    run.send_signal(signal.SIGUSR1)
    told = run.communicate()[1]
    assert (run.returncode, job.given("requeued")) == (0, [])
    assert "ended with status 0" in told
    assert "stopping" not in told


@pytest.mark.parametrize(("left", "limit"), [("0:29", "2:00"), ("2:00", "4:00:00"), ("0:40", "3:00")])
def test_at_the_walltime_the_work_is_stopped_and_the_job_put_back(job: Job, left: str, limit: str) -> None:
    run = job.start("infer-array.sbatch", "x", NAPS="600", LEFT=left, LIMIT=limit)
    job.wait_until_it_works()
    run.send_signal(signal.SIGUSR1)
    told = run.communicate(timeout=30)[1]
    assert job.given("requeued") == ["requeue 7"]
    assert "s are left of the walltime: stopping" in told
    assert "ended with status 143" in told


def test_a_warning_that_comes_early_comes_again(job: Job) -> None:
    run = job.start("infer-array.sbatch", "x", NAPS="600", LEFT="0:02", LIMIT="0:04")  # one second of grace
    job.wait_until_it_works()
    (job.place / "bin" / "squeue").write_text(
        '#!/bin/sh\ntest -e "$PLACE/asked" && echo 0:01 0:04 || echo 0:02 0:04\ntouch "$PLACE/asked"\n'
    )
    run.send_signal(signal.SIGUSR1)
    assert "1 s are left of the walltime: stopping" in run.communicate(timeout=30)[1]
    assert job.given("requeued") == ["requeue 7"]


def test_a_cancelled_job_is_not_put_back(job: Job) -> None:
    run = job.start("infer-array.sbatch", "x", NAPS="600", LEFT="3:00", LIMIT="4:00")
    job.wait_until_it_works()
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=30)
    assert (run.returncode, job.given("requeued")) == (143, [])


def test_wrong_input_is_not_tried_again_at_the_walltime(job: Job) -> None:
    run = job.start("finish.sbatch", "x", STATUS="2")
    run.communicate(timeout=30)
    assert (run.returncode, job.given("requeued")) == (2, [])


def test_a_job_that_never_ends_is_not_put_back_for_ever(job: Job) -> None:
    changes = {"SLURM_RESTART_COUNT": "3", "ASTROML_REQUEUES": "3", "NAPS": "600", "LEFT": "0:10", "LIMIT": "9:00"}
    run = job.start("infer-array.sbatch", "x", **changes)
    job.wait_until_it_works()
    run.send_signal(signal.SIGUSR1)
    assert "it was started 3 times: not again" in run.communicate(timeout=30)[1]
    assert (run.returncode, job.given("requeued")) == (143, [])


def test_a_scheduler_that_dies_before_its_file_is_there_ends_the_job(job: Job) -> None:
    (job.place / "bin" / "dask").write_text("#!/bin/sh\necho Address already in use >&2\nexit 1\n")
    (job.place / "bin" / "python").write_text("#!/bin/sh\nexit 0\n")
    for name in ("dask", "python"):
        (job.place / "bin" / name).chmod(0o755)
    run = job.start("infer-dask.sbatch", "x", SLURM_SUBMIT_DIR=str(job.place), SLURM_CPUS_PER_TASK="2")
    assert "the Dask scheduler ended before it could be reached" in run.communicate(timeout=60)[1]
    assert (run.returncode, job.given()) == (1, [])
    assert not list(job.place.glob(".astroml-*"))


INHERITED = {
    **{f"SLURM_ARRAY_{name}": "3" for name in ("JOB_ID", "TASK_ID", "TASK_MIN", "TASK_MAX", "TASK_COUNT", "TASK_STEP")},
    **{"SLURM_GPUS_ON_NODE": "4", "SLURM_CPU_BIND": "quiet,mask_cpu:0x3", "SLURM_CPU_BIND_LIST": "0x3"},
    **{"SLURM_MEM_PER_NODE": "64000", "SLURM_MEM_PER_CPU": "500"},
}
"""What a job has that was submitted from an element on a machine with GPUs, in a step that was bound to two cores."""


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        ("JobId=7 JobName=x MinMemoryCPU=500M", ["SLURM_MEM_PER_CPU"]),
        ("JobId=7 JobName=x MinMemoryNode=64000M", ["SLURM_MEM_PER_NODE"]),
        (
            "JobId=7 ArrayJobId=3 ArrayTaskId=3 MinMemoryCPU=500M TRES=cpu=2,gres/gpu=4",
            [name for name in INHERITED if name != "SLURM_MEM_PER_NODE" and "BIND" not in name],
        ),
        ("JobId=6 JobName=x MinMemoryCPU=500M", list(INHERITED)),  # no answer that tells anything
        ("", list(INHERITED)),
    ],
)
def test_what_a_job_inherited_from_the_one_that_submitted_it_is_forgotten(
    job: Job, record: str, kept: list[str]
) -> None:
    run = job.start("finish.sbatch", "x", RECORD=record, **INHERITED)
    run.communicate(timeout=30)
    seen = dict(line.partition("=")[::2] for line in job.given("environment"))
    assert run.returncode == 0
    assert sorted(name for name in INHERITED if name in seen) == sorted(kept)


def test_submitting_an_array_and_what_follows(job: Job) -> None:
    command = [str(SLURM / "submit.sh"), "--array=0-3", "--", "a b", "--out", "c"]
    path = f"{job.place / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PLACE": str(job.place)}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout == "array 17, then 17\n"
    assert job.given("submitted") == [
        f"--parsable --array=0-3 {SLURM}/infer-array.sbatch a b --out c",
        f"--parsable --dependency=afterany:17 {SLURM}/finish.sbatch a b --out c",
    ]
    told = subprocess.run(command[:2], env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "Usage: submit.sh" in told.stderr


def test_credentials_of_a_job_are_its_owners_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    write_credentials(tmp_path)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in FILES.values()} == {0o600}
    made = {field: str(tmp_path / name) for field, name in FILES.items()}
    Security(**made, require_encryption=True).get_connection_args("client")["ssl_context"]  # it loads them
    tmp_path.chmod(0o750)
    with pytest.raises(PermissionError, match="mode 0700"):
        write_credentials(tmp_path)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Both sides of a TLS connection in memory; raises what either of them does not like."""
    wires = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(wires[0], wires[1], server_hostname=name),
        server.wrap_bio(wires[1], wires[0], server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    sides[0].write(b"hello")
    assert sides[1].read(5) == b"hello"


def test_nodes_of_a_job_know_each_other_by_their_certificates_and_nobody_else(tmp_path: Path) -> None:
    contexts = []
    for folder in (tmp_path / "job", tmp_path / "other"):
        folder.mkdir(mode=0o700)
        write_authority(folder)
        for _ in range(2):
            made = node_settings(folder)
            files = [Path(value) for name, value in made.items() if name != "RAY_USE_TLS"]
            assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
            pair = made["RAY_TLS_SERVER_CERT"], made["RAY_TLS_SERVER_KEY"]
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.verify_mode = ssl.CERT_REQUIRED
            client = ssl.create_default_context(cafile=made["RAY_TLS_CA_CERT"])
            server.load_verify_locations(made["RAY_TLS_CA_CERT"])
            for side in (server, client):
                side.load_cert_chain(*pair)
            contexts.append((server, client))
    (first, _), (_, second), _, (_, strange) = contexts
    for name in certificates.own_names():
        _handshake(first, second, name)
    with pytest.raises(ssl.SSLError):
        _handshake(first, second, "192.0.2.77")  # another machine's address
    with pytest.raises(ssl.SSLError):
        _handshake(first, strange, "localhost")
    nobody = ssl.create_default_context(cafile=str(tmp_path / "job" / "authority.pem"))
    with pytest.raises(ssl.SSLError):
        _handshake(first, nobody, "localhost")
