"""Worth of the image of a unit where images overlap: shape, depth and sharpness, kept in the footers of parts."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from astroml_plugin.catalog import parts
from astroml_plugin.core import foreign, formats
from astroml_plugin.core.errors import CorruptError


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
    return {formats.PART_EXPOSURES: base64.b64encode(zlib.compress(json.dumps(plain).encode(), 6)).decode()}


def read(catalog: str, path: str) -> dict[str, Exposure]:
    """Unit -> what its image is worth, of a part or merged file; units whose writer did not say are not there.

    Args:
        catalog: URL of the catalog.
        path: the file, relative to it.

    Raises:
        CorruptError: the file cannot be read.
    """
    told = parts.key_values(catalog, path)[0].get(formats.PART_EXPOSURES.encode())
    if told is None:
        return {}
    with foreign.refusing(f"what {path} says of its images", "delete it and run infer again", CorruptError):
        plain = json.loads(zlib.decompress(base64.b64decode(told)))
        return {unit: Exposure(**values) for unit, values in plain.items()}
