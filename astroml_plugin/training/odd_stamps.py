"""Stamps that are unlike a training set, made from its own: what a judge of the typical learns to tell apart.

Objects of other sizes and places, stars, trails, neighbours, other noise, other colours. Strengths are drawn from wide
ranges and reach down to what is hardly seen. Nothing of it is an image of others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from astroml_plugin.cutouts import Cutouts

MOST = 1500
"""Stamps of each kind, at most."""

_RIM = 4
"""Width in pixels of the border that tells level and noise."""


@dataclass(frozen=True)
class Draw:
    """Random numbers, one for each of some stamps."""

    count: int
    """Stamps."""
    generator: torch.Generator
    """Where they come from."""

    def even(self, low: float, high: float) -> Tensor:
        """(n, 1, 1, 1) between two numbers."""
        return low + (high - low) * torch.rand(self.count, 1, 1, 1, generator=self.generator)

    def times(self, low: float, high: float) -> Tensor:
        """(n, 1, 1, 1) factors, even in their logarithm."""
        return torch.exp(self.even(math.log(low), math.log(high)))

    def normal(self, shape: torch.Size) -> Tensor:
        """Normal numbers."""
        return torch.randn(shape, generator=self.generator)

    def either(self) -> Tensor:
        """(n, 1, 1, 1) bool, true for one half."""
        return self.even(0, 1) < 0.5


@dataclass(frozen=True)
class Own:
    """Stamps of the training set, and what a change of them has to know."""

    image: Tensor
    """(n, band, h, w) float32."""
    psf: Tensor | None
    """(n, band, y, x), None where stamps have none."""
    level: Tensor
    """(n, band, 1, 1) median of the border."""
    noise: Tensor
    """(n, band, 1, 1) Gaussian width of the border."""
    variance: Tensor | None = None
    """(n, band, h, w), None where stamps have none."""

    @classmethod
    def of(cls, stamps: Cutouts) -> Own:
        """Level and noise of cutouts on a CPU, with their pixels."""
        image = stamps.image.float()
        level, noise = _sky(image)
        return cls(image, None if stamps.psf is None else stamps.psf.float(), level, noise, stamps.variance)

    @property
    def light(self) -> Tensor:
        """Pixels above the level."""
        return self.image - self.level

    @property
    def side(self) -> int:
        """The smaller side."""
        return min(self.image.shape[-2:])

    def flux(self) -> Tensor:
        """(n, band, 1, 1) light about the centre, ten noises or more."""
        y, x = (length // 2 for length in self.image.shape[-2:])
        middle = self.light[..., max(0, y - 6) : y + 7, max(0, x - 6) : x + 7]
        return torch.maximum(middle.clamp_min(0).sum((2, 3), keepdim=True), 10 * self.noise)

    def places(self) -> tuple[Tensor, Tensor]:
        """(h, 1) and (1, w) pixels from the centre."""
        height, width = self.image.shape[-2:]
        y, x = (torch.arange(length, dtype=torch.float32) - length // 2 for length in (height, width))
        return y[:, None], x[None]


Planes = tuple[Tensor, Tensor | None]
"""Image, and variance where there is one."""

Change = Callable[[Own, Draw], Tensor | Planes | None]


def odd_stamps(
    stamps: Cutouts, part: float, generator: torch.Generator, kinds: Sequence[str] = ()
) -> Iterator[tuple[Tensor, Cutouts]]:
    """Numbers of the stamps that a kind was made of, and what was made; of each kind that these stamps allow.

    Args:
        stamps: of a training set.
        part: of the stamps, for each kind.
        generator: of all that is random.
        kinds: names among `KINDS`; empty: all.
    """
    whole = replace(stamps, bits=None, off_centre=None).to("cpu")
    count = max(1, round(part * len(whole)))
    for name in kinds or KINDS:
        chosen = torch.randperm(len(whole), generator=generator)[:count]
        taken = whole.take(chosen)
        own, draw = Own.of(taken), Draw(count, generator)
        found = KINDS[name](own, draw)
        if found is None:
            continue
        image, variance = found if isinstance(found, tuple) else (found, taken.variance)
        if taken.image.dtype == torch.uint8:
            yield chosen, replace(taken, image=image.round().clamp(0, 255).to(torch.uint8))
            continue
        if variance is not None and name in _OTHER_NOISE:  # half of them come with a variance that fits
            told = (_sky(image)[1] / own.noise.clamp_min(1e-12)).square().clamp(1e-3, 1e3)
            variance = torch.where(draw.either(), variance * told, variance)
        yield chosen, replace(taken, image=image, variance=variance)


def _sky(image: Tensor) -> tuple[Tensor, Tensor]:
    edge = torch.ones(image.shape[-2:], dtype=torch.bool)
    edge[_RIM:-_RIM, _RIM:-_RIM] = False
    pixels = image[..., edge]
    level = pixels.median(2).values
    noise = 1.4826 * (pixels - level[..., None]).abs().median(2).values
    return level[..., None, None], noise[..., None, None]


# ---- kinds -------------------------------------------------------------------------------------------------------


def _point(own: Own, draw: Draw, x: Tensor | float = 0.0, y: Tensor | float = 0.0) -> Tensor:
    """(n, 1, h, w) stars of unit light: a Gaussian that is a little long, with exponential wings."""
    down, right = own.places()
    down, right = down - y, right - x
    sigma, narrow, angle = draw.even(2.0, 6.0) / 2.355, draw.even(0.85, 1.0), draw.even(0, math.pi)
    along = right * angle.cos() + down * angle.sin()
    across = (down * angle.cos() - right * angle.sin()) / narrow
    square = along.square() + across.square()
    profile = torch.exp(-0.5 * square / sigma**2) + draw.even(0, 0.08) * torch.exp(-square.sqrt() / (1.5 * sigma))
    return profile / profile.sum((2, 3), keepdim=True).clamp_min(1e-12)


def _star(own: Own, draw: Draw) -> Tensor:
    """A star instead of the object, of the stamp's PSF where it has one."""
    profile = _point(own, draw)
    if own.psf is not None:
        psf = own.psf / own.psf.sum((2, 3), keepdim=True).clamp_min(1e-12)
        profile = _placed(psf, own.image.shape[-2:])
    light = own.flux() * draw.times(0.5, 3.0) * profile
    return own.level + light + own.noise * draw.normal(own.image.shape)


def _placed(small: Tensor, size: torch.Size) -> Tensor:
    """Images about the centre pixel of other sizes."""
    whole = torch.zeros(*small.shape[:2], *size)
    cut: list[slice] = []
    put: list[slice] = []
    for have, want in zip(small.shape[-2:], size):
        length = min(have, want)
        cut.append(slice(have // 2 - length // 2, have // 2 - length // 2 + length))
        put.append(slice(want // 2 - length // 2, want // 2 - length // 2 + length))
    whole[..., put[0], put[1]] = small[..., cut[0], cut[1]]
    return whole


def _star_beside(own: Own, draw: Draw) -> Tensor:
    """A star beside the object, 3 to 1000 times as bright."""
    radius, angle = draw.even(5, 0.42 * own.side), draw.even(0, 2 * math.pi)
    star = _point(own, draw, radius * angle.cos(), radius * angle.sin())
    return own.image + own.flux().mean(1, keepdim=True) * draw.times(3, 1000) * star


def _zoomed(own: Own, light: Tensor, factor: Tensor) -> Tensor:
    matrix = torch.zeros(len(light), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / factor.flatten()
    grid = functional.affine_grid(matrix, list(light.shape), align_corners=False)
    return own.level + functional.grid_sample(light, grid, padding_mode="reflection", align_corners=False)


def _larger(own: Own, draw: Draw) -> Tensor:
    return _zoomed(own, own.light, draw.even(1.4, 3.0))


def _smaller(own: Own, draw: Draw) -> Tensor:
    factor = draw.even(0.35, 0.75)
    light = functional.avg_pool2d(own.light, 3, 1, 1, count_include_pad=False) / factor
    return _zoomed(own, light, factor)


def _trail(own: Own, draw: Draw) -> Tensor:
    """A straight band of light, 1 to 7 pixels wide, of 4 to 400 noises."""
    y, x = own.places()
    angle, offset = draw.even(0, math.pi), draw.even(-0.35 * own.side, 0.35 * own.side)
    distance = (x * angle.cos() + y * angle.sin() - offset).abs()
    profile = torch.sigmoid(2 * (draw.even(0.5, 3.5) - distance))
    return own.image + draw.times(4, 400) * own.noise.clamp_min(1e-6) * profile


def _noise(own: Own, draw: Draw) -> Tensor:
    """Noise alone, half of it correlated."""
    white = draw.normal(own.image.shape)
    smooth = 3 * functional.avg_pool2d(white, 3, 1, 1)
    return own.level + own.noise * draw.times(0.5, 2.0) * torch.where(draw.either(), white, smooth)


def _swapped(own: Own, draw: Draw) -> Planes | None:
    """Bands in any other order, half of them with their variances."""
    bands = own.image.shape[1]
    orders = list(itertools.islice(itertools.permutations(range(bands)), 1, 120))
    if not orders:
        return None
    places = torch.randint(len(orders), (len(own.image),), generator=draw.generator)
    order = torch.tensor(orders)[places][..., None, None].expand_as(own.image)
    image, variance = torch.gather(own.image, 1, order), own.variance
    if variance is not None:
        variance = torch.where(draw.either(), torch.gather(variance, 1, order), variance)
    return image, variance


def _grey(own: Own, draw: Draw) -> Tensor | None:
    """One band in the place of all."""
    bands = own.image.shape[1]
    if bands == 1:
        return None
    place = torch.randint(bands, (len(own.image), 1, 1, 1), generator=draw.generator)
    return own.level + torch.gather(own.light, 1, place.expand(-1, 1, *own.image.shape[2:])).expand_as(own.image)


def _smoothed(own: Own, draw: Draw) -> Tensor:
    """Smoothed or sharpened."""
    smooth = functional.avg_pool2d(own.light, 3, 1, 1, count_include_pad=False)
    part = draw.even(0.35, 1.0) * torch.where(draw.either(), 1.0, -1.0)
    return own.image + part * (smooth - own.light)


def _slanted(own: Own, draw: Draw) -> Tensor:
    """A background that rises across the stamp."""
    y, x = own.places()
    angle = draw.even(0, 2 * math.pi)
    rise = draw.times(1.5, 20) * own.noise.clamp_min(1e-6)
    return own.image + rise * (x * angle.cos() + y * angle.sin()) / (own.side / 2)


def _striped(own: Own, draw: Draw) -> Tensor:
    """Columns, or rows, of other levels."""
    columns, rows = (draw.normal(torch.Size((draw.count, 1, 1, side))) for side in own.image.shape[:1:-1])
    steps = torch.where(draw.either(), columns, rows.transpose(2, 3))
    return own.image + draw.times(0.7, 6) * own.noise.clamp_min(1e-6) * steps


def _shifted(own: Own, draw: Draw) -> Tensor:
    """The object away from the centre."""
    far = own.side // 3
    down, right = (int(torch.randint(-far, far + 1, (1,), generator=draw.generator)) for _ in "yx")
    return torch.roll(own.image, (down + (6 if down >= 0 else -6), right), (2, 3))


def _scaled(own: Own, draw: Draw) -> Tensor:
    """Pixels of another unit."""
    return own.level + own.light * torch.where(draw.either(), draw.times(0.1, 0.4), draw.times(2.5, 10))


def _coarse(own: Own, draw: Draw) -> Tensor:
    """Few steps of brightness."""
    step = draw.times(1.5, 6) * own.noise.clamp_min(1e-6)
    return own.level + (own.light / step).round() * step


def _other_psf(own: Own, draw: Draw) -> Tensor | None:
    """Another object than the PSF beside it is of; None without PSFs."""
    return None if own.psf is None else own.image.roll(1, 0)


KINDS: Mapping[str, Change] = {
    "star": _star,
    "star beside": _star_beside,
    "larger": _larger,
    "smaller": _smaller,
    "trail": _trail,
    "noise": _noise,
    "bands swapped": _swapped,
    "one band": _grey,
    "smoothed": _smoothed,
    "slanted": _slanted,
    "striped": _striped,
    "shifted": _shifted,
    "scaled": _scaled,
    "coarse": _coarse,
    "other PSF": _other_psf,
}
"""Kinds of stamps; None where a kind is not made of such stamps."""

OF_FIELDS = (
    *("larger", "smaller", "noise", "bands swapped", "one band"),
    *("smoothed", "slanted", "striped", "scaled", "coarse"),
)
"""Kinds that make everything in a field odd."""

_OTHER_NOISE = ("larger", "smaller", "smoothed", "scaled", "coarse")
"""Kinds whose noise is another one."""
