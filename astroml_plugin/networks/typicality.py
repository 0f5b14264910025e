"""How typical an object is of what a network was trained on: densities of its pixels and of the network's features.

Each view of the object (light in rings, noise at the corners, the PSF, the pooled answer of some layers) has a density,
fitted to training stamps; the improbability of each view becomes a tail probability, and so does their power sum. A
judge of all views, which learned to tell training stamps from others made to be unlike them, has the greater say.
All of it is arithmetic of tensors and runs with the network, wherever that runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.networks.cell_statistics import CellLight, CellNoise
from astroml_plugin.networks.layers import fast_asinh
from astroml_plugin.networks.stamp_statistics import STAMP_VIEWS, RingLight, StampStatistics
from astroml_plugin.networks.taps import Taps

FARTHEST = 30.0
"""Largest -lg of a typicality: beyond it nothing is less typical."""

PIXEL_VIEWS = STAMP_VIEWS
"""Views of the network's inputs; further ones are called by layers of the network."""

_PSF_GAIN = 1000.0
"""Brings pixels of a PSF to the size of others."""

_POWER = 3
"""Exponent of the power sum of the views' improbabilities."""

_LESS = 0.7
"""Taken off the densities' improbability before it joins the judge's: so they set about a fifth of the flags."""

_FARTHEST_VALUE = 8.0
"""Largest squashed value that a judge sees."""

_EMPTY = 1e-4
"""Added to what principal axes leave of a vector, in squared squashed units."""


class ViewDensity(nn.Module):
    """-ln of the density of vectors in a population: squashed, on principal axes, in a mixture of normal distributions.

    Args:
        numbers: `centre` and `scale` (d,); `axes` (d, k), orthonormal; `rest` (2,) mean and spread of the ln of what
            the axes leave; `whitening` (k + 1, components x (k + 1)), `offset` and `constant` of the mixture.
    """

    centre: Tensor
    scale: Tensor
    axes: Tensor
    rest: Tensor
    whitening: Tensor
    offset: Tensor
    constant: Tensor

    NUMBERS = ("centre", "scale", "axes", "rest", "whitening", "offset", "constant")

    def __init__(self, numbers: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in self.NUMBERS:
            self.register_buffer(name, numbers[name].float())
        length, kept = self.axes.shape
        parts, wanted = self.constant.numel(), kept + 1
        fits = self.centre.shape == self.scale.shape == (length,) and self.rest.shape == (2,)
        if not fits or self.whitening.shape != (wanted, parts * wanted) or self.offset.shape != (parts * wanted,):
            raise ValueError(f"numbers of a density of {length} values do not fit one another")

    def reduced(self, values: Tensor) -> Tensor:
        """(n, k + 1) coordinates on the axes and the standardised ln of what they leave, of vectors (n, d)."""
        squashed = fast_asinh((values - self.centre) / self.scale)
        place = squashed @ self.axes
        left = (squashed - place @ self.axes.T).square().mean(1)
        rest = ((left + _EMPTY).log() - self.rest[0]) / self.rest[1]
        return torch.cat([place, rest[:, None]], dim=1)

    def forward(self, values: Tensor) -> Tensor:
        """(n,) of vectors (n, d)."""
        white = self.reduced(values) @ self.whitening - self.offset
        square = white.unflatten(1, (self.constant.numel(), -1)).square().sum(2)
        return -torch.logsumexp(self.constant - 0.5 * square, dim=1)


class Judge(nn.Module):
    """A small network's score of vectors, the larger the less they are like a population's.

    Args:
        numbers: `centre` and `scale` (d,); `weight0` (d, k), `bias0` (k,) and so on of three layers, the last to one.
    """

    LAYERS = 3
    NUMBERS = ("centre", "scale", *(f"{name}{layer}" for layer in range(LAYERS) for name in ("weight", "bias")))

    centre: Tensor
    scale: Tensor

    def __init__(self, numbers: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in self.NUMBERS:
            self.register_buffer(name, numbers[name].float())
        weights, biases = self._layers()
        lengths = [self.centre.numel(), *(weight.shape[1] for weight in weights)]
        fits = all(weight.shape == (first, last) for weight, first, last in zip(weights, lengths, lengths[1:]))
        known = all(bias.shape == (length,) for bias, length in zip(biases, lengths[1:]))
        if not fits or not known or lengths[-1] != 1 or self.scale.shape != self.centre.shape:
            raise ValueError(f"layers of a judge of {lengths[0]} values do not fit one another")

    @staticmethod
    def squashed(values: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
        """Values (n, d) as the layers have them."""
        return fast_asinh((values - centre) / scale).clamp(-_FARTHEST_VALUE, _FARTHEST_VALUE)

    def forward(self, values: Tensor) -> Tensor:
        """(n, 1) of vectors (n, d)."""
        found = self.squashed(values, self.centre, self.scale)
        for place, (weight, bias) in enumerate(zip(*self._layers())):
            found = found @ weight + bias
            if place < self.LAYERS - 1:
                found = functional.silu(found)
        return found

    def _layers(self) -> tuple[list[Tensor], list[Tensor]]:
        weights, biases = ([getattr(self, f"{name}{k}") for k in range(self.LAYERS)] for name in ("weight", "bias"))
        return weights, biases


class TailTable(nn.Module):
    """-lg of the part of a population that has larger values, several kinds of values at once, linear between knots.

    Args:
        knots: (kinds, m) rising values.
        slopes: (kinds, m) rise of the result per unit above each knot, up to the next; the last one goes on for ever.
    """

    knots: Tensor
    slopes: Tensor
    widths: Tensor

    def __init__(self, knots: Tensor, slopes: Tensor) -> None:
        super().__init__()
        if knots.ndim != 2 or knots.shape != slopes.shape:
            raise ValueError(f"knots {tuple(knots.shape)} and slopes {tuple(slopes.shape)} must be alike")
        self.register_buffer("knots", knots.float())
        self.register_buffer("slopes", slopes.float())
        last = torch.full_like(self.knots[:, :1], 1e30)
        self.register_buffer("widths", torch.cat([self.knots.diff(dim=1), last], dim=1), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """(n, kinds) from 0 to `FARTHEST`, of values (n, kinds)."""
        above = torch.minimum((values[..., None] - self.knots).clamp_min(0.0), self.widths)
        return (above * self.slopes).sum(2).clamp_max(FARTHEST)


class Views(nn.Module):
    """Vectors (n, d) of each view of objects: statistics of their pixels, and layers.

    Args:
        names: of the views: those of `PIXEL_VIEWS`, with the rings of the PSF in the second one, and of layers.
        shapes: (channels, h, w) of each input of the network; a second one is that of a PSF.
    """

    def __init__(self, names: Sequence[str], shapes: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.statistics = StampStatistics(*shapes[0])
        self.psf = RingLight(*shapes[1][1:]) if len(shapes) > 1 else None

    @staticmethod
    def layers_of(names: Sequence[str]) -> tuple[str, ...]:
        """Views that are layers of the network."""
        return tuple(name for name in names if name not in PIXEL_VIEWS)

    def forward(self, inputs: Sequence[Tensor], tapped: Sequence[Tensor]) -> list[Tensor]:
        """(n, d) of each view, in the order of the names, of network inputs and of the layers' pooled answers."""
        light, form, noise = self.statistics(inputs[0].float())
        if self.psf is not None:
            form = torch.cat([form, self.psf(_PSF_GAIN * inputs[1].float()).flatten(1)], dim=1)
        rows = dict(zip((*PIXEL_VIEWS, *self.layers_of(self.names)), (light, form, noise, *tapped)))
        return [rows[name] for name in self.names]


class Improbability(nn.Module):
    """-lg of the part of the training population that is less typical than an object, from its views.

    Args:
        densities: of each view.
        tails: of the densities' values.
        whole: of what `together` makes of these and, where there is a judge, of what `joined` makes then; one kind.
        judge: of all views one after the other, where there is one.
        parts: of two kinds: of what `together` makes of the tails, and of the judge's scores.
    """

    def __init__(
        self,
        densities: Sequence[ViewDensity],
        tails: TailTable,
        whole: TailTable,
        judge: Judge | None = None,
        parts: TailTable | None = None,
    ) -> None:
        super().__init__()
        if tails.knots.shape[0] != len(densities) or whole.knots.shape[0] != 1:
            raise ValueError(f"{tails.knots.shape[0]} tails for {len(densities)} views")
        length = sum(density.centre.numel() for density in densities)
        if judge is not None and (parts is None or parts.knots.shape[0] != 2 or judge.centre.numel() != length):
            raise ValueError(f"a judge does not fit {len(densities)} views")
        self.densities = nn.ModuleList(densities)
        self.tails, self.whole = tails, whole
        self.judge, self.parts = judge, parts

    def each(self, views: Sequence[Tensor]) -> Tensor:
        """(n, views) -lg of the part of the population that is less typical in each view."""
        values = torch.stack([density(view) for density, view in zip(self.densities, views)], dim=1)
        found: Tensor = self.tails(values)
        return found

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """(n, 1), 0 to `FARTHEST`."""
        odd = together(self.each(views))
        if self.judge is not None and self.parts is not None:
            odd = joined(self.parts(torch.cat([odd, self.judge(torch.cat(list(views), dim=1))], dim=1)))
        found: Tensor = self.whole(odd)
        return torch.where(found == found, found, FARTHEST)


def together(improbabilities: Tensor) -> Tensor:
    """(n, 1) from the improbabilities (n, views) of all views: the oddest weighs most, all count."""
    return improbabilities.pow(_POWER).sum(1, keepdim=True).pow(1 / _POWER)


def joined(improbabilities: Tensor) -> Tensor:
    """(n, 1) from the improbabilities (n, 2) of densities and judge."""
    densities, judged = improbabilities.split(1, dim=1)
    return together(torch.cat([(densities - _LESS).clamp_min(0), judged], dim=1))


class WithTypicality(nn.Module):
    """A network whose rows end with the object's improbability, see `Improbability`.

    Args:
        network: as inference runs it; gives (n, outputs).
        taps: on its layers, or on those of a network within.
        views: of its objects.
        improbability: of the views.
    """

    def __init__(self, network: nn.Module, taps: Taps, views: nn.Module, improbability: Improbability) -> None:
        super().__init__()
        self.network, self.views, self.improbability = network, views, improbability
        self.taps = taps

    def forward(self, *inputs: Tensor) -> Tensor:
        """(n, outputs + 1) from the network's inputs."""
        self.taps.begin()
        outputs: Tensor = self.network(*inputs)
        tapped, kind = self.taps.taken(), outputs.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):  # a density of rounded numbers is none
                found = self.told(inputs, tapped)
        else:
            found = self.told(inputs, tapped)
        return torch.cat([outputs, found.to(outputs.dtype)], dim=1)

    def told(self, inputs: Sequence[Tensor], tapped: Sequence[Tensor]) -> Tensor:
        """(n, 1) improbabilities, of network inputs and the layers' pooled answers."""
        found: Tensor = self.improbability(self.views(inputs, tapped))
        return found


class MapViews(nn.Module):
    """Vectors of each view in every cell of windows.

    Args:
        names: of the views: light, noise, or layers.
        layers: name of a layer -> side of its pixels that a cell has.
        stride: side of a cell, pixels of the window.
    """

    def __init__(self, names: Sequence[str], layers: Mapping[str, int], stride: int) -> None:
        super().__init__()
        self.names, self.layers = tuple(names), dict(layers)
        self.light, self.noise = CellLight(stride), CellNoise(stride)

    def forward(self, inputs: Sequence[Tensor], tapped: Sequence[Tensor]) -> list[Tensor]:
        """(n, rows, columns, d) of each view, in the order of the names; only the first channel tells light."""
        image = inputs[0][:, :1].float()
        maps = {"light": self.light(image), "noise": self.noise(image)}
        for (name, side), item in zip(self.layers.items(), tapped):
            maps[name] = functional.avg_pool2d(item, side) if side > 1 else item
        return [maps[name].permute(0, 2, 3, 1) for name in self.names]


class WithTypicalityMap(WithTypicality):
    """A network of windows whose maps end with one of the improbability of what is there, all pixels of a cell alike.

    From inputs (n, bands, h, w) it gives (n, channels + 1, h, w).

    Args:
        network: gives maps (n, channels, h, w) of windows.
        taps: on its layers, which keep whole maps.
        views: of cells.
        improbability: of the views.
        stride: side of a cell, pixels.
    """

    def __init__(
        self, network: nn.Module, taps: Taps, views: MapViews, improbability: Improbability, stride: int
    ) -> None:
        super().__init__(network, taps, views, improbability)
        self.stride = stride

    def told(self, inputs: Sequence[Tensor], tapped: Sequence[Tensor]) -> Tensor:
        """(n, 1, h, w) improbabilities, of network inputs and whole maps of the layers."""
        views = self.views(inputs, tapped)
        count, rows, columns, _ = views[0].shape
        found = self.improbability([view.reshape(-1, view.shape[3]) for view in views])
        return functional.interpolate(found.view(count, 1, rows, columns), scale_factor=float(self.stride))


def split(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs of the network (n, outputs, …), and typicality (n, …), 1 to 0, of what `WithTypicality` gave."""
    return outputs[:, :-1], torch.exp(outputs[:, -1].float() * -math.log(10))
