"""Files are written whole or not at all, and secrets never leave."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError


def test_write_atomic_leaves_no_trace_of_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a" / "file.bin"
    storage.write_atomic(str(target), b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        storage.write_atomic(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert [entry.name for entry in target.parent.iterdir()] == ["file.bin"]


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut could leave an empty file under the name of a whole one."""
    target = tmp_path / "file.bin"
    seen: list[tuple[int, bool]] = []

    def forced(number: int) -> None:
        seen.append((os.fstat(number).st_size, target.exists()))

    monkeypatch.setattr("os.fsync", forced)
    storage.write_atomic(str(target), b"new")
    assert seen == [(3, False)]


def test_memory_filesystem_behaves_like_a_folder() -> None:
    base = "memory://storage-test"
    storage.write_atomic(storage.join(base, "b/two.txt"), b"2")
    storage.write_atomic(storage.join(base, "one.parquet"), b"1")
    assert storage.list_files(base) == ["b/two.txt", "one.parquet"]
    assert storage.list_files(base, ".parquet") == ["one.parquet"]
    assert storage.list_files(storage.join(base, "absent")) == []
    storage.remove(storage.join(base, "one.parquet"))
    storage.remove(storage.join(base, "one.parquet"))
    assert not storage.exists(storage.join(base, "one.parquet"))


def test_temporary_files_are_never_listed(tmp_path: Path) -> None:
    (tmp_path / ".part.parquet.0123.tmp").write_bytes(b"")
    (tmp_path / "part.parquet").write_bytes(b"")
    assert storage.list_files(str(tmp_path)) == ["part.parquet"]


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("s3://key:SECRET@bucket/x", "SECRET"),
        ("https://host/x?X-Amz-Signature=SECRET&a=1", "SECRET"),
        ("https://host/x?token=SECRET", "SECRET"),
        ("failed with password=SECRET;", "SECRET"),
    ],
)
def test_redact_removes_secrets(text: str, secret: str) -> None:
    assert secret not in storage.redact(text)


def test_retrying_gives_up_at_once_on_what_cannot_pass() -> None:
    calls = []

    def missing() -> None:
        calls.append(1)
        raise FileNotFoundError("x")

    with pytest.raises(FileNotFoundError):
        storage.retrying(missing)
    assert len(calls) == 1


def test_retrying_survives_passing_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    calls = []

    def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionResetError("again")
        return "done"

    assert storage.retrying(flaky) == "done"


def test_schemes_in_capitals_are_schemes(tmp_path: Path) -> None:
    assert storage.is_web("HTTPS://h/x")
    assert storage.absolute("HTTP://Host/x/") == "http://Host/x"
    assert storage.absolute(f"FILE://{tmp_path}") == str(tmp_path)
    storage.write_atomic("MEMORY://capitals/x", b"1")
    assert storage.read_bytes("memory://capitals/x") == b"1"


@pytest.mark.parametrize("end", ["?token=Zq7secret", "#x", "/?token=Zq7secret"])
def test_a_folder_of_a_web_server_has_no_query(end: str) -> None:
    assert storage.path_of(f"https://h/a.fits{end.lstrip('/')}") == "https://h/a.fits"
    assert storage.path_of("s3://b/a#1.fits") == "s3://b/a#1.fits"
    with pytest.raises(InputError, match=r"cannot be the address of a folder, as `\?` or `#` ends the path") as told:
        storage.join(f"https://h/catalog{end}", "schema.json")
    assert "Zq7secret" not in str(told.value)


def test_links_are_followed_alike_one_by_one_and_for_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.avro").touch()
    (tmp_path / "linked").symlink_to("real")
    (tmp_path / "one.avro").symlink_to("real/a.avro")
    monkeypatch.chdir(tmp_path)
    places = ["linked/a.avro", "one.avro", "./real/../real/a.avro", "linked/..", "no/b", "/", "s3://x/y/", "~/c"]
    places += [f"{tmp_path}/linked/a.avro", f"file://{tmp_path}/linked/a.avro", f"{tmp_path}/linked/"]
    assert list(storage.each_absolute(places)) == [storage.absolute(place) for place in places]
