"""Second moments of stamps and their PSFs under Gaussian weights, with directions, from which shapes are learned."""

from __future__ import annotations

import numpy as np

from astroml_plugin.core.typing import Array
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation.baselines.feature_table import Features, cleaned, in_parts

_WIDTHS = (1.5, 2.5, 4.0, 6.5)
"""Standard deviations of the weights, pixels."""
_PSF_WIDTHS = (2.5,)


def moment_features(cutouts: Cutouts) -> Features:
    """For the mean of the bands, under round Gaussian weights about the centre pixel of four widths w.

    `e1_<w>`, `e2_<w>` = (Qxx - Qyy, 2 Qxy) / (Qxx + Qyy), `spread_<w>` = (Qxx + Qyy) / w^2, `light_<w>`: lg of the
    weighted light over its noise. Where there are PSFs, `psf_e1_<w>`, `psf_e2_<w>` and `psf_spread_<w>` of their mean.

    Args:
        cutouts: n stamps, raw pixels.
    """
    return in_parts(cutouts, _moment_part)


def _moment_part(cutouts: Cutouts) -> dict[str, Array]:
    pixels, noise = cleaned(cutouts)
    light = pixels.mean(1)
    sigma = np.sqrt((noise**2).sum(1)) / pixels.shape[1]
    columns: dict[str, Array] = {}
    for width in _WIDTHS:
        total, shape = _moments(light, width)
        weight = _weight(light.shape[1:], width)
        with np.errstate(all="ignore"):
            seen = total / (sigma * np.sqrt((weight**2).sum()))
            columns[f"light_{width:g}"] = np.log10(np.maximum(seen, 1e-2))
        columns |= {f"{name}_{width:g}": values for name, values in shape.items()}
    if cutouts.psf is not None:
        psf = np.nan_to_num(cutouts.psf.to(dtype=cutouts.psf.dtype).float().numpy()).mean(1)
        for width in _PSF_WIDTHS:
            columns |= {f"psf_{name}_{width:g}": values for name, values in _moments(psf, width)[1].items()}
    return columns


def _weight(shape: tuple[int, ...], width: float) -> Array:
    y, x = (np.arange(side, dtype=np.float32) - side // 2 for side in shape)
    weight: Array = np.exp(-0.5 * (y[:, None] ** 2 + x**2) / width**2)
    return weight


def _moments(light: Array, width: float) -> tuple[Array, dict[str, Array]]:
    """Weighted light (n,), and e1, e2 and spread of images (n, h, w)."""
    y, x = (np.arange(side, dtype=np.float32) - side // 2 for side in light.shape[1:])
    weighted = light * _weight(light.shape[1:], width)
    rows, columns = weighted.sum(2), weighted.sum(1)
    xx, yy = columns @ x**2, rows @ y**2
    xy = (weighted @ x) @ y
    total = columns.sum(1)
    with np.errstate(all="ignore"):
        shape = {"e1": (xx - yy) / (xx + yy), "e2": 2 * xy / (xx + yy), "spread": (xx + yy) / total / width**2}
    return total, {name: np.clip(values, -3, 3) for name, values in shape.items()}
