"""A dense network on the multipole moments of a stamp and its PSF: small, fast, and exact under quarter turns.

The first layer is fixed: projections of the pixels on R_k(r) cos m phi and R_k(r) sin m phi about the centre pixel,
Gaussian radial functions of several scales made orthonormal, so that white noise stays white. They hold nearly all that
the pixels tell of a smooth galaxy's shape (compare polar shapelets, Massey & Refregier 2005, MNRAS 363, 197), and a
quarter turn of the stamp only permutes them. The dense layers learn the rest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from astroml_plugin.networks.layers import ACTIVATIONS

TURNS = 4
"""Orientations that the network gives in evaluation: quarter turns of the stamp."""

_NOTHING = 1e-30
"""Tails of a Gaussian below this are 0: with numbers below 1e-38 some processors take a hundred times as long."""

_FLOOR = 5.0  # amplitude, in units of the noise, below which moments are no longer brought to size 1


class MultipoleMLP(nn.Module):
    """Stamps (and optionally their PSFs) to numbers.

    In training one row of `outputs` numbers per object. In evaluation `TURNS` rows one after the other, those of the
    stamp turned by 0, 90, 180 and 270 degrees (from x towards y): the task turns them back and averages. Averaged,
    the answer to a turned stamp is exactly the turned answer, and the scatter among them is a measure of ignorance.

    Args:
        bands: channels of the image.
        outputs: numbers per object, a multiple of `heads`.
        psf: whether a PSF (n, bands, py, px) is the second input.
        size: side of the image, pixels.
        psf_size: side of the PSF, pixels.
        scales: number of radial functions per multipole.
        smallest, largest: Gaussian sigma of the first and last of them, pixels; the PSF's are half as large.
        orders: highest multipole.
        hidden: units per dense layer.
        layers: dense layers.
        heads: separate dense networks (an ensemble), each giving outputs / heads numbers.
        activation: relu, leaky_relu, elu, gelu, silu, tanh or sigmoid.
        dropout: fraction of the last layer's units dropped while training.

    Raises:
        ValueError: an unknown activation, or outputs that are no multiple of heads.
    """

    basis: Tensor
    psf_basis: Tensor | None
    turned: Tensor
    signs: Tensor

    def __init__(
        self,
        bands: int,
        outputs: int,
        *,
        psf: bool = False,
        size: int = 48,
        psf_size: int = 25,
        scales: int = 8,
        smallest: float = 1.2,
        largest: float = 9.0,
        orders: int = 4,
        hidden: int = 256,
        layers: int = 3,
        heads: int = 1,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
        if heads < 1 or outputs % heads:
            raise ValueError(f"{outputs} outputs cannot be shared by {heads} heads")
        self.size, self.psf_size, self.heads, self.scales = size, psf_size, heads, scales
        self.register_buffer("basis", multipoles(size, scales, smallest, largest, orders), persistent=False)
        small = (0.5 * smallest, 0.5 * largest)
        self.register_buffer("psf_basis", multipoles(psf_size, scales, *small, orders) if psf else None, False)
        for name, value in zip(("turned", "signs"), quarter_turns(scales, orders)):
            self.register_buffer(name, value, persistent=False)
        features = bands * (self.turned.shape[1] * (1 + psf) + 1)
        self.standardise = nn.BatchNorm1d(features, eps=1e-4, affine=False)
        act = ACTIVATIONS[activation]
        each = outputs // heads
        self.dense = nn.ModuleList(_dense(features, hidden, layers, each, act, dropout) for _ in range(heads))

    def forward(self, image: Tensor, psf: Tensor | None = None) -> Tensor:
        """(n, outputs) in training, (n, TURNS x outputs) in evaluation, from image (n, bands, size, size).

        Features (n, f) from `stem` may stand in for both inputs; they give (n, outputs).

        Raises:
            ValueError: another size than the network was built for, or no PSF where it takes one.
        """
        if image.ndim == 2:
            return self._read(image)
        moments = self._moments(image, psf)
        turns = [0] if self.training else range(TURNS)
        stacked = torch.cat([self._features([self._turn(item, turn) for item in moments]) for turn in turns])
        return self._read(stacked).reshape(len(turns), image.shape[0], -1).transpose(0, 1).flatten(1)

    def stem(self, image: Tensor, psf: Tensor | None = None) -> Tensor:
        """Features (n, f): all that the dense layers see of image and PSF. Nothing in here is learned."""
        return self._features(self._moments(image, psf))

    def _read(self, features: Tensor) -> Tensor:
        """(n, outputs) of all heads from features (n, f)."""
        standard = self.standardise(features)
        return torch.cat([dense(standard) for dense in self.dense], dim=1)

    def _moments(self, image: Tensor, psf: Tensor | None) -> list[Tensor]:
        """Moments (n, bands, f) of the image and, where taken, of the PSF."""
        if tuple(image.shape[-2:]) != (self.size, self.size):
            raise ValueError(f"this network takes stamps of {self.size} px, not {tuple(image.shape[-2:])}")
        moments = [image.flatten(2) @ self.basis]
        if self.psf_basis is not None:
            if psf is None:
                raise ValueError("this network takes the PSF as its second input")
            moments.append(psf.flatten(2) @ self.psf_basis)
        return moments

    def _turn(self, moments: Tensor, turn: int) -> Tensor:
        """Moments (n, bands, f) of the stamp turned by so many quarters."""
        if turn == 0:
            return moments
        return moments[..., self.turned[turn]] * self.signs[turn]

    def _features(self, moments: list[Tensor]) -> Tensor:
        """(n, features): shape and logarithm of the amplitude of the image's moments, shape of the PSF's."""
        image = moments[0]
        amplitude = (image[..., : self.scales].square().sum(-1, keepdim=True) + _FLOOR**2).sqrt()
        parts = [image / amplitude, amplitude.log()]
        if len(moments) > 1:
            psf = moments[1]
            parts.append(psf / psf[..., : self.scales].square().sum(-1, keepdim=True).clamp_min(1e-12).sqrt())
        return torch.cat([part.flatten(1) for part in parts], dim=1)


def _dense(
    features: int, hidden: int, layers: int, outputs: int, act: type[nn.Module], dropout: float
) -> nn.Sequential:
    """One dense network."""
    parts: list[nn.Module] = []
    before = features
    for _ in range(layers):
        parts += [nn.Linear(before, hidden), act()]
        before = hidden
    return nn.Sequential(*parts, nn.Dropout(dropout), nn.Linear(before, outputs))


def multipoles(size: int, scales: int, smallest: float, largest: float, orders: int) -> Tensor:
    """Orthonormal functions (size², scales x (1 + 2 orders)) float32 of the pixels, about pixel size // 2.

    Columns: the `scales` radial functions of multipole 0, then for each m = 1 … orders those of cos m phi and those of
    sin m phi. Pixels at size / 2 and beyond are left out, so that even sizes are symmetric about the centre pixel.
    """
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    inside = (radius < size / 2).double()
    sigma = torch.logspace(math.log10(smallest), math.log10(largest), scales, dtype=torch.float64)
    columns = []
    for m in range(orders + 1):
        ratio = radius[..., None] / sigma
        radial = ratio**m * torch.exp(-0.5 * ratio**2) * inside[..., None]
        waves = [torch.ones_like(angle)] if m == 0 else [torch.cos(m * angle), torch.sin(m * angle)]
        columns += [_orthonormal((radial * wave[..., None]).reshape(size * size, scales)) for wave in waves]
    functions = torch.cat(columns, dim=1)
    return functions.masked_fill(functions.abs() < _NOTHING, 0.0).float()


def _orthonormal(columns: Tensor) -> Tensor:
    """Gram-Schmidt from the first column on, the sign of each kept."""
    unit = columns / torch.linalg.vector_norm(columns, dim=0)
    basis, triangle = torch.linalg.qr(unit)
    output: Tensor = basis * torch.sign(torch.diagonal(triangle))
    return output


def quarter_turns(scales: int, orders: int) -> tuple[Tensor, Tensor]:
    """Effect of 0 to 3 quarter turns (x towards y) on the columns of `multipoles`: (4, f) sources and (4, f) signs.

    A turn by alpha multiplies the moment c + i s of multipole m with exp(i m alpha).
    """
    places, signs = [], []
    for turn in range(TURNS):
        place, sign = [torch.arange(scales)], [torch.ones(scales)]
        for m in range(1, orders + 1):
            cosine = scales * (2 * m - 1) + torch.arange(scales)
            sine = cosine + scales
            real, imaginary = ((1, 0), (0, 1), (-1, 0), (0, -1))[turn * m % 4]
            place += [cosine, sine] if real else [sine, cosine]
            sign += [torch.full((scales,), float(real or -imaginary)), torch.full((scales,), float(real or imaginary))]
        places.append(torch.cat(place))
        signs.append(torch.cat(sign))
    return torch.stack(places), torch.stack(signs)
