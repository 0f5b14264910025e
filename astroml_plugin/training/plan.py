"""The plan of a training: task, splits and targets, refused before the first step if they cannot be used."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from astroml_plugin.compute.device import forked_rng
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, Bool
from astroml_plugin.cutouts import Cutouts, measured_tolerance
from astroml_plugin.pixels import band_index
from astroml_plugin.sources.labels import generated
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.input_unit import trained_unit
from astroml_plugin.tasks.scale import differs
from astroml_plugin.training.batches import StampBatches
from astroml_plugin.training.distributed import ALONE, Group
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.pacing import paced
from astroml_plugin.training.recipe import Recipe, plain_recipe
from astroml_plugin.training.sampling import expected_draws
from astroml_plugin.training.settings import PLAIN_EPOCHS
from astroml_plugin.training.splits import SPLITS, split_record, without_learned

_VALIDATED_PIXELS = 256 * 96**2
"""Pixels of a band in a batch without gradients, at most."""

_SAMPLE = 512
"""Training stamps from which scales are measured."""


@dataclass(frozen=True)
class Plan:
    """Everything that is known of a training before its first step."""

    recipe: Recipe
    """The recipe, with what its training leaves open chosen for the number of stamps."""
    task: Task
    """The task, completed from the data and adapted to the training split."""
    data: LabelledStamps
    """All labelled objects."""
    rows: dict[str, np.ndarray]
    """Split -> (n,) sorted row numbers of its objects."""
    targets: dict[str, Tensor]
    """Split -> (n, ...) targets of these objects."""
    identity: str
    """Digest of recipe and data."""
    expected: F64 | None = None
    """(n,) draws per epoch to expect of each training object; None: each is drawn once."""

    def batches(self, split: str, group: Group = ALONE) -> StampBatches:
        """Batches of a split, or of a process's share of it."""
        training = self.recipe.training
        judged = max(8, min(256, _VALIDATED_PIXELS // max(1, self.task.stamp_size**2)))
        return StampBatches(
            self.data,
            group.share(self.rows[split]),
            group.share(self.targets[split]),
            bands=self.bands,
            batch_size=training.batch_size if split == "train" else max(judged, training.batch_size),
            seed=training.seed,
            memory=training.memory,
            layers=self.task.layers,
            expected=None if split != "train" or self.expected is None else group.share(self.expected),
        )

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands to read from the data."""
        return self.task.choose_bands(self.data.first.bands)

    @property
    def observed(self) -> dict[str, np.ndarray]:
        """Split -> rows of the objects that no generator drew: what a bundle calls typical."""
        drawn = generated(self.data.labels)
        return {name: rows[~drawn[rows]] for name, rows in self.rows.items()}

    def table(self, rows: np.ndarray) -> pa.Table:
        """All label columns of some objects."""
        return self.data.labels.take(pa.array(rows))


def plan_training(recipe: Recipe, data: LabelledStamps, processes: int = 1) -> Plan:
    """Plan a training of a recipe on labelled stamps; what `[training]` leaves open follows their number.

    Raises:
        InputError: recipe, labels or splits that cannot be used.
    """
    task = recipe.build_task()
    task = complete_task(task, data)
    rows = data.split(recipe.split, task.usable(data.labels))
    if len(rows["train"]) == 0:
        raise InputError(
            f"the train split of {data.labels.num_rows} objects is empty: give more data or other fractions"
        )
    table = data.labels.take(pa.array(rows["train"]))
    sample = data.sample(rows["train"], _SAMPLE, recipe.training.seed)
    task = _with_tolerance(task.fit_to_training(table, sample), sample)
    targets = {name: task.targets(data.labels.take(pa.array(rows[name]))) for name in SPLITS}
    task.check_splits(targets)
    share = -(-len(rows["train"]) // processes)
    recipe, task = _paced(recipe, task, share)
    expected = expected_draws(recipe.sampling, table)
    if expected is not None and recipe.training.cache:
        raise InputError("a training cache draws all objects alike: leave `cache` or the table [sampling] away")
    return Plan(recipe, task, data, rows, targets, training_identity(recipe, data, processes), expected)


def judged_apart(plan: Plan, learned: Bool, who: str) -> Plan:
    """A plan with its targets, without those objects of the validation and test split that something learned from.

    Args:
        plan: its `rows` are divided.
        learned: (n,) objects that it learned from.
        who: it, for messages.

    Raises:
        InputError: there are some, and `leaks` in [split] is "refuse", or what is left cannot be used.
    """
    rows = without_learned(plan.rows, learned, plan.recipe.split, who)
    targets = {name: plan.task.targets(plan.table(chosen)) for name, chosen in rows.items()}
    gone = sum(map(len, plan.rows.values())) - sum(map(len, rows.values()))
    try:
        plan.task.check_splits(targets)
    except InputError as error:
        if not gone:
            raise
        raise InputError(f"{error} ({gone} of validation and test are left out: {who} was trained on them)") from None
    return replace(plan, rows=rows, targets=targets)


def _paced(recipe: Recipe, task: Task, stamps: int) -> tuple[Recipe, Task]:
    """Recipe and task with what they leave open chosen for so many training stamps."""
    training = paced(recipe.training, stamps, side=task.stamp_size, turns=task.turns)
    few = not recipe.training.epochs and training.epochs > PLAIN_EPOCHS
    added = {name: value for name, value in task.few_stamps.items() if few and name not in recipe.settings}
    recipe = replace(recipe, training=training, settings={**recipe.settings, **added})
    return recipe, task.with_settings(**added) if added else task


def _with_tolerance(task: Task, stamps: Cutouts) -> Task:
    """The task with the centring that some training stamps show, unless the recipe gives it.

    Tasks that learn pixels or draw stamps take every stamp as it is.
    """
    centring = task.settings.centring
    if task.layers or not task.measures_centres or centring.tolerance > 0:
        return task
    tolerance = measured_tolerance(task.fitted_stamps(stamps), centring.width)
    return task.with_settings(centring=replace(centring, tolerance=tolerance))


def training_identity(recipe: Recipe, data: LabelledStamps, processes: int = 1) -> str:
    """Digest of all that a training's result depends on."""
    plain = {**plain_recipe(recipe), "split": split_record(recipe.split)}
    if recipe.adversarial.epochs == 0:  # what was made before there was such a table keeps its identity
        del plain["adversarial"]
    parts = [plain, data.digest] + ([processes] if processes > 1 else [])
    return storage.digest(*parts)


def complete_task(task: Task, data: LabelledStamps) -> Task:
    """Fill in from the data what the recipe leaves open: bands, stamp size, pixel scale and kind of pixels.

    Raises:
        InputError: a task that cannot work on these data.
    """
    source = data.first
    settings = task.settings
    bands = settings.bands or settings.coadd[:1] or source.bands
    if settings.any_band and len(bands) != 1:
        raise InputError(
            f"a model that takes any band is trained on one, and the data have {', '.join(source.bands)}: "
            f'set bands = ["{source.bands[0]}"] or any_band = false in [settings] of the recipe'
        )
    if differs(settings, source.pixel_scale):
        raise InputError(
            f"the training data have {source.pixel_scale:.4g} arcsec per pixel and the recipe says pixel_scale = "
            f"{settings.pixel_scale:.4g}: leave it out of [settings], or train on stamps of that scale"
        )
    task = task.with_settings(
        bands=bands,
        stamp_size=settings.stamp_size or min(source.size),
        pixel_scale=settings.pixel_scale or source.pixel_scale,
        dtype="uint8" if source.dtype == np.uint8 else "float32",
    )
    index = band_index(source.bands, task.choose_bands(source.bands))
    units = [[one.zero_points[place] for place in index] for one in data.sources]
    unit = task.settings.input_unit or trained_unit(task.scale_free, task.settings.dtype, units)
    task = task.with_settings(input_unit=unit)
    read = task.check_source(**source.facts)
    return task if len(read) > len(task.bands) else task.with_settings(bands=read)  # several are added up to one


def initial_network(plan: Plan) -> nn.Module:
    """The network with weights drawn from the recipe's seed; the caller's random numbers are left alone."""
    with forked_rng("cpu"):
        torch.manual_seed(plan.recipe.training.seed)
        return plan.task.build_network(plan.recipe.network, plan.recipe.network_arguments)
