"""Files are written whole or not at all, and secrets never leave."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from astroml_plugin.core import storage


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
