"""Sersic indices of many faint galaxies at once, from their light at elliptical radii."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.networks.framing import Shape, frame, shape_of
from astroml_plugin.simulation import LightSet, preset
from astroml_plugin.simulation.population import Population

RADII, WIDTH = (0.0, 0.7, 1.4, 2.1, 2.8, 3.6, 4.6), 0.5
"""Where light is summed under rings of Gaussian section, in units of the size, and their width."""
INDICES = np.arange(0.5, 6.25, 0.1)
_SIZES, _EACH, _SEED = np.linspace(1.7, 5.0, 24), 48, 77


@dataclass(frozen=True)
class SersicIndex:
    """Rings of noiseless Sersic galaxies under one PSF."""

    rings: np.ndarray
    """(index, size, radius) of unit flux in all rings."""

    @classmethod
    def made(cls) -> SersicIndex:
        """From simulated galaxies of the camera of the preset `light`."""
        base = preset("light")
        assert isinstance(base, LightSet)
        rows = []
        for n in INDICES.round(1).tolist():
            population = Population(
                star_fraction=0.0, sersic_n=(n, n), half_light_radius=(0.1, 1.4), ellipticity_scale=1e-6
            )
            one = replace(base, count=_EACH, block=_EACH, seed=_SEED, population=population, offset=0.5)
            light = torch.from_numpy(one.make(0).image[:, 0])
            shape = shape_of(light)
            order = torch.argsort(shape.size)
            rings = (_rings(light, shape)[0] / shape.flux[:, None])[order].numpy()
            rows.append([np.interp(_SIZES, shape.size[order].numpy(), column) for column in rings.T])
        return cls(np.array(rows).transpose(0, 2, 1))

    def of(self, light: Tensor, shape: Shape) -> np.ndarray:
        """(n,) indices of images (n, h, w) of white noise, 0.5 to 6.2; NaN where there is no shape."""
        rings, covariance = _rings(light, shape)
        inverse = torch.linalg.inv(covariance.double()).numpy()
        place = np.interp(shape.size.numpy(), _SIZES, np.arange(len(_SIZES)))
        low = np.minimum(place.astype(int), len(_SIZES) - 2)
        part = (place - low)[None, :, None]
        models = (1 - part) * self.rings[:, low] + part * self.rings[:, low + 1]
        seen = rings.double().numpy()
        weighted = np.einsum("mnj,njk->mnk", models, inverse)
        gain = (weighted * seen).sum(2) ** 2 / (weighted * models).sum(2)  # chi2 that the best amplitude takes off
        best = gain.argmax(0)
        inner, rows = best.clip(1, len(INDICES) - 2), np.arange(len(best))
        below, here, above = (gain[inner + step, rows] for step in (-1, 0, 1))
        bend = below - 2 * here + above
        step = np.where(bend < 0, 0.5 * (below - above) / np.where(bend < 0, bend, 1.0), 0.0).clip(-1, 1)
        found = np.where(best == inner, INDICES[inner] + 0.1 * step, INDICES[best])
        return np.where(shape.size.numpy() > 0, found, np.nan)


def _rings(light: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Sums (n, radius) of images (n, h, w) under elliptical rings, and their covariances for noise of 1."""
    axis = torch.arange(light.shape[-1]) - light.shape[-1] // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    sums, covariances = [], []
    for start in range(0, len(light), 512):
        part = slice(start, start + 512)
        inverse = torch.linalg.inv(frame(shape.size[part].clamp_min(0.5), shape.e[part]))
        offset = torch.stack([x, y], dim=2) - shape.centre[part, None, None, :]
        radius = torch.einsum("nij,nyxj->nyxi", inverse, offset).norm(dim=3).flatten(1)
        rings = torch.stack([torch.exp(-0.5 * ((radius - place) / WIDTH) ** 2) for place in RADII], dim=1)
        sums.append(torch.einsum("njp,np->nj", rings, light[part].flatten(1)))
        covariances.append(rings @ rings.mT)
    return torch.cat(sums), torch.cat(covariances)
