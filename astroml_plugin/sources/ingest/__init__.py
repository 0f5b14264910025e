"""Files -> Source: FITS into a Survey, .npz archives and picture folders into Stamps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest.fits import SUFFIX
from astroml_plugin.sources.ingest.plans import NO_FILE, FitsOptions
from astroml_plugin.sources.ingest.result import IngestResult, Progress
from astroml_plugin.sources.ingest.to_stamps import ingest_npz, ingest_pictures
from astroml_plugin.sources.ingest.to_survey import HALO, ingest_fits

__all__ = ["HALO", "FitsOptions", "IngestResult", "Progress", "expand", "ingest_fits", "ingest_npz", "ingest_pictures"]


def expand(inputs: Sequence[str]) -> list[str]:
    """Inputs with `*` patterns and folders replaced by the files they name, in order.

    Raises:
        InputError: a pattern or folder names no file.
    """
    files: list[str] = []
    for given in inputs:
        found = [given]
        if "*" in given:
            found = _matches(given)
        elif given != NO_FILE and storage.is_local(given) and storage.local_path(given).is_dir():
            names = storage.list_files(given)
            found = [storage.join(given, name) for name in names if SUFFIX.search(name)]
        if not found:
            raise InputError(f"{storage.redact(given)} names no FITS file: check the path")
        files += found
    places = [storage.named(file) for file in files if file != NO_FILE]
    if len({*places}) < len(places):
        raise InputError(f"{storage.redact(max(places, key=places.count))} is given twice: name each file once")
    return files


def _matches(pattern: str) -> list[str]:
    filesystem, path = storage.filesystem(pattern)
    found = sorted(str(name) for name in filesystem.glob(path))
    return found if storage.is_local(pattern) else [str(filesystem.unstrip_protocol(name)) for name in found]


def ingest_stamps(
    inputs: Sequence[str],
    *,
    out: str,
    bands: Sequence[str] | None,
    npz_map: Mapping[str, str],
    layout: str | None,
    table: str | None,
    block: int | None,
    pixel_scale: float | None,
    client: Any,
    progress: Progress | None,
) -> IngestResult:
    """Stamps from .npz archives, or from the picture folder `inputs[0]` with `table`."""
    common: dict[str, Any] = {
        "out": out,
        "bands": bands,
        "block": block,
        "pixel_scale": pixel_scale,
        "progress": progress,
    }
    if table is not None:
        if len(inputs) > 1:
            raise InputError(f"{len(inputs)} inputs with a table: give the one folder its file_loc column starts from")
        folder = inputs[0] if inputs else storage.absolute(table).rpartition("/")[0]
        return ingest_pictures(folder, table, client=client, **common)
    results = [ingest_npz(url, npz_map=npz_map, layout=layout, **common) for url in inputs]
    sums = {name: sum(getattr(r, name) for r in results) for name in ("units_done", "units_skipped", "rows", "bytes")}
    left_out = tuple(dict.fromkeys(name for r in results for name in r.left_out))
    seconds = sum(r.seconds for r in results)
    return IngestResult(results[0].source, results[0].kind, seconds=seconds, left_out=left_out, **sums)
