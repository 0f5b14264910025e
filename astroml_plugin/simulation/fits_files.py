"""A simulated sky as FITS files, as a survey's pipeline would hand it over."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from astropy.io import fits

from astroml_plugin.core import storage
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.core.typing import I32, U32
from astroml_plugin.pixels import Tile
from astroml_plugin.simulation.skies import Sky
from astroml_plugin.simulation.units import UNIT
from astroml_plugin.sky.wcs import Box

PLANES = {
    "BAD": (0, MaskBit.BAD),
    "SAT": (1, MaskBit.SATURATED),
    "INTRP": (2, MaskBit.INTERPOLATED),
    "CR": (3, MaskBit.COSMIC_RAY),
    "EDGE": (4, MaskBit.EDGE),
    "DETECTED": (5, MaskBit.DETECTED),
    "NO_DATA": (8, MaskBit.NO_DATA),
}
"""Mask planes of the files: name -> (bit number, our bit)."""


class FitsSky(NamedTuple):
    """Files that `write_fits` wrote."""

    images: dict[str, str]
    """Band -> file."""
    psf: str
    """File with the PSF at the image's centre, (band, y, x)."""
    truth: pa.Table
    """Truth of all objects, as of `Sky.render`."""


def write_fits(sky: Sky, folder: str, *, psf_size: int = 25) -> FitsSky:
    """Write `sky` as one multi-extension file per band; the whole image is held in memory once.

    A file has an empty primary HDU, then IMAGE (float32, BUNIT, zero point MAGZERO), MASK (int32, planes named by
    MP_* cards) and VARIANCE as the LSST pipelines write them. The PSF goes to a file of its own. The files are the
    same whenever they are written.

    Args:
        sky: what to write.
        folder: local folder or fsspec URL; files are `<sky name>_<band>.fits` and `<sky name>_psf.fits`.
        psf_size: side of the PSF image in pixels.
    """
    tile, truth = sky.render(Box(0, 0, sky.width, sky.height), psf_size)
    assert tile.psf is not None
    files = {}
    for i, band in enumerate(sky.camera.bands):
        files[band] = storage.join(folder, f"{sky.name}_{band}.fits")
        storage.write_atomic(files[band], _encode(sky, tile, i))
    psf = storage.join(folder, f"{sky.name}_psf.fits")
    storage.write_atomic(psf, _to_bytes(fits.HDUList([fits.PrimaryHDU(tile.psf[:, 0, 0])])))
    return FitsSky(files, psf, truth)


def _encode(sky: Sky, tile: Tile, i: int) -> bytes:
    assert tile.variance is not None
    assert tile.mask is not None
    header = fits.Header.fromstring(sky.wcs.header, sep="\n")
    for key in ("NAXIS1", "NAXIS2"):
        header.remove(key, ignore_missing=True)
    image, variance = (
        fits.ImageHDU(plane[i], header, name=n) for plane, n in ((tile.image, "IMAGE"), (tile.variance, "VARIANCE"))
    )
    image.header["BUNIT"], variance.header["BUNIT"] = UNIT, f"{UNIT}2"
    image.header["MAGZERO"] = (sky.camera.zero_point, "magnitude of one count")
    image.header["FILTER"] = sky.camera.bands[i]
    mask = fits.ImageHDU(_planes(tile.mask[i]), header, name="MASK")
    for name, (bit, _) in PLANES.items():
        mask.header[f"HIERARCH MP_{name}"] = bit
    primary = fits.PrimaryHDU()
    primary.header["FILTER"] = sky.camera.bands[i]
    return _to_bytes(fits.HDUList([primary, image, mask, variance]))


def _to_bytes(hdus: fits.HDUList) -> bytes:
    sink = io.BytesIO()
    hdus.writeto(sink)
    return sink.getvalue()


def _planes(mask: U32) -> I32:
    planes = np.zeros(mask.shape, np.int32)
    for bit, ours in PLANES.values():
        planes[(mask & np.uint32(int(ours))) != 0] |= 1 << bit
    return planes
