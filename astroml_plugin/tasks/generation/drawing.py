"""Galaxies drawn from a generator into stamps, block by block, with what was asked of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike
from torch import nn

from astroml_plugin.catalog.objects.angles import floats
from astroml_plugin.catalog.objects.readers import open_table
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.results import Result
from astroml_plugin.core.typing import F32, F64
from astroml_plugin.sources.labels import GENERATED
from astroml_plugin.sources.stamps import StampLayout, Stamps
from astroml_plugin.tasks.generation.task import CONDITIONS, GenerateTask
from astroml_plugin.tasks.input_unit import zero_point_of

Progress = Callable[[str, int, int], None]
"""Called with (what is done, galaxies done, galaxies in all)."""

BLOCK = 1024
"""Galaxies per block: the unit of seeds and of work."""
RECORD = "drawing.json"


class Generator(NamedTuple):
    """A trained generator."""

    task: GenerateTask
    network: nn.Module
    name: str
    """Name of its bundle."""
    sha256: str
    """Digest of its weights and card."""
    files: Mapping[str, bytes] = {}
    """Files that the stamps carry: what the generator learned from, so that nobody is judged on it."""


@dataclass(frozen=True, repr=False)
class GenerateResult(Result):
    """Galaxies that were drawn."""

    source: str
    """The Stamps."""
    rows: int
    """Galaxies."""
    bundle: str
    """Name of the generator."""
    seconds: float
    """Wall time."""


def draw_stamps(
    generator: Generator,
    *,
    out: str,
    count: int | None = None,
    seed: int = 1,
    conditions: str | Mapping[str, ArrayLike] | None = None,
    noise: float = 0.0,
    labels: Mapping[str, str | float] | None = None,
    progress: Progress | None = None,
) -> GenerateResult:
    """Draw galaxies into `out`/stamps.zarr; run again after an interruption, it makes what is missing.

    The object table tells what was asked (`flux`, `size` in pixels, `e1`, `e2`, `offset_x`, `offset_y`) and by which
    generator each galaxy was made (`generator`: name and digest): no drawn galaxy looks like an observed one there, and
    none is ever judged on. Pixels are of the kind that the generator learned from.

    Args:
        generator: network and task.
        out: folder or fsspec URL.
        count: galaxies (default: as many as there are conditions, else 1,000).
        seed: of everything; the same seed, the same galaxies.
        conditions: a table (Parquet, CSV, FITS, VOTable) or columns: some of flux, size, e1, e2, one row per galaxy.
            What is not asked is drawn as the training stamps had it.
        noise: standard deviation of white noise to add, in the units of the stamps; `variance` is then stored too, of
            float pixels.
        labels: further columns, name -> the value that all galaxies have.
        progress: told after every block.

    Raises:
        InputError: conditions that cannot be met, or `out` holds something else.
    """
    started = time.perf_counter()
    asked = _conditions(conditions)
    count = count or max((len(values) for values in asked.values()), default=1000)
    if count < 1 or seed < 0 or not 0 <= noise < np.inf:
        raise InputError(f"draw 1 or more galaxies ({count}), with a seed ({seed}) and noise ({noise}) of 0 or more")
    more = _labels(labels or {})
    identity = [generator.sha256, count, seed, noise, {k: v.tolist() for k, v in asked.items()}]
    store = _opened(out, generator, noise, [*identity, *([more] if more else [])])
    done = {unit.index for unit in store.units()}
    blocks = -(-count // BLOCK)
    if (room := store.array("image").shape[0] // BLOCK) < blocks:
        store.reserve(blocks - room)
    for index in range(blocks):
        first, stop = index * BLOCK, min(count, (index + 1) * BLOCK)
        if index not in done:
            some = {name: values[first:stop] for name, values in asked.items()}
            drawn = generator.task.draw(
                generator.network, stop - first, int(np.random.SeedSequence([seed, index]).generate_state(1)[0]), some
            )
            image, variance = _observed(drawn.image, noise, [seed, index], store.has_variance)
            if store.dtype == np.uint8:
                image = np.rint(image).clip(0, 255).astype(np.uint8)
            checksum = store.write_block(index, image, variance)
            maker = [f"{generator.name} {generator.sha256[:12]}"] * (stop - first)
            columns = {"object_id": pa.array(range(first, stop), pa.int64()), **drawn.asked, GENERATED: maker}
            columns |= {name: [value] * (stop - first) for name, value in more.items()}
            store.commit_objects(index, pa.table(columns), checksum)
        if progress is not None:
            progress("drawn", stop, count)
    return GenerateResult(store.url, count, generator.name, time.perf_counter() - started)


def _conditions(asked: str | Mapping[str, ArrayLike] | None) -> dict[str, F64]:
    """Columns of what is asked, (n,) each."""
    if asked is None:
        return {}
    if not isinstance(asked, str | Path):
        return {name: np.atleast_1d(np.asarray(values, np.float64)) for name, values in asked.items()}
    with open_table(str(asked)) as raw:
        names = [name for name in CONDITIONS if name in raw.names]
        if not names:
            raise InputError(
                f"{storage.redact(str(asked))} has none of the columns {', '.join(CONDITIONS)}: it has "
                f"{', '.join(raw.names)}"
            )
        table = pa.concat_tables(raw.chunks(names, BLOCK))
    return {name: floats(table[name], name, storage.redact(str(asked))) for name in names}


def _labels(asked: Mapping[str, str | float]) -> dict[str, str | float]:
    """Further columns, refused where they are those of every drawing."""
    taken = {"object_id", "ra", "dec", *CONDITIONS, "offset_x", "offset_y", GENERATED} & set(asked)
    if taken:
        raise InputError(f"column {', '.join(sorted(taken))} of drawn stamps is not free: choose another label")
    return dict(asked)


def _observed(light: F32, noise: float, seed: list[int], has_variance: bool) -> tuple[F32, F32 | None]:
    """Image and variance."""
    if noise == 0:
        return light, None
    random = np.random.default_rng([*seed, 1])
    noisy = light + np.float32(noise) * random.standard_normal(light.shape, dtype=np.float32)
    return noisy, np.full_like(light, noise**2) if has_variance else None


def _opened(out: str, generator: Generator, noise: float, identity: list[object]) -> Stamps:
    """The store of this drawing, new or begun.

    Raises:
        InputError: the folder holds something else.
    """
    task = generator.task
    url, record = storage.join(storage.absolute(out), "stamps.zarr"), storage.join(storage.absolute(out), RECORD)
    digest = storage.digest(*identity)
    begun = storage.exists(storage.join(url, "zarr.json"))
    if storage.exists(record):
        if storage.read_record(record, digest=str)["digest"] != digest:
            raise InputError(f"{storage.redact(out)} holds another drawing: choose another output")
    elif begun:
        raise InputError(f"{storage.redact(out)} was not made by generate: choose another output")
    else:
        storage.write_json(record, {"digest": digest})
    if begun:
        return Stamps.open(url)
    size = (task.stamp_size, task.stamp_size)
    zero = zero_point_of(task.input_unit)
    zero_points = () if zero is None else (zero,) * len(task.bands)
    dtype = str(task.settings.dtype)
    layout = StampLayout(task.bands, size, dtype, BLOCK, task.pixel_scale, zero_points)
    store = Stamps.create(url, layout, variance=noise > 0 and dtype != "uint8")
    for name, content in generator.files.items():
        storage.write_atomic(storage.join(url, name), content)
    return store
