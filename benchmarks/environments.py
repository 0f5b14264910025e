"""Environments of peers, made once in the scratch folder, and processes in them that do passes on demand."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.harness import scratch
from tests import lsdb_environment

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "hyrax": ("hyrax==0.13.*",),
    "zoobot": ("zoobot==2.9.*", "lightning"),
    "cutana": ("cutana==0.4.*",),
    "anacal": ("anacal==0.8.3",),
}
"""Packages of each environment; that of LSDB, which sees ours too, is made as for tests."""

ROOT = Path(__file__).parents[1]
PATIENCE = 300.0
"""Seconds after which a program that does not answer is ended."""


class PeerMissingError(RuntimeError):
    """A peer cannot be installed, or does not start; its text says why in one line."""


def interpreter(name: str) -> Path:
    """The Python of a peer's environment, which is made where it is not there, with the torch that we have ourselves.

    Raises:
        PeerMissingError: its packages cannot be installed.
    """
    if name == "lsdb":
        try:
            return lsdb_environment.interpreter()
        except subprocess.CalledProcessError as error:
            raise PeerMissingError(f"{name} cannot be installed: {error}") from error
    folder = scratch() / "environments" / name
    python, stamp, wanted = folder / "bin" / "python", folder / "ready", "\n".join(REQUIREMENTS[name])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    same = folder.with_suffix(".txt")
    same.parent.mkdir(parents=True, exist_ok=True)
    same.write_text(f"torch=={version('torch').partition('+')[0]}\n")
    wheels = [word for place in os.environ.get("PIP_FIND_LINKS", "").split() for word in ("--find-links", place)]
    packages = ["--constraint", str(same), *REQUIREMENTS[name]]
    if uv := _uv():
        _do([str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
        _do([str(uv), "pip", "install", "--quiet", "--system-certs", *wheels, "--python", str(python), *packages])
    else:
        _do([sys.executable, "-m", "venv", "--clear", str(folder)])
        _do([str(python), "-m", "pip", "install", "--quiet", *packages])
    stamp.write_text(wanted)
    return python


def _uv() -> Path | None:
    """The installer uv: that of the machine, or one in the scratch folder; None where it cannot be had."""
    if found := shutil.which("uv"):
        return Path(found)
    folder = scratch() / "environments" / "uv"
    uv = folder / "bin" / "uv"
    if not uv.exists():
        wanted = ["--quiet", "--no-deps", "--target", str(folder), "uv"]
        with contextlib.suppress(PeerMissingError):
            _do([sys.executable, "-m", "pip", "install", *wanted])
    return uv if uv.exists() else None


def _do(command: list[str]) -> None:
    """Run a step of an installation."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerMissingError(f"{command[-1]} cannot be installed: {_last(done.stderr)}")


class Peer:
    """A program of `benchmarks.inside` in a peer's environment: it gets ready once, and each call is a pass of it."""

    def __init__(self, name: str, program: str, settings: dict[str, Any], cores: int) -> None:
        """Start it and wait until it is ready.

        Args:
            name: of the environment.
            program: module of `benchmarks.inside`.
            settings: what it is told.
            cores: threads that BLAS and OpenMP may use.

        Raises:
            PeerMissingError: it cannot be installed, or stops before it is ready.
        """
        python = interpreter(name)
        self.name, self.log = name, tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `__exit__`)
        threads = {f"{library}_NUM_THREADS": str(cores) for library in ("OMP", "OPENBLAS", "MKL")}
        self.process = subprocess.Popen(
            [str(python), "-m", f"benchmarks.inside.{program}", json.dumps(settings)],
            cwd=ROOT,
            env={**os.environ, **threads, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.ready = self._answer()
        """Seconds of `import` and `load`."""

    def __call__(self) -> dict[str, Any]:
        """One pass: what the program tells of it.

        Raises:
            PeerMissingError: the program stopped.
        """
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def __enter__(self) -> Peer:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the program."""
        self._close()

    def _close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        watch = threading.Timer(PATIENCE, self.process.kill)  # a loader whose process died may wait for ever
        watch.start()
        line = self.process.stdout.readline()
        watch.cancel()
        if line:
            return dict(json.loads(line))
        self.process.wait()
        self.log.seek(0)
        said = _last(self.log.read())
        self._close()
        raise PeerMissingError(f"{self.name} stopped: {said}")


def _last(text: str) -> str:
    """The last line of a program's errors, and no path of this machine."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "it said nothing").replace(str(scratch()), "SCRATCH").replace(str(ROOT), "PROJECT")
