"""From raw pixels to network input, on the device: the only such code there is.

On a CPU compiled code does it stamp by stamp where it is there (`pixels.native`), to float32 rounding; torch elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.settings import refuse_choices
from astroml_plugin.cutouts import is_complete
from astroml_plugin.networks.layers import lower_median
from astroml_plugin.pixels import native, native_light

_MAD_TO_SIGMA = 1.482602218505602
CENTRED = 0.003  # pixels within which a PSF is where it belongs: measurements follow its centre closely
FARTHEST = 1.5  # pixels from there, in x or y, beyond which a PSF is left where it is
_CENTRE_SIGMA, STEPS, GAIN = 2.0, 12, 1.3  # Gaussian weight in pixels, and iterations, of a PSF's centre
FEW = 16  # border pixels below which the whole stamp is asked instead


@dataclass(frozen=True)
class Normalisation:
    """How pixels are scaled. Stored in the bundle, so that training and inference cannot differ."""

    background: str = "border"
    """"border" subtracts the median of the stamp's border in each band; "none" leaves the level."""
    unit: str = "noise"
    """"noise" divides by the noise of each stamp and band, "scale" by the fixed `scales` of each band."""
    stretch: str = "linear"
    """"linear", or "asinh" of the scaled pixels (softening * asinh(x / softening))."""
    softening: float = 1.0
    """Scaled pixel value at which the asinh stretch turns over from linear to logarithmic."""
    scales: tuple[float, ...] = ()
    """Pixel value per band that becomes 1 where `unit` is "scale"; empty: measured on the training split."""
    border: int = 4
    """Width in pixels of the border that background and noise are measured on."""

    def __post_init__(self) -> None:
        refuse_choices(self, _CHOICES, "normalisation")
        if self.softening <= 0 or self.border < 1:
            raise InputError(
                f"normalisation softening ({self.softening}) must be above 0 and border ({self.border}) at least 1"
            )

    def apply(
        self, image: Tensor, variance: Tensor | None, valid: Tensor, needed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scaled pixels and flags.

        Args:
            image: (n, band, h, w) raw pixels, float32 or uint8.
            variance: same shape float32, or None.
            valid: same shape bool.
            needed: (band,) bool, bands that a stamp must have; None: all.

        Returns:
            Pixels (n, band, h, w) float32, 0 where not valid; flags (n,) int32: NO_VARIANCE where the noise had to be
            estimated from the border, OUT_OF_DOMAIN where a needed band is missing (`missing_bands`), NONFINITE where
            the stamp has no valid pixel.
        """
        if self.unit == "scale" and len(self.scales) != image.shape[1]:
            raise InputError(
                f"normalisation has {len(self.scales)} scales for {image.shape[1]} bands: give one per band"
            )
        complete = is_complete(valid)
        if native.takes(image, variance, valid):
            return self._native(image, variance, None if complete else valid, needed)
        pixels = image if complete else image.to(torch.float32)
        flags = domain_flags(missing_bands(pixels, valid, complete), None if complete else valid, needed)
        edge = border_pixels(pixels, None if complete else valid, self.border).to(torch.float32)
        level = lower_median(edge) if self.background == "border" else torch.zeros_like(edge[..., 0])
        unit, estimated = self._unit(edge, variance, valid, complete)
        scaled = self._scaled(pixels, level[..., None, None], unit[..., None, None])
        if estimated:
            flags |= int(ObjectFlag.NO_VARIANCE)
        return (scaled if complete else scaled.masked_fill(~valid, 0.0)), flags

    def _native(
        self, image: Tensor, variance: Tensor | None, valid: Tensor | None, needed: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`apply` by compiled code; no `valid` where all pixels are."""
        fixed = self.unit == "scale"
        scaled, missing, empty = native.normalise(
            image.numpy(),
            None if fixed or variance is None else variance.numpy(),
            None if valid is None else valid.numpy(),
            native.Scaling(
                self.border,
                self.background == "border",
                self.scales if fixed else None,
                self.softening if self.stretch == "asinh" else 0.0,
            ),
        )
        flags = domain_flags(torch.from_numpy(missing), None, needed)
        flags |= torch.from_numpy(empty).to(torch.int32) * int(ObjectFlag.NONFINITE)
        if variance is None and not fixed:
            flags |= int(ObjectFlag.NO_VARIANCE)
        return torch.from_numpy(scaled), flags

    def _scaled(self, pixels: Tensor, level: Tensor, unit: Tensor) -> Tensor:
        """(n, band, h, w) float32: without the level, in the unit, stretched.

        A CPU does a few stamps after the other, with the same small buffers for all, so that what one operation leaves
        is still in its cache for the next: half of the time.
        """
        if self.stretch == "linear":
            return (pixels.to(torch.float32) - level).div_(unit)
        stretched = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
        count = max(1, _CACHED // max(1, pixels[:1].numel())) if pixels.device.type == "cpu" else len(pixels)
        buffers = torch.empty(2, *pixels[:count].shape, dtype=torch.float32, device=pixels.device)
        softened = unit * self.softening
        for start in range(0, len(pixels), max(1, count)):
            part = slice(start, start + count)
            into = stretched[part]
            torch.sub(pixels[part], level[part], out=into).div_(softened[part])
            _asinh_(into, *buffers[:, : len(into)]).mul_(self.softening)
        return stretched

    def _unit(self, edge: Tensor, variance: Tensor | None, valid: Tensor, complete: bool) -> tuple[Tensor, bool]:
        """(n, band) pixel value that becomes 1, and whether it is noise estimated from the border."""
        if self.unit == "scale":
            return torch.tensor(self.scales, device=edge.device).expand(edge.shape[:2]), False
        if variance is None:
            return robust_width(edge), True
        return known_width(variance, None if complete else valid, self.border), False


_CACHED = 2**17
"""Pixels of stamps that are stretched at once on a CPU: beyond, what one operation leaves has left the cache."""

SPARSE = 4
"""Variance changes slowly: every fourth border pixel tells its level."""

_CHOICES = {"background": ("border", "none"), "unit": ("noise", "scale"), "stretch": ("linear", "asinh")}


def missing_bands(pixels: Tensor, valid: Tensor, complete: bool = False) -> Tensor:
    """(n, band) bool: bands of stamps (n, band, h, w) without a valid pixel, or with one value in all that are valid.

    A file of zeros stands for a band that was never observed as often as NaN does. `complete`: all pixels are valid.
    """
    flat = pixels.flatten(2)
    if complete:
        constant = (flat[..., ::SPARSE] == flat[..., :1]).all(2)
        if bool(constant.any()):  # only these are worth a look at every pixel
            constant[constant.clone()] = (flat[constant] == flat[constant][..., :1]).all(1)
        return constant
    usable = valid.flatten(2)
    flat = flat.to(torch.float32)
    return flat.masked_fill(~usable, torch.inf).amin(2) >= flat.masked_fill(~usable, -torch.inf).amax(2)


def domain_flags(missing: Tensor, valid: Tensor | None, needed: Tensor | None) -> Tensor:
    """(n,) int32: OUT_OF_DOMAIN where a needed band, or every band, is missing; NONFINITE without a valid pixel.

    Args:
        missing: (n, band) of `missing_bands`.
        valid: (n, band, h, w) bool; None: all pixels are, or the caller sees to NONFINITE.
        needed: (band,) bool; None: all.
    """
    lacking = missing.any(1) if needed is None else missing[:, needed].any(1) | missing.all(1)
    flags = lacking.to(torch.int32) * int(ObjectFlag.OUT_OF_DOMAIN)
    if valid is None:
        return flags
    return flags | (~valid.flatten(1).any(1)).to(torch.int32) * int(ObjectFlag.NONFINITE)


def border_pixels(pixels: Tensor, valid: Tensor | None, width: int) -> Tensor:
    """(n, band, k) pixels of the stamps' border of the given width, NaN where not valid.

    Where fewer than 16 border pixels of a stamp are valid in a band, all its valid pixels stand in (k grows for all).
    """
    values = pixels if valid is None else pixels.masked_fill(~valid, torch.nan)
    height, across = pixels.shape[-2:]
    if min(height, across) <= 2 * width:
        return values.flatten(2)
    inner = values[..., width:-width, :]
    parts = (values[..., :width, :], values[..., -width:, :], inner[..., :width], inner[..., -width:])
    edge = torch.cat([part.flatten(2) for part in parts], dim=2)
    if valid is None:
        return edge
    few = edge.isfinite().sum(2) < FEW
    if not bool(few.any()):
        return edge
    wider = torch.full((*edge.shape[:2], height * across), torch.nan, device=edge.device)
    wider[..., : edge.shape[2]] = edge
    wider[few] = values.flatten(2)[few]
    return wider


def border_level(pixels: Tensor, valid: Tensor | None, width: int) -> Tensor:
    """(n, band) median of the border of `border_pixels`, the background of each stamp."""
    if native.takes(pixels, valid):
        level, _ = native.border_statistics(pixels.numpy(), None if valid is None else valid.numpy(), width)
        return torch.from_numpy(level)
    return lower_median(border_pixels(pixels, valid, width))


def robust_width(values: Tensor) -> Tensor:
    """(n, band) Gaussian width from the median absolute deviation of values (n, band, k).

    Where more than half of the values are equal, the mean absolute deviation; where all are, 1.
    """
    offsets = (values - lower_median(values)[..., None]).abs()
    width = lower_median(offsets) * _MAD_TO_SIGMA
    mean = torch.nanmean(offsets, 2).nan_to_num() * 1.2533141373155
    width = torch.where(width > 0, width, mean)
    return torch.where(width > 0, width, torch.ones_like(width))


def _asinh_(values: Tensor, size: Tensor, root: Tensor) -> Tensor:
    """asinh in place, to float32 rounding, from operations that torch vectorises on a CPU (its own is seven times
    slower); the other two, of the same shape, are overwritten."""
    torch.abs(values, out=size)
    torch.mul(values, values, out=root).add_(1.0).sqrt_().add_(size).log_()
    return torch.copysign(root, values, out=values)


def border_width(pixels: Tensor, valid: Tensor | None, width: int) -> Tensor:
    """(n, band) `robust_width` of the border of `border_pixels`, the noise of each stamp."""
    if native.takes(pixels, valid):
        known = None if valid is None else valid.numpy()
        _, spread = native.border_statistics(pixels.numpy(), known, width, width=True)
        assert spread is not None
        return torch.from_numpy(spread)
    return robust_width(border_pixels(pixels, valid, width))


def known_width(variance: Tensor, valid: Tensor | None, width: int) -> Tensor:
    """(n, band) noise of each stamp, by the variance of its border; 1 where that tells none."""
    spread = lower_median(border_pixels(variance, valid, width)[..., ::SPARSE])
    return torch.where(spread > 0, spread.clamp_min(0).sqrt(), torch.ones_like(spread))


def measure_scales(image: Tensor, variance: Tensor | None, valid: Tensor, border: int) -> tuple[float, ...]:
    """Per band three times the typical noise of training stamps (n, band, h, w): where an asinh stretch turns over.

    A band whose borders are all constant takes the width of its pixels instead.
    """
    pixels = image.to(torch.float32)
    offsets = border_pixels(pixels, valid, border)
    if variance is not None:
        noise = lower_median(border_pixels(variance, valid, border)).sqrt()
    else:
        noise = lower_median((offsets - lower_median(offsets)[..., None]).abs()) * _MAD_TO_SIGMA
    typical = 3.0 * noise.median(0).values
    spread = pixels.transpose(0, 1).flatten(1).std(1)
    return tuple(float(value) for value in torch.where(typical > 0, typical, torch.where(spread > 0, spread, 1.0)))


def normalise_psf(psf: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """PSFs of unit sum at one size.

    Args:
        psf: (n, band, py, px) of any odd or even size and any sum.
        size: side of the result.

    Returns:
        (n, band, size, size) float32, cut or padded with 0 about the centre pixel (index size // 2), 0 where there is
        no usable PSF; and (n,) bool, true where one band or more has none (a sum that is not above 0, or NaN). PSFs
        whose centre lies within 1.5 pixels of that pixel, as between two pixels of an even size, are moved onto it.
    """
    if native.takes(psf):
        along = _centre_weights(int(psf.shape[2])), _centre_weights(int(psf.shape[3]))
        made, usable, place = native_light.unit_psf(psf.numpy(), along)
        return _fit(_centred(torch.from_numpy(made), torch.from_numpy(place)), size), ~torch.from_numpy(usable).all(1)
    pixels = psf.to(torch.float32)
    total = pixels.sum((2, 3))
    good = total.isfinite() & (total > 0)
    safe = torch.where(good, total, torch.ones_like(total))
    unit = torch.where(good[..., None, None], pixels / safe[..., None, None], torch.zeros_like(pixels))
    return _fit(centred_psf(unit), size), ~good.all(1)


def gaussian_psf(fwhm: float, size: int) -> Tensor:
    """(size, size) float32 of unit sum: a round Gaussian of this FWHM in pixels about pixel size // 2."""
    axis = torch.arange(size, dtype=torch.float32) - size // 2
    profile = torch.exp(-4 * math.log(2) * (axis / fwhm).square())
    image = profile[:, None] * profile
    return image / image.sum()


def centred_psf(psf: Tensor) -> Tensor:
    """PSFs (n, band, py, px) moved onto pixel size // 2; left alone where they are on it or over 1.5 pixels away."""
    flat = psf.flatten(0, 1)
    return _centred(psf, light_centre(flat, flat.new_zeros(len(flat), 2)))


def _centred(psf: Tensor, centre: Tensor) -> Tensor:
    """`centred_psf` of PSFs whose light lies at (n * band, 2)."""
    flat = psf.flatten(0, 1)
    off = (centre.abs().amax(1) > CENTRED).nonzero().flatten()
    if not len(off):
        return psf
    off_centre = flat[off]
    place = torch.zeros(len(off), 2, dtype=psf.dtype, device=psf.device)
    for _ in range(STEPS):
        place = place + GAIN * light_centre(off_centre, place)
    near = (place.abs() <= FARTHEST).all(1)
    if not bool(near.any()):
        return psf
    moved = flat.clone()
    moved[off[near]] = _shifted(off_centre[near], -place[near])
    return moved.reshape(psf.shape)


@lru_cache(maxsize=16)
def _centre_weights(side: int) -> np.ndarray:
    """(side,) float32, the Gaussian of `light_centre` about pixel side // 2."""
    offset = np.arange(side, dtype=np.float32) - side // 2
    weight: np.ndarray = np.exp(-0.5 * np.square(offset / _CENTRE_SIGMA)).astype(np.float32)
    return weight


def light_centre(image: Tensor, about: Tensor) -> Tensor:
    """(n, 2) mean x, y relative to `about` (n, 2; pixels from pixel size // 2) under a Gaussian there; 0 of nothing."""
    y, x = (
        torch.arange(side, dtype=image.dtype, device=image.device) - side // 2 - about[:, axis, None]
        for side, axis in zip(image.shape[1:], (1, 0))
    )
    along_y, along_x = (torch.exp(-0.5 * (offset / _CENTRE_SIGMA).square()) for offset in (y, x))
    columns = torch.einsum("nyx,ny->nx", image, along_y)
    total = (columns * along_x).sum(1)
    rows = torch.einsum("nyx,nx->ny", image, along_x)
    moments = torch.stack([(columns * along_x * x).sum(1), (rows * along_y * y).sum(1)], dim=1)
    return torch.where(total[:, None] > 0, moments / total.clamp_min(1e-30)[:, None], 0.0).clamp(-1.0, 1.0)


def _shifted(image: Tensor, by: Tensor) -> Tensor:
    """Images (n, h, w) moved by (n, 2) pixels x, y, band-limited."""
    height, width = int(image.shape[1]), int(image.shape[2])
    ky = 2 * math.pi * torch.fft.fftfreq(height, device=image.device)
    kx = 2 * math.pi * torch.fft.rfftfreq(width, device=image.device)
    phase = by[:, 1, None, None] * ky[:, None] + by[:, 0, None, None] * kx
    output: Tensor = torch.fft.irfft2(torch.fft.rfft2(image) * torch.exp(-1j * phase), s=(height, width))
    return output


def _fit(pixels: Tensor, size: int) -> Tensor:
    """Centre-crop or zero-pad the two last axes (negative padding crops)."""
    height, width = pixels.shape[-2:]
    top, left = size // 2 - height // 2, size // 2 - width // 2
    padding = (left, size - width - left, top, size - height - top)
    return torch.nn.functional.pad(pixels, padding)
