"""Writes a file of the package `lsst-images` (Python 3.12 or newer): python lsst_images_file.py FILE."""

import sys

import astropy.units as u
import lsst.images as images
import numpy as np
from astropy.wcs import WCS

HEIGHT, WIDTH = 120, 140


def write(path: str) -> None:
    """A masked image of 5 nJy with noise of 2 nJy, four mask planes, and a sky; its first pixel is (2000, 1000)."""
    sky = WCS(naxis=2)
    sky.wcs.ctype, sky.wcs.crval, sky.wcs.crpix = ("RA---TAN", "DEC--TAN"), (150.0, 2.0), (70.5, 60.5)
    sky.wcs.cdelt = -0.2 / 3600, 0.2 / 3600
    frame, bounds = images.GeneralFrame(unit=u.pix), images.Box.factory[0:HEIGHT, 0:WIDTH]
    projection = images.SkyProjection.from_fits_wcs(sky, pixel_frame=frame, pixel_bounds=bounds)
    corner = {"yx0": (1000, 2000)}
    pixels = np.random.default_rng(1).normal(5, 2, (HEIGHT, WIDTH)).astype("f4")
    planes = [images.MaskPlane(name, name.lower()) for name in ("BAD", "SAT", "CR", "DETECTED")]
    masked = images.MaskedImage(
        images.Image(pixels, unit=u.nJy, sky_projection=projection, **corner),
        mask_schema=images.MaskSchema(planes),
        variance=images.Image(np.full((HEIGHT, WIDTH), 4, "f4"), unit=u.nJy**2, **corner),
    )
    for number in range(4):
        masked.mask.array[10, 10 + number, 0] = 1 << number
    masked.write(path)


if __name__ == "__main__":
    write(sys.argv[1])
