"""Pictures of what a network has learned: stamps that raise its numbers, stamps that its filters like, feature maps."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.compute.device import place_network
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_unknown
from astroml_plugin.core.typing import F32
from astroml_plugin.cutouts import Cutouts, crop
from astroml_plugin.explanation.baselines import noise_draw
from astroml_plugin.explanation.dreams import Filter, dream, feature_maps, heard, layers
from astroml_plugin.explanation.options import DreamPictureOptions
from astroml_plugin.explanation.target import Seen, Target, explainable, seen_by
from astroml_plugin.labelling.paint import colours
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.training.bundle import ModelBundle

NUMBERS, FILTERS, MAPS = "numbers.png", "filters.png", "feature_maps.png"

_LAYERS = 4
"""Layers that are drawn where nobody names any."""
_NUMBERS = 12
_FIELD = 128
"""Side in pixels of what is drawn of bundles that find objects, about."""
_BRIGHTEST = 99.7
"""Per cent of the pixels of real stamps within the scale of grey or colour."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DreamPictures:
    """Pictures that were drawn."""

    files: tuple[str, ...]
    """Files, in the folder that was named."""
    numbers: dict[str, tuple[float, float]]
    """Number -> its value for noise, and for the stamp that was made of the noise."""
    layers: tuple[str, ...]
    """Layers whose filters and maps were drawn; empty: the network has no convolution that sees the image."""


def draw_dreams(
    bundle: ModelBundle, stamps: Cutouts, out: str, how: DreamPictureOptions, progress: Progress | None = None
) -> DreamPictures:
    """Draw numbers, filters and feature maps of a bundle into a folder.

    Args:
        bundle: whose network is looked into.
        stamps: real ones, or drawn ones: pixels stay within their range, and maps are of the first.
        out: path or URL of the folder.
        how: what is drawn.
        progress: called with ("drawn", pictures done, pictures).

    Raises:
        InputError: no such number, layer or channel.
    """
    task = bundle.task()
    network = explainable(task.inference_network(place_network(bundle.network(fused=True), "cpu")))
    target = Target(task, network)
    numbers = _numbers(target, how.numbers)
    fitted = _fitted(task, stamps)
    seen = seen_by(target, fitted)
    chosen = _layers(target, seen, how.layers)
    bands = task.explained_bands(task.choose_bands(stamps.bands))
    draw = _Drawing(bands, seen.image, "upper" if stamps.image.dtype == torch.uint8 else "lower")
    done, total, say = 0, len(numbers) + len(chosen), progress or (lambda what, done, total: None)
    shown, values = [], {}
    for name in numbers:
        one = Target(task, network, name)
        row = _of_number(one, seen_by(one, fitted), how)  # each number stands elsewhere in the outputs
        shown.append(row)
        values[name] = (row.before, row.after)
        say("drawn", done := done + 1, total)
    files = [storage.join(out, NUMBERS)]
    _save(draw.numbers(numbers, shown), files[0])
    if chosen:
        rows = []
        for name in chosen:
            rows.append(_of_layer(target, name, seen, how))
            say("drawn", done := done + 1, total)
        files += [storage.join(out, FILTERS), storage.join(out, MAPS)]
        _save(draw.filters(chosen, rows), files[1])
        some = seen.take(slice(0, how.objects))
        _save(draw.maps(chosen, some.image, feature_maps(target, some, list(chosen)), how.channels), files[2])
    return DreamPictures(tuple(files), values, tuple(chosen))


def _fitted(task: Any, stamps: Cutouts) -> Cutouts:
    """Stamps of a bundle that finds objects, cut to a side that its network takes and a picture shows."""
    if not isinstance(task, DetectingTask):
        return stamps
    side = min(_FIELD, *stamps.image.shape[-2:]) // task.stride * task.stride
    if not side:
        raise InputError(f"stamps of {stamps.image.shape[-1]} pixels are smaller than the stride of {task.stride}")
    return crop(stamps, side)


def _numbers(target: Target, named: Sequence[str]) -> list[str]:
    known = target.task.explained()
    refuse_unknown(named, known, "the numbers that this bundle can explain")
    kept = [name for name in known if name != "called" and f"logit_{name.removeprefix('p_')}" not in known]
    return list(named) or kept[:_NUMBERS]


def _layers(target: Target, seen: Seen, named: Sequence[str]) -> list[str]:
    """The named layers, or some of those that the image reaches, evenly chosen."""
    known = layers(target.network)
    refuse_unknown(named, known, "the layers of this network")
    if not known:
        return []
    one = seen.take(slice(0, 1))
    with torch.enable_grad():
        answers = heard(target.network, list(known), one.image.detach().requires_grad_(), *one.others)
    reached = [name for name in known if name in answers and answers[name].requires_grad]
    if deaf := [name for name in named if name not in reached]:
        raise InputError(f"layer {deaf[0]} does not see the image: choose among {', '.join(reached)}")
    places = np.unique(np.linspace(0, len(reached) - 1, min(_LAYERS, len(reached))).round().astype(int))
    return list(named) or [reached[place] for place in places]


@dataclass(frozen=True)
class _Row:
    """Stamps before and after they were changed, (2, channel, h, w) each: of noise, and of a real stamp."""

    begun: Tensor
    ended: Tensor
    before: float
    after: float


def _of_number(target: Target, seen: Seen, how: DreamPictureOptions) -> _Row:
    first = seen.take(slice(0, 1))
    noise = replace(first, image=noise_draw(target, first, np.arange(1), how.seed))
    begun = torch.cat([noise.image, first.image])
    both = replace(_repeated(first, 2), image=begun)
    found = dream(target, both, how, real=seen.image)
    return _Row(begun, found.image, float(found.before[0]), float(found.after[0]))


def _of_layer(target: Target, layer: str, seen: Seen, how: DreamPictureOptions) -> Tensor:
    """(k, channel, h, w) stamps that the first filters of a layer like, made of noise."""
    first, count = seen.take(slice(0, 1)), min(how.channels, layers(target.network)[layer])
    noise = noise_draw(target, first, np.arange(1), how.seed)
    many = replace(_repeated(first, count), image=noise.expand(count, -1, -1, -1), place=torch.arange(count))
    return dream(Filter(target, layer, None), many, how, real=seen.image).image


def _repeated(one: Seen, count: int) -> Seen:
    """A single stamp so many times."""
    return one.take(torch.zeros(count, dtype=torch.int64))


@dataclass(frozen=True)
class _Drawing:
    """Figures of stamps as a network gets them, all on one scale of grey or colour."""

    bands: tuple[str, ...]
    real: Tensor
    origin: str
    """Where the first row is: "upper" for stored pictures, else "lower"."""

    def picture(self, image: Tensor) -> F32:
        """(h, w, 3) from 0 to 1, from the channels (channel, h, w) of one stamp."""
        flat = self.real.transpose(0, 1).flatten(1).numpy()
        low, high = np.percentile(flat, 1, axis=1), np.percentile(flat, _BRIGHTEST, axis=1)
        scaled = (image.numpy() - low[:, None, None]) / np.maximum(high - low, 1e-6)[:, None, None]
        planes = [scaled[list(index)].mean(0) for index in self._colours()]
        shown: F32 = np.stack(planes, -1).clip(0, 1).astype(np.float32)
        return shown

    def _colours(self) -> tuple[tuple[int, ...], ...]:
        if set(self.bands) == {"signal", "usable"} or len(self.bands) != self.real.shape[1]:
            return ((0,),) * 3  # channels that are no bands
        return tuple(tuple(index) for index in colours(self.bands))

    def numbers(self, names: Sequence[str], rows: Sequence[_Row]) -> Any:
        """A row for each number: noise and what became of it, a real stamp and what became of it."""
        figure, axes = _grid(len(rows), 4, "What raises each number: noise, and a stamp, before and after")
        for row, name, line in zip(rows, names, axes, strict=True):
            for axis, image in zip(line, (row.begun[0], row.ended[0], row.begun[1], row.ended[1]), strict=True):
                axis.imshow(self.picture(image), origin=self.origin, interpolation="nearest")
            line[0].set_ylabel(name, fontsize=8)
            line[1].set_xlabel(f"{row.before:.3g} → {row.after:.3g}", fontsize=8)
        for axis, head in zip(axes[0], ("noise", "raised", "stamp", "raised"), strict=True):
            axis.set_title(head, fontsize=9)
        return figure

    def filters(self, names: Sequence[str], rows: Sequence[Tensor]) -> Any:
        """A row for each layer: a stamp that each filter likes."""
        figure, axes = _grid(len(rows), max(map(len, rows)), "What the filters of each layer like")
        for images, name, line in zip(rows, names, axes, strict=True):
            for number, axis in enumerate(line):
                if number < len(images):
                    axis.imshow(self.picture(images[number]), origin=self.origin, interpolation="nearest")
                else:
                    axis.axis("off")
            line[0].set_ylabel(_short(name), fontsize=8)
        return figure

    def maps(self, names: Sequence[str], stamps: Tensor, answers: dict[str, Tensor], channels: int) -> Any:
        """Rows for each stamp: it, and the answers of each layer's first channels; red above 0, blue below."""
        lines = [(image, number, name) for number, image in enumerate(stamps) for name in names]
        width = 1 + max(min(channels, answer.shape[1]) for answer in answers.values())
        figure, axes = _grid(len(lines), width, "Feature maps: what each layer answers (red above 0, blue below)")
        for (image, number, name), line in zip(lines, axes, strict=True):
            line[0].imshow(self.picture(image), origin=self.origin, interpolation="nearest")
            line[0].set_ylabel(_short(name), fontsize=8)
            planes = answers[name][number].detach().numpy()
            top = max(float(np.abs(planes).max()), 1e-12)
            for place, axis in enumerate(line[1:]):
                if place < len(planes):
                    axis.imshow(planes[place], cmap="RdBu_r", vmin=-top, vmax=top, origin=self.origin)
                else:
                    axis.axis("off")
        return figure


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"…{name[-17:]}"


def _grid(rows: int, columns: int, title: str) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.25 * columns + 0.6, 1.3 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(title, fontsize=10)
    return figure, axes


def _save(figure: Any, to: str) -> None:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    storage.write_atomic(to, data.getvalue())
