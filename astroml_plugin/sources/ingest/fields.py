"""Input files as fields: which files are the bands of one field, and their identity."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest.exposures import companion, needed
from astroml_plugin.sources.ingest.options import FitsOptions

NO_FILE = "-"
"""Stands in the list of inputs for a band that a field does not have."""


@dataclass(frozen=True)
class Field:
    """Input files of one field, one per band, or one cube."""

    urls: tuple[str, ...]
    """Image files in band order; `NO_FILE` where a band is missing."""
    source: str
    """Identity of all files as JSON text [[url, size, modified], ...]."""
    source_id: str
    """Digest of the identity and the options."""


def drop_companions(urls: Sequence[str], options: FitsOptions) -> list[str]:
    """The inputs without those that are weight or mask files of other inputs (a shell's *.fits gives them all)."""
    patterns = [p for p in (options.variance_pattern, options.weight_pattern, options.mask_pattern) if p]
    others = {other for url in urls for pattern in patterns if (other := companion(pattern, url)) not in (None, url)}
    return [url for url in urls if url not in others]


def is_pattern(psf: Sequence[str]) -> bool:
    """Whether the PSF option is one pattern of file names."""
    return len(psf) == 1 and ("{stem}" in psf[0] or "=" in psf[0])


def _files(url: str, options: FitsOptions) -> list[str]:
    """Every file read for one image file."""
    if url == NO_FILE:
        return []
    patterns = [options.variance_pattern, options.weight_pattern, options.mask_pattern]
    patterns += list(options.psf) if is_pattern(options.psf) else []
    return [url, *(needed(pattern, url) for pattern in patterns if pattern)]


def fields_of(urls: Sequence[str], group: int, bands: Sequence[str], options: FitsOptions) -> list[Field]:
    """Inputs taken `group` at a time as the bands of one field, with their identity (one stat a file, no reading).

    Raises:
        InputError: the number of inputs is no multiple of `group`, or a file is not there.
    """
    if len(urls) % group:
        raise InputError(
            f"{len(urls)} files are no multiple of {group} bands ({','.join(bands)}): give one file per band and "
            f"field, {NO_FILE!r} where a field lacks a band"
        )
    fields = [tuple(urls[start : start + group]) for start in range(0, len(urls), group)]
    files = [[file for url in field for file in _files(url, options)] for field in fields]
    extra = [] if is_pattern(options.psf) else list(options.psf)
    known = _identities({file for names in files for file in names} | set(extra))
    settings = {**options.identity(), "bands": list(bands)}
    found = []
    for field, names in zip(fields, files, strict=True):
        if not names:
            raise InputError(f"a field of only {NO_FILE!r} has no image: give at least one file")
        identity = [known[name] for name in [*names, *extra]]
        source_id = storage.digest(identity, list(field), settings)[:16]
        found.append(Field(field, json.dumps(identity), source_id))
    return found


def _identities(urls: Iterable[str]) -> dict[str, list[object]]:
    ordered = sorted(urls)
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(ordered, pool.map(file_identity, ordered), strict=True))


def file_identity(url: str) -> list[object]:
    """[url, size, modified] of a file; InputError when it is not there."""
    try:
        if storage.is_local(url):
            status = storage.local_path(url).stat()
            return [url, status.st_size, f"{status.st_mtime_ns}"]
        filesystem, path = storage.filesystem(url)
        info = storage.retrying(filesystem.info, path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{storage.redact(url)} does not exist: check the path") from None
    except OSError as error:
        raise InputError(f"{storage.redact(url)} cannot be reached: {storage.redact(str(error))}") from error
    changed = next(
        (str(info[key]) for key in ("ETag", "etag", "LastModified", "mtime", "created") if info.get(key)), ""
    )
    return [storage.redact(url), info.get("size"), changed]
