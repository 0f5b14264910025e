"""A residual network (He et al. 2016) with a strided stem, from a few blocks to ResNet-18."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from astroml_plugin.networks.layers import (
    PSF_FEATURES,
    Residual,
    activation_of,
    check_choice,
    check_fraction,
    convolution,
    psf_branch,
    with_psf,
)

_STEM_POOLINGS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "mean": nn.AvgPool2d}
_RISING = ("relu", "leaky_relu", "elu", "tanh", "sigmoid")
"""Activations that never fall: the largest stays the largest."""


class ResidualBlock(Residual):
    """Two 3 x 3 convolutions and the way around them."""

    def __init__(self, before: int, after: int, stride: int, act: type[nn.Module], batch_norm: bool) -> None:
        body = [
            *convolution(before, after, 3, stride, act, batch_norm),
            *convolution(after, after, 3, 1, nn.Identity, batch_norm),
        ]
        same = before == after and stride == 1
        super().__init__(body, [] if same else convolution(before, after, 1, stride, nn.Identity, batch_norm), act)


class ResidualCNN(nn.Module):
    """Stamps (and optionally their PSFs) to one row of numbers each.

    The defaults are a small network for survey stamps; widths (64, 128, 256, 512) with 2 blocks and stem_pooling "max"
    are a ResNet-18.

    Args:
        bands: channels of the image.
        outputs: numbers per object.
        psf: whether a PSF (n, bands, py, px) is the second input.
        widths: channels of the stages; the stem and every stage but the first halve the resolution.
        blocks: residual blocks per stage.
        activation: relu, leaky_relu, elu, gelu, silu, tanh or sigmoid.
        pooling: "mean" or "max" of each channel over what is left of the stamp.
        stem_kernel: side of the first convolution, up to a third of the work of a light network; odd.
        stem_pooling: "none", or "max" or "mean" over 3 x 3 pixels behind the stem, which halves the resolution again.
        dropout: fraction of pooled features dropped while training.
        batch_norm: normalise over the batch after each convolution.

    Raises:
        ValueError: an unknown activation or pooling, a kernel of even side, or a dropout that is no fraction.
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
        pooling: str = "mean",
        stem_kernel: int = 7,
        stem_pooling: str = "none",
        dropout: float = 0.0,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        act = activation_of(activation)
        check_choice("pooling", pooling, ("mean", "max"))
        check_choice("stem_pooling", stem_pooling, ("none", *_STEM_POOLINGS))
        check_fraction("dropout", dropout)
        if type(stem_kernel) is not int or stem_kernel < 1 or stem_kernel % 2 == 0:
            raise ValueError(f"stem_kernel must be an odd number of pixels, not {stem_kernel!r}")
        self.pooling = pooling
        layers: list[nn.Module] = convolution(bands, widths[0], stem_kernel, 2, act, batch_norm)
        if stem_pooling != "none":
            first = stem_pooling == "max" and activation in _RISING  # the same answer, with a quarter to activate
            layers.insert(len(layers) - first, _STEM_POOLINGS[stem_pooling](3, stride=2, padding=1))
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
        found = self.features(image)
        pooled = found.mean((2, 3)) if self.pooling == "mean" else found.amax((2, 3))
        output: Tensor = self.head(self.dropout(with_psf(pooled, self.psf_features, psf)))
        return output
