"""From analytic profiles and finely sampled light to pixels: one way for lenses and for everything else.

All light of a stamp is added up in Fourier space, multiplied there by each band's PSF and pixel, and brought to pixels
with one small inverse FFT per band.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from astroml_plugin.core.typing import F32, Array
from astroml_plugin.simulation.lenses.galaxies import Component
from astroml_plugin.simulation.lenses.light import FIELD, FINE, Layer
from astroml_plugin.simulation.profiles import Psf, grid_for, response, to_image

MARGIN = 16
"""Pixels around a stamp that are drawn too: light that leaves one edge comes back at the other."""


class Canvas:
    """The Fourier grid of one stamp under its PSFs.

    Args:
        psfs: one per band.
        size: side of the stamp in pixels.
        pixel_scale: arcsec per pixel.
        shift: pixels from the centre of pixel `size // 2` to the middle of the scene.
    """

    def __init__(self, psfs: Sequence[Psf], size: int, pixel_scale: float, shift: tuple[float, float]) -> None:
        self.size, self.shift, self.drawn = size, shift, size + 2 * MARGIN
        narrowest = min(psfs, key=lambda psf: psf.fwhm * (1 - math.hypot(psf.e1, psf.e2)))
        self.grid = grid_for(narrowest, self.drawn, pixel_scale)
        self.responses = [response(psf, self.grid) for psf in psfs]

    @property
    def side(self) -> float:
        """Arcsec that are drawn."""
        return self.drawn * self.grid.pixel_scale

    def analytic(self, components: Sequence[Component]) -> Array:
        """(band, rows, columns) of profiles."""
        total = np.zeros((len(self.responses), len(self.grid.ky), len(self.grid.kx)), np.complex64)
        for part in components:
            one = part.profile.transform(part.matrix, self.grid)
            if part.x or part.y:
                along = np.exp(-1j * part.x * self.grid.kx).astype(np.complex64)
                one = one * (np.exp(-1j * part.y * self.grid.ky).astype(np.complex64)[:, None] * along)
            for band, flux in enumerate(part.flux.tolist()):
                total[band] += np.float32(flux) * one
        return total

    def sampled(self, plane: F32) -> Array:
        """(rows, columns) of finely sampled light of the square `light.FIELD` around the middle of the scene."""
        from scipy import fft  # comes with lenstronomy, twice as fast as numpy's

        step, half = self.grid.pixel_scale / FINE, len(self.grid.ky) // 2
        full = fft.rfft2(plane * np.float32(step * step), s=(self.drawn * FINE,) * 2)
        kept = np.concatenate([full[:half, : half + 1], full[-half:, : half + 1]])
        start = -(FIELD * FINE - 1) / 2 * step
        phase = [np.exp(-1j * start * k).astype(np.complex64) for k in (self.grid.ky, self.grid.kx)]
        placed: Array = kept * (phase[0][:, None] * phase[1])
        return placed

    def light(self, components: Sequence[Component], layers: Sequence[Layer]) -> F32:
        """(band, size, size) noiseless, of profiles and of finely sampled light together."""
        total = self.analytic(components)
        for layer in layers:
            total += layer.flux.astype(np.float32)[:, None, None] * self.sampled(layer.plane)
        return self.pixels(total)

    def pixels(self, spectrum: Array) -> F32:
        """(band, size, size) noiseless."""
        cut = slice(MARGIN, MARGIN + self.size)
        planes = [to_image(one * seen, self.grid, *self.shift) for one, seen in zip(spectrum, self.responses)]
        return np.stack([plane[cut, cut] for plane in planes])
