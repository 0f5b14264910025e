"""A generative adversarial network that an encoder inverts: f-AnoGAN (Schlegl et al. 2019, MedIA 54, 30).

A generator makes compressed stamps from random vectors, a critic tells them from real ones (Wasserstein distance with
gradient penalty: Gulrajani et al. 2017). Then the encoder learns which vector gives a stamp. What cannot be generated
is odd, in pixels and in the critic's features; nothing is searched for at inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from astroml_plugin.networks.autoencoder import ERRORS, Decoder, Encoder, Judge, chi_square, compressed, posed
from astroml_plugin.networks.layers import activation_of
from astroml_plugin.networks.structure import doubled, odd


class Critic(nn.Module):
    """How real compressed images (n, b, s, s) look: no normalisation over the batch, which the penalty forbids."""

    def __init__(self, bands: int, size: int, widths: Sequence[int]) -> None:
        super().__init__()
        act = activation_of("leaky_relu")
        layers: list[nn.Module] = []
        for before, after in pairwise((bands, *widths)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), act()]
            size = -(-size // 2)
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(widths[-1] * size * size, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(n,) higher is more real."""
        output: Tensor = self.head(self.features(image))[:, 0]
        return output


class AnoGAN(nn.Module):
    """Stamps to one row of numbers each: those of `autoencoder.ERRORS`, then the latent vector.

    Generator and critic are trained first (`adversarial.fit_adversarial`) and stay as they are.

    Args:
        bands: channels of the image.
        outputs: 4 and the length of the latent vector.
        psf: not taken: True is refused.
        size: side of the stamps.
        widths: channels of the stages of encoder and critic, mirrored in the generator.
        judge: channels per orientation of the judge of foreign light; empty for none.
        hidden: units of its dense layer.
        dropout: of the judge.

    Raises:
        ValueError: no latent vector, or a PSF.
    """

    def __init__(
        self,
        bands: int,
        outputs: int,
        *,
        psf: bool = False,
        size: int = 64,
        widths: Sequence[int] = (12, 24, 48),
        judge: Sequence[int] = (2, 4, 8),
        hidden: int = 64,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.latent = outputs - len(ERRORS)
        if psf or self.latent < 1:
            raise ValueError("f-AnoGAN takes no PSF (use psf = 'none') and has a latent vector of 1 or more")
        side = (size - 1 + size % 2 - 1) // 2
        self.encoder = Encoder(bands, self.latent, side, widths, "silu")
        self.generator = Decoder(bands, self.latent, side, widths, "silu")
        self.critic = Critic(bands, side, widths)
        self.judge = Judge(bands, judge, hidden, dropout) if judge else None

    def train(self, mode: bool = True) -> AnoGAN:
        """Encoder and judge; generator and critic have been trained before and keep their statistics."""
        super().train(mode)
        self.generator.eval()
        self.critic.eval()
        return self

    def real(self, image: Tensor, weight: Tensor) -> Tensor:
        """Images for the critic to compare with generated ones: (n, b, s, s) of stamps as `forward` takes them."""
        return compressed(3 * posed(doubled(odd(image)))[0])

    def drawn(self, count: int, generator: torch.Generator) -> Tensor:
        """Random vectors (count, latent) that the generator makes images from."""
        return torch.randn(count, self.latent, generator=generator)

    def forward(self, image: Tensor, weight: Tensor) -> Tensor:
        """(n, outputs) from image (n, bands, h, w) in units of the noise and weight, the same, 0 where invalid."""
        small, share = posed(doubled(odd(image)), odd(weight)[..., 1:-1:2, 1:-1:2])
        seen = compressed(3 * small)
        latent = self.encoder(seen)
        made = self.generator(latent)
        error = chi_square(seen, made, share).mean(1).clamp_min(1e-6).log10()
        features, wanted = self.critic.features(made), self.critic.features(seen)
        critic = (features - wanted).square().mean(1)
        foreign = self.judge(image) if self.judge is not None else torch.zeros_like(error)
        prior = 0.5 * (latent.square() - 1).mean(1).clamp_min(0)
        return torch.cat([torch.stack([foreign, critic, prior, error], dim=1), latent], dim=1)
