"""Input files as fields: which files are the bands of one field, and their identity."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest.exposures import COMPANIONS, companion, needed
from astroml_plugin.sources.ingest.in_memory import content_of
from astroml_plugin.sources.ingest.opening import stem_of
from astroml_plugin.sources.ingest.options import FitsOptions
from astroml_plugin.sources.ingest.words import MASK, VARIANCE, WEIGHT, file_key, read_file_name, shared_keys

Beside = Mapping[str, Mapping[str, str]]
"""Image file -> role -> file that holds the plane of that role."""

_SEVERAL_PSFS = ("GRID", "CATALOG")
"""Words for files of many PSFs: none of them is the PSF of an image."""

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
    beside: tuple[tuple[str, str, str], ...] = ()
    """(image file, role, file of that role) of planes in files of their own."""


def drop_companions(urls: Sequence[str], options: FitsOptions) -> list[str]:
    """The inputs without those that are weight or mask files of other inputs (a shell's *.fits gives them all)."""
    patterns = [p for p in (options.variance_pattern, options.weight_pattern, options.mask_pattern) if p]
    others = {other for url in urls for pattern in patterns if (other := companion(pattern, url)) not in (None, url)}
    return [url for url in urls if url not in others]


@dataclass(frozen=True)
class Inputs:
    """Input files, sorted by their names."""

    images: list[str]
    """Files that may hold images, and `NO_FILE`."""
    beside: dict[str, dict[str, str]]
    """Image file -> role -> file that by its name holds the plane of that role."""
    left_out: list[str]
    """Files that by their names belong to an image and are no part of a survey: backgrounds, segmentation maps."""


def by_name(urls: Sequence[str], options: FitsOptions) -> Inputs:
    """Sort inputs such as `x-int-3.fits`, `x-unc-3.fits`, `x-cov-3.fits`; those without an image stay where they are.

    Args:
        urls: input files.
        options: roles by hand, or a pattern for a role, come before names.
    """
    readings = {url: read_file_name(stem_of(url)) for url in urls if url != NO_FILE}
    others = {url: reading for url, reading in readings.items() if reading is not None}
    if options.roles is not None or not others:
        return Inputs(list(urls), {}, [])
    images: dict[tuple[str, str], list[str]] = {}
    shared: dict[tuple[str, str], list[str]] = {}
    for url in readings:
        if url not in others:
            images.setdefault(_name_key(url), []).append(url)
            for key in shared_keys(stem_of(url)):
                shared.setdefault((url.rpartition("/")[0], key), []).append(url)
    patterns = {VARIANCE: options.variance_pattern, WEIGHT: options.weight_pattern, MASK: options.mask_pattern}
    beside: dict[str, dict[str, str]] = {}
    left_out = []
    for url, reading in others.items():
        owners = images.get(_name_key(url), [])
        if not owners and (reading.role == MASK or reading.role not in COMPANIONS):  # one mask of several filters
            owners = shared.get(_name_key(url), [])
        elif len(owners) != 1:
            continue
        usable = reading.role in COMPANIONS and not patterns.get(reading.role) and reading.word not in _SEVERAL_PSFS
        free = [owner for owner in owners if usable and reading.role not in beside.setdefault(owner, {})]
        for owner in free:
            beside[owner][reading.role] = url
        if owners and not free:
            left_out.append(url)
    gone = {*left_out, *(file for files in beside.values() for file in files.values())}
    return Inputs(
        [url for url in urls if url not in gone], {url: files for url, files in beside.items() if files}, left_out
    )


def _name_key(url: str) -> tuple[str, str]:
    return url.rpartition("/")[0], file_key(stem_of(url))


def is_pattern(psf: Sequence[str]) -> bool:
    """Whether the PSF option is one pattern of file names."""
    return len(psf) == 1 and ("{stem}" in psf[0] or "=" in psf[0])


def _files(url: str, options: FitsOptions, beside: Beside) -> list[str]:
    """Every file read for one image file."""
    if url == NO_FILE:
        return []
    patterns = [options.variance_pattern, options.weight_pattern, options.mask_pattern]
    patterns += list(options.psf) if is_pattern(options.psf) else []
    return [url, *(needed(pattern, url) for pattern in patterns if pattern), *beside.get(url, {}).values()]


def fields_of(
    urls: Sequence[str],
    group: int,
    bands: Sequence[str],
    options: FitsOptions,
    beside: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> list[Field]:
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
    files = [[file for url in field for file in _files(url, options, beside)] for field in fields]
    extra = [] if is_pattern(options.psf) else list(options.psf)
    known = _identities({file for names in files for file in names} | set(extra))
    settings = {**options.identity(), "bands": list(bands)}
    found = []
    for field, names in zip(fields, files, strict=True):
        if not names:
            raise InputError(f"a field of only {NO_FILE!r} has no image: give at least one file")
        identity = [known[name] for name in [*names, *extra]]
        source_id = storage.digest(identity, list(field), settings)[:16]
        planes = tuple((url, role, file) for url in field for role, file in beside.get(url, {}).items())
        found.append(Field(field, json.dumps(identity), source_id, planes))
    return found


def _identities(urls: Iterable[str]) -> dict[str, list[object]]:
    ordered = sorted(urls)
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(ordered, pool.map(file_identity, ordered), strict=True))


def file_identity(url: str) -> list[object]:
    """[url, size, modified] of a file, the content of one made from Python; InputError when it is not there."""
    if (content := content_of(url)) is not None:
        return content
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
