"""A small U-Net (Ronneberger et al. 2015) whose stem is strided: maps at full resolution, next to no work there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from astroml_plugin.networks.layers import activation_of, convolution


class _Residual(nn.Module):
    """One 3 x 3 convolution beside the way around it."""

    def __init__(self, width: int, act: type[nn.Module], batch_norm: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(*convolution(width, width, 3, 1, act, batch_norm))

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = image + self.body(image)
        return output


class _Shuffled(nn.Conv2d):
    """A 1 x 1 convolution whose channels are the four pixels of each output's cell (Shi et al. 2016).

    (n, outputs, 2 h, 2 w) from (n, bands, h, w). The same as `nn.PixelShuffle(2)` after the convolution in a third of
    the time on CPUs: as one product of matrices, whose planes are then woven together.
    """

    def __init__(self, bands: int, outputs: int) -> None:
        super().__init__(bands, 4 * outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        assert self.bias is not None
        count, _, height, width = image.shape
        weight = self.weight[:, :, 0, 0].expand(count, -1, -1)
        found = torch.baddbmm(self.bias[:, None], weight, image.flatten(2))
        cells = found.view(count, -1, 2, 2, height, width)
        rows = [torch.stack((cells[:, :, row, 0], cells[:, :, row, 1]), dim=-1) for row in (0, 1)]
        return torch.stack(rows, dim=3).view(count, -1, 2 * height, 2 * width)


def _halved(image: Tensor) -> Tensor:
    """Half the sum of every 2 x 2 pixels: noise stays as it was."""
    left, right = image[..., ::2], image[..., 1::2]
    return ((left[..., ::2, :] + left[..., 1::2, :]) + (right[..., ::2, :] + right[..., 1::2, :])) / 2


class UNet(nn.Module):
    """Images (n, bands, h, w) to maps (n, outputs, h, w); sides are multiples of `stride`.

    Every level also sees the image itself, summed over its pixels: that is how objects fainter than the noise of a
    pixel reach the deep levels without passing an activation. The last level's pixels are shuffled to full resolution,
    so that no convolution works there.

    Args:
        bands: channels of the image.
        outputs: maps.
        psf: not taken.
        widths: channels of the levels, at 1/2, 1/4, 1/8, … of the resolution; multiples of 8 are fast.
        depth: convolutions of each level on the way down; on the way up there is one.
        head: channels of the last convolution, at half resolution.
        activation: relu, leaky_relu, elu, gelu, silu, tanh or sigmoid.
        batch_norm: normalise over the batch after each convolution.

    Raises:
        ValueError: an unknown activation, a PSF, or as many depths as there are levels were not given.
    """

    def __init__(
        self,
        bands: int,
        outputs: int,
        *,
        psf: bool = False,
        widths: Sequence[int] = (16, 32, 64),
        depth: Sequence[int] = (1, 2, 3),
        head: int = 32,
        activation: str = "relu",
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        if psf or len(depth) != len(widths) or not widths:
            raise ValueError(f"a U-Net takes no PSF, and a depth for each of its {len(widths)} widths")
        act = activation_of(activation)
        self.depth = tuple(depth)
        self.down, self.seen, self.here = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = bands
        for width, count in zip(widths, depth):
            size = 5 if before == bands else 3
            self.down.append(nn.Sequential(*convolution(before, width, size, 2, nn.Identity, batch_norm)))
            self.seen.append(nn.Conv2d(bands, width, 1, bias=False))
            self.here.append(nn.Sequential(act(), *(_Residual(width, act, batch_norm) for _ in range(count))))
            before = width
        self.up, self.back = nn.ModuleList(), nn.ModuleList()
        for wide, narrow in zip(widths[:0:-1], widths[-2::-1]):
            self.up.append(nn.ConvTranspose2d(wide, narrow, 2, 2))
            self.back.append(nn.Sequential(act(), _Residual(narrow, act, batch_norm)))
        self.head = nn.Sequential(*convolution(widths[0], head, 3, 1, act, batch_norm), _Shuffled(head, outputs))
        for layer in self.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = True  # always on what nothing else reads

    @property
    def stride(self) -> int:
        """Pixels by which the image must be moved for the maps to move along exactly."""
        return int(2 ** len(self.depth))

    @property
    def radius(self) -> int:
        """Pixels from a map's pixel to the farthest pixel of the image that it depends on, at most."""
        found = 0
        for level, count in enumerate(self.depth):
            found += (2 if level == 0 else 1) * 2**level  # strided convolution
            found += count * 2 ** (level + 1)
        found += sum(2 ** (level + 1) for level in range(len(self.depth) - 1))  # the way up
        return int(found + 2 + self.stride - 1)

    def forward(self, image: Tensor) -> Tensor:
        """(n, outputs, h, w) from (n, bands, h, w)."""
        found, levels = image, []
        for down, seen, here in zip(self.down, self.seen, self.here):
            image = _halved(image)
            found = here(down(found) + seen(image))
            levels.append(found)
        for up, back, beside in zip(self.up, self.back, levels[-2::-1]):
            found = back(up(found) + beside)
        output: Tensor = self.head(found)
        return output
