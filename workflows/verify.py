"""Check a catalog for damage, and mend what can be mended."""

from __future__ import annotations

from collections.abc import Callable

from astroml_plugin.catalog.checking import VerifyResult
from astroml_plugin.catalog.checking import verify as check_catalog
from astroml_plugin.core.places import Place, text_of
from workflows.notebook import shows_progress


@shows_progress("files")
def verify(
    catalog: Place,
    *,
    repair: bool = False,
    forget_lost: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyResult:
    """Read every file of a catalog and compare it with its checksums, footers, schema and manifest.

    Args:
        catalog: folder of the catalog, a path or an fsspec URL.
        repair: make derived files again, and move unusable ones into the folder `damaged`: the same `infer` then does
            their units again, and `query` refuses to answer until then.
        forget_lost: give up the rows whose files are gone: `query` answers from the others from then on.
        progress: called with (files read, files in all).

    Raises:
        InputError: there is no catalog.
    """
    return check_catalog(text_of(catalog), repair=repair, forget_lost=forget_lost, progress=progress)
