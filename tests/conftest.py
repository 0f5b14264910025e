"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real images; the test is skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ASTROML_TEST_DATA", default))
    if not (folder / "SHA256SUMS").exists():
        pytest.skip(f"no real images in {folder} (set ASTROML_TEST_DATA)")
    return folder
