"""Segmentation: finds every object of a field, separates it from its neighbours and measures it.

The network sees one image in units of its noise, of one band or of several together, and the map of usable pixels. Its
maps (`truth.LAYERS`) tell light from sky, where centres are, and to which centre each pixel belongs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.catalog import Column
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.networks.layers import fast_asinh
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.detection import PARENT, DetectingTask, Detections, Field
from astroml_plugin.tasks.explained import read_at
from astroml_plugin.tasks.graph import GivenStamps
from astroml_plugin.tasks.segmentation.detection import accepted_peaks, with_companions
from astroml_plugin.tasks.segmentation.gaussian_fluxes import recentred
from astroml_plugin.tasks.segmentation.layer_maps import (
    CENTRE,
    FOREGROUND,
    MAPS,
    NEAR,
    OFFSET_X,
    OFFSET_Y,
    logistic,
    logit,
)
from astroml_plugin.tasks.segmentation.loss import segmentation_loss, segmentation_metrics, transformed_layers
from astroml_plugin.tasks.segmentation.measurement import blends, declared_columns, measure_objects, out_of_domain
from astroml_plugin.tasks.segmentation.peaks import SEPARATION, segment
from astroml_plugin.tasks.segmentation.photometry import flat_tops, pixel_flags
from astroml_plugin.tasks.segmentation.settings import SegmentSettings
from astroml_plugin.tasks.segmentation.signal import combined_image, estimated_variance, signal_to_noise, variance_of
from astroml_plugin.tasks.segmentation.truth import LAYERS
from astroml_plugin.tasks.settings import TaskSettings
from astroml_plugin.tasks.source_check import check_pixels

_OBJECT = "logit_object"


class SegmentTask(DetectingTask):
    """Objects from maps of foreground, centres and offsets."""

    Settings: ClassVar[type[TaskSettings]] = SegmentSettings
    layers = LAYERS
    labels = ()

    window = property(lambda self: int(self.settings.window))
    overlap = property(lambda self: int(self.settings.overlap))
    stride = property(lambda self: int(self.settings.stride))
    reach = property(lambda self: int(self.settings.overlap + self.settings.largest))
    channels = len(LAYERS)
    without_variance = False
    graph_texts: ClassVar[dict[str, str]] = MAPS

    def columns(self) -> list[Column]:
        """Area, moments, star probability and blend, and three fluxes of each band."""
        return declared_columns(self.bands)

    # ---- the network -------------------------------------------------------------------------------------------

    def build_network(self, network: str | type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
        """The network, by registered name or class; its input is the S/N image and the map of usable pixels.

        Raises:
            InputError: unknown name, refused arguments, or a network that sees farther than `overlap` or has a stride
                that the task's does not allow.
        """
        built = Task.build_network(self.with_settings(bands=("signal", "usable")), network, arguments)
        radius, stride = getattr(built, "radius", 0), getattr(built, "stride", 1)
        if radius > self.overlap or self.stride % stride:
            raise InputError(
                f"the network sees {radius} pixels far with a stride of {stride}: overlap ({self.overlap}) must be no "
                f"less, and the task's stride ({self.stride}) a multiple of it"
            )
        return built

    def choose_bands(self, available: Sequence[str], band: str | None = None) -> tuple[str, ...]:
        """Bands to read from a source: a model that takes any band takes all, or the one that `band` names.

        Raises:
            InputError: a band is missing.
        """
        if not self.settings.any_band:
            return super().choose_bands(available, band)
        if band is not None and band not in available:
            raise InputError(f"band {band} is missing: the source has {', '.join(available)}; choose one (--band)")
        return tuple(available) if band is None else (band,)

    def prepare(self, cutouts: Cutouts) -> tuple[tuple[Tensor, ...], Tensor]:
        """S/N of every pixel and whether it can be used, (n, 2, h, w) float32.

        Several bands are added with the inverse of their variances as weights.

        Returns:
            inputs: one tensor.
            flags: (n,) int32: NO_VARIANCE, and NONFINITE where no pixel can be used.
        """
        dtype = "uint8" if cutouts.image.dtype == torch.uint8 else "float32"
        check_pixels(self.settings, dtype, cutouts.psf is not None)
        cutouts = self.in_one_unit(cutouts)
        valid, variance = cutouts.valid, cutouts.variance
        signal = signal_to_noise(cutouts.image.to(torch.float32), variance, valid, self.settings.assumed_noise)
        usable = valid[:, 0] if valid.shape[1] == 1 else valid.any(1)
        softening = self.settings.normalisation.softening
        image = torch.stack([(signal / softening).asinh_().mul_(softening), usable.to(torch.float32)], dim=1)
        flags = (~usable.flatten(1).any(1)).to(torch.int32) * int(ObjectFlag.NONFINITE)
        return (image,), flags | (int(ObjectFlag.NO_VARIANCE) if variance is None else 0)

    def graph_inputs(self, stamps: GivenStamps) -> tuple[Tensor, ...]:
        """S/N and usable pixels, as of `prepare`."""
        signal = signal_to_noise(stamps.image, stamps.variance, stamps.valid, self.settings.assumed_noise)
        scaled = signal / self.settings.normalisation.softening
        image = fast_asinh(scaled) * self.settings.normalisation.softening
        return (torch.stack([image, stamps.valid.any(1).to(torch.float32)], dim=1),)

    def graph_failed(self, stamps: GivenStamps) -> Tensor:
        """(n,) bool: images without a usable pixel."""
        return ~stamps.valid.flatten(1).any(1)

    def graph_columns(self, outputs: Tensor, stamps: GivenStamps) -> dict[str, Tensor]:
        """The maps (n, h, w) by name, probabilities and offsets in pixels; objects are not looked for in them."""
        offsets = (OFFSET_X, OFFSET_Y)
        maps = {name: outputs[:, layer] for layer, name in enumerate(LAYERS)}
        return {name: maps[name] if LAYERS.index(name) in offsets else maps[name].sigmoid() for name in LAYERS}

    # ---- explanations ------------------------------------------------------------------------------------------

    def explained(self) -> dict[str, str]:
        """Log odds of the object and maps at its peak: why there is an object, a centre, light, a star."""
        object_ = {_OBJECT: "Log odds of p_object: mean over 3 x 3 pixels of the map of what lies near a centre"}
        return object_ | {name: f"At the peak, as log odds: {MAPS[name]}" for name in ("centre", "foreground", "star")}

    def explained_place(self, name: str, outputs: Tensor, at: Tensor) -> Tensor:
        """The pixel nearest to the object where the map of centres is highest."""
        width, near = outputs.shape[-1], torch.arange(-SEPARATION, SEPARATION + 1, device=outputs.device)
        rows = (at[:, 1, None, None] + near[:, None]).clamp(0, outputs.shape[-2] - 1)
        places = (rows * width + (at[:, 0, None, None] + near).clamp(0, width - 1)).flatten(1)
        best = outputs[:, CENTRE].flatten(1).gather(1, places).argmax(1, keepdim=True)
        return places.gather(1, best)[:, 0]

    def explained_value(self, name: str, outputs: Tensor, place: Tensor) -> Tensor:
        """A map at the peak, or the mean of one about it."""
        if name == _OBJECT:
            return read_at(functional.avg_pool2d(outputs[:, [NEAR]], 3, 1, 1)[:, 0], place)
        return read_at(outputs[:, LAYERS.index(name)], place)

    def explained_bands(self, bands: Sequence[str]) -> tuple[str, ...]:
        """The network sees one image of all bands, and which pixels can be used."""
        return ("signal", "usable")

    def blank(self, image: Tensor) -> Tensor:
        """No signal, the same usable pixels."""
        return torch.stack([torch.zeros_like(image[:, 0]), image[:, 1]], dim=1)

    # ---- learning ----------------------------------------------------------------------------------------------

    def targets(self, table: pa.Table) -> Tensor:
        """Nothing from the table, (n, 0): the layers of the stamps' truth are the targets."""
        return torch.zeros(table.num_rows, 0)

    def fit_to_training(self, table: pa.Table, cutouts: Cutouts) -> Task:
        """This task, unchanged: nothing is measured on the training split."""
        return self

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Weighted sum of the parts of the loss, from maps (n, 7, h, w) and layers of the same shape."""
        return segmentation_loss(outputs, targets)

    def transform_targets(self, targets: Tensor, symmetry: tuple[int, int, int]) -> Tensor:
        """Layers of stamps that went through a symmetry: offsets change their direction with it."""
        return transformed_layers(targets, symmetry)

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Loss and its parts, and intersection over union of the foreground at 0.5."""
        return segmentation_metrics(outputs, targets)

    # ---- finding -----------------------------------------------------------------------------------------------

    def detect(self, maps: np.ndarray, field: Field) -> Detections:
        """Find, segment and measure the objects of a field; without a variance, errors are of the estimated noise."""
        settings, estimated = self.settings, field.variance is None
        if estimated:
            field = replace(field, variance=estimated_variance(field, settings.assumed_noise))
        if field.bits is not None and (field.bits & int(ObjectFlag.EDGE)).any():
            outside = (field.bits & np.uint8(ObjectFlag.EDGE)).all(0)
            maps = np.where(outside, np.float32(np.nan), maps)
        peaks = accepted_peaks(maps, field.bits, settings)
        if settings.companion > 0 and len(peaks.row):
            maps, peaks = with_companions(maps, field, peaks, settings)
        lit = maps[FOREGROUND] > logit(settings.foreground)
        segmentation = segment(lit, maps[OFFSET_X], maps[OFFSET_Y], peaks.pixel)
        image, variance = combined_image(field, unusable=0)
        x, y = recentred(image, variance, peaks.centre, segmentation.labels, segmentation.patch)
        columns, snr, of_stars = measure_objects(maps, field, segmentation, peaks.pixel, (x, y), settings)
        columns["p_object"] = logistic(peaks.log_odds)
        blended, columns[PARENT] = blends(segmentation, snr)
        flags = pixel_flags(field.bits, segmentation.pixels, len(x)) | blended * np.int32(ObjectFlag.BLENDED)
        flags |= int(ObjectFlag.NO_VARIANCE) if estimated else 0
        for plane, noise in zip(field.image, variance_of(field), strict=True):
            flat = flat_tops(plane, noise, segmentation.pixels, len(x))
            flags |= flat * np.int32(ObjectFlag.SATURATED)
        flags |= out_of_domain(field, (x, y), settings.psf_fwhm) | of_stars
        ordered = {column.name: columns[column.name].astype(column.type) for column in self.columns()}
        return Detections(segmentation.labels, x, y, peaks.column, peaks.row, ordered, flags)
