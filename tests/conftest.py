"""What all tests share."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Compiled files are kept, also where the machine says not to: tests start a hundred processes, and each would compile
# the package anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# As the command sets it: threads of torch that spin at barriers starve each other where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

settings.register_profile("house", derandomize=True, deadline=None, database=None)
settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all tests and their processes but those of `-m cuda`: what they expect is what a CPU does."""
    wanted = re.sub(r"not\s+cuda", "", config.getoption("markexpr", "") or "")
    if "cuda" not in wanted:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """Files are not forced to the disk: no test cuts the power, and what a killed process wrote stays without that.

    `tests/test_storage.py` holds that it is asked for. Processes that tests start do force them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", os.fstat)  # refuses what is no open file, too
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real images; the test is skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ASTROML_TEST_DATA", default))
    if not (folder / "SHA256SUMS").exists():
        pytest.skip(f"no real images in {folder} (set ASTROML_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def spotting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The task of `tests.spotter` installed; the environment in which other processes have it too."""
    from tests import spotter

    with spotter.installed(tmp_path_factory.mktemp("spotting")) as environment:
        yield environment


@pytest.fixture(scope="session")
def spotted(tmp_path_factory: pytest.TempPathFactory, spotting: object) -> Path:
    """One sky in three tilings and what was found in each: see `tests.detection`."""
    from astroml_plugin.compute.cluster import connect
    from tests import detection

    with connect("local", threads=2) as client:
        return detection.make(tmp_path_factory.mktemp("spotted"), client)


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    """Threads of this process."""
    from astroml_plugin.compute.cluster import connect

    with connect("local", threads=2) as client:
        yield client


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads of torch wait for each other on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
