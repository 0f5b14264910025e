"""Label map of a patch on disk: one FITS image, compressed without loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits

from astroml_plugin.core import foreign
from astroml_plugin.core.errors import CorruptError, InputError
from astroml_plugin.core.typing import Array
from astroml_plugin.sky.headers import astropy_quiet
from astroml_plugin.sky.wcs import Box, Wcs
from astroml_plugin.sources.tile_file import sky_cards

_CORNER = ("HIERARCH PARENT X0", "HIERARCH PARENT Y0")


@dataclass(frozen=True)
class LabelMap:
    """Which object each pixel of a patch belongs to."""

    labels: Array
    """(y, x) uint32, 0 where there is none; the column `label` of the catalog."""
    box: Box
    """Where the array lies in the tract."""
    wcs: Wcs | None = None
    """World coordinates of the array."""

    def part(self, box: Box) -> LabelMap:
        """The pixels of a box within it.

        Raises:
            InputError: the box reaches beyond it.
        """
        if box.x0 < self.box.x0 or box.y0 < self.box.y0 or box.x1 > self.box.x1 or box.y1 > self.box.y1:
            raise InputError(f"{box} does not lie in the label map, which covers {self.box}")
        x, y = box.x0 - self.box.x0, box.y0 - self.box.y0
        wcs = None if self.wcs is None else self.wcs.shifted(x, y, (box.height, box.width))
        return LabelMap(self.labels[y : y + box.height, x : x + box.width], box, wcs)

    def write(self, file: Any) -> None:
        """Write it as a new FITS file: path, or an open binary file."""
        if self.labels.size and self.labels.max() > np.iinfo(np.int32).max:
            raise InputError("the label map has labels above 2^31: FITS holds none of them compressed")
        header = sky_cards(self.wcs)
        header[_CORNER[0]], header[_CORNER[1]] = self.box.x0, self.box.y0
        image = fits.CompImageHDU(self.labels.astype(np.int32), header, name="LABELS", compression_type="RICE_1")
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(file)

    @classmethod
    def read(cls, file: Any) -> LabelMap:
        """Read what `write` wrote.

        Raises:
            CorruptError: the file is damaged, or none of a label map.
        """
        with foreign.refusing("the label map", "make it again", CorruptError), astropy_quiet(), fits.open(file) as hdus:
            image = hdus["LABELS"]
            labels = np.asarray(image.data).astype(np.uint32)
            x0, y0 = (int(image.header[name.removeprefix("HIERARCH ")]) for name in _CORNER)
            wcs = Wcs.from_header(image.header) if "CTYPE1" in image.header else None
        return cls(labels, Box(x0, y0, x0 + labels.shape[1], y0 + labels.shape[0]), wcs)
