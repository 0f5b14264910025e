"""URLs and atomic files: the one place that knows where bytes live (local folder, S3, HTTP, memory)."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import math
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import fsspec.asyn
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from astroml_plugin.core.errors import DamagedError, InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.redaction import has_user, remember
from astroml_plugin.core.redaction import redact as redact

T = TypeVar("T")

ATTEMPTS = 5
"""Tries of one transient I/O operation before its error is let through."""

PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
"""Errors of files that no second try mends."""


_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*(?=://)")


def _plain(url: Place) -> str:
    """`url` with its scheme in small letters, as the filesystems know it."""
    return _SCHEME.sub(lambda match: match[0].lower(), text_of(url))


def is_local(url: Place) -> bool:
    """Whether `url` is a plain path or a file:// URL."""
    return "://" not in (plain := _plain(url)) or plain.startswith(("file://", "local://"))


def is_web(url: Place) -> bool:
    """Whether `url` is on a web server: read only, and nothing there can be listed."""
    return _plain(url).startswith(("http://", "https://"))


def path_of(url: Place) -> str:
    """`url` without the query (`?…`) and the fragment (`#…`) of a web address: its end tells the kind of file."""
    return re.split("[?#]", text_of(url), maxsplit=1)[0] if is_web(url) else text_of(url)


def local_path(url: Place) -> Path:
    """The path behind a local URL."""
    return Path(re.sub(r"^(file|local)://", "", _plain(url)))


def absolute(url: Place) -> str:
    """Absolute name of a place: another process with another working folder finds it."""
    return str(local_path(url).expanduser().resolve()) if is_local(url) else _plain(url).rstrip("/")


def each_absolute(urls: Iterable[str]) -> Iterator[str]:
    """`absolute` of many, one after the other: the links of a folder are followed once for all its files."""
    followed = cache(absolute)
    for url in urls:
        folder, _, name = url.rpartition("/")
        alone = not folder or name in ("", ".", "..") or "://" in url or url[0] == "~" or os.path.islink(url)
        yield absolute(url) if alone else os.path.join(followed(folder), name)


def named(url: Place) -> str:
    """`absolute`, but a symbolic link keeps its own name: data managers link readable names to hashed files."""
    path = local_path(url).expanduser() if is_local(url) else None
    if path is None or path.name in ("", ".."):
        return absolute(url)
    return str(path.parent.resolve() / path.name)


def join(url: Place, *parts: str) -> str:
    """`url` with path parts appended.

    Raises:
        InputError: the address of a folder of a web server has a query or a fragment, behind which nothing can stand.
    """
    if path_of(url) != text_of(url):
        raise InputError(
            f"{redact(url)} cannot be the address of a folder, as `?` or `#` ends the path: give it without, and keys "
            f"of the server in fsspec's configuration"
        )
    return "/".join([text_of(url).rstrip("/"), *(part.strip("/") for part in parts)])


def digest(*parts: Any) -> str:
    """Hex SHA-256 of the canonical JSON of `parts` (plain values only)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def filesystem(url: Place) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec filesystem of `url` and the path inside it."""
    remember(text_of(url))
    opened: tuple[fsspec.AbstractFileSystem, str] = url_to_fs(absolute(url) if is_local(url) else _plain(url))
    return opened


def retrying(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call `function`, again with growing, jittered pauses when its I/O error may pass.

    A file that does not exist, or may not be read or written, is no passing error.
    """
    for attempt in range(ATTEMPTS):
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if attempt == ATTEMPTS - 1 or not _may_pass(error):
                raise
            time.sleep(min(8.0, 0.2 * 2**attempt) * random.uniform(0.5, 1.5))  # noqa: S311
    raise AssertionError("unreachable")


def is_remote_failure(error: BaseException) -> bool:
    """Whether a storage client's own error (connection, credentials, protocol) is the cause, whatever its class."""
    if type(error) is RuntimeError:  # zarrs passes on the words of object_store
        return str(error).startswith("Generic ")
    return type(error).__module__.partition(".")[0] in _CLIENTS


def _may_pass(error: Exception) -> bool:
    if isinstance(error, PERMANENT) or getattr(error, "errno", None) in _HOPELESS:
        return False
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
        return False  # the web server has said no
    return isinstance(error, OSError) or is_remote_failure(error)


_CLIENTS = frozenset({"botocore", "aiobotocore", "aiohttp", "gcsfs", "azure", "adlfs", "obstore"})
_HOPELESS = frozenset({28, 30, 36, 122})  # no space, read-only, name too long, quota: waiting does not help


def read_bytes(url: Place) -> bytes:
    """All bytes of a file."""
    if is_local(url):
        return local_path(url).read_bytes()
    fs, path = filesystem(url)
    return bytes(retrying(fs.cat_file, path))


def head(url: str) -> tuple[int | None, bool]:
    """Bytes of a file on a web server, where it tells them, and whether it gives parts of files.

    Raises:
        FileNotFoundError: it is not there.
    """
    fs, url = filesystem(url)
    found: tuple[int | None, bool] = retrying(fsspec.asyn.sync, fs.loop, _head, fs, url)
    return found


async def _head(fs: Any, url: str) -> tuple[int | None, bool]:
    session = await fs.set_session()
    options = {"allow_redirects": True, "headers": {"Accept-Encoding": "identity"}}
    for method in ("HEAD", "GET"):  # some servers know no HEAD
        async with session.request(method, fs.encode_url(url), **options) as answer:
            if answer.status in (404, 410):
                raise FileNotFoundError(url)
            if method == "HEAD" and answer.status in (403, 405, 501):
                continue
            answer.raise_for_status()
            size = answer.headers.get("Content-Length")
            return None if size is None else int(size), answer.headers.get("Accept-Ranges", "") == "bytes"
    raise AssertionError("unreachable")


def refuse_web(url: Place) -> None:
    """InputError where `url` is on a web server, to which nothing is written."""
    if is_web(url):
        raise InputError(f"nothing can be written to {redact(url)}: run this where the files are")


def write_atomic(url: Place, data: bytes) -> None:
    """Write a whole file or nothing: a reader sees the old bytes or the new ones, also after a crash."""
    if is_local(url):
        _replace_local(local_path(url), data)
        return
    refuse_web(url)
    fs, path = filesystem(url)
    retrying(fs.pipe_file, path, data)


def _replace_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def exists(url: Place) -> bool:
    """Whether a file or folder is there."""
    if is_local(url):
        return local_path(url).exists()
    if is_web(url):
        with contextlib.suppress(FileNotFoundError):
            head(text_of(url))
            return True
        return False
    fs, path = filesystem(url)
    return bool(retrying(fs.exists, path))


def remove(url: Place) -> None:
    """Delete one file; one that is not there is fine."""
    if is_local(url):
        local_path(url).unlink(missing_ok=True)
        return
    refuse_web(url)
    fs, path = filesystem(url)
    try:
        retrying(fs.rm_file, path)
    except FileNotFoundError:
        return


def list_files(url: Place, suffix: str = "") -> list[str]:
    """Names of all finished files below `url`, relative to it and sorted; empty where the folder is absent."""
    if is_local(url):
        return sorted(_scan(str(local_path(url)), "", suffix))
    fs, path = filesystem(url)
    fs.invalidate_cache(path)
    root = path.rstrip("/") + "/"
    try:
        names = retrying(fs.find, path)
    except FileNotFoundError:
        return []
    return sorted(name.removeprefix(root) for name in names if name.endswith(suffix))


def _scan(folder: str, prefix: str, suffix: str) -> list[str]:
    found: list[str] = []
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return found
    with entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                found += _scan(entry.path, f"{prefix}{entry.name}/", suffix)
            elif entry.name.endswith(suffix) and (not entry.is_symlink() or os.path.exists(entry.path)):
                found.append(prefix + entry.name)
    return found


def damaged(url: Place, reason: object) -> DamagedError:
    """The error for a file of ours that cannot be read any more."""
    told = " ".join(redact(str(reason)).split())[:200]
    return DamagedError(f"{redact(url)} is damaged ({told}): put a copy of it back, or make what it belongs to again")


def read_table(url: Place, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    """A Parquet file as an Arrow table; pages that carry checksums are compared with them.

    Raises:
        DamagedError: it is no Parquet file, lacks a column, or its bytes were changed.
    """
    place: Any = local_path(url) if is_local(url) else io.BytesIO(read_bytes(url))
    try:
        return pq.read_table(
            place, columns=columns, filters=filters, partitioning=None, page_checksum_verification=True
        )
    except pa.ArrowException as error:
        raise damaged(url, error) from error
    except OSError as error:
        if error.errno is not None or isinstance(error, PERMANENT):
            raise
        raise damaged(url, error) from error


def encode_table(table: pa.Table, **options: Any) -> bytes:
    """The bytes of `table` as one zstd Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True, **options)
    return sink.getvalue()


def write_table(url: Place, table: pa.Table, **options: Any) -> None:
    """Write `table` as one Parquet file, atomically."""
    write_atomic(url, encode_table(table, **options))


def read_json(url: Place) -> Any:
    """A JSON file's value.

    Raises:
        DamagedError: it is no JSON.
    """
    return parse_json(read_bytes(url), url)


def parse_json(data: bytes, url: Place) -> Any:
    """The value of JSON text that stands in a file.

    Raises:
        DamagedError: it is none.
    """
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise damaged(url, f"no JSON: {error}") from error


def read_lines(url: Place) -> list[Any]:
    """The values of a file of JSON lines; none where there is no file.

    Raises:
        DamagedError: a line is no JSON.
    """
    return [parse_json(line, url) for line in read_bytes(url).splitlines()] if exists(url) else []


def read_record(url: Place, /, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """A JSON object that has these fields, each of its kind.

    Raises:
        DamagedError: it is no JSON, no object, or lacks a field.
    """
    record = read_json(url)
    if not isinstance(record, dict):
        raise damaged(url, f"{type(record).__name__} instead of a record")
    wrong = [name for name, kind in kinds.items() if not isinstance(record.get(name), kind)]
    if wrong:
        raise damaged(url, f"no {', '.join(wrong)} in it")
    return record


def finite(value: Any) -> Any:
    """Plain JSON values of nested lists and tables: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(url: Place, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomic(url, (json.dumps(value, indent=2, sort_keys=False) + "\n").encode())


HAS_OBSTORE = importlib.util.find_spec("obstore") is not None
"""Whether `obstore` reads what it can: arrays over HTTP, and on S3 with keys from the environment."""


def through_obstore(url: str) -> bool:
    """Whether arrays at `url` are read by obstore. Keys, endpoints and profiles that fsspec is told of stay with it."""
    if not HAS_OBSTORE or has_user(url) or "?" in url:
        return False
    if url.startswith("s3://"):
        return {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(os.environ) and not fsspec.config.conf.get("s3")
    return is_web(url) and not fsspec.config.conf.get("http")


@cache
def _remote_store(url: str, read_only: bool) -> Any:
    from zarr.storage import FsspecStore, ObjectStore

    if read_only and through_obstore(url):
        import obstore

        options: Any = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": ATTEMPTS - 1}}
        return ObjectStore(obstore.store.from_url(url, **options), read_only=True)
    return FsspecStore.from_url(url, read_only=read_only)


def zarr_store(url: Place, read_only: bool = False) -> Any:
    """The zarr store of `url`: LocalStore for a path, ObjectStore where obstore reads it, else FsspecStore."""
    from zarr.storage import LocalStore

    if is_local(url):
        return LocalStore(local_path(absolute(url)), read_only=read_only)
    return _remote_store(absolute(url), read_only)
