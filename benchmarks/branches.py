"""Sums over simulated branches (±g at 0 and 90 degrees, ±e_PSF), block by block in processes: no pixel is stored.

Finished parts of a simulation are kept: what was interrupted goes on, and more sets are added to those there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from astroml_plugin import simulation
from astroml_plugin.catalog import shear_sums
from astroml_plugin.core import storage
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.evaluation import shear
from astroml_plugin.evaluation.bootstrap import resampled_sums
from astroml_plugin.training.batches import Batch
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import measure
from benchmarks.harness import kept_arrays

Float = NDArray[np.float64]

_VERSION = 2
"""Of what is kept: another simulation or way of measuring gets another number."""
_OWN = "_own"
_PART = 64
"""Blocks that are kept together."""

PLACES = 5
"""+g1, -g1, +g2, -g2, ±psf."""
LEAST_SNR = 15.0
"""Measured S/N (the catalog's column `snr`) above which a galaxy is used, judged in every branch by itself."""
UNFLAGGED = "unflagged"
"""Way of measuring: the model's own, of the objects without a flag in their branch."""
EVERY = "all S/N"
"""Way of measuring: the model's own, of all objects: no selection, so that the response stands alone."""


@dataclass(frozen=True)
class Sets:
    """Sets of one simulation, measured in several ways."""

    bundle: str
    preset: str
    pairs: str
    """"shear" or "psf"."""
    count: int
    seed: int
    perturbations: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    noise_correlation: float = 0.0
    """Correlation of the noise of neighbouring pixels."""
    hst: str | None = None
    """Catalog of the presets of real galaxies."""

    @property
    def block(self) -> int:
        """Sets per unit of work, which is also what is resampled: at least 64 units, or errors mean nothing."""
        return max(1, min(128, self.count // 64))

    def stamps(self) -> Any:
        """The set of stamps."""
        made = simulation.preset(self.preset, self.hst)
        camera = replace(made.camera, noise_correlation=self.noise_correlation)
        design = simulation.make_design(self.pairs)
        return replace(made, camera=camera, count=self.count, seed=self.seed, block=self.block, design=design)


@lru_cache(maxsize=2)
def _model(url: str) -> tuple[Any, Any]:
    torch.set_num_threads(1)
    model = ModelBundle.load(url)
    return model.task(), model.network(fused=True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def block_sums(work: tuple[Sets, int]) -> dict[str, Float]:
    """Way of measuring -> sums (place, field) of one block."""
    sets, index = work
    task, network = _model(sets.bundle)
    block = sets.stamps().make(index)
    cutouts = from_stamps(block.image, block.variance, block.psf, bands=("r",), pixel_scale=0.2)
    rows = np.arange(len(block.image))
    batch = Batch(cutouts, torch.zeros(len(rows), 2), rows)
    found, _ = measure(task, network, [batch], perturbations=sets.perturbations, baselines=sets.baselines)
    chosen = np.asarray(found.own["snr"]) > LEAST_SNR
    ways = {"": found.own, **found.perturbed, **found.baselines}
    found_sums = {name: _sums(columns, block.table, chosen) for name, columns in ways.items()}
    clean = np.asarray(found.own["flags"]) == 0
    every = _sums(found.own, block.table, np.ones(len(rows), bool))
    return {**found_sums, UNFLAGGED: _sums(found.own, block.table, chosen & clean), EVERY: every}


def _sums(columns: Any, table: pa.Table, chosen: NDArray[np.bool_]) -> Float:
    """(place, field); a measurement without responses has 0 there."""
    names = ("e1", "e2", "r11", "r12", "r21", "r22")
    values = {name: np.nan_to_num(np.asarray(columns[name], np.float64)) for name in names if name in columns}
    for ours, theirs in shear_sums.label_columns(table.column_names).items():
        values[ours] = np.nan_to_num(table[theirs].to_numpy())
    good = chosen & np.isfinite(columns["e1"]) & np.isfinite(columns["e2"])
    terms = shear_sums.weighted({name: value[good] for name, value in values.items()})
    places = shear_sums.branch_kinds(np.array(table["branch"].to_pylist(), str))[good]
    return shear_sums.block_sums(terms, np.zeros(int(good.sum()), int), places, PLACES)[0] if good.any() else _nothing()


def _nothing() -> Float:
    return np.zeros((PLACES, len(shear_sums.FIELDS)))


def sums(pool: Executor, sets: Sets) -> dict[str, Float]:
    """Way -> sums (block, place, field)."""
    blocks = range(sets.stamps().blocks)
    parts = [_kept(pool, sets, blocks[start : start + _PART]) for start in blocks[::_PART]]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _kept(pool: Executor, sets: Sets, blocks: range) -> dict[str, Float]:
    """The same of some blocks, kept below the scratch folder: they depend on nothing but the seeds."""
    what = {**asdict(sets), "bundle": ModelBundle.load(sets.bundle).sha256, "hst": bool(sets.hst), "version": _VERSION}
    lengths = [sets.stamps().block_length(index) for index in blocks]
    what = {**what, "count": None, "blocks": [sets.block, blocks[0], *lengths]}

    def made() -> dict[str, Float]:
        parts = list(pool.map(block_sums, [(sets, index) for index in blocks]))
        return {name or _OWN: np.stack([part[name] for part in parts]) for name in parts[0]}

    found = kept_arrays(f"branches/{storage.digest(what)[:24]}", made)
    return {"" if name == _OWN else name: values for name, values in found.items()}


def drawn(values: Float, repeats: int = 500, seed: int = 0) -> Float:
    """The whole sample, then bootstrap samples: (1 + repeats, place, field)."""
    return resampled_sums(values, repeats, seed)


def signed(values: Float) -> Float:
    """(..., component, sign, field) of (..., place, field)."""
    return values[..., :4, :].reshape(*values.shape[:-2], 2, 2, values.shape[-1])


def selection(calibration: Float) -> Float:
    """R_S (1 + repeats, 2, 2) from resampled calibration sums: its isotropic part, half as noisy as its components."""
    found = shear.selection_from_branches(signed(calibration))
    return np.eye(2) * np.trace(found, axis1=-2, axis2=-1)[..., None, None] / 2


def biases(values: Float, selected: Float) -> tuple[Sequence[shear.Estimate], Sequence[shear.Estimate]]:
    """m and c of both components from resampled sums."""
    m, c = shear.biases(signed(values), selected)
    return [shear.Estimate.of(m[:, i]) for i in (0, 1)], [shear.Estimate.of(c[:, i]) for i in (0, 1)]


def leakage(values: Float, selected: Float) -> Sequence[shear.Estimate]:
    """alpha of both components from resampled sums."""
    alpha = shear.leakage(values[:, 4], selected)
    return [shear.Estimate.of(alpha[:, i]) for i in (0, 1)]
