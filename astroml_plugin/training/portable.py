"""A bundle as one module of tensors, from raw pixels to columns: what other programs are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.version import version
from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.networks.typicality import split
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.tasks.example_stamps import example_stamps
from astroml_plugin.tasks.graph import GivenStamps
from astroml_plugin.tasks.input_unit import zero_point_of
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns
from astroml_plugin.training.typicality import COLUMN as TYPICALITY
from astroml_plugin.training.typicality import Typicality

TOLERANCE = 3e-5
"""Largest difference from our own measurement, absolute for values below 1 and else relative, of float32."""

TYPICALITY_TOLERANCE = 3e-4
"""Largest difference of the typicality, a part of a population that has passed logarithms of small numbers."""


@dataclass(frozen=True)
class Port:
    """An input or output of an exported model."""

    name: str
    """Name in the file."""
    shape: tuple[int | str, ...]
    """Lengths of the axes; a word where the length is free."""
    unit: str
    """VOUnit, empty where there is none."""
    description: str
    """For people."""


@dataclass(frozen=True)
class Description:
    """Facts that a user of an exported model needs. Plain values."""

    name: str
    """Name of the bundle."""
    task: str
    """Registered name of the task."""
    description: str
    """For people: what it measures and on what."""
    bands: tuple[str, ...]
    """Order of the band axis."""
    any_band: bool
    """Whether any one band will do."""
    stamp_size: int
    """Side of the stamps, pixels, the object on pixel side // 2; 0: any multiple of `stride`."""
    stride: int
    """Sides are multiples of it."""
    pixel_scale: float | None
    """Arcsec per pixel, None where unknown. Nothing is resampled."""
    input_unit: str
    """Unit of the image: nJy, "AB ZERO_POINT", any, picture (0 to 255) or uncalibrated."""
    zero_point: float | None
    """AB magnitude of one unit of the image, None where the unit has none."""
    inputs: tuple[Port, ...]
    """Inputs in order."""
    outputs: tuple[Port, ...]
    """Outputs in order."""
    left_out: tuple[str, ...]
    """Columns of the catalog that the file does not give."""
    sha256: str
    """Identity of the bundle."""
    version: str
    """Version of astroml_plugin."""
    licence: str
    """Licence of the weights."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


class PortableModel(nn.Module):
    """Raw stamps to columns, by arithmetic alone.

    NaN marks a pixel of the image that cannot be used; a variance of 0 or less does too. Stamps that get no values in a
    catalog get NaN.

    Args:
        task: of the bundle.
        network: of the bundle, ready for inference, in eval mode on the CPU.
        variance: whether the second input is a variance, where the task reads one.
        typicality: of the bundle, where it has one: a further column.
    """

    def __init__(
        self, task: Task, network: nn.Module, *, variance: bool = True, typicality: Typicality | None = None
    ) -> None:
        super().__init__()
        self.typicality = typicality
        reads = isinstance(task, DetectingTask) or task.settings.normalisation.unit == "noise"
        self.task = task
        self.network = self.whole(network)
        names = {"image": True, "variance": variance and reads, "psf": task.settings.psf != "none"}
        self.reads = tuple(name for name, read in names.items() if read)

    def whole(self, network: nn.Module) -> nn.Module:
        """A network of the bundle as inference runs it, and with the typicality as its last number."""
        inner = self.task.inference_network(network)
        if self.typicality is None:
            return inner
        return self.typicality.around(inner, self.typicality.taps(network, "?"), self.task.input_shapes())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The columns of `names`, from the inputs of `reads`."""
        return tuple(self.columns(*inputs).values())

    def columns(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Column -> (n, ...) float32."""
        stamps = self.stamps(*inputs)
        return self.read(self.network(*self.task.graph_inputs(stamps)), stamps)

    def stamps(self, *inputs: Tensor) -> GivenStamps:
        """The inputs of `reads` as stamps."""
        given = dict(zip(self.reads, inputs))
        return GivenStamps.of(given["image"], given.get("variance"), given.get("psf"))

    def read(self, outputs: Tensor, stamps: GivenStamps) -> dict[str, Tensor]:
        """Column -> (n, ...) from network outputs (n, ...); NaN where a stamp gets no values."""
        failed = self.task.graph_failed(stamps) | ~outputs.flatten(1).isfinite().all(1)
        typical: dict[str, Tensor] = {}
        if self.typicality is not None:
            outputs, typical[TYPICALITY.name] = split(outputs)
        found = self.task.graph_columns(torch.where(_along(failed, outputs), 0.0, outputs), stamps) | typical
        return {name: torch.where(_along(failed, values), torch.nan, values) for name, values in found.items()}

    def given(self, cutouts: Cutouts) -> tuple[Tensor, ...]:
        """Inputs as a user would give them, from stamps of whole pixels."""
        image = torch.where(cutouts.valid, cutouts.image.to(torch.float32), torch.nan)
        planes = {"image": image, "variance": cutouts.variance, "psf": cutouts.psf}
        found = tuple(planes[name] for name in self.reads)
        return tuple(item.to(torch.float32).contiguous() for item in found if item is not None)


def portable(bundle: ModelBundle, *, variance: bool = True, typicality: bool = True) -> PortableModel:
    """The bundle as a module that can be exported.

    Args:
        bundle: whose task and network.
        variance: whether it reads a variance, where its task can do without.
        typicality: whether it gives the typicality, where the bundle knows it.

    Raises:
        InputError: the task needs a variance.
    """
    task = bundle.task()
    if not variance and not task.without_variance:
        raise InputError(f"bundle {bundle.called} cannot be exported without a variance: leave --no-variance away")
    network = bundle.network(fused=True).requires_grad_(False)
    return PortableModel(task, network, variance=variance, typicality=bundle.typicality() if typicality else None)


def probes(model: PortableModel, count: int = 5) -> Cutouts:
    """Stamps on which an exported model is compared with our own measurement: drawn, with noise, some with holes."""
    task, random = model.task, np.random.default_rng(3)
    drawn = example_stamps(task.settings, task.example_side, count)
    image, variance = drawn.image.numpy().copy(), np.ones(drawn.image.shape, np.float32)
    variance *= random.uniform(0.5, 2.0, (count, image.shape[1], 1, 1)).astype(np.float32)
    if image.dtype != np.uint8:
        image *= np.sqrt(variance)
        image[0, :, :5, 2:9] = np.nan
        image[1, -1, :, :] = np.nan
    psf = None if drawn.psf is None else drawn.psf.numpy().copy()
    if psf is not None:
        psf[::2] += 0.7 * np.roll(psf[::2], 1, axis=3)  # off centre, of another sum
    zero = (zero_point_of(task.input_unit),) * len(task.bands)
    known = variance if "variance" in model.reads else None
    return from_stamps(image, known, psf, bands=drawn.bands, pixel_scale=task.pixel_scale, zero_points=zero)


def measured(model: PortableModel, network: nn.Module, cutouts: Cutouts) -> dict[str, np.ndarray]:
    """Our own measurement of stamps, as a catalog has it; maps and raw outputs where it has no such columns.

    Args:
        model: whose columns are wanted.
        network: of the bundle, as it was trained.
        cutouts: the stamps.
    """
    task = model.task
    found = {} if isinstance(task, DetectingTask) else columns(task, task.inference_network(network), cutouts)
    with torch.inference_mode():
        inputs, _ = task.prepare(cutouts)
        outputs = model.whole(network)(*inputs)
        plain = {
            name: values.numpy() for name, values in model.read(outputs, model.stamps(*model.given(cutouts))).items()
        }
    return {name: found.get(name, values) for name, values in plain.items()}


def _along(failed: Tensor, values: Tensor) -> Tensor:
    """(n, 1, ...) so that it can be combined with values (n, ...)."""
    return failed.reshape(-1, *[1] * (values.ndim - 1))


def differences(found: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Column -> largest difference, absolute for values below 1 and else relative; infinite where only one is NaN."""
    largest = {}
    for name, values in found.items():
        wanted = np.asarray(ours[name], np.float64).reshape(values.shape)
        if (np.isnan(values) != np.isnan(wanted)).any():
            largest[name] = float("inf")
            continue
        gap = np.abs(values - wanted) / np.maximum(np.abs(wanted), 1)
        largest[name] = float(np.nanmax(gap, initial=0.0))
    return largest


def described(bundle: ModelBundle, model: PortableModel, shapes: Mapping[str, Sequence[int | str]]) -> Description:
    """Facts that a user of a model needs.

    Args:
        bundle: that was exported.
        model: made of it.
        shapes: input and output -> lengths of its axes, a word where it is free.
    """
    task = model.task
    own = {column.name: column for column in [*task.columns(), *([] if model.typicality is None else [TYPICALITY])]}
    texts = {
        "image": (_unit(task), "Raw pixels; NaN where one cannot be used"),
        "variance": (_squared(_unit(task)), "Variance of the pixels; 0 where one cannot be used"),
        "psf": ("", "PSF at the object, of any sum, its peak on pixel side // 2"),
    }
    for name in shapes:
        if name in own:
            texts[name] = (own[name].unit, own[name].description)
        elif name not in texts:
            texts[name] = ("", task.graph_texts.get(name, "The network's raw numbers"))
    ports = {name: Port(name, tuple(shape), *texts[name]) for name, shape in shapes.items()}
    given = tuple(port for name, port in ports.items() if name not in model.reads)
    card, detecting = bundle.card, isinstance(task, DetectingTask)
    return Description(
        name=bundle.name,
        task=card.task,
        description=card.description,
        bands=task.bands,
        any_band=bool(task.settings.any_band),
        stamp_size=0 if detecting else task.stamp_size,
        stride=task.stride if isinstance(task, DetectingTask) else 1,
        pixel_scale=task.pixel_scale,
        input_unit=task.input_unit,
        zero_point=zero_point_of(task.input_unit),
        inputs=tuple(ports[name] for name in model.reads),
        outputs=given,
        left_out=tuple(name for name in own if name not in shapes),
        sha256=bundle.sha256,
        version=version(),
        licence=card.licence,
    )


def _unit(task: Task) -> str:
    return task.input_unit if zero_point_of(task.input_unit) == zero_point_of("nJy") else ""


def _squared(unit: str) -> str:
    return f"{unit}2" if unit else ""
