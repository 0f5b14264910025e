"""Workers as jobs of a batch system, without one: what is asked for, what is refused, when a job is replaced."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import pytest

from astroml_plugin.compute.cluster import ClusterOptions, check_place, connect, cores, jobs, places, queues, window
from astroml_plugin.compute.cluster.jobs import JobKeeper
from astroml_plugin.compute.cluster.places import Place, remember
from astroml_plugin.compute.cluster.queues import QUEUES, configured_seconds
from astroml_plugin.compute.job_limits import job_memory
from astroml_plugin.core.errors import AstromlError, InputError
from workflows.cli import main


class Cluster:
    """As much of a dask-jobqueue cluster as the keeper touches; every submission writes the queue's list."""

    job_cls = SimpleNamespace(config_name="slurm")

    def __init__(self, queue: Path) -> None:
        self.queue, self.count = queue, 0
        self.worker_spec: dict[str, Any] = {}
        self.workers: dict[str, Any] = {}
        self.scheduler_info: dict[str, Any] = {"workers": {}}
        self.refusal = ""

    def new_worker_spec(self) -> dict[str, Any]:
        return {f"worker-{len(self.worker_spec)}": {}}

    def sync(self, function: Any, *arguments: Any) -> None:
        step = function(*arguments)
        with pytest.raises(StopIteration):
            step.send(None)

    def __await__(self) -> Any:
        for name in self.worker_spec.keys() - self.workers.keys():
            self.count += 1
            self.workers[name] = SimpleNamespace(job_id=str(self.count), status=None)
            if self.refusal:
                self.workers[name].job_id = None
                raise RuntimeError(f"Command exited with non-zero exit code.\nstderr:\n{self.refusal}\n")
            self.say(str(self.count), "PENDING", "Resources")
        return iter(())

    def say(self, job: str, state: str, reason: str = "None") -> None:
        """Write what the queue's list says of a job; nothing of one that is gone."""
        lines = [line for line in self.queue.read_text().splitlines() if not line.startswith(f"{job} ")]
        self.queue.write_text("\n".join([*lines, *([f"{job} {state} {reason}"] if state else [])]) + "\n")

    def join(self, *names: str) -> None:
        """These workers alone have joined."""
        self.scheduler_info = {"workers": {f"tls://{name}": {"name": name} for name in names}}


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    (tmp_path / "queue").touch()
    return Cluster(tmp_path / "queue")


@pytest.fixture
def keeper(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobKeeper]:
    monkeypatch.setattr(jobs, "EVERY", 3600.0)  # the tests look themselves
    monkeypatch.setattr(jobs, "SAY_EVERY", 3600.0)
    slurm = QUEUES["slurm"]
    made = JobKeeper(cluster, ["cat", str(cluster.queue)], re.compile(slurm.line), slurm.ended, re.compile(slurm.empty))
    made.start(2)
    yield made
    made.stop()


def test_what_is_waited_for_is_said_once_in_a_while(
    cluster: Cluster, keeper: JobKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    keeper.look()
    keeper.look()
    assert caplog.messages == ["waiting for workers: job 1 PENDING (Resources), job 2 PENDING (Resources)"]
    cluster.join("worker-0")
    keeper._spoke = float("-inf")
    keeper.look()
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("joined", [True, False])
def test_a_job_that_ended_is_replaced_also_where_its_worker_never_came(
    cluster: Cluster, keeper: JobKeeper, *, joined: bool
) -> None:
    name, job = next((name, job.job_id) for name, job in cluster.workers.items())
    other = next(one for one in cluster.workers if one != name)
    cluster.join(*([name, other] if joined else [other]))
    keeper.look()
    cluster.say(job, "COMPLETING")
    cluster.join(other)
    keeper.look()
    assert keeper.replaced == 0  # lists may be late
    keeper.look()
    assert (keeper.replaced, cluster.workers[name].job_id, keeper.problem) == (1, "3", "")
    assert cluster.workers[other].job_id != "3"


def test_a_queue_that_does_not_answer_ends_no_job(cluster: Cluster, keeper: JobKeeper) -> None:
    keeper.listing = ["false"]
    for _ in range(4):
        keeper.look()
    assert keeper.replaced == 0
    keeper.listing = ["sh", "-c", "echo No unfinished job found >&2; exit 255"]
    keeper.empty = re.compile(QUEUES["lsf"].empty)
    for _ in range(2):
        keeper.look()
    assert keeper.replaced == 2


def test_jobs_that_fail_again_and_again_are_not_submitted_for_ever(cluster: Cluster, keeper: JobKeeper) -> None:
    for _ in range(40):
        cluster.queue.write_text("")
        keeper.look()
    assert keeper.replaced == 6
    with pytest.raises(AstromlError, match="8 jobs ended before their worker had joined"):
        keeper.check()


def test_what_the_system_refuses_is_said_in_its_words(cluster: Cluster) -> None:
    cluster.refusal = "sbatch: error: Invalid partition name specified"
    made = JobKeeper(cluster, ["true"], re.compile("x"), (), re.compile("x"))
    with pytest.raises(InputError, match=r"slurm refuses the jobs: sbatch: error: Invalid partition name specified$"):
        made.start(1)


def test_a_queue_that_fills_up_later_is_tried_again(
    cluster: Cluster, keeper: JobKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.join("worker-0", "worker-1")
    keeper.look()
    cluster.join("worker-1")
    cluster.say(cluster.workers["worker-0"].job_id, "")
    cluster.refusal = "sbatch: error: QOSMaxSubmitJobPerUserLimit"
    keeper.look()
    keeper.look()
    assert caplog.messages == ["slurm refuses a job: sbatch: error: QOSMaxSubmitJobPerUserLimit"]
    cluster.refusal = ""
    keeper.look()
    assert cluster.workers["worker-0"].job_id == "4"


@pytest.mark.parametrize(
    ("system", "text", "states"),
    [
        ("slurm", "12 PENDING Resources\n13 RUNNING None\n", {"12": "PENDING", "13": "RUNNING"}),
        (
            "pbs",
            "\nserver:\n                                                    Req'd  Req'd   Elap\n"
            "Job ID          Username Queue    Jobname    SessID NDS TSK Memory Time  S Time\n"
            "--------------- -------- -------- ---------- ------ --- --- ------ ----- - -----\n"
            "4711.server     me       workq    dask-work*    --    1  16   32gb 04:00 Q   -- \n"
            "4712.server     me       workq    dask-work*   9012   1  16   32gb 04:00 R 00:12\n",
            {"4711": "Q", "4712": "R"},
        ),
        (
            "lsf",
            "JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME\n"
            "4711    me      PEND  normal     login1                  dask-wor   Nov 30 06:00\n",
            {"4711": "PEND"},
        ),
        (
            "sge",
            "job-ID  prior   name       user         state submit/start at     queue            slots ja-task-ID\n"
            "-------------------------------------------------------------------------------------------------\n"
            "   4711 0.55500 dask-worke me           qw    11/30/2026 06:00:00                     16        \n",
            {"4711": "qw"},
        ),
    ],
)
def test_each_system_lists_its_jobs(system: str, text: str, states: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "list").write_text(text)
    queue = QUEUES[system]
    line = re.compile(queue.line)
    made = JobKeeper(None, ["cat", str(tmp_path / "list")], line, queue.ended, re.compile(queue.empty))
    listed = made._list()
    assert listed is not None
    assert {job: state for job, (state, _) in listed.items()} == states


@pytest.mark.parametrize(
    ("text", "minutes", "seconds"),
    [
        ("04:00:00", False, 14400),
        ("1-00", False, 86400),
        ("1-02:30", False, 95400),
        ("90", False, 5400),
        ("10:30", False, 630),
        ("00:30", True, 1800),
        ("45", True, 2700),
        ("UNLIMITED", False, None),
        ("", False, None),
    ],
)
def test_walltimes_of_sites_are_read(text: str, minutes: bool, seconds: float | None) -> None:
    assert configured_seconds(text, minutes=minutes) == seconds


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"job_walltime": "4h"}, "must read HH:MM:SS"),
        ({"job_walltime": "00:00:00"}, "must read HH:MM:SS"),
        ({"job_memory": 0}, "--job-memory of 0"),
        ({"job_cores": 0}, "--job-cores of 0"),
        ({"gpus": 4}, "--gpus 4: a worker uses one GPU"),
        ({"threads": 2, "job_cores": 4}, "--threads 2 and --job-cores 4"),
        ({"worker_timeout": 0.0}, "--worker-timeout of 0"),
        ({"workers": 0}, "0 workers"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ClusterOptions("slurm", **options)


def test_without_the_system_or_its_settings_one_sentence_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["infer", "no.zarr", "--bundle", "no", "--out", "out", "--scheduler", "slurm"]
    monkeypatch.setitem(__import__("sys").modules, "dask_jobqueue", None)
    assert main(command) == 2
    assert r"pip install 'astroml-plugin[slurm]'" in capsys.readouterr().err
    given = SimpleNamespace(SLURMCluster=SimpleNamespace(job_cls=SimpleNamespace(submit_command="sbatch")))
    monkeypatch.setitem(__import__("sys").modules, "dask_jobqueue", given)
    monkeypatch.setattr(queues.shutil, "which", lambda command: None)
    assert main(command) == 2
    assert "needs the command sbatch, which is not here" in capsys.readouterr().err
    monkeypatch.setattr(queues.shutil, "which", lambda command: f"/usr/bin/{command}")
    with dask.config.set({"jobqueue.slurm": {"cores": 8, "memory": None}}):
        assert main(command) == 2
        assert "give --job-memory GB, or write it to ~/.config/dask/jobqueue.yaml" in capsys.readouterr().err
        check_place(ClusterOptions("slurm", job_memory=10**9))


def test_jobs_ask_for_what_the_options_say() -> None:
    pytest.importorskip("dask_jobqueue")
    options = ClusterOptions("slurm", job_cores=8, job_memory=32 * 10**9, job_walltime="04:00:00", gpus=1)
    slurm = queues._settings(QUEUES["slurm"], options)
    assert (slurm["cores"], slurm["processes"], slurm["memory"], slurm["walltime"]) == (
        8,
        1,
        "32000000000B",
        "04:00:00",
    )
    assert slurm["job_extra_directives"] == ["--gres=gpu:1"]
    words = slurm["worker_extra_args"]
    assert words[words.index("--lifetime") + 1] == "14100s"
    assert words[words.index("--lifetime-stagger") + 1] == "100s"
    assert words[words.index("--preload") + 1] == "astroml_plugin.preload"
    assert words[words.index("--dashboard-address") + 1] == "127.0.0.1:0"
    assert slurm["scheduler_options"]["dashboard_address"] == "127.0.0.1:0"
    lsf = queues._settings(QUEUES["lsf"], options)
    assert (lsf["walltime"], lsf["job_extra_directives"]) == ("04:00", ['-gpu "num=1"'])
    pbs = queues._settings(QUEUES["pbs"], options)
    assert pbs["resource_spec"] == "select=1:ncpus=8:ngpus=1:mem=30518mb"
    with pytest.raises(InputError, match=r"jobqueue.sge.job-extra-directives"):
        queues._settings(QUEUES["sge"], options)
    own = {"jobqueue.slurm": {"worker-extra-args": ["--lifetime", "1h"], "walltime": "1-00", "queue": "long"}}
    with dask.config.set(own):
        kept = queues._settings(QUEUES["slurm"], ClusterOptions("slurm", partition="short"))
    assert kept["worker_extra_args"].count("--lifetime") == 1
    assert kept["queue"] == "short"
    assert "walltime" not in kept


@pytest.mark.parametrize("system", QUEUES)
def test_dask_jobqueue_takes_what_it_is_given(system: str) -> None:
    module = pytest.importorskip("dask_jobqueue")
    options = ClusterOptions(system, job_cores=8, job_memory=32 * 10**9, job_walltime="04:00:00", partition="short")
    given = queues._settings(QUEUES[system], options)
    for name in ("shared_temp_directory", "scheduler_options"):
        del given[name]
    job = getattr(module, QUEUES[system].cluster).job_cls("tls://host:1", name="w", **given)
    script = job.job_script()
    assert "short" in script
    assert "--preload astroml_plugin.preload" in script
    assert "04:00" in script


DIRECTIVES = {
    "slurm": ["-p short", "-n 1", "--cpus-per-task=8", "--mem=30G", "-t 04:00:00", "--gres=gpu:1"],
    "pbs": ["-q short", "-l select=1:ncpus=8:ngpus=1:mem=30518mb", "-l walltime=04:00:00"],
    "lsf": ["-q short", "-n 8", '-R "span[hosts=1]"', "-W 04:00", '-gpu "num=1"'],
}
"""What the batch systems' manuals call these: partition, cores, memory, walltime, one GPU."""


@pytest.mark.parametrize("system", DIRECTIVES)
def test_job_scripts_ask_for_a_gpu_beside_what_the_site_asks_for(system: str) -> None:
    module = pytest.importorskip("dask_jobqueue")
    queue = QUEUES[system]
    options = ClusterOptions(
        system, job_cores=8, job_memory=32 * 10**9, job_walltime="04:00:00", partition="short", gpus=1
    )
    own = [] if system == "pbs" else ["--exclusive"]
    with dask.config.set({f"jobqueue.{system}.job-extra-directives": own}):
        given = queues._settings(queue, options)
        for name in ("shared_temp_directory", "scheduler_options"):
            del given[name]
        job = getattr(module, queue.cluster).job_cls("tls://host:1", name="w", **given)
    lines = [line.partition(" ")[2] for line in job.job_script().splitlines() if re.match("#(SBATCH|PBS|BSUB) ", line)]
    for line in [*DIRECTIVES[system], *own]:
        assert line in lines, lines
    memory = [line for line in lines if re.match("-M |--mem=|-l select", line)]
    assert len(memory) == 1
    assert "--nthreads 8" in job.job_script()


def test_time_without_workers_is_no_units_fault_where_jobs_are_waited_for() -> None:
    with connect("local", workers=1, threads=1) as client:
        held = window._Window(client, abs, 2, 5.0)
        remember(client, Place(own=True, keeper=None, worker_timeout=60.0))
        client.retire_workers(list(client.nthreads()))
        before = held.watch.clock()
        assert not held.watch.is_lost(50.0)
        assert held.watch.clock() - before < -40
        assert held.watch.is_lost(50.0)  # no worker for longer than --worker-timeout
        remember(client, Place())
        assert not held.watch.is_lost(500.0)


@pytest.mark.parametrize(("keeper", "tries"), [(SimpleNamespace(problem="", check=lambda: None), 5), (None, 2)])
def test_a_unit_is_not_blamed_for_jobs_that_a_batch_system_ends(
    monkeypatch: pytest.MonkeyPatch, keeper: Any, tries: int
) -> None:
    with connect("local", workers=1, threads=1) as client:
        remember(client, Place(keeper=keeper))
        with monkeypatch.context() as patch:
            patch.setattr(window, "_settle", lambda held, future: window.Settled(orphans=(-3,)))  # its worker died
            died = window._alone(window._Window(client, abs, 2, None), -3)
        assert (died.attempts, type(died.error).__name__) == (tries, "WorkerDiedError")
        assert window._alone(window._Window(client, abs, 2, None), -3).value == 3


def test_no_worker_within_the_time_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with connect("local", workers=1, threads=1) as client:
        client.retire_workers(list(client.nthreads()))
        remember(client, Place(worker_timeout=0.2))
        started = time.monotonic()
        with pytest.raises(AstromlError, match=r"no worker joined within 0.2 s.*--worker-timeout"):
            places.wait_for_worker(client, 60.0)
        assert time.monotonic() - started < 30


def test_a_job_takes_its_share_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    assert cores() == 1
    assert job_memory() is None
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    assert job_memory() == 100 * 2**20
    monkeypatch.delenv("SLURM_MEM_PER_CPU")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "300")
    assert job_memory() == 300 * 2**20
