"""Dreams of a network: pictures of what raises its numbers, of what its filters like, and of feature maps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from astroml_plugin import explanation
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.results import Result
from astroml_plugin.core.settings import with_changes
from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.explanation.options import DreamPictureOptions
from astroml_plugin.sources.stamps import Stamps, open_source
from astroml_plugin.tasks.example_stamps import example_stamps
from astroml_plugin.tasks.scale import to_scale
from astroml_plugin.training.bundle import ModelBundle
from workflows.notebook import shows_progress

if TYPE_CHECKING:
    from astroml_plugin.explanation.dream_pictures import Progress

__all__ = ["DreamPictureOptions", "DreamResult", "dream", "show"]

_STAMPS = 32
"""Stamps whose range of pixels is kept to."""


@dataclass(frozen=True, repr=False)
class DreamResult(Result):
    """Pictures that were drawn."""

    bundle: str
    """Name of the bundle."""
    files: tuple[str, ...]
    """Files of the pictures."""
    numbers: dict[str, tuple[float, float]]
    """Number -> its value for noise, and for the stamp that was made of the noise."""
    layers: tuple[str, ...]
    """Layers whose filters and maps were drawn; empty: no convolution sees the image."""
    seconds: float
    """Wall time."""


@shows_progress()
def dream(
    bundle: Place,
    *,
    out: Place,
    data: Place | None = None,
    options: DreamPictureOptions | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> DreamResult:
    """Draw what a network would like to see: of each number, and of the filters of some layers; and its feature maps.

    Args:
        bundle: path, URL or shipped name of a bundle.
        out: folder for the pictures.
        data: stamps to begin with, whose range of pixels is kept to; default noise and drawn round sources.
        options: numbers, layers, and how stamps are changed.
        progress: called with ("drawn", pictures done, pictures).
        changes: single fields of the options by name, for example `numbers=("logit_lens",)` or `steps=64`.

    Raises:
        InputError: a bundle, stamps or option that cannot be used.
    """
    began = time.monotonic()
    how = with_changes(DreamPictureOptions, options, changes, "dream")
    model = ModelBundle.load(text_of(bundle))
    task = model.task()
    stamps = example_stamps(task.settings, task.example_side, 8) if data is None else _read(text_of(data), task)
    done = explanation.draw_dreams(model, stamps, storage.absolute(text_of(out)), how, progress)
    return DreamResult(model.called, done.files, done.numbers, done.layers, round(time.monotonic() - began, 3))


def _read(url: str, task: Any) -> Cutouts:
    """The first stamps of a source, in the bands of a task."""
    source = open_source(url)
    if not isinstance(source, Stamps):
        raise InputError(f"{storage.redact(url)} is a survey: cut stamps from it with the verb cutouts, and give those")
    if not len(source):
        raise InputError(f"{storage.redact(url)} has no stamps")
    bands = task.check_source(**source.facts)
    rows = np.arange(min(_STAMPS, len(source)))
    about: dict[str, Any] = {"bands": source.bands, "pixel_scale": source.pixel_scale}
    stamps = from_stamps(*source.read_rows(rows), **about, zero_points=source.zero_points)
    stamps = stamps.masked(source.read_masks(rows)).select(bands)
    return to_scale(task.settings, stamps)


def show(result: DreamResult) -> str:
    """Outcome in words."""
    lines = [f"drew {result.bundle} in {result.seconds:.0f} s"]
    lines += [f"{name}: {before:.4g} for noise, {after:.4g} raised" for name, (before, after) in result.numbers.items()]
    if not result.layers:
        lines.append("no convolution sees the image: there are no pictures of filters")
    return "\n".join([*lines, *map(storage.redact, result.files)])
