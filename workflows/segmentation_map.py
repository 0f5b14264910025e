"""Outlines as FITS: which pixels belong to which object of a catalog."""

from __future__ import annotations

from dataclasses import dataclass

from astroml_plugin.catalog.overlay import LabelImage, read_labels
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.results import Result
from astroml_plugin.core.storage import redact
from workflows.notebook import shows_progress

__all__ = ["LabelImage", "SegmentationMapResult", "read_labels", "segmentation_map"]


@dataclass(frozen=True, repr=False)
class SegmentationMapResult(Result):
    """A label map that was written."""

    to: str
    """File."""
    objects: int
    """Objects on it."""
    width: int
    """Pixels along x."""
    height: int
    """Pixels along y."""
    missing: tuple[str, ...]
    """Tiles that reach into it and are not done."""


@shows_progress()
def segmentation_map(
    catalog: Place,
    *,
    to: Place,
    tile: str | None = None,
    image: str | None = None,
    box: tuple[int, int, int, int] | None = None,
) -> SegmentationMapResult:
    """Write the label map of a tile, or of any box of a parent image, as FITS with its WCS and a table of objects.

    Args:
        catalog: path or URL of a catalog whose objects a bundle has found.
        to: FITS file to write.
        tile: name of a tile; its own objects keep their `label_id`, those of its neighbours get numbers after them.
        image: instead: name of a parent image.
        box: half-open pixels (x0, y0, x1, y1) of it; the whole image if not given.

    Raises:
        InputError: no label maps, no such tile or image, or another suffix.
    """
    to = text_of(to)
    if not to.lower().endswith((".fits", ".fit")):
        raise InputError(f"cannot write {redact(to)}: use the suffix .fits")
    found = read_labels(catalog, tile=tile, image=image, box=box)
    found.write_fits(to)
    height, width = found.labels.shape
    return SegmentationMapResult(to, found.objects.num_rows, width, height, found.missing)
