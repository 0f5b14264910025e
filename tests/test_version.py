"""Versions tell two commits apart, also where pip's record of an editable install is old."""

import subprocess
import tomllib
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

import astroml_plugin
from astroml_plugin.core import version
from astroml_plugin.core.errors import InputError
from astroml_plugin.inference.driver import prepare_workers

ROOT = Path(__file__).parents[1]


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of one commit that looks like a checkout of the package."""
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "pyproject.toml").write_text("")
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    return root


def test_a_checkout_names_the_commit_it_stands_on(checkout: Path) -> None:
    first = version._commit(checkout)
    assert first == git(checkout, "rev-parse", "HEAD")
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "second")
    second = version._commit(checkout)
    assert second == git(checkout, "rev-parse", "HEAD") != first
    git(checkout, "pack-refs", "--all")
    assert version._commit(checkout) == second
    git(checkout, "checkout", "--quiet", "--detach", first)
    assert version._commit(checkout) == first


def test_a_worktree_and_a_shallow_clone_name_their_commits(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "second")
    git(checkout, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"), "HEAD~1")
    assert version._commit(tmp_path / "side") == git(checkout, "rev-parse", "HEAD~1")
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{checkout}", "shallow")
    assert version._commit(tmp_path / "shallow") == git(checkout, "rev-parse", "HEAD")


def test_without_git_there_is_no_commit_and_no_error(checkout: Path, tmp_path: Path) -> None:
    assert version._commit(tmp_path) is None
    (checkout / ".git" / "HEAD").write_text("ref: refs/heads/gone\n")
    assert version._commit(checkout) is None
    (checkout / ".git" / "HEAD").write_bytes(b"\xff\xfe")
    assert version._commit(checkout) is None


def test_the_next_release_is_said_once_more_in_pyproject() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools_scm"]
    assert settings["fallback_version"] == f"{version.NEXT_RELEASE}.dev0"


def test_the_version_of_the_package_is_the_one_of_its_commit() -> None:
    assert astroml_plugin.__version__ == version.version()
    if commit := version._commit(ROOT):
        assert astroml_plugin.__version__ == f"{version.NEXT_RELEASE}.dev0+g{commit[:9]}"


def test_the_digest_of_the_code_follows_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module.py").write_text("one = 1\n")
    monkeypatch.setattr(version, "PACKAGE", tmp_path)
    before = version.code_digest.__wrapped__()
    assert version.code_digest.__wrapped__() == before
    (tmp_path / "module.py").write_text("one = 2\n")
    assert version.code_digest.__wrapped__() != before


def _run_other_code() -> None:
    from astroml_plugin.core import version

    version.code_digest = lambda: "0123456789ab"


def test_workers_that_run_other_code_are_refused() -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        prepare_workers(client)
        client.run(_run_other_code)
        with pytest.raises(InputError, match=r"workers run .*code 0123456789ab.*install the same version"):
            prepare_workers(client)
