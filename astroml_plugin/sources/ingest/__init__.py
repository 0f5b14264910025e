"""Files -> Source: FITS into a Survey, .npz archives, picture folders and alert packets into Stamps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest.alert_stamps import ingest_alerts
from astroml_plugin.sources.ingest.fields import NO_FILE
from astroml_plugin.sources.ingest.info import describe_fits, describe_npz
from astroml_plugin.sources.ingest.npz_stamps import ingest_npz
from astroml_plugin.sources.ingest.opening import SUFFIX
from astroml_plugin.sources.ingest.options import FitsOptions, IngestOptions
from astroml_plugin.sources.ingest.picture_stamps import ingest_pictures
from astroml_plugin.sources.ingest.result import IngestResult, Progress
from astroml_plugin.sources.ingest.to_survey import ingest_fits
from astroml_plugin.sources.tile_arrays import HALO

__all__ = [
    "HALO",
    "SUFFIX",
    "FitsOptions",
    "IngestOptions",
    "IngestResult",
    "Progress",
    "describe_fits",
    "describe_npz",
    "expand",
    "ingest_alerts",
    "ingest_fits",
    "ingest_npz",
    "ingest_pictures",
    "ingest_stamps",
]


def expand(inputs: Sequence[str]) -> list[str]:
    """Inputs with `*` patterns and folders replaced by the files they name, in order.

    Raises:
        InputError: a pattern or folder names no file.
    """
    files: list[str] = []
    for url in inputs:
        named = [url]
        if "*" in url:
            named = _matches(url)
        elif url != NO_FILE and storage.is_local(url) and storage.local_path(url).is_dir():
            named = [storage.join(url, name) for name in storage.list_files(url) if SUFFIX.search(name)]
        if not named:
            raise InputError(f"{storage.redact(url)} names no FITS file: check the path")
        files += named
    urls = [storage.named(file) for file in files if file != NO_FILE]
    if len({*urls}) < len(urls):
        raise InputError(f"{storage.redact(max(urls, key=urls.count))} is given twice: name each file once")
    return files


def _matches(pattern: str) -> list[str]:
    filesystem, path = storage.filesystem(pattern)
    found = sorted(str(name) for name in filesystem.glob(path))
    return found if storage.is_local(pattern) else [str(filesystem.unstrip_protocol(name)) for name in found]


def ingest_stamps(
    inputs: Sequence[str], out: str, options: IngestOptions, client: Any = None, progress: Progress | None = None
) -> IngestResult:
    """Stamps from .npz archives, or from the picture folder `inputs[0]` with the table of the options."""
    if options.table is not None:
        if len(inputs) > 1:
            raise InputError(f"{len(inputs)} inputs with a table: give the one folder its file_loc column starts from")
        folder = inputs[0] if inputs else storage.absolute(options.table).rpartition("/")[0]
        return ingest_pictures(folder, out, options, client, progress)
    results = [ingest_npz(url, out, options, progress) for url in inputs]
    sums = {name: sum(getattr(r, name) for r in results) for name in ("units_done", "units_skipped", "rows", "bytes")}
    left_out = tuple(dict.fromkeys(name for r in results for name in r.left_out))
    seconds = sum(r.seconds for r in results)
    return IngestResult(results[0].source, results[0].kind, seconds=seconds, left_out=left_out, **sums)
