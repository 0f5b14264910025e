"""Fit what is typical of objects that a bundle finds: cells of fields like those that it was trained on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.compute.exact import exact_float32
from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.networks.taps import Taps, chosen_maps
from astroml_plugin.networks.typicality import MapViews
from astroml_plugin.tasks.detection import DetectingTask, Field
from astroml_plugin.training.batches import StampBatches
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.odd_stamps import OF_FIELDS, odd_stamps
from astroml_plugin.training.typicality import Typicality
from astroml_plugin.training.typicality_fit import SeenViews, TypicalitySettings, fit_typicality

_BATCH = 8


@exact_float32()
def typicality_of_fields(
    task: DetectingTask,
    network: nn.Module,
    data: LabelledStamps,
    rows: dict[str, np.ndarray],
    settings: TypicalitySettings,
) -> Typicality:
    """Typicality of the objects that a bundle finds in stamps of fields.

    Args:
        task: of the bundle.
        network: of the bundle, in eval mode on the CPU.
        data: stamps of fields, with sides of more than twice the overlap.
        rows: "train" -> (n,) rows that densities are fitted to, "validation" -> (m,) those that give the tails.
        settings: how; objects beyond `most` are left away.

    Raises:
        InputError: stamps too small, or too few objects in them.
    """
    side = min(data.first.size)
    if side <= 2 * task.overlap:
        raise InputError(f"fields of {side} pixels are too small: {2 * task.overlap + 1} pixels or more are needed")
    task = task.for_bands(task.choose_bands(data.first.bands))
    seen: SeenViews | None = None
    parts: list[list[Tensor]] = []
    odd: list[list[Tensor]] = []
    held: list[np.ndarray] = []
    generator = torch.Generator().manual_seed(0)
    counts = {"train": settings.most, "validation": settings.most // 2}
    for name, most in counts.items():
        for stamps in _batches(task, data, rows[name]):
            if seen is None:
                with torch.inference_mode():
                    layers = chosen_maps(network, task.prepare(stamps)[0], task.stride)
                names = ("light", "noise", *layers)
                seen = SeenViews(names, layers, [])
                taps, views = Taps(network, layers, whole=True), MapViews(names, layers, task.stride)
            found = _views_of(task, network, taps, views, stamps)
            parts.append(found)
            held.append(np.full(len(found[0]), name == "validation"))
            if name == "train":
                made = odd_stamps(stamps, 1 / len(stamps), generator, OF_FIELDS)
                odd.extend(_views_of(task, network, taps, views, changed) for _, changed in made)
            most -= len(found[0])
            if most <= 0:
                break
    if seen is None:
        raise InputError("there are no fields to learn from: give stamps of fields")
    whole = SeenViews(seen.names, seen.turns, _joined(parts), _joined(odd))
    return fit_typicality(whole, np.concatenate(held), settings, stride=task.stride)


def _joined(parts: list[list[Tensor]]) -> list[Tensor]:
    """(n, d) of each view, from those of batches."""
    return [torch.cat(columns) for columns in zip(*parts)]


def _batches(task: DetectingTask, data: LabelledStamps, rows: np.ndarray) -> Iterator[Cutouts]:
    shuffled = StampBatches(data, rows, torch.zeros(len(rows)), bands=task.bands, batch_size=_BATCH)
    return (batch.cutouts for batch in shuffled.epoch(0))


def _views_of(task: DetectingTask, network: nn.Module, taps: Taps, views: MapViews, stamps: Cutouts) -> list[Tensor]:
    """Vectors (objects, d) of each view, of the cells of all peaks that a window would not throw away."""
    with torch.inference_mode():
        inputs, _ = task.prepare(stamps)
        taps.begin()
        maps = network(*inputs).float().numpy()
        cells = views(inputs, taps.taken())
    chosen: list[list[Tensor]] = [[] for _ in cells]
    for number in range(len(stamps)):
        found = task.detect(maps[number], _field(task, stamps, number))
        height, width = maps.shape[-2:]
        far = task.overlap
        inside = (found.peak_x >= far) & (found.peak_x < width - far)
        inside &= (found.peak_y >= far) & (found.peak_y < height - far)
        row, column = (torch.from_numpy(peak[inside] // task.stride) for peak in (found.peak_y, found.peak_x))
        for place, view in enumerate(cells):
            chosen[place].append(view[number][row, column])
    return [torch.cat(part) for part in chosen]


def _field(task: DetectingTask, stamps: Cutouts, number: int) -> Field:
    """A stamp as a field."""
    image = stamps.image[number].float().numpy()
    variance = None if stamps.variance is None else stamps.variance[number].numpy()
    psf = None if stamps.psf is None else stamps.psf[number][:, None, None].numpy()
    return Field(image, variance, None, psf, task.bands)
