"""Networks that learn what stamps look like: an autoencoder (also variational), and beside it a judge of foreign light.

Both work on stamps in units of the sky noise. The autoencoder sees them binned to twice the pixel size and brought into
one of the eight orientations of the square by their own moments, the judge has filters in all eight: every output is
the same for a stamp that was turned by quarters or mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.core.tracing import constant
from astroml_plugin.networks.equivariant_cnn import EquivariantCNN
from astroml_plugin.networks.layers import activation_of, fast_asinh
from astroml_plugin.networks.structure import doubled, odd
from astroml_plugin.pixels import native, native_structure

ERRORS = ("foreign", "critic", "divergence", "reconstruction")
"""Columns before the latent vector: the judge's logit, distance in a critic's features (0 without one),
Kullback-Leibler divergence of the latent (0 if not variational), lg of the reconstruction's reduced chi²."""

SOFTENING = 3.0
"""Noise units at which brightness turns over from linear to logarithmic."""
MODEL_ERROR = 0.1
"""Relative error that a reconstruction is allowed, beside the noise."""


def compressed(image: Tensor) -> Tensor:
    """asinh of pixels in units of the noise."""
    if image.dtype == torch.float32 and native.takes(image):
        return torch.from_numpy(native_structure.asinh(image.numpy(), SOFTENING))
    return fast_asinh(image / SOFTENING)


def middle(image: Tensor, side: int) -> Tensor:
    """The middle of images (n, b, s, s) with odd s, at most `side` pixels, an odd number."""
    cut = max(0, (image.shape[-1] - side) // 2)
    return image[..., cut : image.shape[-1] - cut, cut : image.shape[-1] - cut]


def posed(image: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Square images (n, b, s, s), each in the orientation in which more light is right and up and along x.

    Args:
        image: decides.
        others: go the same way.
    """
    light = image.mean(1)
    axis = torch.arange(light.shape[-1], dtype=light.dtype, device=light.device) - (light.shape[-1] - 1) / 2
    columns, rows = light.sum(1), light.sum(2)
    turned = (rows @ axis.square()) > (columns @ axis.square())
    right, up = (columns @ axis) < 0, (rows @ axis) < 0

    chosen = _orientations(image.shape[-1], image.device)[right.long() + 2 * up.long() + 4 * turned.long()]

    def turned_over(item: Tensor) -> Tensor:
        return item.flatten(2).gather(2, chosen[:, None].expand(-1, item.shape[1], -1)).reshape(item.shape)

    return tuple(turned_over(item) for item in (image, *others))


@constant
def _orientations(side: int, device: torch.device) -> Tensor:
    """(8, side²) where each pixel comes from: mirrored along x (1) and along y (2), then transposed (4)."""
    pixels = torch.arange(side * side, device=device).reshape(side, side)
    found = []
    for number in range(8):
        one = pixels.flip([axis for axis, bit in ((1, 1), (0, 2)) if number & bit])
        found.append((one.T if number & 4 else one).flatten())
    return torch.stack(found)


def chi_square(image: Tensor, model: Tensor, weight: Tensor) -> Tensor:
    """(n, b) reduced chi² of compressed models against compressed images (n, b, s, s).

    The noise of a pixel is 1 / weight in squared units of the sky noise; a relative error of `MODEL_ERROR` is added.
    """
    if all(item.dtype == torch.float32 for item in (image, model, weight)) and native.takes(image, model, weight):
        found = native_structure.chi_square(image.numpy(), model.numpy(), weight.numpy(), SOFTENING, MODEL_ERROR)
        return torch.from_numpy(found)
    between = SOFTENING * torch.sinh((0.5 * (image + model.detach())).clamp(-10, 10))  # exact to u² / 24
    slope = 1 / (between.square() + SOFTENING**2)
    variance = slope / weight.clamp_min(1e-3) + MODEL_ERROR**2
    return ((model - image).square() / variance * (weight > 0)).mean((2, 3))


class Encoder(nn.Sequential):
    """Compressed images (n, b, s, s) to (n, outputs)."""

    def __init__(self, bands: int, outputs: int, size: int, widths: Sequence[int], activation: str) -> None:
        act = activation_of(activation)
        layers: list[nn.Module] = []
        for before, after in pairwise((bands, *widths)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), act()]
            size = -(-size // 2)
        super().__init__(*layers, nn.Flatten(), nn.Linear(widths[-1] * size * size, outputs))


class Decoder(nn.Module):
    """Latent vectors (n, latent) to compressed images (n, b, s, s)."""

    def __init__(self, bands: int, latent: int, size: int, widths: Sequence[int], activation: str) -> None:
        super().__init__()
        act = activation_of(activation)
        self.sizes = [size]
        for _ in widths:
            self.sizes.insert(0, -(-self.sizes[0] // 2))
        self.first = nn.Sequential(nn.Linear(latent, widths[-1] * self.sizes[0] ** 2), act())
        self.width = widths[-1]
        steps = list(pairwise((*reversed(widths), widths[0])))
        self.steps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 1, 1), nn.BatchNorm2d(after), act()) for before, after in steps
        )
        self.last = nn.Conv2d(widths[0], bands, 3, 1, 1)

    def forward(self, latent: Tensor) -> Tensor:
        """Images (n, bands, side, side) from latent vectors (n, k)."""
        found = self.first(latent).reshape(-1, self.width, self.sizes[0], self.sizes[0])
        for step, size in zip(self.steps, self.sizes[1:]):
            found = step(functional.interpolate(found, size=(size, size)))
        output: Tensor = self.last(found)
        return output


class Judge(nn.Module):
    """Logit (n,) that light was painted into the middle of a stamp (n, b, h, w), from filters in all orientations."""

    seen = 49
    """Side of what it sees, pixels."""

    def __init__(self, bands: int, widths: Sequence[int], hidden: int, dropout: float) -> None:
        super().__init__()
        self.network = EquivariantCNN(
            bands, 1, widths=widths, halve_first=True, hidden=hidden, dropout=dropout, activation="silu"
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n,) from images (n, bands, h, w) in units of the noise."""
        output: Tensor = self.network(compressed(middle(odd(image), self.seen)))[:, 0]
        return output


class Autoencoder(nn.Module):
    """Stamps to one row of numbers each: `ERRORS`, then the latent vector.

    Args:
        bands: channels of the image.
        outputs: 4 and the length of the latent vector.
        psf: not taken: True is refused.
        size: side of the stamps.
        widths: channels of the stages of the encoder, mirrored in the decoder.
        variational: a distribution of latent vectors, drawn from while training (Kingma & Welling 2014).
        judge: channels per orientation of the judge of foreign light; empty for none.
        hidden: units of its dense layer.
        activation: of encoder and decoder.
        dropout: of the judge.

    Raises:
        ValueError: an unknown activation, no latent vector, or a PSF.
    """

    def __init__(
        self,
        bands: int,
        outputs: int,
        *,
        psf: bool = False,
        size: int = 64,
        widths: Sequence[int] = (12, 24, 48),
        variational: bool = False,
        judge: Sequence[int] = (2, 4, 8),
        hidden: int = 64,
        activation: str = "silu",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        latent = outputs - len(ERRORS)
        if psf or latent < 1:
            raise ValueError("an autoencoder takes no PSF (use psf = 'none') and has a latent vector of 1 or more")
        self.variational, self.latent = variational, latent
        side = (size - 1 + size % 2 - 1) // 2
        self.encoder = Encoder(bands, latent * (1 + variational), side, widths, activation)
        self.decoder = Decoder(bands, latent, side, widths, activation)
        self.judge = Judge(bands, judge, hidden, dropout) if judge else None

    def forward(self, image: Tensor, weight: Tensor) -> Tensor:
        """(n, outputs) from image (n, bands, h, w) in units of the noise and weight, the same, 0 where invalid."""
        small, share = posed(doubled(odd(image)), odd(weight)[..., 1:-1:2, 1:-1:2])
        seen = compressed(3 * small)  # the noise of nine pixels' mean
        latent, divergence = self._latent(seen)
        error = chi_square(seen, self.decoder(latent[1]), share).mean(1)
        foreign = self.judge(image) if self.judge is not None else torch.zeros_like(error)
        columns = [foreign, torch.zeros_like(error), divergence, error.clamp_min(1e-6).log10()]
        return torch.cat([torch.stack(columns, dim=1), latent[0]], dim=1)

    def _latent(self, seen: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Mean and drawn latent vectors (n, latent), and the divergence from a unit normal distribution (n,)."""
        found = self.encoder(seen)
        if not self.variational:
            return (found, found), torch.zeros_like(found[:, 0])
        mean, log_variance = found[:, : self.latent], found[:, self.latent :].clamp(-8, 4)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        drawn = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        return (mean, drawn), divergence


class Measured(nn.Module):
    """A network whose rows follow those of fixed layers, which are left out (0) while training."""

    def __init__(self, network: nn.Module, fixed: nn.Module, columns: int) -> None:
        super().__init__()
        self.network, self.fixed, self.columns = network, fixed, columns

    def forward(self, *inputs: Tensor) -> Tensor:
        """(n, columns + outputs of the network)."""
        learned = self.network(*inputs)
        known = (
            learned.new_zeros(learned.shape[0], self.columns)
            if self.training
            else self.fixed(*inputs).to(learned.dtype)
        )
        return torch.cat([known, learned], dim=1)
