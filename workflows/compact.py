"""Merge a catalog's finished parts into files of a good size."""

from __future__ import annotations

from collections.abc import Callable

from astroml_plugin.catalog import Catalog, CompactResult
from astroml_plugin.catalog import compact as merge_parts
from astroml_plugin.catalog.compact import TARGET_BYTES
from astroml_plugin.core.errors import InputError


def compact(
    catalog: str,
    *,
    target_bytes: int = TARGET_BYTES,
    memory: str = "1GB",
    progress: Callable[[int, int], None] | None = None,
) -> CompactResult:
    """Merge the parts of a catalog; a kill at any moment changes nothing of what it shows, and a rerun goes on.

    Args:
        catalog: folder of the catalog, a path or an fsspec URL.
        target_bytes: size of the merged files.
        memory: bound of the sort's memory; beyond it goes to a temporary folder.
        progress: called with (files merged, files to merge).
    """
    if target_bytes < 1:
        raise InputError(f"a target of {target_bytes} bytes: give a positive size")
    return merge_parts(Catalog.open(catalog), target_bytes=int(target_bytes), memory=memory, progress=progress)
