"""Deconvolution in two steps, as Tikhonet (Sureau, Lechat & Starck 2020, A&A 641, A67).

First what Fourier space can undo with the PSF of each object, then a network that mends the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SOFTENING = 3.0
"""Noise units at which brightness turns from linear to logarithmic."""
_EXPECTED_SIGMA = 1.5  # pixels of the Gaussian whose power spectrum a galaxy is expected to have
_LEAST_FLUX = 30.0  # noise units
_OVERSAMPLED = 5
_MOST = 9.0


def moffat(fwhm: float, size: int, beta: float = 3.0) -> Tensor:
    """(size, size) float32 of unit sum: a round Moffat of this FWHM in pixels, averaged over them, about size // 2."""
    step = (torch.arange(_OVERSAMPLED) - (_OVERSAMPLED - 1) / 2) / _OVERSAMPLED
    axis = ((torch.arange(size) - size // 2)[:, None] + step).flatten()
    radius = fwhm / 2 / (2 ** (1 / beta) - 1) ** 0.5
    fine = (1 + (axis[:, None].square() + axis.square()) / radius**2) ** -beta
    image = functional.avg_pool2d(fine[None, None], _OVERSAMPLED)[0, 0]
    return image / image.sum()


def transfer(psf: Tensor, size: int) -> Tensor:
    """(n, b, size, size // 2 + 1) Fourier transforms of PSFs (n, b, p, p) about their pixel p // 2."""
    middle, side = psf.shape[-1] // 2, psf.shape[-1]
    if side > size:
        cut = middle - size // 2
        psf, middle, side = psf[..., cut : cut + size, cut : cut + size], size // 2, size
    placed = functional.pad(psf, (0, size - side, 0, size - side)).roll((-middle, -middle), dims=(-2, -1))
    output: Tensor = torch.fft.rfft2(placed)
    return output


def restored(image: Tensor, psf: Tensor, sharp: Tensor) -> Tensor:
    """Images (n, b, s, s) in units of their noise, Wiener-filtered (Tikhonov's way) to the PSF `sharp` (s, s).

    The noise is white; the signal is expected to have the power of a Gaussian of 1.5 pixels and the image's own flux.
    """
    size = image.shape[-1]
    blur, wanted = transfer(psf, size), transfer(sharp[None, None], size)
    middle, half = size // 2, min(12, size // 2 - 1)
    flux = image[..., middle - half : middle + half + 1, middle - half : middle + half + 1].sum((2, 3))
    flux = flux.clamp_min(_LEAST_FLUX)[..., None, None]
    along = 2 * torch.pi * torch.fft.fftfreq(size, device=image.device)
    across = 2 * torch.pi * torch.fft.rfftfreq(size, device=image.device)
    power = torch.exp(-(_EXPECTED_SIGMA**2) * (along[:, None].square() + across.square())).clamp_min(1e-9)
    ratio = wanted * blur.conj() / (blur.abs().square() + size * size / (flux.square() * power))
    output: Tensor = torch.fft.irfft2(torch.fft.rfft2(image) * ratio, s=(size, size))
    return output


def blurred(sharp_image: Tensor, psf: Tensor, sharp: Tensor) -> Tensor:
    """Images (n, b, s, s) under the PSF `sharp` (s, s) as they look under PSFs (n, b, p, p)."""
    size = sharp_image.shape[-1]
    given = transfer(sharp[None, None], size)
    ratio = transfer(psf, size) * given.conj() / (given.abs().square() + 1e-4)
    output: Tensor = torch.fft.irfft2(torch.fft.rfft2(sharp_image) * ratio, s=(size, size))
    return output


class Tikhonet(nn.Module):
    """Stamps, their PSFs and their noise to restored pixels in the stamps' own units, (n, bands x s x s).

    Args:
        mending: maps (n, bands, s, s) from (n, 2 bands + 1, s, s): the image, what the filter makes of it, and the
            PSF's width; what it gives is added on a scale that is linear in the noise and logarithmic above.
        fwhm: of the restored images, pixels.
        size: side of the stamps, pixels.
    """

    sharp: Tensor

    def __init__(self, mending: nn.Module, fwhm: float, size: int) -> None:
        super().__init__()
        self.mending = mending
        self.register_buffer("sharp", moffat(fwhm, size), persistent=False)

    def forward(self, image: Tensor, psf: Tensor, noise: Tensor) -> Tensor:
        """(n, bands x s x s) from image (n, b, s, s) in units of noise (n, b, 1, 1), and psf (n, b, p, p), unit sum."""
        first = torch.asinh(restored(image, psf, self.sharp) / SOFTENING)
        width = -0.5 * psf.mean(1).square().sum((1, 2)).clamp_min(1e-6).log() - 1.5
        plane = width[:, None, None, None].expand(-1, 1, *image.shape[-2:])
        mended = first + self.mending(torch.cat([torch.asinh(image / SOFTENING), first, plane], dim=1))
        return (SOFTENING * torch.sinh(mended.clamp(-_MOST, _MOST)) * noise).flatten(1)
