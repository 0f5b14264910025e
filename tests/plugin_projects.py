"""Small third-party projects, installed with pip and used by the command as a stranger would."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Installed:
    """A project that pip installed into a folder of its own."""

    project: Path
    """Folder of pyproject.toml, where commands are run."""
    site: Path
    """Folder that pip installed into."""

    @classmethod
    def by_pip(cls, project: Path, site: Path) -> Installed:
        """Install from the folder alone: no index is asked, setuptools is this environment's."""
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
        _checked([*pip, "--disable-pip-version-check", "--target", str(site), str(project)], project, dict(os.environ))
        return cls(project, site)

    def run(self, command: str) -> str:
        """Output of a line that begins with `astroml-plugin`."""
        program, *words = shlex.split(command)
        assert program == "astroml-plugin"
        path = os.pathsep.join([str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        return _checked([sys.executable, "-m", "workflows.cli", *words], self.project, environment)


def _checked(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    return done.stdout
