"""Objects of a whole tile: the network over windows, its maps stitched, the objects that the unit owns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin import cutouts as cut
from astroml_plugin.catalog import Column
from astroml_plugin.catalog.exposures import Exposure
from astroml_plugin.catalog.objects.detected import object_ids
from astroml_plugin.catalog.schema import arrow_type
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.inference.exposure import of_field, of_tile
from astroml_plugin.inference.forward import arrow, map_batches
from astroml_plugin.inference.meter import Meter
from astroml_plugin.inference.models import RunModel
from astroml_plugin.inference.reading import Rows, TileWork
from astroml_plugin.inference.resident import on_search_thread
from astroml_plugin.inference.upload import DeviceUpload
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.tile_table import TileInfo, on_sky
from astroml_plugin.tasks.detection import PARENT, DetectingTask, Detections, Field
from astroml_plugin.training.typicality import COLUMN as TYPICALITY
from astroml_plugin.training.typicality import Typicality

LABEL = Column("label_id", "int32", "", "meta.id.part", "Number of the object in the label map of its tile")
"""The column that every catalog of detected objects has."""

COMMON = ObjectFlag.EDGE | ObjectFlag.MASKED | ObjectFlag.NONFINITE | ObjectFlag.SATURATED | ObjectFlag.TRUNCATED
"""Flags of a detection that hold for all bundles."""

_ROWS = 512
"""Rows of a label map looked at at once."""

OnThread = Callable[[Callable[[], Any]], Any]
"""Runs a function on the device's thread and gives what it returns."""


@dataclass(frozen=True)
class OwnedDetections:
    """The objects that a unit owns."""

    columns: dict[str, pa.Array]
    """The task's columns."""
    label_ids: pa.Array
    """(n,) int32, the column `LABEL`."""
    flags: np.ndarray
    """(n,) int32: the task's flags and the engine's."""
    labels: np.ndarray
    """(y, x) uint32 over the tile's outer box: 0 background, else `label_id`."""
    exposure: Exposure
    """Depth and sharpness of the tile's image."""


def detect(
    work: TileWork, model: RunModel, upload: DeviceUpload, on_device_thread: OnThread, meter: Meter
) -> tuple[TileWork, OwnedDetections]:
    """Find a tile's objects; on a GPU the tile has left it when they are looked for in the maps.

    Args:
        work: the tile, without objects.
        model: a detecting bundle.
        upload: the tile on its way to the device.
        on_device_thread: runs what needs the device.
        meter: takes times.

    Returns:
        The tile with the objects that the unit owns, and what was found out about them.
    """
    task: DetectingTask = model.task
    bounds = work.info.outer.clipped(*work.info.image_shape)
    made = on_device_thread(lambda: network_maps(model, work.info, upload.pixels(), bounds, meter))
    maps = None if made is None else upload.fetched(made)
    del made
    pixels = upload.left()

    def search() -> tuple[TileWork, OwnedDetections]:
        with meter.stage("detect"):
            if maps is None:
                return owned(work, task, _nothing(task, bounds), bounds, model.typicality)
            placed = pixels or work.to_device("cpu")
            assert placed is not None  # a tile without pixels has no maps
            field = _field(task.field_pixels(placed), work.info, bounds)
            typicality, told = model.typicality, maps[: task.channels]
            found = checked(task.detect(told, field), task)
            detected, kept = owned(work, task, found, bounds, typicality, maps[-1])
            return detected, replace(kept, exposure=of_field(work.info, field))

    return on_search_thread(upload.device, search)


def network_maps(model: RunModel, info: TileInfo, pixels: cut.DeviceTile, bounds: Box, meter: Meter) -> Tensor | None:
    """The network's maps (channels, h, w) of a tile, on the device; None without a usable pixel."""
    task: DetectingTask = model.task
    bits = task.field_pixels(pixels).bits
    if bits is not None and bool(bits[(slice(None), *_inside(info, bounds))].all()):
        return None
    corners = (bounds.x0, bounds.y0, bounds.x1, bounds.y1)
    windows = cut.grid(corners, size=task.window, overlap=task.overlap, stride=task.stride)
    maps = windows.empty_maps(task.channels + (model.typicality is not None), model.device)
    origin = (info.outer.x0, info.outer.y0)
    map_batches(
        model,
        task.bands,
        lambda batch: windows.cutouts(pixels, origin, batch),
        lambda item, outputs: windows.put(maps, outputs, item.first),
        meter,
    )
    return maps


def _field(pixels: cut.DeviceTile, info: TileInfo, bounds: Box) -> Field:
    rows, columns = _inside(info, bounds)

    def plane(values: Tensor | None, *part: slice) -> np.ndarray | None:
        return None if values is None else values[(slice(None), *part)].cpu().numpy()

    image = plane(pixels.image, rows, columns)
    assert image is not None
    return Field(
        image=image,
        variance=plane(pixels.variance, rows, columns),
        bits=plane(pixels.bits, rows, columns),
        psf=plane(pixels.psf),
        bands=pixels.bands,
        origin=(bounds.x0, bounds.y0),
        zero_points=pixels.zero_points,
        pixel_scale=pixels.pixel_scale,
        noise_growth=tuple(
            info.quality[band].noise_growth if band in info.quality else float("nan") for band in pixels.bands
        ),
        psf_box=(info.outer.x0, info.outer.y0, info.outer.x1, info.outer.y1),
    )


def _inside(info: TileInfo, bounds: Box) -> tuple[slice, slice]:
    """Rows and columns of the tile's array that a box of the parent image covers."""
    x0, y0 = info.outer.x0, info.outer.y0
    return slice(bounds.y0 - y0, bounds.y1 - y0), slice(bounds.x0 - x0, bounds.x1 - x0)


def _nothing(task: DetectingTask, bounds: Box) -> Detections:
    """No object."""
    columns = {column.name: np.zeros(0) for column in task.columns()}
    none, pixels = np.zeros(0), np.zeros(0, np.int64)
    labels = np.zeros((bounds.height, bounds.width), np.int32)
    return Detections(labels, none, none, pixels, pixels, columns, np.zeros(0, np.int32))


def checked(found: Detections, task: DetectingTask) -> Detections:
    """Check that detections keep the task's own promises, and return them.

    Raises:
        ValueError: it does not: a fault of the task, said with names and numbers.
    """
    count = len(found)
    names = [column.name for column in task.columns()]
    if sorted(found.columns) != sorted(names):
        raise ValueError(f"detect gave columns {sorted(found.columns)}, the task declares {sorted(names)}")
    arrays = {"x": found.x, "y": found.y, "peak_x": found.peak_x, "peak_y": found.peak_y, "flags": found.flags}
    wrong = {name: len(values) for name, values in {**arrays, **found.columns}.items() if len(values) != count}
    if wrong or found.labels.max(initial=0) > count:
        raise ValueError(f"detect gave {count} objects, labels up to {found.labels.max(initial=0)}, lengths {wrong}")
    height, width = found.labels.shape
    inside = (found.peak_x >= 0) & (found.peak_x < width) & (found.peak_y >= 0) & (found.peak_y < height)
    at_peak = found.labels[np.where(inside, found.peak_y, 0), np.where(inside, found.peak_x, 0)]
    astray = int((~inside | (at_peak != np.arange(1, count + 1))).sum())
    if astray:
        raise ValueError(f"the peaks of {astray} of {count} objects lie outside their labels")
    return found


def owned(
    work: TileWork,
    task: DetectingTask,
    found: Detections,
    bounds: Box,
    typicality: Typicality | None = None,
    improbability: np.ndarray | None = None,
) -> tuple[TileWork, OwnedDetections]:
    """Objects of a tile that its unit owns: those whose peak lies in its inner box.

    Args:
        work: the tile.
        task: that found them.
        found: in the whole tile.
        bounds: parent pixels of the maps.
        typicality: of the bundle, where it has one.
        improbability: (h, w), its map; None where nothing was found.
    """
    info = work.info
    peak_x, peak_y = found.peak_x + bounds.x0, found.peak_y + bounds.y0
    wcs = info.wcs()
    ids = object_ids(info, wcs, peak_x, peak_y)
    mine = np.flatnonzero(info.inner.contains(peak_x, peak_y))
    flags = (found.flags | _cut_flags(found, bounds, info, task.overlap)).astype(np.int32)
    if any(info.quality[band].clear_of_zero for band in task.bands if band in info.quality):
        flags |= int(ObjectFlag.OUT_OF_DOMAIN)
    x, y = (
        np.where(np.isfinite(at), at, peak)[mine] for at, peak in ((found.x, found.peak_x), (found.y, found.peak_y))
    )
    x, y = x + bounds.x0, y + bounds.y0
    ra, dec, jacobian = on_sky(info, wcs, x, y)
    common = {"object_id": ids[mine], "image": info.image, "tile": info.name, "x": x, "y": y, "ra": ra, "dec": dec}
    common |= {"primary": np.ones(len(mine), bool)}  # until the run ends and overlapping images are compared
    rows = Rows(common, _repeated(ids[mine]))
    columns = {c.name: _column(c, found.columns[c.name], mine, ids) for c in task.columns()}
    if typicality is not None:
        column, flags = _typical(typicality, found, improbability, flags)
        columns[TYPICALITY.name] = arrow(column[mine])
    numbers = np.arange(1, len(mine) + 1, dtype=np.int32)
    new = np.zeros(len(found) + 1, np.uint32)
    new[mine + 1] = numbers
    labels = np.zeros((info.outer.height, info.outer.width), np.uint32)
    labels[_inside(info, bounds)] = new[found.labels]
    detected = replace(work, rows=rows, jacobian=jacobian, detected=True)
    return detected, OwnedDetections(columns, pa.array(numbers), flags[mine], labels, of_tile(info))


def _typical(
    typicality: Typicality, found: Detections, improbability: np.ndarray | None, flags: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) typicality at the objects' peaks, and their flags."""
    if improbability is None:
        return np.zeros(len(found), np.float32), flags
    at_peak = torch.from_numpy(improbability[found.peak_y, found.peak_x].astype(np.float32))
    columns, bits = typicality.told(10**-at_peak, found.columns, flags)
    return columns[TYPICALITY.name], bits.astype(np.int32)


def _column(column: Column, values: np.ndarray, mine: np.ndarray, ids: np.ndarray) -> pa.Array:
    """The values of the owned objects in the declared type; those of PARENT are numbers of objects, and become ids."""
    if column.name == PARENT:
        return pa.array(ids[values.astype(np.int64)][mine], pa.int64())
    return arrow(values[mine]).cast(arrow_type(column.type))


def _repeated(ids: np.ndarray) -> np.ndarray:
    """(n,) bool: ids that occur more than once (two objects with one peak)."""
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse] > 1)


def _cut_flags(found: Detections, bounds: Box, info: TileInfo, overlap: int) -> np.ndarray:
    """(n,) int32: EDGE where a mask touches the image's border; TRUNCATED where the tile may not hold all of it.

    That is where the mask, or that of another object in its patch of light, comes so near to a side of the tile that
    maps are not the same in the next tile, or reaches farther from its peak than the halo.
    """
    flags = np.zeros(len(found), np.int32)
    height, width = info.image_shape
    sides = ((bounds.y0, 0, 0), (bounds.y1, height, 0), (bounds.x0, 0, 1), (bounds.x1, width, 1))
    for number, (side, border, axis) in enumerate(sides):
        depth = 1 if side == border else max(1, overlap)
        labels = found.labels.swapaxes(0, 1) if axis else found.labels
        touching = np.unique(labels[-depth:] if number % 2 else labels[:depth])
        flags[touching[touching > 0] - 1] |= int(ObjectFlag.EDGE if side == border else ObjectFlag.TRUNCATED)
    halo = info.inner.x0 - info.outer.x0
    flags[extents(found) > halo] |= int(ObjectFlag.TRUNCATED)
    if PARENT in found.columns:
        parent = found.columns[PARENT].astype(np.int64)
        cut = np.bincount(parent, flags & int(ObjectFlag.TRUNCATED), minlength=len(found)) > 0
        flags[cut[parent]] |= int(ObjectFlag.TRUNCATED)
    return flags


def extents(found: Detections) -> np.ndarray:
    """(n,) int64: pixels from each peak to the farthest pixel of its label, along x or y."""
    farthest = np.zeros(len(found) + 1, np.int64)
    peak_x, peak_y = (np.concatenate([[0], peaks]) for peaks in (found.peak_x, found.peak_y))
    for start in range(0, len(found.labels), _ROWS):  # by stripes: a tile may be all objects
        part = found.labels[start : start + _ROWS]
        y, x = np.nonzero(part)
        label = part[y, x]
        distance = np.maximum(np.abs(x - peak_x[label]), np.abs(y + start - peak_y[label]))
        np.maximum.at(farthest, label, distance)
    return farthest[1:]
