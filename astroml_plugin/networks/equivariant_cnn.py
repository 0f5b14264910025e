"""A residual network whose filters come in all eight orientations of the square: turned stamps give the same answer.

Group convolutions (Cohen & Welling 2016, ICML 48, 2990) over the symmetries of the square. A galaxy looks alike from
every side; weights that are shared between orientations learn that from one example instead of eight, which is what
small labelled sets need. After training the filters are written out: inference is an ordinary convolutional network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.networks.layers import Residual, activation_of, check_fraction

ORIENTATIONS = 8
"""Quarter turns, and the same of the mirrored stamp."""


class SymmetricConvolution(nn.Module):
    """A convolution with its filters in eight orientations, and batch normalisation that orientations share.

    Channels are ordered (orientation, channel). The first layer of a network takes plain images.

    Args:
        before, after: channels per orientation, of a plain image those in all.
        size: side of the filters, odd.
        stride: of the convolution; the input should have an odd side then.
        plain: whether the input is an image without orientations.
    """

    places: Tensor

    def __init__(self, before: int, after: int, size: int, stride: int = 1, *, plain: bool = False) -> None:
        super().__init__()
        self.before, self.after, self.size, self.stride, self.plain = before, after, size, stride, plain
        seen = 1 if plain else ORIENTATIONS
        scale = math.sqrt(2 / (before * seen * size * size))
        self.weight = nn.Parameter(torch.randn(after, before, seen * size * size) * scale)
        self.norm = nn.BatchNorm2d(after)
        self.register_buffer("places", _places(size, plain), persistent=False)

    def filters(self) -> Tensor:
        """(orientations x after, orientations x before or before, size, size)."""
        seen = 1 if self.plain else ORIENTATIONS
        turned = self.weight[:, :, self.places.flatten()].reshape(self.after, self.before, ORIENTATIONS, seen, -1)
        shape = (ORIENTATIONS * self.after, seen * self.before, self.size, self.size)
        return turned.permute(2, 0, 3, 1, 4).reshape(shape)

    def forward(self, image: Tensor) -> Tensor:
        """(n, orientations x after, h / stride, w / stride), normalised, from (n, channels, h, w)."""
        found = functional.conv2d(image, self.filters(), stride=self.stride, padding=self.size // 2).contiguous()
        each = found.reshape(found.shape[0] * ORIENTATIONS, self.after, *found.shape[2:])
        output: Tensor = self.norm(each).reshape(found.shape)
        return output

    def folded(self) -> nn.Conv2d:
        """One ordinary convolution that gives equal outputs, for inference."""
        filters = self.filters().detach()
        made = nn.Conv2d(filters.shape[1], filters.shape[0], self.size, self.stride, self.size // 2)
        norm = self.norm
        assert norm.running_var is not None
        assert norm.running_mean is not None
        assert made.bias is not None
        gain = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).repeat(ORIENTATIONS)
        offset = norm.bias.repeat(ORIENTATIONS) - norm.running_mean.repeat(ORIENTATIONS) * gain
        with torch.no_grad():
            made.weight.copy_(filters * gain[:, None, None, None])
            made.bias.copy_(offset)
        return made.requires_grad_(False)


class SymmetricBlock(Residual):
    """Two 3 x 3 convolutions and the way around them."""

    def __init__(self, before: int, after: int, stride: int, act: type[nn.Module]) -> None:
        body = [SymmetricConvolution(before, after, 3, stride), act(), SymmetricConvolution(after, after, 3)]
        same = before == after and stride == 1
        super().__init__(body, [] if same else [SymmetricConvolution(before, after, 1, stride)], act)


class EquivariantCNN(nn.Module):
    """Stamps to one row of numbers each, the same for a stamp turned by quarters or mirrored (up to rounding).

    Args:
        bands: channels of the image.
        outputs: numbers per object.
        psf: not taken: True is refused.
        widths: channels per orientation of the stages (eight times as many in all); the stem and every stage but the
            first halve the resolution.
        halve_first: the first stage does so too, at a third of the cost.
        blocks: residual blocks per stage.
        hidden: units of the dense layer.
        activation: relu, leaky_relu, elu, gelu, silu, tanh or sigmoid.
        dropout: fraction of pooled features dropped while training.

    Raises:
        ValueError: an unknown activation, a dropout that is no fraction, or a PSF.
    """

    def __init__(
        self,
        bands: int,
        outputs: int,
        *,
        psf: bool = False,
        widths: Sequence[int] = (3, 6, 12),
        halve_first: bool = False,
        blocks: int = 1,
        hidden: int = 64,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if psf:
            raise ValueError("an equivariant network takes no PSF: use psf = 'none', or residual_cnn")
        check_fraction("dropout", dropout)
        act = activation_of(activation)
        layers: list[nn.Module] = [SymmetricConvolution(bands, widths[0], 5, 2, plain=True), act()]
        before = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                halves = not block and (stage > 0 or halve_first)
                layers.append(SymmetricBlock(before, width, 2 if halves else 1, act))
                before = width
        self.unit = 2 ** (len(widths) + halve_first)
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * before, hidden), act(), nn.Linear(hidden, outputs))

    def forward(self, image: Tensor) -> Tensor:
        """(n, outputs) from image (n, bands, h, w)."""
        found = self.features(self._padded(image)).mean((2, 3))
        turned = found.reshape(found.shape[0], ORIENTATIONS, -1)
        output: Tensor = self.head(torch.cat([turned.mean(1), turned.amax(1)], dim=1))
        return output

    def _padded(self, image: Tensor) -> Tensor:
        """Sides that stay odd when they are halved, so that every layer is symmetric about the middle."""
        down, right = ((1 - side) % self.unit for side in image.shape[-2:])
        return functional.pad(image, (right // 2, right - right // 2, down // 2, down - down // 2))


@lru_cache(maxsize=1)
def _symmetries() -> list[np.ndarray]:
    """The eight as integer matrices acting on (x, y)."""
    turn = np.array([[0, -1], [1, 0]])
    plain = [np.linalg.matrix_power(turn, quarter) for quarter in range(4)]
    return plain + [matrix @ np.diag([1, -1]) for matrix in plain]


def _places(size: int, plain: bool) -> Tensor:
    """(orientations, seen orientations x size²) int64: which weight stands where in the filter of an orientation.

    The filter of orientation g at orientation h and place x is the weight at g⁻¹h and g⁻¹x.
    """
    elements = _symmetries()
    centre = size // 2
    y, x = np.mgrid[:size, :size].reshape(2, -1) - centre
    rows = []
    for element in elements:
        back = np.round(np.linalg.inv(element)).astype(int)
        there = back @ np.stack([x, y])
        pixels = (there[1] + centre) * size + there[0] + centre
        seen = [0] if plain else [_number(back @ other) for other in elements]
        rows.append(np.concatenate([number * size * size + pixels for number in seen]))
    return torch.from_numpy(np.stack(rows))


def _number(matrix: np.ndarray) -> int:
    return next(number for number, element in enumerate(_symmetries()) if (element == matrix).all())
