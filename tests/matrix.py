"""Tests on other versions, as tests/MATRIX.md: python -m tests.matrix [NAME …] (`make test-matrix`).

Each environment is made below the repository (.venv-matrix-NAME) and kept until the requirements change. A Python that
is not on this machine is skipped, and the page says so. Only the standard library is needed to start it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

from tests.pages import machine, table
from tests.summary import read

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("MATRIX.md")
EXTRAS = ("dev", "sim", "s3", "classical", "fast", "optuna", "index")
SECONDS = 3600
"""Time that the tests of one environment may take."""
SUBSET = (
    *("storage", "settings", "version", "api"),  # core
    *("sky", "device", "cluster"),  # sky, compute
    *("cutouts", "networks"),
    *("survey", "stamps", "ingest_fits", "ingest_stamps", "s3"),  # sources
    *("catalog", "query", "compact", "ranking", "objects_columns"),  # catalog
    *("calibration", "shear", "baselines"),  # evaluation
    *("tasks_base", "tasks_classify", "tasks_ellipticity", "tasks_segment", "tasks_regress"),
    *("simulation", "labelling_scores"),
    *("training", "bundle"),
    *("infer", "infer_segmentation", "search_space", "search"),
    *("workflows_train", "cli"),
)
"""Test files by name, some of every room."""


@dataclass(frozen=True)
class Environment:
    """One combination of versions."""

    name: str
    python: str
    lowest: bool = False
    """Whether direct dependencies have the lowest versions that pyproject.toml names, else the newest there are."""

    @property
    def folder(self) -> Path:
        return ROOT / f".venv-matrix-{self.name}"

    @property
    def interpreter(self) -> str:
        return str(self.folder / "bin" / "python")


ENVIRONMENTS = (
    Environment("lowest", "python3.11", lowest=True),
    Environment("3.12", "python3.12"),
    Environment("3.13", "python3.13"),
)


@dataclass(frozen=True)
class Result:
    """What the tests of one environment gave."""

    name: str
    why_not: str = ""
    """Reason that nothing ran; empty where tests ran."""
    day: str = ""
    python: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    """Outcome -> tests."""
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    """Direct dependency -> installed version."""


def run(environment: Environment) -> Result:
    """Make the environment where it is not there yet, run the tests, keep the result beside it."""
    known = interpreter(environment.python)
    if known is None:
        return Result(environment.name, f"{environment.python} is not on this machine")
    _prepare(environment, known)
    report = environment.folder / "junit.xml"
    report.unlink(missing_ok=True)
    # old releases warn of what has changed since: warnings are errors with the newest only
    warnings = ("-W", "default") if environment.lowest else ()
    chosen = [f"tests/test_{name}.py" for name in SUBSET]
    options = ("-q", "-m", "not slow", "-p", "no:cacheprovider", f"--junit-xml={report}")
    command = [environment.interpreter, "-m", "pytest", *options, *warnings, *chosen]
    subprocess.run(command, cwd=ROOT, check=False, timeout=SECONDS)
    if not report.exists():
        return Result(environment.name, "pytest ended without a report")
    tests = read(report)
    result = Result(
        environment.name,
        day=f"{date.today():%Y-%m-%d}",
        python=_asked(environment, "import platform; print(platform.python_version())"),
        counts=dict(Counter(test.outcome for test in tests)),
        seconds=sum(test.seconds for test in tests),
        failed=[f"{test.name}: {test.why}" for test in tests if test.outcome in ("failed", "error")],
        versions=_versions(environment),
    )
    (environment.folder / "result.json").write_text(json.dumps(asdict(result)))
    return result


def interpreter(python: str) -> str | None:
    """Path of `python3.12` and the like: on PATH, or the newest that pyenv keeps; None where none of them runs."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    kept = sorted(root.glob(f"{python.removeprefix('python')}.*/bin/{python}"))[::-1]
    for path in (shutil.which(python), *map(str, kept)):
        if path and not subprocess.run([path, "--version"], capture_output=True, check=False).returncode:
            return path
    return None


def _prepare(environment: Environment, python: str) -> None:
    stamp = environment.folder / ".ready"
    wanted = hashlib.sha256("\n".join(requirements(EXTRAS)).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if not environment.folder.exists():
        subprocess.run([python, "-m", "venv", str(environment.folder)], check=True)
    pip = [environment.interpreter, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "pip", "setuptools"], check=True)
    if environment.lowest:
        subprocess.run([*pip, "--requirement", str(_lowest(environment))], check=True)
        subprocess.run([*pip, "--no-deps", "--editable", "."], cwd=ROOT, check=True)
    else:
        subprocess.run([*pip, "--upgrade", "--editable", f".[{','.join(EXTRAS)}]"], cwd=ROOT, check=True)
    stamp.write_text(wanted)


def _lowest(environment: Environment) -> Path:
    """Pins of the lowest versions of direct dependencies; those of others are left to the resolver (uv)."""
    tool = environment.folder / "tool"
    if not tool.exists():
        subprocess.run([environment.interpreter, "-m", "venv", str(tool)], check=True)
        subprocess.run([str(tool / "bin" / "pip"), "install", "--quiet", "uv"], check=True)
    direct, pins = environment.folder / "direct.txt", environment.folder / "pins.txt"
    direct.write_text("\n".join(requirements(EXTRAS)))
    resolve = ("pip", "compile", "--quiet", "--resolution", "lowest-direct", "--python", environment.interpreter)
    subprocess.run([str(tool / "bin" / "uv"), *resolve, str(direct), "--output-file", str(pins)], check=True)
    return pins


def requirements(extras: Sequence[str]) -> list[str]:
    """Dependencies that pyproject.toml names, with those of `extras`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]


def _versions(environment: Environment) -> dict[str, str]:
    names = sorted({re.split(r"[\[<>=~!; ]", each)[0] for each in requirements(EXTRAS)})
    code = "import json, sys, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    return dict(json.loads(_asked(environment, code, *names)))


def _asked(environment: Environment, code: str, *arguments: str) -> str:
    done = subprocess.run([environment.interpreter, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def page(results: Sequence[Result]) -> str:
    """Markdown: one row per environment, what failed, and the versions that ran."""
    rows = [
        [
            result.name,
            result.python,
            result.why_not or ", ".join(f"{count:,} {outcome}" for outcome, count in result.counts.items()),
            f"{result.seconds:.0f}" if result.python else "",
            result.day,
        ]
        for result in results
    ]
    parts = [
        "# Tests on other versions",
        f"`make test-matrix` on {machine()}: {len(SUBSET)} test files of every room, without slow tests. `lowest` "
        "has the lowest versions that pyproject.toml names, the others the newest there were, with warnings as errors.",
        table(["environment", "Python", "tests", "s", "date"], rows),
    ]
    if failed := [line for result in results for line in (f"- {result.name}: {each}" for each in result.failed)]:
        parts += ["## Failed", "\n".join(failed)]
    ran = [result for result in results if result.versions]
    names = sorted({name for result in ran for name in result.versions}, key=str.lower)
    versions = [[name, *(result.versions.get(name, "") for result in ran)] for name in names]
    parts += ["## Versions", table(["package", *(result.name for result in ran)], versions)]
    return "\n\n".join(parts) + "\n"


def _kept(environment: Environment) -> Result:
    """The last result of an environment that is not asked for now."""
    file = environment.folder / "result.json"
    return Result(**json.loads(file.read_text())) if file.exists() else Result(environment.name, "was not run")


def main(names: Sequence[str]) -> int:
    """Run the named environments, or all; the page holds the last result of each. 1 where a test failed."""
    if missing := [name for name in SUBSET if not (ROOT / "tests" / f"test_{name}.py").exists()]:
        raise SystemExit(f"no test files for {', '.join(missing)}: mend SUBSET in tests/matrix.py")
    if unknown := set(names) - {environment.name for environment in ENVIRONMENTS}:
        raise SystemExit(
            f"no environment {', '.join(sorted(unknown))}: there are {', '.join(e.name for e in ENVIRONMENTS)}"
        )
    results = [run(each) if not names or each.name in names else _kept(each) for each in ENVIRONMENTS]
    PAGE.write_text(page(results))
    for result in results:
        sys.stdout.write(f"{result.name}: {result.why_not or result.counts}\n")
    return int(any(result.failed or "without a report" in result.why_not for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
