"""A generator of galaxies: a variational autoencoder whose latent vectors, and the shapes themselves, come from flows.

As FlowVAE (Lanusse et al. 2021, MNRAS 504, 5543): an autoencoder for what galaxies look like, and a flow for how
latent vectors are distributed at given flux, size and ellipticity. Flows are learned by flow matching (Lipman et al.
2023): a network says in which direction numbers drawn from a normal distribution move. Galaxies are looked at in their
own frame (`framing`), so that flux, size and ellipticity need not be learned at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from astroml_plugin.networks.framing import Shape, framed, shape_of
from astroml_plugin.networks.layers import activation_of

TERMS = ("error", "divergence", "latent_flow", "shape_flow")
"""First columns of the output: mean square error of the reconstruction, Kullback-Leibler divergence of the latent,
and the errors of both flows. Then the shape: lg flux, lg size in pixels, e1, e2, x, y."""
SHAPES = ("lg_flux", "lg_size", "e1", "e2", "x", "y")
GIVEN = 3
"""Numbers that a galaxy's look depends on: standardised lg flux, lg size and ln |e|."""
_FREQUENCIES = 4


def given(shape: Tensor) -> Tensor:
    """(n, 3) lg flux, lg size and ln |e| from columns `SHAPES` (n, 6)."""
    return torch.cat([shape[:, :2], 0.5 * (shape[:, 2:4].square().sum(1, keepdim=True) + 1e-6).log()], dim=1)


class Flow(nn.Module):
    """Velocities that carry normal deviates (n, d) to the distribution of d numbers at given others (n, c)."""

    def __init__(self, numbers: int, others: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.numbers = numbers
        units = (numbers + others + 1 + 2 * _FREQUENCIES, *hidden)
        layers: list[nn.Module] = []
        for before, after in pairwise(units):
            layers += [nn.Linear(before, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(units[-1], numbers))

    def forward(self, place: Tensor, others: Tensor, time: Tensor) -> Tensor:
        """(n, d) velocities at places (n, d) and times (n, 1) in 0 … 1."""
        waves = [wave(2 * math.pi * (k + 1) * time / 2) for k in range(_FREQUENCIES) for wave in (torch.sin, torch.cos)]
        output: Tensor = self.layers(torch.cat([place, others, time, *waves], dim=1))
        return output

    def error(self, wanted: Tensor, others: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """(n,) squared error of the velocity on the straight ways from `noise` to `wanted`."""
        place = (1 - time) * noise + time * wanted
        output: Tensor = (self(place, others, time) - (wanted - noise)).square().mean(1)
        return output

    def drawn(self, noise: Tensor, others: Tensor, steps: int = 32) -> Tensor:
        """(n, d) numbers, from normal deviates (n, d), by Heun's method."""
        place, step = noise, 1.0 / steps
        for number in range(steps):
            time = place.new_full((len(place), 1), number * step)
            first = self(place, others, time)
            second = self(place + step * first, others, time + step)
            place = place + 0.5 * step * (first + second)
        return place


class FlowVAE(nn.Module):
    """Stamps to one row of numbers each: `TERMS` and `SHAPES`; and from normal deviates to galaxies.

    Args:
        bands: channels of the image.
        outputs: 10.
        psf: not taken.
        latent: length of the latent vector.
        side: pixels of the frame's grid along an axis.
        hidden: units of the encoder's dense layers, mirrored in the decoder.
        flow: units of the dense layers of the flow of latent vectors.
        shapes: the same of the flow of flux, size and ellipticity.
        activation: of encoder and decoder.
        centres, spreads: of lg flux, lg size and ln |e|; the task measures them.

    Raises:
        ValueError: an unknown activation, a PSF, or another number of outputs.
    """

    centres: Tensor
    spreads: Tensor

    def __init__(
        self,
        bands: int,
        outputs: int,
        *,
        psf: bool = False,
        latent: int = 12,
        side: int = 40,
        hidden: Sequence[int] = (512, 256),
        flow: Sequence[int] = (256, 256, 256),
        shapes: Sequence[int] = (128, 128, 128),
        activation: str = "silu",
        centres: Sequence[float] = (0.0, 0.0, 0.0),
        spreads: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        if psf or outputs != len(TERMS) + len(SHAPES):
            raise ValueError(f"a generator takes no PSF and gives {len(TERMS) + len(SHAPES)} numbers, not {outputs}")
        act = activation_of(activation)
        self.bands, self.latent, self.side = bands, latent, side
        pixels = bands * side * side
        self.encoder = _dense((pixels + GIVEN, *hidden, 2 * latent), act)
        self.decoder = _dense((latent + GIVEN, *reversed(hidden), pixels), act)
        self.latent_flow, self.shape_flow = Flow(latent, GIVEN, flow), Flow(GIVEN, 0, shapes)
        self.register_buffer("centres", torch.tensor(list(centres)), persistent=False)
        self.register_buffer("spreads", torch.tensor(list(spreads)), persistent=False)

    def stem(self, image: Tensor) -> Tensor:
        """Features (n, f): the galaxy in its frame, where the stamp showed it, and its shape. Nothing is learned."""
        shape = shape_of(image.sum(1))
        seen, inside = framed(image, shape._replace(size=shape.size.clamp_min(0.5)), self.side)
        return torch.cat([seen.flatten(1), inside.flatten(1), columns_of(shape)], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """(n, outputs) from images (n, bands, s, s) without background, or from features (n, f) of `stem`."""
        features = image if image.ndim == 2 else self.stem(image)
        pixels = self.bands * self.side**2
        seen, inside = features[:, :pixels], features[:, pixels : pixels + self.side**2].repeat(1, self.bands)
        shape = features[:, pixels + self.side**2 :]
        known = self.standard(shape)
        mean, log_variance = self.encoder(torch.cat([seen, known], dim=1)).chunk(2, dim=1)
        log_variance = log_variance.clamp(-12, 4)
        random = self._random(mean.device)
        drawn = mean + torch.randn(mean.shape, generator=random, device=mean.device) * (0.5 * log_variance).exp()
        found = self.decoder(torch.cat([drawn, known], dim=1))
        error = ((found - seen).square() * inside).sum(1) / inside.sum(1).clamp_min(1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        flows = [
            flow.error(wanted.detach(), others, *self._way(wanted, random))
            for flow, wanted, others in ((self.latent_flow, drawn, known), (self.shape_flow, known, known[:, :0]))
        ]
        return torch.cat([torch.stack([error, divergence, *flows], dim=1), shape], dim=1)

    def standard(self, shape: Tensor) -> Tensor:
        """(n, 3) standardised lg flux, lg size, ln |e| from columns `SHAPES` (n, 6)."""
        return (given(shape) - self.centres) / self.spreads

    def _random(self, device: torch.device) -> torch.Generator | None:
        """None while training; validation draws the same every time."""
        return None if self.training else torch.Generator(device).manual_seed(1)

    def _way(self, like: Tensor, random: torch.Generator | None) -> tuple[Tensor, Tensor]:
        noise = torch.randn(like.shape, generator=random, device=like.device)
        return noise, torch.rand((len(like), 1), generator=random, device=like.device)

    # ---- drawing -----------------------------------------------------------------------------------------------

    def population(self, count: int, random: torch.Generator) -> Tensor:
        """(n, 3) lg flux, lg size, ln |e| of galaxies like those trained on."""
        noise = torch.randn(count, GIVEN, generator=random).to(self.centres.device)
        return self.shape_flow.drawn(noise, noise[:, :0]) * self.spreads + self.centres

    def looks(self, shape: Tensor, random: torch.Generator) -> Tensor:
        """Galaxies in their frames (n, bands, side, side), drawn for columns `SHAPES` (n, 6)."""
        known = self.standard(shape)
        noise = torch.randn(len(shape), self.latent, generator=random).to(shape.device)
        latent = self.latent_flow.drawn(noise, known)
        found = self.decoder(torch.cat([latent, known], dim=1)).reshape(-1, self.bands, self.side, self.side)
        mirrored = torch.rand(len(shape), 2, generator=random).to(shape.device) < 0.5
        found = torch.where(mirrored[:, :1, None, None], found.flip(3), found)
        return torch.where(mirrored[:, 1:, None, None], found.flip(2), found)


def columns_of(shape: Shape) -> Tensor:
    """Columns `SHAPES` (n, 6)."""
    logs = [shape.flux.clamp_min(1e-12).log10(), shape.size.clamp_min(1e-3).log10()]
    return torch.cat([torch.stack(logs, dim=1), shape.e, shape.centre], dim=1)


def shape_from(columns: Tensor) -> Shape:
    """Shapes of n galaxies from columns `SHAPES` (n, 6)."""
    return Shape(10 ** columns[:, 0], 10 ** columns[:, 1], columns[:, 2:4], columns[:, 4:6])


def _dense(units: Sequence[int], act: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(units[:-1]):
        layers += [nn.Linear(before, after), act()]
    return nn.Sequential(*layers, nn.Linear(units[-2], units[-1]))
