"""One picture file as an array."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest.fits import SUFFIX, read_psf


def read_picture(url: str) -> np.ndarray:
    """A JPEG, PNG or FITS stamp as (band, y, x): uint8 for 8-bit pictures (transparency dropped), else float32.

    Raises:
        InputError: not there, or no picture.
    """
    if SUFFIX.search(url):
        return read_psf(url)  # any FITS image or cube as (band, y, x) float32
    shown = storage.redact(url)
    try:
        with Image.open(io.BytesIO(storage.read_bytes(url))) as picture:
            values = np.asarray(_plain(picture))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{shown} does not exist: check file_loc and the folder") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{shown} is no readable picture: {' '.join(str(error).split())}") from error
    values = values if values.dtype == np.uint8 else values.astype(np.float32)
    return values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


def _plain(picture: Image.Image) -> Image.Image:
    """Grey or RGB; palettes, CMYK and transparency resolved."""
    if picture.mode in ("L", "RGB", "F", "I") or picture.mode.startswith("I;"):
        return picture
    return picture.convert("L" if picture.mode in ("1", "LA") else "RGB")
