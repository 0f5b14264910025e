"""Files in places that all users share: another user reaches none of them, and none is overwritten through a link."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from astroml_plugin.catalog import merge
from astroml_plugin.compute.cluster.options import ClusterOptions
from astroml_plugin.core import private, storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.private import open_lock, private_folder
from astroml_plugin.search import node_cache
from tests.training_samples import class_stamps


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary place of all users; gives the folder that is this user's in it."""
    tmp_path.chmod(0o1777)
    monkeypatch.delenv(private.CACHE, raising=False)
    monkeypatch.setattr(private.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"astroml-plugin-{os.getuid()}"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_folders_are_for_their_owner_alone(place: Path) -> None:
    before = os.umask(0)
    try:
        made = private_folder("stamps")
    finally:
        os.umask(before)
    assert made == place / "stamps"
    assert (mode(place), mode(made)) == (0o700, 0o700)
    place.chmod(0o755)
    private_folder("stamps")
    assert mode(place) == 0o700


@pytest.mark.parametrize("level", ["", "stamps"])
def test_what_others_may_have_made_is_refused(place: Path, tmp_path: Path, level: str) -> None:
    planted = place / level if level else place
    if level:
        place.mkdir(mode=0o700)
    (tmp_path / "victim").mkdir()
    planted.symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match=r"is a link or no folder.*remove it, or name a folder.*ASTROML_CACHE"):
        private_folder("stamps")
    planted.unlink()
    planted.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a link or no folder"):
        private_folder("stamps")
    planted.unlink()
    planted.write_text("")
    with pytest.raises(InputError, match="is a link or no folder"):
        private_folder("stamps")
    planted.unlink()
    planted.mkdir()
    planted.chmod(0o777)
    with pytest.raises(InputError, match="other users may write to"):
        private_folder("stamps")
    assert list((tmp_path / "victim").iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_refused(place: Path) -> None:
    place.mkdir(mode=0o700)
    os.chown(place, 65534, 65534)
    with pytest.raises(InputError, match=r"belongs to another user \(uid 65534\)"):
        private_folder("stamps")


def test_a_lock_follows_no_link_and_empties_nothing(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("ten years of work")
    (tmp_path / "x.lock").symlink_to(thesis)
    with pytest.raises(OSError, match="symbolic links"):
        open_lock(tmp_path / "x.lock")
    os.close(open_lock(thesis))
    assert thesis.read_text() == "ten years of work"


def test_the_cache_of_a_search_is_not_where_another_user_planted_it(place: Path, tmp_path: Path) -> None:
    source = class_stamps(str(tmp_path / "s.zarr"), 20)
    (tmp_path / "thesis.txt").write_text("ten years of work")
    (place / "stamps").mkdir(parents=True)
    for folder in (place, place / "stamps"):
        folder.chmod(0o777)
    digest = node_cache.LabelledStamps([source]).digest
    (place / "stamps" / f"{digest[:32]}.lock").symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(InputError, match="other users may write to"):
        node_cache.CachedStamps([source])
    assert (tmp_path / "thesis.txt").read_text() == "ten years of work"
    for folder in (place / "stamps", place):
        folder.chmod(0o700)
    with pytest.raises(OSError, match="symbolic links"):
        node_cache.CachedStamps([source])
    (place / "stamps" / f"{digest[:32]}.lock").unlink()
    assert node_cache.CachedStamps([source]).mapped
    assert (tmp_path / "thesis.txt").read_text() == "ten years of work"


def test_a_folder_that_was_named_is_used(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(private.CACHE, str(tmp_path / "mine" / "cache"))
    assert private_folder("stamps") == tmp_path / "mine" / "cache" / "stamps"
    assert not place.exists()


def test_files_on_their_way_to_an_object_store_are_private(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = os.umask(0)
    try:
        with merge.publishing("memory://guard/x.parquet") as target:
            target.write_bytes(b"x")
            seen.append(mode(target))
    finally:
        os.umask(before)
    assert seen == [0o600]
    assert storage.read_bytes("memory://guard/x.parquet") == b"x"
    assert not target.exists()


@pytest.mark.parametrize("name", ["local", "processes"])
def test_dask_works_in_a_private_folder(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from astroml_plugin.compute.cluster import starting

    given: dict[str, object] = {}

    def cluster(**options: object) -> object:
        given.update(options)
        return object()

    monkeypatch.setattr(starting, "LocalCluster", cluster)
    monkeypatch.setattr(starting, "has_pages", lambda: True)
    start: Callable[..., object] = starting.STARTERS[name]
    start(ClusterOptions(scheduler=name, workers=1, threads=1))
    assert given["local_directory"] == str(place / "dask")
    assert mode(place / "dask") == 0o700


def sealed(**_: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


@pytest.mark.parametrize("kind", ["file", "below a file", "sealed"])
def test_a_named_folder_that_cannot_be_used_is_one_sentence(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    named = tmp_path / "named"
    named.write_text("")
    if kind == "sealed":  # which root could not tell by the rights of a folder
        named.unlink()
        monkeypatch.setattr(private.tempfile, "TemporaryFile", sealed)
    monkeypatch.setenv(private.CACHE, str(named / "below" if kind == "below a file" else named))
    with pytest.raises(InputError, match=r"named.*ASTROML_CACHE names, cannot be used .*that you may write to"):
        private_folder("stamps")


def test_a_relative_folder_is_the_same_in_every_process(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(private.CACHE, "mine")
    assert private_folder("stamps") == tmp_path / "mine" / "stamps"


def test_a_user_without_a_name_is_a_number(tmp_path: Path) -> None:
    """Containers run as numbers that the system does not know: nothing asks for a name and fails."""
    script = (
        "import os, pwd\n"
        "for name in ('USER', 'LOGNAME', 'LNAME', 'USERNAME'): os.environ.pop(name, None)\n"
        "pwd.getpwuid = lambda uid: {}[uid]\n"
        "from astroml_plugin.core.private import user_name\n"
        "assert user_name() == str(os.getuid())\n"
        "import workflows.infer, astroml_plugin.compute.cluster.starting, astroml_plugin.labelling.scorefile\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
