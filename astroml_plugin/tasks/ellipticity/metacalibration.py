"""Stamps under another shear or another PSF, from their own pixels, and what a measurement makes of it.

With G the galaxy and P the PSF, a stamp is I = G * P plus noise. A shear g of the galaxy alone changes it by

    F[dI/dg_j] = (S_j k) . grad F[I] - F[I] (S_j k) . grad ln F[P],   S_1 = diag(1, -1), S_2 = antidiag(1, 1),

the derivative of deconvolving, shearing and convolving again (metacalibration: Huff & Mandelbaum 2017,
arXiv:1702.02600). Being linear, dI/dg = L I, it shears the noise n too, and a measurement e answers to that: of the
response J(I) L I, with J the derivative of e, the part J(I) L n is spurious. Its expectation is known where the noise
is Gaussian, of known variance and independent from pixel to pixel: for any h,

    E[h J L n] = E[(J L n') (h' n')] + E[h n' . (J' n') L]

over independent noise n' of the same variance, with h' and J' derivatives with respect to the pixels (Stein 1981, Ann.
Stat. 9, 1135). Both parts need only pixels, so that responses are right in the mean for any population, with no truth
and no model of it; for one object they are as noisy as its shape is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from astroml_plugin.core.tracing import constant

STEP = 0.02
"""Shear of the sheared stamps that a derivative is taken from."""

_SOFT = 0.1  # of the noise, that second derivatives are taken from
_FLOOR = 1e-3  # of the PSF's transform at 0, below which its logarithm is no longer followed
_APERTURE = 2.5  # Gaussian sigma in pixels of the centroid's weight
_PHASE = 1 / 12  # variance in pixels of a centre anywhere within its pixel
_RINGS = (0.6, 0.8, 1.0)  # of the PSF's half side: two rings whose brightness tells its wings

Measure = Callable[[Tensor], Tensor]
"""Stamps (n, band, h, w) of the same objects -> k numbers each, (n, k)."""


class Slopes(NamedTuple):
    """Derivatives of stamps (n, band, h, w) with respect to both components of a shear."""

    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class Responses:
    """Derivatives of k numbers with respect to both components of a shear."""

    seen: Tensor
    """(n, k, 2) of the stamps as they are: galaxy and noise sheared."""
    noise: Tensor
    """(n, k, 2) whose mean is the noise's part of it."""
    product: Tensor
    """(n, k, 2, f) whose mean is what the noise adds, beyond that, to seen times each of f features."""

    @property
    def own(self) -> Tensor:
        """(n, k, 2) whose mean is the galaxies' own response."""
        return self.seen - self.noise


class Shearing:
    """The linear map from stamps to their derivatives with respect to a shear of what lies before the PSF.

    Args:
        psf: (n, band, py, px) of any sum, centred on pixel size // 2.
        size: side of the stamps.
        centre: (n, 2) pixels x, y from the stamps' pixel size // 2: what stays in place; default 0.
    """

    def __init__(self, psf: Tensor, size: int, centre: Tensor | None = None) -> None:
        self.side = 2 * size
        self.centre = centre
        transform, slopes = _transform(_with_wings(psf, self.side - 1), self.side)
        floor = _FLOOR * transform[..., :1, :1].abs()
        self.slopes = slopes * transform.conj() / (transform.abs().square() + floor.square())

    def __call__(self, image: Tensor) -> Slopes:
        """Derivatives of the stamps (n, band, size, size), 0 beyond their edges."""
        transform, slopes = _transform(image, self.side, self.centre)
        derivatives = _pixels(slopes - self.slopes * transform, image.shape[-1], self.side)
        return Slopes(derivatives[0], derivatives[1])


def centres(image: Tensor, variance: Tensor) -> Tensor:
    """(n, 2) where galaxies lie, pixels x, y from pixel size // 2, in the mean over their noise.

    Two Newton steps to the maximum under a Gaussian aperture, shrunk towards 0 as the noise asks for centres that are
    anywhere within their pixel: a shear about a noisy centre would move the galaxy with its noise.
    """
    bright, noise = image.sum(1), variance.sum(1)
    place = torch.zeros(len(image), 2, dtype=image.dtype, device=image.device)
    spread = torch.zeros_like(place)
    axis = torch.arange(image.shape[-1], dtype=image.dtype, device=image.device) - image.shape[-1] // 2
    for _ in range(2):
        offsets = axis - place[..., None]
        weights = torch.exp(-0.5 * (offsets / _APERTURE).square())
        both = weights[:, 1, :, None] * weights[:, 0, None, :]
        steps = []
        for number, distance in enumerate((offsets[:, 0, None, :], offsets[:, 1, :, None])):
            rise = (both * distance * bright).sum((1, 2))
            bend = (both * (1 - (distance / _APERTURE).square()) * bright).sum((1, 2))
            error = ((both * distance).square() * noise).sum((1, 2))
            spread[:, number] = error / bend.square().clamp_min(1e-30)
            steps.append((rise / bend.clamp_min(1e-30)).clamp(-0.7, 0.7))
        place = (place + torch.stack(steps, dim=1)).clamp(-1.0, 1.0)
    return place * _PHASE / (_PHASE + spread)


def derivative(measure: Measure, image: Tensor, slope: Tensor, step: float = STEP) -> Tensor:
    """(n, k) of what is measured along `slope`."""
    return (measure(image + step * slope) - measure(image - step * slope)) / (2 * step)


def responses(
    measure: Measure,
    image: Tensor,
    variance: Tensor,
    shearing: Callable[[Tensor], Slopes],
    generator: torch.Generator,
    *,
    features: Measure | None = None,
    draws: int = 1,
) -> Responses:
    """Responses of what is measured to a shear of the galaxies.

    Args:
        measure: of which the response is wanted.
        image, variance: (n, band, h, w).
        shearing: the stamps' derivatives; linear.
        generator: of the noise, on the CPU.
        features: (n, f) that the response is to be multiplied with; none: `Responses.product` is empty.
        draws: of noise per object.
    """
    seen = torch.stack([derivative(measure, image, slope) for slope in shearing(image)], dim=2)
    noise = torch.zeros_like(seen)
    product: Tensor | float = 0.0
    for _ in range(draws):
        other = torch.randn(image.shape, generator=generator).to(image) * variance.sqrt()
        ends = (image + _SOFT * other, image - _SOFT * other)
        slopes = [torch.stack([derivative(measure, end, s) for s in shearing(other)], dim=2) for end in ends]
        noise += (slopes[0] - slopes[1]) / (2 * _SOFT * draws)
        if features is not None:
            change = (features(ends[0]) - features(ends[1])) / (2 * _SOFT * draws)
            product = product + 0.5 * (slopes[0] + slopes[1])[..., None] * change[:, None, None, :]
    return Responses(seen, noise, product if isinstance(product, Tensor) else seen.new_zeros(*seen.shape, 0))


@constant
def _waves(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Wave numbers kx (1, side // 2 + 1), ky (side, 1), radians per pixel."""
    kx = 2 * math.pi * torch.fft.rfftfreq(side, device=device)
    return kx[None, :], 2 * math.pi * torch.fft.fftfreq(side, device=device)[:, None]


def _phase(size: tuple[int, int], side: int, device: torch.device) -> Tensor:
    """Phase that moves the origin of a transform to pixel size // 2."""
    kx, ky = _waves(side, device)
    return torch.exp(1j * (kx * (size[1] // 2) + ky * (size[0] // 2)))


def _transform(image: Tensor, side: int, centre: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """F (n, band, side, side // 2 + 1) and (S_j k) . grad F (2, ...) with the gradient taken about `centre`."""
    height, width = int(image.shape[-2]), int(image.shape[-1])
    x = torch.arange(width, dtype=image.dtype, device=image.device) - width // 2
    y = torch.arange(height, dtype=image.dtype, device=image.device) - height // 2
    weighted = torch.stack([image, image * x, image * y[:, None]])
    transforms = torch.fft.rfft2(weighted, s=(side, side)) * _phase((height, width), side, image.device)
    transform, along_x, along_y = transforms[0], -1j * transforms[1], -1j * transforms[2]
    if centre is not None:
        along_x = along_x + 1j * centre[:, 0, None, None, None] * transform
        along_y = along_y + 1j * centre[:, 1, None, None, None] * transform
    kx, ky = _waves(side, image.device)
    return transform, torch.stack([kx * along_x - ky * along_y, ky * along_x + kx * along_y])


def _pixels(transform: Tensor, size: int, side: int) -> Tensor:
    """Stamps (..., size, size) of a transform about pixel size // 2."""
    phase = _phase((size, size), side, transform.device).conj()
    output: Tensor = torch.fft.irfft2(transform * phase, s=(side, side))[..., :size, :size]
    return output


def _with_wings(psf: Tensor, size: int) -> Tensor:
    """PSFs (n, band, size, size) that go on beyond their pixels with the power of the radius that their edges have.

    Wings that a small PSF image cuts off would count as the galaxy's, and its hard edge would ring.
    """
    height, width = psf.shape[-2:]
    half = min(height, width) // 2
    top, left = size // 2 - height // 2, size // 2 - width // 2
    if top < 0 or left < 0:
        return torch.nn.functional.pad(psf, (left, size - width - left, top, size - height - top))
    axis = torch.arange(size, dtype=psf.dtype, device=psf.device) - size // 2
    radius = torch.hypot(axis[:, None], axis).clamp_min(1.0)
    inside = radius[top : top + height, left : left + width]
    rings = [(inside >= low * half) & (inside < high * half) for low, high in pairwise(_RINGS)]
    levels = [psf[..., ring].mean(-1).clamp_min(1e-30) for ring in rings]
    places = [inside[ring].log().mean() for ring in rings]
    power = ((levels[0] / levels[1]).log() / (places[1] - places[0])).clamp(3.0, 20.0)
    wings = levels[1][..., None, None] * torch.exp(-power[..., None, None] * (radius.log() - places[1]))
    wings[..., top : top + height, left : left + width] = psf
    return wings
