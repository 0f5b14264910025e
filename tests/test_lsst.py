"""The tasks for LSST middleware, tested in an environment of their own: this one with the middleware beside it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARSL = "lsst-ctrl-bps-parsl"
BPS_RUNS = sys.version_info >= (3, 12)
"""The version of lsst-ctrl-bps-parsl that fits Python 3.11 does not run with the Parsl of today."""
SECONDS = 1500


def pip(python: Path, *words: str) -> str | None:
    """Install with pip; what it said where it could not."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    return None if done.returncode == 0 else done.stderr[-1500:]


@pytest.fixture(scope="session")
def middleware() -> Path:
    """Folder of the programs of an environment with the extra `lsst`, made once for these requirements.

    It sees the packages of this environment, and adds those that the middleware needs.
    """
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["lsst"]
    text = "\n".join([*wanted, sys.version, (ROOT / "constraints.txt").read_text()])
    folder = ROOT / f".venv-lsst-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    programs = folder / "bin"
    if (folder / ".ready").exists():
        return programs
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "astroml_parent.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    # Parsl takes an older filelock than the tested set
    constraints = "".join(
        line for line in (ROOT / "constraints.txt").read_text().splitlines(keepends=True) if "filelock" not in line
    )
    (folder / "constraints.txt").write_text(constraints)
    lacking = pip(
        programs / "python", "--constraint", str(folder / "constraints.txt"), *wanted, "lsst-ctrl-bps", "pytest"
    )
    if lacking:
        shutil.rmtree(folder)
        pytest.skip(f"no middleware for {sys.version.split()[0]} without a package index: {lacking}")
    if BPS_RUNS and (told := pip(programs / "python", "--constraint", str(folder / "constraints.txt"), PARSL)):
        shutil.rmtree(folder)
        pytest.skip(f"no Parsl: {told}")
    (folder / ".ready").touch()
    return programs


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 1200)
def test_tasks_in_a_data_butler(middleware: Path, tmp_path: Path) -> None:
    run_tests(middleware, "tests/lsst_middleware", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 1200)
def test_the_page_for_pipelines_is_true(middleware: Path, tmp_path: Path) -> None:
    """Every block of docs/lsst.md, one after the other: commands, files, Python."""
    page = (ROOT / "docs/lsst.md").read_text()
    blocks = re.findall(r"```(bash|yaml|python)\n(.*?)```", page, re.DOTALL)
    assert {kind for kind, _ in blocks} == {"bash", "yaml", "python"}
    path = f"{middleware}{os.pathsep}{os.environ['PATH']}"
    script = ["set -e"]
    for number, (kind, text) in enumerate(blocks):
        if kind == "bash":
            if "pip install" in text:
                continue
            if "bps submit" in text and not BPS_RUNS:
                continue
            script.append(text)
            continue
        name = re.match(r"# (\S+\.yaml)\n", text)
        file = name[1] if kind == "yaml" and name else f"block{number}.py"
        assert kind == "python" or name, "a YAML block names its file in its first line"
        (tmp_path / file).write_text(text)
        if kind == "python":
            script.append(f"python {file}")
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]


def run_tests(programs: Path, what: str, folder: Path) -> None:
    """Run tests with the Python of another environment."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "filterwarnings=", "--timeout=900"]
    done = subprocess.run(
        [str(programs / "python"), *words, f"--basetemp={folder / 'tests'}", what],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout), done.stdout
