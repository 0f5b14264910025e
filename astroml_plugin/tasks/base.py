"""Interface of a science task, which says what its numbers mean; training, bundle and inference never name one. A new
task is a subclass with `columns`, `outputs`, `targets`, `loss` and `decode` (docs/adding_a_task.md)."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from astroml_plugin.core import foreign, registry
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.settings import from_mapping, to_mapping
from astroml_plugin.cutouts import Cutouts, crop
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.sources.labels import float_labels, label_column, label_texts
from astroml_plugin.tasks import input_unit, missing, pictures, scale, source_check
from astroml_plugin.tasks.centring import centring_changes, off_centre_bits
from astroml_plugin.tasks.coadding import coadded
from astroml_plugin.tasks.example_stamps import example_stamps
from astroml_plugin.tasks.gaps import gap_bits
from astroml_plugin.tasks.graph import InGraph
from astroml_plugin.tasks.judged import Judged
from astroml_plugin.tasks.normalisation import measure_scales, normalise_psf
from astroml_plugin.tasks.psf_extent import cut_off
from astroml_plugin.tasks.response_fit import ResponseFit
from astroml_plugin.tasks.settings import TaskRunOptions, TaskSettings
from astroml_plugin.tasks.symmetries import drop_psf, random_symmetries

__all__ = ["Measurements", "Task", "TaskRunOptions", "TaskSettings", "float_labels", "label_column", "label_texts"]


class Task(InGraph, Judged):
    """Model input, loss, metrics and catalog columns of one kind of measurement."""

    Settings: ClassVar[type[TaskSettings]] = TaskSettings
    RunOptions: ClassVar[type[TaskRunOptions]] = TaskRunOptions
    """Options that a run may set (`--option NAME=VALUE`); they change rows and belong to the catalog's identity."""
    layers: ClassVar[tuple[str, ...]] = ()
    """Layers of the truth of pixels that are learned instead of `targets`: tasks that give maps."""
    calibrates_on: ClassVar[tuple[str, ...]] = ("validation",)
    """Splits whose outputs `calibrate` gets."""
    has_response: ClassVar[bool] = False
    """Whether the network gives a shear response, which `fit_response` fits."""
    measures_centres: ClassVar[bool] = True
    """Whether training measures how the stamps are centred; not where they are drawn or answered pixel by pixel."""
    turns: ClassVar[bool] = False
    """Whether a stamp keeps its label through any turn and a small shift, so that few stamps can be made many."""
    few_stamps: ClassVar[Mapping[str, Any]] = {}
    """Settings that a training of few stamps takes where its recipe leaves them out (`training.pacing`)."""
    learns_labels: ClassVar[bool] = True
    """Whether labels are learned from; what learns from none may be evaluated on the very stamps it was trained on."""

    def __init__(self, settings: TaskSettings | None = None) -> None:
        self.settings: Any = settings or self.Settings()

    @classmethod
    def from_settings(cls, values: Mapping[str, Any], where: str = "[settings] of the task") -> Task:
        """The task with plain settings from a recipe or card.

        Raises:
            InputError: unknown key (names the nearest) or wrong type.
        """
        return cls(from_mapping(cls.Settings, values, where))

    def to_settings(self) -> dict[str, Any]:
        """Plain JSON settings, the inverse of `from_settings`."""
        return to_mapping(self.settings)

    def with_settings(self, **changes: Any) -> Task:
        """Copy of the task with some settings changed."""
        return type(self)(replace(self.settings, **changes))

    # ---- what a task must say ----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Numbers per object that the network gives."""

    @property
    def network_outputs(self) -> int:
        """Outputs of the registered network: `outputs`, unless `build_network` puts layers of the task around it."""
        return self.outputs

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Label columns of the training data that `targets` needs."""

    @abstractmethod
    def targets(self, table: pa.Table) -> Tensor:
        """Targets to learn, (n, ...), from the label columns of n objects.

        Raises:
            InputError: labels that cannot be learned from (NaN, constant, unknown), with counts.
        """

    @abstractmethod
    def decode(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """Column name -> values (n,), or (n, k) for vectors, from network outputs on the CPU (n, outputs) float32."""

    # ---- what a task may say -----------------------------------------------------------------------------------

    def for_run(self, options: Any) -> Task:
        """The task with the options of one run (an instance of `RunOptions`): assumed PSF, resampling, centring.

        Raises:
            InputError: options that this bundle cannot follow.
        """
        changes = centring_changes(self.settings.centring, options.recentre)
        if options.assumed_psf_fwhm and self.settings.psf != "none":
            changes["assumed_psf_fwhm"] = options.assumed_psf_fwhm
        if options.resample != "auto":
            changes["resample"] = options.resample
        return self.with_settings(**changes) if changes else self

    @classmethod
    def takers(cls, name: str, value: Any, tasks: Sequence[Task]) -> Sequence[Task]:
        """Tasks that an option for all bundles is meant for, among those of this class in a run of several bundles.

        Raises:
            InputError: for none of them.
        """
        return tasks

    def run_record(self, options: Any) -> dict[str, Any]:
        """Plain JSON that an evaluation keeps of the run options; called on the bundle's own task."""
        plain, untouched = to_mapping(options), to_mapping(self.RunOptions())
        return {name: value for name, value in plain.items() if value != untouched[name]}

    def inference_network(self, network: nn.Module) -> nn.Module:
        """The network as inference runs it, after `for_run`; unchanged here."""
        return network

    def fit_to_training(self, table: pa.Table, cutouts: Cutouts) -> Task:
        """The task with what it learns from the training split before training: asinh scales, widths of the PSFs."""
        normalisation, changes, stamps = self.settings.normalisation, {}, self.fitted_stamps(cutouts)
        if stamps.psf is not None and not self.settings.psf_fwhm[1]:
            changes["psf_fwhm"] = scale.measured_range(stamps.psf)
        if normalisation.unit == "scale" and not normalisation.scales:
            scales = measure_scales(stamps.image, stamps.variance, stamps.valid, normalisation.border)
            changes["normalisation"] = replace(normalisation, scales=scales)
        return self.with_settings(**changes) if changes else self

    def calibrate(self, outputs: Tensor, targets: Tensor) -> Task:
        """The task with what it learns from the splits `calibrates_on` after training; nothing here."""
        return self

    def usable(self, table: pa.Table) -> np.ndarray:
        """(n,) bool: objects to train and test on, all but those of `leave_out` (absent columns leave out none)."""
        usable = np.ones(table.num_rows, bool)
        for name, values in self.settings.leave_out.items():
            if name in table.column_names:
                usable &= ~np.isin(label_texts(table, name), np.array([str(value) for value in values], object))
        return usable

    def check_splits(self, targets: Mapping[str, Tensor]) -> None:
        """Raise InputError where a split (name -> targets) cannot be used."""
        for name, values in targets.items():
            if len(values) == 0:
                raise InputError(f"the {name} split has no object: give more data or other split fractions")

    def fit_response(self, network: nn.Module, stamps: Iterable[Cutouts], asked: ResponseFit) -> tuple[Task, Any]:
        """Fit the shear response of a trained network in place, where `has_response`; the task with it, and JSON."""
        raise InputError("this task measures no ellipticity: it has no shear response")

    def taught(self, outputs: Tensor) -> Tensor:
        """Targets (n, ...) that outputs stand for, on stamps without labels; InputError where nothing is gained."""
        raise InputError("only classifiers of classes that exclude each other can be adapted to stamps without labels")

    def transform_targets(self, targets: Tensor, symmetry: tuple[int, int, int]) -> Tensor:
        """Targets of stamps that went through one of `SYMMETRIES`; unchanged here."""
        return targets

    def pretext(
        self, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs and targets of training and validation; here the stamps as they are.

        A task that learns from unlabelled stamps makes its own question of them: it changes some inputs, and the
        targets say which. Calibration, test and catalog see the stamps unchanged.

        Args:
            inputs: network inputs, augmented; not to be changed in place.
            targets: (n, ...).
            generator: on the CPU; the same in every validation.
        """
        return inputs, targets

    # ---- what is the same for all ------------------------------------------------------------------------------

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the input."""
        return tuple(self.settings.bands)

    @property
    def takes_any_band(self) -> bool:
        """Whether a band can be chosen for it."""
        return bool(self.settings.any_band and len(self.bands) == 1)

    @property
    def stamp_size(self) -> int:
        """Side of the input, pixels."""
        return int(self.settings.stamp_size)

    @property
    def pixel_scale(self) -> float | None:
        """Arcsec per pixel, None where unknown."""
        scale: float | None = self.settings.pixel_scale
        return scale

    @property
    def scale_free(self) -> bool:
        """Whether a factor on the pixels, one per band, changes no output."""
        return bool(self.settings.normalisation.unit == "noise")

    @property
    def input_unit(self) -> str:
        """Unit of the pixels that the network was trained on; see the module `input_unit`."""
        unit: str = self.settings.input_unit
        return unit or input_unit.trained_unit(self.scale_free, self.settings.dtype, ())

    def build_network(self, network: str | type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
        """The network, by registered name or class, for this task's bands, PSF and outputs, and sizes if it asks.

        Raises:
            InputError: unknown name, or arguments that the network refuses.
        """
        kind = registry.load(registry.NETWORKS, network) if isinstance(network, str) else network
        sizes = {"size": self.stamp_size, "psf_size": self.settings.psf_size}
        taken = {name: value for name, value in sizes.items() if name in inspect.signature(kind).parameters}
        shape = (len(self.bands), self.network_outputs)
        given = {"psf": self.settings.psf != "none", **taken, **arguments}
        return foreign.built(lambda: kind(*shape, **given), f"network {network!r}", dict(arguments))

    def input_shapes(self) -> list[tuple[int, int, int]]:
        """(channels, h, w) of each network input of one object."""
        bands, size, psf = len(self.bands), self.stamp_size, self.settings.psf_size
        return [(bands, size, size), *([(bands, psf, psf)] if self.settings.psf != "none" else [])]

    @property
    def example_side(self) -> int:
        """Side in pixels of what `example_inputs` draws."""
        return self.stamp_size

    def example_inputs(self, count: int = 4, side: int | None = None) -> tuple[Tensor, ...]:
        """Network inputs of stamps, drawn alike at every call, of `side` pixels or `example_side`."""
        inputs, _ = self.prepare(example_stamps(self.settings, side or self.example_side, count))
        return inputs

    def choose_bands(self, available: Sequence[str], band: str | None = None) -> tuple[str, ...]:
        """The bands to read from a source, by name; `band` picks the one of a model that takes any.

        Raises:
            InputError: a band is missing, or several would do and none is named.
        """
        return source_check.chosen_bands(self.settings, available, band, takes_any=self.takes_any_band)

    def check_source(
        self,
        *,
        bands: Sequence[str],
        pixel_scale: float | None = None,
        size: tuple[int, int] | None = None,
        dtype: str = "float32",
        has_psf: bool = False,
        zero_points: Sequence[float | None] | None = None,
        band: str | None = None,
    ) -> tuple[str, ...]:
        """Refuse a source that the model must not see, before any work; returns the bands to read.

        Args:
            bands: bands of the source.
            pixel_scale: arcsec per pixel of the source, None where unknown; another than the model's is resampled.
            size: (h, w) of stored stamps; None for a survey, whose stamps are cut to size.
            dtype: stored pixels.
            has_psf: whether the source has PSF images.
            zero_points: AB magnitude of one unit, one per band of the source, None where unknown; None: not checked.
            band: the chosen band for a model that takes any.

        Raises:
            InputError: says what does not fit, with the numbers and the remedy.
        """
        read = self.choose_bands(bands, band)
        theirs = None if zero_points is None else [zero_points[list(bands).index(name)] for name in read]
        if pictures.shows(self.settings, bands):
            pictures.check(self.settings, pixel_scale, theirs)
            return read
        source_check.check_pixels(self.settings, dtype, has_psf)
        if size is not None:
            source_check.check_size(self.settings, scale.scaled_size(self.settings, size, pixel_scale))
        if theirs is not None:
            input_unit.check_zero_points(self.input_unit, read, theirs)
        return read

    def fitted_stamps(self, cutouts: Cutouts) -> Cutouts:
        """The model's bands, at its stamp size, in the unit of its input: what every look at pixels begins with."""
        stamps = crop(cutouts.select(self.choose_bands(cutouts.bands)), self.stamp_size)
        stamps = input_unit.in_unit(stamps, self.input_unit)
        return coadded(stamps, self.bands[0], self.settings.normalisation.border) if self.settings.coadd else stamps

    def cut_flags(self, cutouts: Cutouts) -> np.ndarray:
        """(n,) int32 bits of the pixels that the model reads: of its bands, at its stamp size."""
        bits: np.ndarray = crop(cutouts.select(self.choose_bands(cutouts.bands)), self.stamp_size).flags.cpu().numpy()
        return bits

    def prepare(self, cutouts: Cutouts) -> tuple[tuple[Tensor, ...], Tensor]:
        """Network inputs from raw pixels, on their device: the only normalisation, for training and inference.

        Returns:
            Two things. First the inputs: image (n, band, h, w) float32 and, where the model takes one, PSF
            (n, band, py, px) of unit sum. Then the flags, (n,) int32, that this step adds to `cutouts.flags`.
            NONFINITE: no pixel at all can be used; OUT_OF_DOMAIN: a band is missing (for both `to_columns` gives
            NaN), the image of the PSF is smaller than the PSF (`cut_off`), or see `scale_bits`; EDGE: padded;
            NO_VARIANCE, NO_PSF as in `ObjectFlag`.

        Raises:
            InputError: missing band or PSF, wrong stamp size or kind of pixels.
        """
        source_check.check_pixels(
            self.settings, "uint8" if cutouts.image.dtype == torch.uint8 else "float32", cutouts.psf is not None
        )
        size = (int(cutouts.image.shape[-2]), int(cutouts.image.shape[-1]))
        source_check.check_size(self.settings, size)
        stamps = self.fitted_stamps(cutouts)
        needed = missing.needed_bands(self.settings.spare_bands, stamps)
        image, flags = self.settings.normalisation.apply(stamps.image, stamps.variance, stamps.valid, needed)
        flags |= (
            off_centre_bits(cutouts)
            | pictures.unsized_bits(cutouts)
            | gap_bits(stamps, needed)
            | scale.scale_bits(self.settings, stamps)
        )
        if min(size) < self.stamp_size:
            flags |= int(ObjectFlag.EDGE)
        if self.settings.psf == "none":
            return (image,), flags
        psf, absent = self._psf_input(stamps)
        if stamps.psf is not None:
            small = stamps.of_psf(cut_off, self.settings.psf_size).any(1)
            flags |= small.to(torch.int32) * int(ObjectFlag.OUT_OF_DOMAIN)
        return (image, psf), flags | absent.to(torch.int32) * int(ObjectFlag.NO_PSF)

    def _psf_input(self, cutouts: Cutouts) -> tuple[Tensor, Tensor]:
        """PSF (n, band, size, size) and (n,) bool where there is none."""
        size = self.settings.psf_size
        if cutouts.psf is not None:
            psf, absent = cutouts.of_psf(normalise_psf, size)
        else:
            shape, device = (len(cutouts), len(self.bands), size, size), cutouts.image.device
            psf, absent = torch.zeros(shape, device=device), torch.ones(len(cutouts), dtype=torch.bool, device=device)
        if self.settings.assumed_psf_fwhm > 0 and bool(absent.any()):
            scale.assume(psf, absent, self.settings, cutouts)
        return psf, absent

    def to_columns(self, outputs: Tensor, cutouts: Cutouts, flags: Tensor) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Catalog columns of a batch.

        Args:
            outputs: what the network gave, (n, outputs) on any device.
            cutouts: the same n stamps.
            flags: (n,) int32 from `prepare`.

        Returns:
            Column name -> (n,) array, exactly `columns()` in that order: float32, or object (str or None) for text, or
            (n, k) for a column of vectors (type "float32[k]"); NaN and None where the stamp has no usable pixel or
            lacks a band, or the network gave no number. And the task's flags (n,) int32.
        """
        bits = flags.cpu().numpy().astype(np.int32)
        values = outputs.detach().float().cpu()
        broken = ~values.flatten(1).isfinite().all(1).numpy()
        lacks = missing.lacking(bits, cutouts, self.fitted_stamps, self.settings.spare_bands)
        failed = broken | (lacks > 0)
        measured = self.decode(torch.where(torch.from_numpy(failed)[:, None], 0.0, values), cutouts)
        bits[(broken & (lacks == 0)) | (lacks & int(ObjectFlag.NONFINITE) > 0)] |= int(ObjectFlag.NONFINITE)
        return {column.name: missing.blanked(measured[column.name], failed) for column in self.columns()}, bits

    def augment(
        self, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Each object through a random symmetry of the square: its images, its PSF and its targets alike, exactly.

        Args:
            inputs: network inputs; those with four axes are images.
            targets: (n, ...).
            generator: on the CPU.
        """
        moved, learned = random_symmetries(inputs, targets, self.transform_targets, generator)
        dropped = self.settings.psf_dropped if self.settings.psf == "optional" else 0.0
        return (drop_psf(moved, dropped, generator) if dropped else moved), learned
