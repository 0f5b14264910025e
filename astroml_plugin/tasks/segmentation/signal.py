"""Light of all bands together in units of the noise: for the network (torch) and for detection (NumPy)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.typing import F32, I64
from astroml_plugin.pixels.correlation import next_to_each_other
from astroml_plugin.tasks.detection import Field

_MEDIAN_OF_DIFFERENCES = 0.9538725524
"""Median |a - b| of two unit normal deviates."""


def signal_to_noise(image: Tensor, variance: Tensor | None, valid: Tensor, assumed_noise: float = 0.0) -> Tensor:
    """S/N (n, h, w) of images (n, band, h, w), bands added with inverse variances as weights; 0 where none can be used.

    Args:
        image: float32.
        variance: of the pixels; None estimates the noise of each image and band.
        valid: bool, of the image's shape.
        assumed_noise: standard deviation of a pixel where there is no variance; 0 estimates it.
    """
    if variance is not None:
        weight = torch.where(valid & (variance > 0), 1.0 / variance.clamp_min(1e-30), 0.0)
    else:
        weight = valid / pixel_noise(image, valid, assumed_noise).square()
    if image.shape[1] == 1:
        return (image * weight.sqrt())[:, 0]
    return (image * weight).sum(1) / weight.sum(1).clamp_min(1e-30).sqrt()


def pixel_noise(image: Tensor, valid: Tensor, assumed_noise: float = 0.0) -> Tensor:
    """Noise of a pixel (n, band, 1, 1): assumed, or from differences of neighbours, 1 where there are none."""
    if assumed_noise > 0 or image.shape[2:] == (1, 1):
        return image.new_full((*image.shape[:2], 1, 1), assumed_noise or 1.0)
    if image.shape[3] == 1:  # one column: neighbours are above and below
        image, valid = image.transpose(2, 3), valid.transpose(2, 3)
    difference = (image[..., ::2, 1:] - image[..., ::2, :-1]).abs()
    both = valid[..., ::2, 1:] & valid[..., ::2, :-1]
    width = difference.masked_fill(~both, torch.nan).flatten(2).nanmedian(2).values
    width = (width / _MEDIAN_OF_DIFFERENCES)[..., None, None]
    return torch.where(width > 0, width, torch.ones_like(width))  # also where it is NaN


def signal_at(field: Field, pixel: tuple[I64, I64]) -> F32:
    """S/N (m,) of pixels (rows, columns) of a field, as the network sees them."""
    rows, columns = pixel
    image = torch.from_numpy(field.image[:, rows, columns])[None, :, :, None]
    variance = torch.from_numpy(variance_of(field)[:, rows, columns])[None, :, :, None]
    usable = torch.ones_like(image, dtype=torch.bool)
    if field.bits is not None:
        usable = torch.from_numpy(field.bits[:, rows, columns] == 0)[None, :, :, None]
    signal: F32 = signal_to_noise(image, variance, usable)[0, :, 0].numpy()
    return signal


def estimated_variance(field: Field, assumed_noise: float) -> np.ndarray:
    """Variance (band, h, w) of a field that has none; 0 where pixels cannot be used."""
    image = torch.from_numpy(field.image)[None]
    noise = pixel_noise(image, image != 0, assumed_noise)[0].numpy()
    if assumed_noise == 0:  # of correlated pixels, neighbours differ too little
        beside = [next_to_each_other(field.growth(band)) for band in range(len(field.image))]
        noise = noise / np.sqrt(1 - np.array(beside, np.float32))[:, None, None]
    usable = np.ones(field.image.shape, bool) if field.bits is None else field.bits == 0
    values: np.ndarray = usable * noise**2
    return values


def variance_of(field: Field) -> np.ndarray:
    """Variance (band, h, w) of a field that has one, measured or estimated."""
    assert field.variance is not None
    return field.variance


def combined_image(field: Field, unusable: float) -> tuple[F32, F32]:
    """Image (h, w) of all bands, weighted with inverse variances, and its variance, `unusable` where no pixel is good.

    Unusable pixels are 0 in the image.
    """
    image, variance = field.image, variance_of(field)
    good = variance > 0 if field.bits is None else (variance > 0) & (field.bits == 0)
    if len(image) == 1:
        return np.where(good, image, 0)[0], np.where(good, variance, unusable)[0].astype(np.float32)
    weight = np.where(good, 1 / np.where(good, variance, 1).astype(np.float64), 0)
    spread = 1 / np.where(weight.any(0), weight.sum(0), np.nan)
    return (
        np.nan_to_num((image * weight).sum(0) * spread).astype(np.float32),
        np.nan_to_num(spread, nan=unusable).astype(np.float32),
    )
