"""The image that deploy/ makes; its scripts are tested in test_job_scripts.py and test_slurm.py."""

from __future__ import annotations

from pathlib import Path

DEPLOY = Path(__file__).parent.parent / "deploy"


def test_the_image_copies_what_the_package_needs() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    for name in (
        "pyproject.toml",
        "setup.py",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "astroml_plugin",
        "workflows",
    ):
        assert name in text
        assert (DEPLOY.parent / name).exists()
