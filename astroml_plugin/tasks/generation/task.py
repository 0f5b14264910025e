"""Galaxies that were never seen: a generator learned from stamps, drawn from at asked flux, size and ellipticity.

Trained on stamps without noise, real or simulated (docs/generation.md). On other stamps it measures the shape it works
with, and how well it could have made them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from astroml_plugin.catalog import Column
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_unknown
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.networks.flow_vae import SHAPES, TERMS, FlowVAE, columns_of, given, shape_from
from astroml_plugin.networks.framing import Shape, shape_of, unframed
from astroml_plugin.tasks.base import Task, TaskSettings
from astroml_plugin.tasks.normalisation import Normalisation
from astroml_plugin.tasks.source_check import refuse_few

CONDITIONS = ("flux", "size", "e1", "e2")
"""Conditions that a drawn galaxy can be asked to have."""

LEAST = 100
"""Training stamps below which there is nothing to imitate."""
_SHOWN = 0.9  # part of the training stamps that must show a galaxy
_BEYOND = 0.1  # dex beyond what was trained on that is still drawn
_CORRECTIONS = 3
_BATCH = 256


def _light() -> Normalisation:
    return Normalisation(background="none", unit="scale")


@dataclass(frozen=True)
class GenerateSettings(TaskSettings):
    """Settings of `GenerateTask`."""

    normalisation: Normalisation = field(default_factory=_light)
    """Pixels stay as they are; `background` may be "border" where the stamps have one."""
    detail: float = 300.0
    """Weight of the logarithm of the reconstruction error against the length of the latent code: pixels that count."""
    offset: float = 0.5
    """Centres of drawn galaxies are uniform within so many pixels of the middle one, as in stamps of a catalog."""
    centres: tuple[float, ...] = ()
    """Means of lg flux, lg size (pixels) and ln |e|; training finds them, as well as the next three."""
    spreads: tuple[float, ...] = ()
    """Standard deviations of lg flux, lg size and ln |e|."""
    lowest: tuple[float, ...] = ()
    """Least lg flux and lg size trained on."""
    highest: tuple[float, ...] = ()
    """Largest lg flux and lg size trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.detail <= 0 or not 0 <= self.offset <= 0.5:
            raise InputError(f"detail ({self.detail}) must be above 0 and offset ({self.offset}) from 0 to 0.5 pixels")
        if self.normalisation.stretch != "linear" or self.normalisation.unit != "scale" or self.psf != "none":
            raise InputError("a generator learns linear pixels (stretch = 'linear', unit = 'scale') and takes no PSF")


class Drawn(NamedTuple):
    """Galaxies from a generator."""

    image: np.ndarray
    """(n, band, y, x) float32 without noise, in the units of the training stamps."""
    asked: dict[str, np.ndarray]
    """Column -> (n,): flux (all bands), size (pixels), e1, e2, offset_x, offset_y (pixels)."""


class GenerateTask(Task):
    """Flux, size and ellipticity of the light as the generator counts them, and how unlike its reconstruction it is."""

    Settings: ClassVar[type[TaskSettings]] = GenerateSettings
    learns_labels: ClassVar[bool] = False
    measures_centres: ClassVar[bool] = False
    labels = ()
    outputs = len(TERMS) + len(SHAPES)

    def build_network(self, network: str | type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
        """The network, built with centres and spreads of the population's shapes."""
        known = {name: list(getattr(self.settings, name)) for name in ("centres", "spreads")}
        return super().build_network(network, {**{key: value for key, value in known.items() if value}, **arguments})

    def columns(self) -> list[Column]:
        """Shape and misfit; all float32."""
        return [
            Column("light_flux", "float32", "", "phot.flux", "Sum of the pixels of all bands"),
            Column("light_size", "float32", "pix", "phys.angSize", "Sigma of the Gaussian that fits best, sqrt(ab)"),
            Column("light_e1", "float32", "", "src.ellipticity", "(a-b)/(a+b) cos 2 phi of it, PSF included"),
            Column("light_e2", "float32", "", "src.ellipticity", "(a-b)/(a+b) sin 2 phi of it, PSF included"),
            Column("misfit", "float32", "", "stat.fit.residual", "RMS of its reconstruction, 1: as bright as a centre"),
        ]

    def fit_to_training(self, table: pa.Table, cutouts: Cutouts) -> Task:
        """Set unit scales, and centres, spreads and limits of the shapes of the training stamps.

        Raises:
            InputError: fewer than nine in ten of them show a galaxy.
        """
        ones = (1.0,) * len(self.bands)
        task = self.with_settings(normalisation=replace(self.settings.normalisation, scales=ones))
        (image, *_), _ = task.prepare(cutouts)
        shape = shape_of(image.sum(1))
        shown = (shape.size > 0) & (shape.flux > 0)
        if float(shown.float().mean()) < _SHOWN:
            raise InputError(
                f"{int((~shown).sum())} of {len(shown)} training stamps have no light that fits a galaxy: a generator "
                f"learns from stamps without noise (simulate --preset light), or bright ones"
            )
        numbers = given(columns_of(shape))[shown]
        spread = numbers.std(0).clamp_min(1e-3)
        limits = {"centres": numbers.mean(0), "spreads": spread}
        limits |= {"lowest": numbers[:, :2].amin(0), "highest": numbers[:, :2].amax(0)}
        return task.with_settings(**{name: tuple(float(item) for item in values) for name, values in limits.items()})

    def targets(self, table: pa.Table) -> Tensor:
        """(n,) zeros: nothing is learned from labels."""
        return torch.zeros(table.num_rows)

    def check_splits(self, targets: Mapping[str, Tensor]) -> None:
        """Refuse an empty split, and fewer than `LEAST` training stamps."""
        super().check_splits(targets)
        refuse_few(targets, LEAST, "a generator")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Length of the code of a stamp: its reconstruction, its latent vector; and the errors of both flows."""
        parts = self._parts(outputs)
        coded = 0.5 * self.settings.detail * parts["error"].clamp_min(1e-9).log() + parts["divergence"]
        output: Tensor = coded + parts["latent_flow"] + parts["shape_flow"]
        return output

    def _parts(self, outputs: Tensor) -> dict[str, Tensor]:
        """Means of `TERMS` over stamps that show a galaxy."""
        shown = (outputs[:, len(TERMS) + 1] > -2.9).to(outputs.dtype)
        means = (outputs[:, : len(TERMS)] * shown[:, None]).sum(0) / shown.sum().clamp_min(1)
        return dict(zip(TERMS, means))

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Loss, RMS of the reconstruction, and the other terms."""
        parts = self._parts(outputs)
        figures = {"loss": float(self.loss(outputs, targets)), "rms": float(parts["error"].sqrt())}
        return figures | {name: float(parts[name]) for name in TERMS[1:]}

    def decode(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """Columns of n objects."""
        shape = shape_from(outputs[:, len(TERMS) :])
        columns = {
            "light_flux": shape.flux,
            "light_size": shape.size,
            "light_e1": shape.e[:, 0],
            "light_e2": shape.e[:, 1],
            "misfit": outputs[:, 0].clamp_min(0).sqrt(),
        }
        return {name: values.numpy().astype(np.float32) for name, values in columns.items()}

    # ---- drawing -----------------------------------------------------------------------------------------------

    def draw(self, network: nn.Module, count: int, seed: int, asked: Mapping[str, np.ndarray] | None = None) -> Drawn:
        """Galaxies that were never seen.

        Args:
            network: of the bundle, in eval mode.
            count: galaxies.
            seed: the same seed, the same galaxies.
            asked: some of `CONDITIONS` -> (n,); the others are drawn as the training stamps had them.

        Raises:
            InputError: a network that cannot draw, unknown or impossible conditions, or beyond the training stamps.
        """
        if not isinstance(network, FlowVAE):
            raise InputError(f"a {type(network).__name__} cannot draw galaxies: train the recipe generate")
        wanted = self._checked(asked or {}, count)
        random = torch.Generator().manual_seed(seed)
        images, rows = [], []
        with torch.inference_mode():
            for start in range(0, count, _BATCH):
                some = {name: values[start : start + _BATCH] for name, values in wanted.items()}
                shape = self._shapes(network, min(_BATCH, count - start), random, some)
                images.append(self._painted(network.looks(columns_of(shape), random), shape))
                rows.append(torch.cat([shape.flux[:, None], shape.size[:, None], shape.e, shape.centre], dim=1))
        table = torch.cat(rows).double().numpy()
        names = (*CONDITIONS, "offset_x", "offset_y")
        return Drawn(torch.cat(images).numpy(), {name: table[:, place] for place, name in enumerate(names)})

    def _shapes(self, network: FlowVAE, count: int, random: torch.Generator, asked: Mapping[str, np.ndarray]) -> Shape:
        """Shapes to draw: conditions that are asked, the others at random as the training stamps have them."""
        lg_flux, lg_size, ln_e = network.population(count, random).T
        low, high = self.settings.lowest, self.settings.highest
        length, angle = ln_e.exp().clamp(0, 0.9), math.pi * torch.rand(count, generator=random)
        values = {
            "flux": 10 ** lg_flux.clamp(low[0], high[0]),
            "size": 10 ** lg_size.clamp(low[1], high[1]),
            "e1": length * torch.cos(2 * angle),
            "e2": length * torch.sin(2 * angle),
        }
        values |= {name: torch.from_numpy(np.asarray(numbers, np.float32)) for name, numbers in asked.items()}
        centre = self.settings.offset * (2 * torch.rand(count, 2, generator=random) - 1)
        return Shape(values["flux"], values["size"], torch.stack([values["e1"], values["e2"]], dim=1), centre)

    def _painted(self, looks: Tensor, wanted: Shape) -> Tensor:
        """Pixels (n, band, s, s) whose shape, measured as the training stamps' were, is the one wanted."""
        tried = wanted
        for _ in range(_CORRECTIONS):
            measured = shape_of(unframed(looks, tried, self.stamp_size).sum(1))
            good = (measured.size > 0)[:, None]
            ratio = (wanted.size / measured.size.clamp_min(1e-3)).clamp(0.8, 1.25)
            size = torch.where(good[:, 0], tried.size * ratio, tried.size)
            e = torch.where(good, (tried.e + wanted.e - measured.e).clamp(-0.9, 0.9), tried.e)
            centre = torch.where(good, tried.centre + (wanted.centre - measured.centre).clamp(-0.5, 0.5), tried.centre)
            tried = Shape(wanted.flux, size, e, centre)
        return unframed(looks, tried, self.stamp_size)

    def _checked(self, asked: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """Conditions as arrays (n,), refused where no such galaxy can be drawn."""
        refuse_unknown(asked, CONDITIONS, "the conditions of drawn galaxies")
        values = {name: np.asarray(numbers, np.float64).ravel() for name, numbers in asked.items()}
        for name, numbers in values.items():
            if len(numbers) != count or not np.isfinite(numbers).all():
                raise InputError(f"condition {name} has {len(numbers)} values for {count} galaxies, or NaN among them")
        length = np.hypot(values.get("e1", 0.0), values.get("e2", 0.0))
        if ("e1" in values) != ("e2" in values) or np.max(length) > 0.9:
            raise InputError("conditions e1 and e2 are asked together, with |e| = (a-b)/(a+b) of 0.9 at most")
        for place, name in enumerate(("flux", "size")):
            low, high = (getattr(self.settings, which)[place] for which in ("lowest", "highest"))
            low, high = 10 ** (low - _BEYOND), 10 ** (high + _BEYOND)
            out = int(((values[name] < low) | (values[name] > high)).sum()) if name in values else 0
            if out:
                raise InputError(
                    f"{out} of {count} galaxies are asked with a {name} outside {low:.4g} to {high:.4g}, where the "
                    f"generator saw none: ask for others, or train on such galaxies"
                )
        return values
