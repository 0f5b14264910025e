"""An environment of its own with LSDB and hats-import, in which tests of HATS are run.

It is made below the repository (.venv-lsdb) from constraints.txt and kept. What `make test` has is seen from it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-lsdb"
PACKAGES = ("hats-import>=0.11", "lsdb>=0.11", "mocpy>=0.17")


def interpreter() -> Path:
    """Path of the Python there; the environment is made where there is none."""
    python, stamp = FOLDER / "bin" / "python", FOLDER / ".ready"
    if not stamp.exists() or stamp.read_text() != repr(PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), *PACKAGES], check=True)
        host = (
            FOLDER / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages" / "host.pth"
        )
        host.write_text("\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n")
        stamp.write_text(repr(PACKAGES))
    return python


def run_tests(file: str, folder: Path) -> str:
    """Output of pytest on a file of tests in that environment; AssertionError where one fails."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [
            *(str(interpreter()), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("-o", "filterwarnings=", "-o", "timeout=900", "--basetemp", str(folder / "inner"), file),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout
