"""Interface of a task that finds objects in fields, instead of measuring objects that it is given.

The engine runs the network over windows of a tile, puts the maps together, and asks for the objects of the whole tile.
Nothing that the task does may depend on where a tile ends: no statistics of the tile enter, windows begin at multiples
of `stride` in the parent image's pixels, and what lies farther than `reach` from an object does not change it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import Cutouts, DeviceTile
from astroml_plugin.pixels import NANOJANSKY, psf_fwhm
from astroml_plugin.tasks.base import Task


@dataclass(frozen=True)
class Field:
    """A tile as detection sees it, on the CPU. Unusable pixels are 0 in `image` and `variance`."""

    image: np.ndarray
    """(band, h, w) float32, in the tile's units; the task's bands, in order."""
    variance: np.ndarray | None
    """(band, h, w) float32, in units²; None where the survey has none."""
    bits: np.ndarray | None
    """(band, h, w) uint8 of `pixels.pixel_bits`; None where all pixels can be used."""
    psf: np.ndarray | None
    """(band, cell_y, cell_x, psf_y, psf_x) float32, over `psf_box`; None where the survey has none."""
    bands: tuple[str, ...]
    """Names of the band axis."""
    origin: tuple[int, int] = (0, 0)
    """Parent pixel (x0, y0) of the tile's first pixel."""
    zero_points: tuple[float | None, ...] = ()
    """AB magnitude of one unit per band, None where unknown; empty: all unknown."""
    pixel_scale: float | None = None
    """Arcsec per pixel; None where unknown."""
    psf_box: tuple[int, int, int, int] | None = None
    """Parent pixels (x0, y0, x1, y1) that the cells of `psf` divide: a tile's outer box may reach beyond the image,
    the field does not. None: the field's own."""
    noise_growth: tuple[float, ...] = ()
    """Noise of sums of 8 x 8 pixels over that of white noise in each band, of the whole image; NaN where it is not
    known, empty: nowhere."""

    def growth(self, band: int) -> float:
        """`noise_growth` of a band by its number; NaN where it is not known."""
        return self.noise_growth[band] if self.noise_growth else float("nan")

    @cached_property
    def _psf_fwhm(self) -> np.ndarray:
        """(cell_y, cell_x) pixels."""
        assert self.psf is not None
        return np.array([[psf_fwhm(cell) for cell in row] for row in self.psf.mean(0)])

    @property
    def median_psf_fwhm(self) -> float:
        """FWHM in pixels of the PSF, the median over the field; NaN where it is not known."""
        known = [] if self.psf is None else self._psf_fwhm[np.isfinite(self._psf_fwhm)]
        return float(np.median(known)) if len(known) else float("nan")

    def psf_fwhm_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n,) FWHM in pixels of the PSF, mean of the bands, at places of the field; NaN where it is not known."""
        if self.psf is None:
            return np.full(len(x), np.nan)
        fwhm: np.ndarray = self._psf_fwhm.ravel()[self.psf_cell_at(x, y)]
        return fwhm

    def psf_cell_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n,) number of the cell of `psf`, row by row, at places of the field."""
        assert self.psf is not None
        height, width = self.image.shape[1:]
        left, top = self.origin
        x0, y0, x1, y1 = self.psf_box or (left, top, left + width, top + height)
        cells_y, cells_x = self.psf.shape[1:3]
        row = np.clip((y + 0.5 + top - y0) / (y1 - y0) * cells_y, 0, cells_y - 1).astype(np.int64)
        column = np.clip((x + 0.5 + left - x0) / (x1 - x0) * cells_x, 0, cells_x - 1).astype(np.int64)
        cell: np.ndarray = row * cells_x + column
        return cell


@dataclass(frozen=True)
class Detections:
    """n objects found in a field, in order of their peaks (row by row)."""

    labels: np.ndarray
    """(h, w) int32: 0 background, else 1 … n, the object's number plus 1."""
    x: np.ndarray
    """(n,) float64 centre along x, pixels of the tile."""
    y: np.ndarray
    """(n,) float64 centre along y."""
    peak_x: np.ndarray
    """(n,) int64 pixel of the peak. Identity and ownership rest on it: it is inside the object's label."""
    peak_y: np.ndarray
    """(n,) int64."""
    columns: dict[str, np.ndarray]
    """Column name -> (n,), exactly `Task.columns()`; `parent` holds numbers of this field's objects, see there."""
    flags: np.ndarray
    """(n,) int32 `ObjectFlag` bits of the object: of the pixels in its label, and OUT_OF_DOMAIN, NO_VARIANCE, …"""

    def __len__(self) -> int:
        return len(self.x)


PARENT = "parent"
"""Column of the blend that an object belongs to: `detect` gives the number of the blend's brightest object in the field
(0 … n - 1; its own where it is alone), and the engine writes that object's `object_id` (int64)."""


class DetectingTask(Task):
    """Finds objects. The network maps windows (n, channels_in, h, w) to (n, channels, h, w) at the same resolution."""

    @property
    @abstractmethod
    def window(self) -> int:
        """Side of the network's input, pixels; a multiple of `stride`. Smaller windows (multiples too) are as good."""

    @property
    @abstractmethod
    def overlap(self) -> int:
        """Pixels at each side of a window that are thrown away: at least the receptive radius; multiple of `stride`."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """Windows begin at multiples of it in the parent image's pixels, so that strides keep their phase."""

    @property
    @abstractmethod
    def reach(self) -> int:
        """Halo that owned objects need, pixels: receptive radius and the largest half-extent that is promised whole."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Maps that the network gives per pixel."""

    @property
    def outputs(self) -> int:
        """Number of maps, under the name that networks are built with."""
        return self.channels

    @property
    def example_side(self) -> int:
        """Side in pixels of a small window."""
        return min(self.window, self.stride * max(1, 64 // self.stride))

    def for_run(self, options: Any) -> Task:
        """The task with the options of one run; here as it is: `for_bands` comes before, and no PSF is assumed."""
        return self

    def for_bands(self, bands: Sequence[str]) -> DetectingTask:
        """The task for the bands of a source (what `check_source` gave): its columns are then those of the catalog."""
        task = self.with_settings(bands=tuple(bands))
        assert isinstance(task, DetectingTask)
        return task

    def field_pixels(self, tile: DeviceTile) -> DeviceTile:
        """The pixels of a tile on its device that `detect` gets: of the task's bands; several are in one unit.

        They are brought to nJy where a zero point is known; bands without one then count as not observed. Where none is
        known, they are taken to be in one unit.
        """
        chosen = tile.select(self.bands)
        several = len(self.bands) > 1 and any(zero is not None for zero in chosen.zero_points)
        return chosen.in_unit(NANOJANSKY) if several else chosen

    def in_one_unit(self, cutouts: Cutouts) -> Cutouts:
        """Windows whose bands are in one unit, as those of `field_pixels`."""
        if len(cutouts.bands) == 1 or cutouts.zero_points is None or not bool(cutouts.zero_points.isfinite().any()):
            return cutouts
        return cutouts.in_unit(NANOJANSKY)

    @abstractmethod
    def detect(self, maps: np.ndarray, field: Field) -> Detections:
        """The objects of a field from the network's maps (channels, h, w) float32 of the whole of it.

        Pixels that no window covered have NaN maps: there is nothing.
        """

    def decode(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """Not for stamps.

        Raises:
            InputError: always.
        """
        raise InputError("this bundle finds objects in surveys and measures no stamps: give it a survey (infer)")
