"""The command that finds all objects of a survey."""

from __future__ import annotations

from astroml_plugin.sources.tile_arrays import HALO

FINDER = "segmentation"
"""The bundle that finds objects and ships; a halo as `ingest` gives it is the one that it needs."""


def find_objects(survey: str, halo: int | None) -> tuple[str, ...]:
    """Words of the command: `infer` with the bundle that finds objects, or `ingest` with the halo that it needs.

    Args:
        survey: its URL.
        halo: pixels that tiles have around what they own; None where it is not known.
    """
    if halo is not None and halo < HALO:
        return "ingest", "FITS", "--halo", str(HALO), "--out", "SURVEY.zarr"
    return "infer", survey, "--bundle", FINDER, "--out", "catalog", "--report"
