"""Draw galaxies that were never seen from a generator, as stamps with what was asked of each."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

from numpy.typing import ArrayLike

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.sources.writer import only_writer
from astroml_plugin.tasks.generation.drawing import GenerateResult, Generator, Progress, draw_stamps
from astroml_plugin.tasks.generation.task import GenerateTask
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.known_objects import FILE
from workflows.notebook import shows_progress

__all__ = ["GenerateResult", "generate"]


@shows_progress()
def generate(
    bundle: Place,
    *,
    out: Place,
    count: int | None = None,
    seed: int = 1,
    conditions: Place | Mapping[str, ArrayLike] | None = None,
    noise: float = 0.0,
    labels: Mapping[str, str | float] | None = None,
    progress: Progress | None = None,
) -> GenerateResult:
    """Draw galaxies into `out`/stamps.zarr; run again after an interruption, it makes what is missing.

    Args:
        bundle: path, URL or shipped name of a bundle of the task `generate`.
        out: folder or fsspec URL.
        count: galaxies (default: as many as there are conditions, else 1,000).
        seed: seed of everything; the same seed, the same galaxies.
        conditions: what is asked of each galaxy: a table or columns with some of flux, size (pixels), e1 and e2.
        noise: standard deviation of white noise to add, in the units of the stamps.
        labels: further columns of the stamps, name -> the value that all galaxies have, so that a class can be trained
            on them.
        progress: told after every block.

    Raises:
        InputError: a bundle that does not generate, conditions that cannot be met, or `out` holds something else.
    """
    model = ModelBundle.load(bundle)
    task = model.task()
    if not isinstance(task, GenerateTask):
        raise InputError(f"bundle {model.name} has the task {model.card.task}: galaxies are drawn from one of generate")
    asked = text_of(conditions) if isinstance(conditions, str | PathLike) else conditions
    known = model.known_objects()
    files = {} if known is None else {FILE: known.to_bytes()}
    generator = Generator(task, model.network(), model.name, model.sha256, files)
    url = text_of(out)
    with only_writer(url):
        return draw_stamps(
            generator,
            out=url,
            count=count,
            seed=seed,
            conditions=asked,
            noise=noise,
            labels=labels,
            progress=progress,
        )
