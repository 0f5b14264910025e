"""The page of `make test-matrix` tells what ran where, and every file it names is there."""

from pathlib import Path

from tests.matrix import EXTRAS, SUBSET, Result, page, requirements


def test_the_page_lists_environments_failures_and_versions() -> None:
    ran = Result("3.12", day="2026-01-01", python="3.12.1", counts={"passed": 3, "failed": 1}, seconds=12.0)
    bad = Result("lowest", python="3.11.7", counts={"failed": 1}, failed=["test_a: boom"], versions={"numpy": "2.0.0"})
    text = page([ran, bad, Result("3.13", "python3.13 is not on this machine")])
    assert "| 3.12 | 3.12.1 | 3 passed, 1 failed | 12 | 2026-01-01 |" in text
    assert "| 3.13 |  | python3.13 is not on this machine |  |  |" in text
    assert "- lowest: test_a: boom" in text
    assert "| package | lowest |" in text
    assert "| numpy | 2.0.0 |" in text


def test_its_files_are_there_and_its_requirements_have_floors() -> None:
    assert not [name for name in SUBSET if not Path(__file__).with_name(f"test_{name}.py").exists()]
    assert len(set(SUBSET)) == len(SUBSET)
    assert all(">=" in each for each in requirements(EXTRAS))
