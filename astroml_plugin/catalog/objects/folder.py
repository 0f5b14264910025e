"""FITS images of a folder, with the objects tables, weights and masks that lie beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from astroml_plugin.catalog.objects.columns import read_chunks
from astroml_plugin.catalog.objects.settings import ObjectSettings
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest.fits import list_images

_MOST_FILES = 5000

_IMAGE = re.compile(r"\.(fits|fit|fts)(\.(gz|bz2|fz))?$", re.IGNORECASE)
_TABLE = re.compile(r"\.(cat|xml|vot|votable|csv|parquet)$", re.IGNORECASE)
_COMPANION = re.compile(
    r"(_oo[wd]_|_ok[wd]_|[._-](wht|weight|mask|msk|dq|rms|var|invvar|psf|flag|cf)s?[._-])", re.IGNORECASE
)
_WEIGHTS = (("ooi", "oow"), ("oki", "oow"), (".fits", ".wht.fits"))
_MASKS = (("ooi", "ood"), ("oki", "ood"))


@dataclass(frozen=True)
class FolderImage:
    """An image of the folder and what lies beside it."""

    url: str
    catalogue: str | None = None
    """Objects table of the same field."""
    settings: ObjectSettings | None = None
    """How to read it."""
    weight: str | None = None
    """Pattern of its weight file."""
    mask: str | None = None
    """Pattern of its data-quality file."""

    @property
    def stem(self) -> str:
        """File name without suffixes."""
        return _IMAGE.sub("", self.url.rsplit("/", 1)[-1])


def find_images(folder: str) -> list[FolderImage]:
    """Images below `folder` with their catalogues, weights and masks: of each subfolder in turn, catalogued ones first.

    A catalogue belongs to an image when it is the only table beside the only image of a folder, or its name begins
    with the image's, and its columns are understood.

    Raises:
        InputError: no such folder, or no FITS image in it.
    """
    folder = storage.absolute(folder)
    names = storage.list_files(folder)[:_MOST_FILES]
    images = [name for name in names if _IMAGE.search(name) and not _COMPANION.search(name.rsplit("/", 1)[-1])]
    if not images:
        what = "is no folder" if not storage.exists(folder) else "has no FITS image (.fits, .fit, .fz, .gz, .bz2) in it"
        raise InputError(
            f"{storage.redact(folder)} {what}: give a folder with images, and their catalogues if you like"
        )
    everything = set(names)
    found = [_describe(folder, name, images, everything) for name in images]
    sizes = {entry.url: _bytes(entry.url) for entry in found}
    found.sort(key=lambda entry: (entry.catalogue is None, -sizes[entry.url], entry.url))
    chosen = [entry for entry in _varied(found, len(folder)) if _has_pixels(entry.url)]
    if not chosen:
        raise InputError(f"no FITS file in {storage.redact(folder)} holds an image that can be read")
    return chosen


def _varied(found: Sequence[FolderImage], depth: int) -> Iterator[FolderImage]:
    """All, two of each subfolder in turn."""
    groups: dict[str, list[FolderImage]] = {}
    for entry in found:
        groups.setdefault(entry.url[depth:].strip("/").partition("/")[0], []).append(entry)
    while groups:
        for name in list(groups):
            yield from groups[name][:2]
            groups[name] = groups[name][2:]
            if not groups[name]:
                del groups[name]


def _has_pixels(url: str) -> bool:
    try:
        return bool(list_images(url))
    except InputError:
        return False


def _bytes(url: str) -> int:
    fs, path = storage.filesystem(url)
    return int(fs.size(path) or 0)


def _describe(folder: str, name: str, images: Sequence[str], everything: set[str]) -> FolderImage:
    parent, _, file = name.rpartition("/")
    tables = [other for other in everything if other.rpartition("/")[0] == parent and _TABLE.search(other)]
    alone = len([other for other in images if other.rpartition("/")[0] == parent]) == 1
    stem = _IMAGE.sub("", file)
    mine = [table for table in tables if table.rpartition("/")[2].startswith(stem)]
    catalogue, settings = None, None
    for table in sorted(mine) or (tables if alone and len(tables) == 1 else []):
        settings = _readable(storage.join(folder, table))
        if settings is not None:
            catalogue = storage.join(folder, table)
            break
    weight, mask = (_pattern(name, pairs, everything) for pairs in (_WEIGHTS, _MASKS))
    return FolderImage(storage.join(folder, name), catalogue, settings, weight, mask)


def _readable(url: str) -> ObjectSettings | None:
    """How to read an objects table, its rows numbered where it has no ids; None when it is none."""
    for settings in (ObjectSettings(), ObjectSettings(columns="object_id=#row")):
        try:
            next(read_chunks(url, settings, 100))
        except InputError:
            continue
        return settings
    return None


def _pattern(name: str, pairs: Sequence[tuple[str, str]], everything: set[str]) -> str | None:
    parent, slash, file = name.rpartition("/")
    for old, new in pairs:
        if old in file and parent + slash + file.replace(old, new) in everything:
            return f"{old}={new}"
    return None
