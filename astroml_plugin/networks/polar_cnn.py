"""A small residual network on rings about the stamp's centre: turned objects look alike, and most pixels are sky.

Stamps are sampled where rings and directions cross: a turn of the sky is then a shift along one axis of an array that
closes on itself. Convolutions along it treat all directions alike, a spiral arm is a slanted line, and pixels of the
surroundings, where a galaxy's class is not written, cost little (compare polar transformer networks, Esteves et al.
2018, ICLR). What small labelled sets cannot teach, the geometry gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.networks.layers import PointConvolution, Residual, activation_of, check_fraction

_CORE, _RADIUS = 0.16, 0.41
"""Radius of the middle and of the outermost ring that follow the side of a stamp, in its units."""


class RingConvolution(nn.Conv2d):
    """A convolution over (ring, direction): directions close on themselves, beyond the first and last ring is 0.

    The size is odd, 3 or more.
    """

    def __init__(self, before: int, after: int, size: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__(before, after, size, stride, padding=(size // 2, 0), bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """(n, after, rings / stride, directions / stride)."""
        margin = self.kernel_size[1] // 2
        return super().forward(torch.cat([image[..., -margin:], image, image[..., :margin]], dim=-1))


class RingBlock(Residual):
    """Two 3 x 3 convolutions and the way around them."""

    def __init__(self, before: int, after: int, stride: tuple[int, int], act: type[nn.Module]) -> None:
        body = [
            *(RingConvolution(before, after, 3, stride), nn.BatchNorm2d(after), act()),
            *(RingConvolution(after, after, 3), nn.BatchNorm2d(after)),
        ]
        same = before == after and stride == (1, 1)
        super().__init__(body, [] if same else [PointConvolution(before, after, stride), nn.BatchNorm2d(after)], act)


class PolarCNN(nn.Module):
    """Stamps, sampled on rings, to one row of numbers each.

    In training every stamp is sampled from a random direction on, about a place near its centre and on wider or
    narrower rings: turns, shifts and other sizes without a second interpolation of the pixels. In evaluation half a
    turn changes nothing (up to rounding) where `directions` is a multiple of 16, quarter turns where of 32.

    Args:
        bands: channels of the image.
        outputs: numbers per object.
        psf: not taken: True is refused.
        rings: number of rings, a multiple of 4.
        directions: points per ring, a multiple of 8.
        size: side of the stamps, pixels; 0 where neither of the next two follows it.
        core: radius of the middle, pixels, where two thirds of the rings lie, evenly; 0: 0.16 of the side.
        radius: of the outermost ring, pixels, to which the others spread; 0: 0.41 of the side.
        widths: channels of stem and first block, of the second and of the third.
        hidden: units of the dense layer.
        activation: relu, leaky_relu, elu, gelu, silu, tanh or sigmoid.
        dropout: fraction of pooled features and of hidden units dropped while training.
        jitter: largest shift of the centre along each axis in training, pixels.
        zoom: largest change of the logarithm of the rings' radii in training.
        members: networks whose answers are averaged. Each trains on its own part of every batch, so that an epoch costs
            what it costs one of them, and inference as much as there are members.

    Raises:
        ValueError: an unknown activation, numbers that do not divide, a dropout that is no fraction, or a PSF.
    """

    radii: Tensor
    angles: Tensor

    def __init__(
        self,
        bands: int,
        outputs: int,
        *,
        psf: bool = False,
        size: int = 0,
        rings: int = 20,
        directions: int = 48,
        core: float = 10.0,
        radius: float = 26.0,
        widths: Sequence[int] = (24, 32, 48),
        hidden: int = 64,
        activation: str = "silu",
        dropout: float = 0.1,
        jitter: float = 1.0,
        zoom: float = 0.0,
        members: int = 1,
    ) -> None:
        super().__init__()
        if psf:
            raise ValueError("a polar network takes no PSF: use psf = 'none', or residual_cnn")
        check_fraction("dropout", dropout)
        if rings < 4 or rings % 4 or directions < 8 or directions % 8 or members < 1 or len(widths) != 3:
            raise ValueError(
                f"a polar network needs rings ({rings}) in multiples of 4, directions ({directions}) in multiples of "
                f"8, members ({members}) of 1 or more and three widths ({len(widths)})"
            )
        self.jitter, self.zoom = jitter, zoom
        core, radius = core or _CORE * size, radius or _RADIUS * size
        if not 0 < core < radius:
            raise ValueError(f"a polar network needs a core ({core}) above 0 and below its radius ({radius})")
        inner = round(rings * 2 / 3)
        within = torch.linspace(core / (2 * inner - 1), core, inner)
        beyond = torch.linspace(core, radius, rings - inner + 1)[1:]
        self.register_buffer("radii", torch.cat([within, beyond]), persistent=False)
        self.register_buffer("angles", torch.arange(directions) * (2 * math.pi / directions), persistent=False)
        act = activation_of(activation)
        self.members = nn.ModuleList(
            _member(bands, outputs, rings // 4, widths, hidden, act, dropout) for _ in range(members)
        )

    def forward(self, image: Tensor) -> Tensor:
        """(n, outputs) from image (n, bands, h, w), whose background is 0, centred on pixel side // 2."""
        count = len(self.members)
        sampled = self.sampled(image)
        if self.training and image.shape[0] >= 2 * count:
            parts = zip(self.members, sampled.tensor_split(count))
            return torch.cat([member(part) for member, part in parts])
        return torch.stack([member(sampled) for member in self.members]).mean(0)

    def sampled(self, image: Tensor) -> Tensor:
        """(n, bands, rings, directions) interpolated (bilinear); 0 beyond the stamp."""
        count, height, width = image.shape[0], image.shape[-2], image.shape[-1]
        angle, radius = self.angles[None, None], self.radii[None, :, None]
        right = up = torch.zeros((), device=image.device)
        if self.training:  # drawn where the image is: a copy would stop the GPU
            angle = angle + torch.rand(count, 1, 1, device=image.device) * (2 * math.pi)
            shift = (torch.rand(count, 2, device=image.device) * 2 - 1) * self.jitter
            right, up = shift[:, 0, None, None], shift[:, 1, None, None]
            if self.zoom:
                radius = radius * torch.exp((torch.rand(count, 1, 1, device=image.device) * 2 - 1) * self.zoom)
        x = (radius * angle.cos() + right + width // 2 + 0.5) * (2 / width) - 1
        y = (radius * angle.sin() + up + height // 2 + 0.5) * (2 / height) - 1
        grid = torch.stack([x, y], dim=-1).to(image.dtype).expand(count, -1, -1, -1)
        found = functional.grid_sample(image, grid, align_corners=False)
        return found.contiguous(memory_format=torch.channels_last)


class _Pooled(nn.Module):
    """Mean and maximum over directions, per channel and ring."""

    def forward(self, image: Tensor) -> Tensor:
        """(n, 2 x channels x rings) from (n, channels, rings, directions)."""
        return torch.cat([image.mean(3), image.amax(3)], dim=1).flatten(1)


def _member(
    bands: int, outputs: int, rings: int, widths: Sequence[int], hidden: int, act: type[nn.Module], dropout: float
) -> nn.Sequential:
    first, second, third = widths
    return nn.Sequential(
        *(RingConvolution(bands, first, 5, (1, 2)), nn.BatchNorm2d(first), act()),
        RingBlock(first, first, (2, 2), act),
        RingBlock(first, second, (2, 1), act),
        RingBlock(second, third, (1, 2), act),
        _Pooled(),
        *(nn.Dropout(dropout), nn.Linear(2 * third * rings, hidden), act()),
        *(nn.Dropout(dropout), nn.Linear(hidden, outputs)),
    )
