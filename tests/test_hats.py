"""HATS, LSDB and MOC: the tests of `tests/inside_lsdb.py`, in an environment that has these libraries."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lsdb_environment import run_tests


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_hats_as_lsdb_sees_it(tmp_path: Path) -> None:
    assert " passed" in run_tests("tests/inside_lsdb.py", tmp_path)
