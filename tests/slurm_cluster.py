"""A Slurm of two nodes on this machine, as Debian's packages give it: munged, slurmctld and two slurmd, on loopback."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "deploy" / "slurm"
SLOW_UNITS = Path(__file__).with_name("slow_units")
CPUS, MEMORY = 16, 70_000
"""What each node says it has (MB), so that the scripts run with their own headers."""

CONF = """\
ClusterName=loop
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.txt
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=10
MinJobAge=600
InactiveLimit=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory={memory}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory={memory}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no Slurm can be started here; empty where one can."""
    lacking = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if lacking:
        return f"{', '.join(lacking)} missing: Debian's packages slurm-wlm and munge"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started as root here"


class SlurmCluster:
    """The daemons, and commands that ask them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM_")},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(SLOW_UNITS),
            "DASK_JOBQUEUE__SLURM__SHARED_TEMP_DIRECTORY": str(folder),
        }

    def start(self) -> None:
        """Start the daemons and wait for the nodes."""
        (self.folder / "munge").mkdir(mode=0o700)
        (self.folder / "state").mkdir()
        (self.folder / "munge" / "key").write_bytes(os.urandom(1024))
        (self.folder / "munge" / "key").chmod(0o400)
        conf = CONF.format(
            folder=self.folder, host=socket.gethostname().split(".")[0], ports=free_ports(3), cpus=CPUS, memory=MEMORY
        )
        (self.folder / "slurm.conf").write_text(conf)
        files = {"key-file": "munge/key", "socket": "munge.socket", "pid-file": "munged.pid"}
        files |= {"log-file": "munge/munged.log", "seed-file": "munge/seed"}
        self.ask("munged", "--force", *(f"--{name}={self.folder / file}" for name, file in files.items()))
        self.ask("slurmctld", "-f", str(self.folder / "slurm.conf"))
        for node in ("n1", "n2"):
            self.ask("slurmd", "-f", str(self.folder / "slurm.conf"), "-N", node)
        wait(lambda: self.ask("sinfo", "-h", "-o", "%T").split() == ["idle"], 60, "the nodes are not idle")

    def stop(self) -> None:
        """End jobs and daemons."""
        self.ask("scancel", "--user=root")
        time.sleep(2)
        for name in ("slurmd-n1", "slurmd-n2", "slurmctld", "munged"):
            file = self.folder / f"{name}.pid"
            if file.exists():
                os.kill(int(file.read_text()), signal.SIGTERM)

    def ask(self, *command: str, **changes: str) -> str:
        """Output of a command; `changes` are environment variables."""
        told = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=self.environment | changes, check=False
        )
        return told.stdout.strip() or told.stderr.strip()

    def submit(self, where: Path, options: Sequence[str], script: str, *arguments: str, **changes: str) -> str:
        """Submit one of the scripts from a folder; gives the job's number."""
        command = ["sbatch", "--parsable", *options, str(SCRIPTS / script), *arguments]
        told = subprocess.run(
            command, capture_output=True, text=True, cwd=where, env=self.environment | changes, check=False
        )
        assert told.returncode == 0, told.stderr
        return told.stdout.strip().partition(";")[0]

    def jobs(self) -> dict[str, str]:
        """State of the jobs that have not ended, elements of arrays as JOB_INDEX."""
        command = ["squeue", "-h", "-r", "-o", "%i %T"]
        told = subprocess.run(command, capture_output=True, text=True, env=self.environment, check=True)
        return dict(line.split() for line in told.stdout.splitlines())

    def ended(self, job: str, seconds: float = 240) -> None:
        """Wait until no element of a job is in the queue."""
        wait(lambda: not [one for one in self.jobs() if one.partition("_")[0] == job], seconds, f"job {job} goes on")

    def start_now(self, job: str) -> None:
        """Start what was put back in the queue soon; Slurm itself lets it wait for two minutes.

        Not within the second in which it was put back: the node would take it for the job that it has just revoked.
        """
        time.sleep(3)
        self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")

    def completed(self) -> dict[str, str]:
        """State of the jobs that have ended, by their number."""
        file = self.folder / "jobcomp.txt"
        found = re.findall(r"^JobId=(\d+) .*?JobState=(\w+)", file.read_text() if file.exists() else "", re.M)
        return dict(found)


def wait(condition: Callable[[], object], seconds: float, complaint: str) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, complaint
        time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens at."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
