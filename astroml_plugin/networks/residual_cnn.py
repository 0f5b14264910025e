"""A residual network (He et al. 2016) with a strided stem, from a few blocks to ResNet-18."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from astroml_plugin.networks.strided_cnn import ACTIVATIONS, PSF_FEATURES, PSF_GAIN, convolution, psf_branch


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and the way around them."""

    def __init__(self, before: int, after: int, stride: int, act: type[nn.Module], batch_norm: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(before, after, 3, stride, act, batch_norm),
            *convolution(after, after, 3, 1, nn.Identity, batch_norm),
        )
        same = before == after and stride == 1
        self.around = nn.Sequential(*(() if same else convolution(before, after, 1, stride, nn.Identity, batch_norm)))
        self.act = act()

    def forward(self, image: Tensor) -> Tensor:
        """(n, after, h / stride, w / stride) from (n, before, h, w)."""
        return self.act(self.body(image) + self.around(image))


class ResidualCNN(nn.Module):
    """Stamps (and optionally their PSFs) to one row of numbers each.

    The defaults are a small network for survey stamps; widths (64, 128, 256, 512) with 2 blocks are a ResNet-18 whose
    stem has no pooling after it.

    Args:
        bands: channels of the image.
        outputs: numbers per object.
        psf: whether a PSF (n, bands, py, px) is the second input.
        widths: channels of the stages; the stem and every stage but the first halve the resolution.
        blocks: residual blocks per stage.
        activation: relu, leaky_relu, elu, gelu, silu or tanh.
        dropout: fraction of pooled features dropped while training.
        batch_norm: normalise over the batch after each convolution.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self,
        bands: int,
        outputs: int,
        *,
        psf: bool = False,
        widths: Sequence[int] = (16, 32, 64),
        blocks: int = 1,
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
        act = ACTIVATIONS[activation]
        layers: list[nn.Module] = convolution(bands, widths[0], 7, 2, act, batch_norm)
        before = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(ResidualBlock(before, width, 2 if stage and not block else 1, act, batch_norm))
                before = width
        self.features = nn.Sequential(*layers)
        self.psf_features = psf_branch(bands, act, batch_norm) if psf else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(before + (PSF_FEATURES if psf else 0), outputs)

    def forward(self, image: Tensor, psf: Tensor | None = None) -> Tensor:
        """(n, outputs) from image (n, bands, h, w) and, where taken, psf (n, bands, py, px) of unit sum."""
        found = self.features(image).mean((2, 3))
        if self.psf_features is not None:
            if psf is None:
                raise ValueError("this network takes the PSF as its second input")
            found = torch.cat([found, self.psf_features(psf * PSF_GAIN)], dim=1)
        return self.head(self.dropout(found))
