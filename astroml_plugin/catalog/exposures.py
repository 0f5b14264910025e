"""Worth of the image of a unit where images overlap: shape, depth and sharpness, kept in the footers of parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from astroml_plugin.catalog import unit_facts
from astroml_plugin.core import formats


@dataclass(frozen=True)
class Exposure:
    """The image that a unit is a tile of, as far as this tile tells."""

    image: str
    """Name of the parent image."""
    height: int
    """Pixels of the parent image along y."""
    width: int
    """Pixels of the parent image along x."""
    depth: float | None = None
    """AB magnitude of a point source of 5 sigma in the bands that objects were found in; None where not known."""
    fwhm: float | None = None
    """FWHM in arcsec of the PSF, or what is taken for it; None where not known."""
    has_psf: bool = False
    """Whether `fwhm` is that of the image's own PSF."""


def packed(exposures: Mapping[str, Exposure]) -> dict[str, str]:
    """Key-value metadata of a Parquet file: what the images of its units are worth; none where nothing is known."""
    if not exposures:
        return {}
    plain = {unit: asdict(exposure) for unit, exposure in sorted(exposures.items())}
    return unit_facts.packed(formats.PART_EXPOSURES, json.dumps(plain))


def read(catalog: str, path: str) -> dict[str, Exposure]:
    """Unit -> what its image is worth, of a part or merged file; units whose writer did not say are not there.

    Args:
        catalog: URL of the catalog.
        path: the file, relative to it.

    Raises:
        CorruptError: the file cannot be read.
    """
    return unit_facts.read(catalog, path, formats.PART_EXPOSURES, "images", lambda values: Exposure(**values))
