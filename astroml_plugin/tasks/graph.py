"""A task as arithmetic of tensors alone: raw pixels to network input, network outputs to columns, no look at the data.

What is exported to other programs is made of this (`training.portable`). The catalog's own way is `Task.prepare` and
`Task.decode`; that both agree is measured whenever a bundle is exported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.tracing import is_traced
from astroml_plugin.networks.layers import fast_asinh, lower_median
from astroml_plugin.tasks.explained import Explained
from astroml_plugin.tasks.gaps import lost_by_mask
from astroml_plugin.tasks.normalisation import (
    CENTRED,
    FARTHEST,
    FEW,
    GAIN,
    SPARSE,
    STEPS,
    Normalisation,
    border_pixels,
    light_centre,
    missing_bands,
    robust_width,
)

if TYPE_CHECKING:
    from astroml_plugin.tasks.settings import TaskSettings


class GivenStamps(NamedTuple):
    """Stamps as a user of an exported model gives them, what cannot be used already told apart."""

    image: Tensor
    """(n, band, y, x) float32, 0 where not valid."""
    variance: Tensor | None
    """(n, band, y, x) variance; None where the model reads none."""
    valid: Tensor
    """(n, band, y, x) bool."""
    psf: Tensor | None
    """(n, band, psf_size, psf_size) float32 of any sum; None where the model reads none."""

    @classmethod
    def of(cls, image: Tensor, variance: Tensor | None, psf: Tensor | None) -> GivenStamps:
        """Stamps whose pixels count where image and variance are finite and the variance is above 0."""
        valid = image.isfinite()
        if variance is not None:
            valid = valid & variance.isfinite() & (variance > 0)
            variance = torch.where(valid, variance, 0.0)
        return cls(torch.where(valid, image, 0.0), variance, valid, psf)

    def hidden(self, values: Tensor) -> Tensor:
        """Values (n, band, y, x) with NaN where a pixel cannot be used."""
        return torch.where(self.valid, values, torch.nan)


class InGraph(Explained):
    """Hooks of a task for what is exported and explained: all of them tensors in, tensors out."""

    settings: Any
    without_variance: ClassVar[bool] = True
    """Whether the task measures stamps without a variance too: the noise is then that of the border."""

    graph_texts: ClassVar[dict[str, str]] = {}
    """Output that is no column of the catalog -> description."""

    def graph_inputs(self, stamps: GivenStamps) -> tuple[Tensor, ...]:
        """Network inputs as of `prepare`."""
        image = normalised(self.settings.normalisation, stamps)
        return (image,) if stamps.psf is None else (image, normalised_psf(stamps.psf))

    def graph_failed(self, stamps: GivenStamps) -> Tensor:
        """(n,) bool: stamps that get NaN, as in a catalog; and those of whose border too few pixels are left."""
        return without_values(self.settings, stamps)

    def graph_columns(self, outputs: Tensor, stamps: GivenStamps) -> dict[str, Tensor]:
        """Column of the catalog -> (n,) or (n, k) from network outputs (n, ...); here the outputs as they are."""
        return {"outputs": outputs}


def normalised(scaling: Normalisation, stamps: GivenStamps) -> Tensor:
    """Pixels (n, band, y, x) as `Normalisation.apply` makes them, 0 where not valid."""
    edge = border_pixels(stamps.hidden(stamps.image), None, scaling.border)
    level = lower_median(edge) if scaling.background == "border" else torch.zeros_like(edge[..., 0])
    if scaling.unit == "scale":
        unit = torch.tensor(scaling.scales).expand(edge.shape[:2])
    elif stamps.variance is None:
        unit = robust_width(edge)
    else:
        spread = lower_median(border_pixels(stamps.hidden(stamps.variance), None, scaling.border)[..., ::SPARSE])
        unit = torch.where(spread > 0, spread.clamp_min(0).sqrt(), 1.0)
    soft = scaling.softening if scaling.stretch == "asinh" else 1.0
    scaled = (stamps.image - level[..., None, None]) / (unit * soft)[..., None, None]
    if scaling.stretch == "asinh":
        scaled = fast_asinh(scaled) * soft
    return torch.where(stamps.valid, scaled, 0.0)


def without_values(settings: TaskSettings, stamps: GivenStamps) -> Tensor:
    """(n,) bool: no pixel at all, a needed band missing, or fewer than 16 pixels of its border left."""
    absent = missing_bands(stamps.image, stamps.valid) | lost_by_mask(stamps.valid)
    edge = border_pixels(stamps.hidden(stamps.image), None, settings.normalisation.border)
    known = (~edge.isnan()).sum(2)
    few = (known < FEW) & stamps.valid.flatten(2).any(2)
    spare = [band in settings.spare_bands for band in settings.bands]
    needed = torch.tensor([not one for one in spare])
    lacking = (absent & needed).any(1) | absent.all(1)
    return lacking | ~stamps.valid.flatten(1).any(1) | (few & ~absent).any(1)


def normalised_psf(psf: Tensor) -> Tensor:
    """PSFs (n, band, size, size) as of `normalise_psf`, of the network's size: unit sum, on pixel size // 2."""
    total = psf.sum((2, 3))
    good = total.isfinite() & (total > 0)
    unit = torch.where(good[..., None, None], psf / torch.where(good, total, 1.0)[..., None, None], 0.0)
    flat = unit.flatten(0, 1)
    nothing = torch.zeros_like(flat[:, 0, :2])
    off = light_centre(flat, nothing).abs().amax(1) > CENTRED
    place = nothing
    for _ in range(STEPS):
        place = place + GAIN * light_centre(flat, place)
    moved = off & (place.abs() <= FARTHEST).all(1)
    return torch.where(moved[:, None, None], shifted(flat, -place), flat).reshape(psf.shape)


def shifted(image: Tensor, by: Tensor) -> Tensor:
    """Images (n, h, w) moved by (n, 2) pixels x, y, band-limited: a Fourier transform as products of matrices."""
    height, width = int(image.shape[1]), int(image.shape[2])
    half = width // 2 + 1
    cos_y, sin_y = _waves(height, height)
    cos_x, sin_x = _waves(half, width)
    across = image @ cos_x.T, -(image @ sin_x.T)
    real, imaginary = cos_y @ across[0] + sin_y @ across[1], cos_y @ across[1] - sin_y @ across[0]
    signed = [k if k < (height + 1) // 2 else k - height for k in range(height)]
    ky = torch.tensor(signed) * (2 * math.pi / height)
    kx = torch.arange(half) * (2 * math.pi / width)
    angle = -(by[:, 1, None, None] * ky[:, None] + by[:, 0, None, None] * kx)
    cosine, sine = angle.cos(), angle.sin()
    real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine
    real, imaginary = cos_y @ real - sin_y @ imaginary, cos_y @ imaginary + sin_y @ real
    twice = [1.0, *[2.0] * (half - 2 + width % 2), *[1.0] * (1 - width % 2)]  # frequencies that stand for two
    share = torch.tensor(twice) / (height * width)
    return (real * share) @ cos_x - (imaginary * share) @ sin_x


def _waves(frequencies: int, side: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (frequencies, side) of whole waves across a side."""
    turn = torch.outer(torch.arange(frequencies), torch.arange(side)) % side  # exact where the angle is large
    angle = turn.double() * (2 * math.pi / side)
    return angle.cos().float(), angle.sin().float()


def interpolated(values: Tensor, knots: Sequence[float], levels: Sequence[float]) -> Tensor:
    """Levels at values of any shape, linear between rising knots, those of the ends beyond: as `numpy.interp`."""
    if not (is_traced() or values.requires_grad):
        return torch.from_numpy(np.interp(values.cpu().numpy(), knots, levels)).to(values)
    found = torch.full_like(values, levels[0])
    for left, right, low, high in zip(knots, knots[1:], levels, levels[1:]):
        found = found + (values - left).clamp(0.0, right - left) * ((high - low) / (right - left))
    return found
