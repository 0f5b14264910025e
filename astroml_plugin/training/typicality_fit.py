"""Fit what is typical: densities of the views of training stamps, a judge that has seen others too, and tails of their
values on stamps left out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.compute.exact import exact_float32
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.networks.taps import Taps, chosen_layers
from astroml_plugin.networks.typicality import FARTHEST, PIXEL_VIEWS, Judge, ViewDensity, Views, joined, together
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.training.batches import Batch, CentredBatches, StampBatches
from astroml_plugin.training.forward import network_inputs
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.odd_stamps import MOST, odd_stamps
from astroml_plugin.training.typicality import Typicality
from astroml_plugin.training.typicality_judge import fit_judge

LEAST = 200
"""Stamps below which there is no population to be typical of."""

HELD_OUT = 1000
"""Left-out stamps from which on tails are theirs; below, folds of all stamps are left out in turn."""

_FOLDS = 5
_BATCH = 256
_AXES, _EXPLAINED = 48, 0.998
"""Principal axes of a view at most, and the part of its variance that they hold."""
_COMPONENTS = 4
"""Normal distributions of a mixture."""
_SEVERAL = 2000
"""Stamps below which one normal distribution is all that can be known."""
_SOFT = 6.0
"""Spreads at which a value turns from linear to logarithmic."""
_FLOOR = 0.01
"""Spread of a standardised value below which a difference says nothing."""
_LEVELS = (0.0, 0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995)
"""Parts of the population at which tails have knots; the last ones only where `_BEYOND` stamps lie above."""
_BEYOND = 12


@dataclass(frozen=True)
class TypicalitySettings:
    """How a bundle learns what is typical of its training set."""

    fit: bool = True
    """Whether it does, where the training set has 200 stamps or more."""
    false_flags: float = 0.01
    """Part of the training population that is flagged OUT_OF_DOMAIN for not being typical."""
    most: int = 8192
    """Stamps that it is fitted to, at most."""

    def __post_init__(self) -> None:
        if not 0 < self.false_flags <= 0.2 or self.most < LEAST:
            raise InputError(
                f"typicality needs false_flags ({self.false_flags}) above 0 and up to 0.2, and most ({self.most}) of "
                f"{LEAST} or more"
            )


def typicality_of(
    task: Task,
    network: nn.Module,
    data: LabelledStamps,
    rows: Mapping[str, np.ndarray],
    settings: TypicalitySettings,
    device: str = "cpu",
    band: str | None = None,
) -> Typicality | None:
    """Typicality of labelled stamps; None where the task measures no stamps, or there are too few of them.

    Stamps that the task flags OUT_OF_DOMAIN for other reasons are left out, unless fewer than `LEAST` are then left.

    Args:
        task: of the bundle, calibrated.
        network: of the bundle, in eval mode on the device.
        data: with the stamps.
        rows: "train" -> (n,) rows that the network was trained on, "validation" -> (m,) others of the same population.
        settings: how.
        device: torch device.
        band: of the data, for a model that takes any.
    """
    found = (_of_stamps(task, network, data, rows, settings, device, band, within) for within in (True, False))
    return next((one for one in found if one is not None), None)


def _of_stamps(
    task: Task,
    network: nn.Module,
    data: LabelledStamps,
    rows: Mapping[str, np.ndarray],
    settings: TypicalitySettings,
    device: str,
    band: str | None,
    within: bool,
) -> Typicality | None:
    """`typicality_of`, of the stamps within the task's domain or of all."""
    if not measures_stamps(task) or len(rows["train"]) + len(rows["validation"]) < LEAST:
        return None
    random, bands = np.random.default_rng(0), task.choose_bands(data.first.bands, band)
    chosen = {
        name: np.sort(random.choice(one, min(len(one), settings.most // (1 if name == "train" else 2)), replace=False))
        for name, one in rows.items()
        if name != "test"
    }
    read = np.concatenate([chosen["train"], chosen["validation"]])
    batches = StampBatches(data, read, torch.zeros(len(read)), bands=bands, batch_size=_BATCH)
    own: list[np.ndarray] = []
    made: list[np.ndarray] = []
    generator, part = torch.Generator().manual_seed(0), min(1.0, MOST / len(read))

    def stamps() -> Iterator[tuple[tuple[Tensor, ...], bool]]:
        for whole in CentredBatches(batches, task).ordered():
            assert isinstance(whole, Batch)
            batch = _known(task, whole) if within else whole
            if not len(batch.rows):
                continue
            inputs, _, kept = network_inputs(task, batch, device)
            own.append(kept)
            yield inputs, False
            for places, odd in odd_stamps(batch.cutouts, part, generator):
                changed = replace(batch, cutouts=odd, targets=batch.targets[places], rows=batch.rows[places.numpy()])
                inputs, _, kept = network_inputs(task, changed, device)
                made.append(kept)
                yield inputs, True

    seen = seen_views(network, stamps(), task.input_shapes())
    if seen is None:
        return None
    rows_of = np.concatenate(own)
    held = np.isin(rows_of, chosen["validation"])
    return None if len(held) < LEAST else fit_typicality(replace(seen, source=_places(rows_of, made)), held, settings)


def _known(task: Task, batch: Batch) -> Batch:
    """The stamps of a batch that the task itself does not take for out of its domain: those are flagged anyway."""
    _, flags = task.prepare(batch.cutouts)
    within = torch.nonzero((flags & int(ObjectFlag.OUT_OF_DOMAIN)) == 0)[:, 0].cpu()
    if len(within) == len(batch.rows):
        return batch
    cutouts, rows = batch.cutouts.take(within), batch.rows[within.numpy()]
    return replace(batch, cutouts=cutouts, targets=batch.targets[within], rows=rows)


def _places(own: np.ndarray, made: Sequence[np.ndarray]) -> I64:
    """(m,) places in a population of rows (n,) of the stamps that others were made of; -1 where they are not in it."""
    wanted, order = np.concatenate(made), np.argsort(own)
    place = order[np.searchsorted(own, wanted, sorter=order).clip(max=len(own) - 1)]
    return np.where(own[place] == wanted, place, -1)


def typicality_record(fitted: Typicality, data: LabelledStamps) -> dict[str, Any]:
    """Facts that a card keeps beside the digest of the file."""
    told = {"false_flags": fitted.false_flags, "views": list(fitted.views), "digest": data.digest}
    return {**told, "sources": data.sources_record()}


def measures_stamps(task: Task) -> bool:
    """Whether a task gives columns of stamps: none that finds objects, and none that draws or mends stamps."""
    return not isinstance(task, DetectingTask) and not task.layers and bool(task.columns())


@dataclass(frozen=True)
class SeenViews:
    """Views of a population."""

    names: tuple[str, ...]
    """See `networks.typicality.Views`."""
    turns: dict[str, int]
    """Layer among them -> its answers per object."""
    vectors: list[Tensor]
    """(n, d) of each view."""
    odd: list[Tensor] = field(default_factory=list)
    """(m, d) of each view of stamps that were made to be unlike the population; empty: there are none."""
    source: I64 | None = None
    """(m,) numbers of the stamps that these were made of; None: not known."""


@exact_float32()
def seen_views(network: nn.Module, batches: Iterable[tuple[tuple[Tensor, ...], bool]], shapes: Any) -> SeenViews | None:
    """Views of all stamps; None where the network gives no rows of numbers.

    Args:
        network: of the bundle, in eval mode.
        batches: network inputs, and whether they are of stamps that were made to be unlike the population; the first
            ones are not.
        shapes: (channels, h, w) of each input.
    """
    names: tuple[str, ...] = ()
    layers: dict[str, int] = {}
    parts: dict[bool, list[list[Tensor]]] = {False: [], True: []}
    taps = views = None
    with torch.inference_mode():
        for inputs, odd in batches:
            if taps is None or views is None:
                layers = chosen_layers(network, inputs)
                names = (*PIXEL_VIEWS, *layers)
                taps, views = Taps(network, layers), Views(names, shapes).to(inputs[0].device)
            taps.begin()
            if network(*inputs).ndim != 2:
                return None
            parts[odd].append([view.cpu() for view in views(inputs, taps.taken())])
    own, others = ([torch.cat(columns) for columns in zip(*part)] for part in (parts[False], parts[True]))
    return SeenViews(names, layers, own, others) if own else None


def fit_typicality(
    seen: SeenViews, held: np.ndarray, settings: TypicalitySettings, *, stride: int = 0, seed: int = 0
) -> Typicality:
    """Fit densities and tails to a population.

    Args:
        seen: its views.
        held: (n,) bool: stamps that the network was not trained on and whose values give the tails.
        settings: the rate of false flags.
        stride: of cells, where the views are of cells of fields.
        seed: of the mixtures.

    Raises:
        InputError: too few stamps.
    """
    views, count = seen.vectors, len(seen.vectors[0])
    if count < LEAST:
        raise InputError(f"{count} stamps show no population to be typical of: {LEAST} or more are needed")
    if held.sum() >= HELD_OUT:
        experts = _Experts.fitted(seen, ~held, seed)
        values = experts.values([view[held] for view in views])
    else:
        fold = np.random.default_rng(seed).permutation(count) % _FOLDS
        values = np.zeros((count, len(views) + bool(seen.odd)))
        for number in range(_FOLDS):
            left = fold == number
            values[left] = _Experts.fitted(seen, ~left, seed).values([view[left] for view in views])
        experts = _Experts.fitted(seen, np.ones(count, bool), seed)
    numbers = {
        f"{place}.{name}": getattr(density, name)
        for place, density in enumerate(experts.densities)
        for name in ViewDensity.NUMBERS
    }
    tables = _tables(values, len(views))
    if experts.judge is not None:
        numbers |= {f"judge.{name}": getattr(experts.judge, name) for name in Judge.NUMBERS}
    for name, kinds in tables.items():
        for place, part in enumerate(("knots", "slopes")):
            numbers[f"{name}.{part}"] = torch.from_numpy(np.array([tail[place] for tail in kinds])).float()
    return Typicality(numbers, seen.names, settings.false_flags, seen.turns, stride)


@dataclass(frozen=True)
class _Experts:
    densities: list[ViewDensity]
    judge: Judge | None

    @classmethod
    def fitted(cls, seen: SeenViews, known: np.ndarray, seed: int) -> _Experts:
        """Densities and judge of the stamps (n,) bool that they may know, and of others made of them."""
        own = [view[known] for view in seen.vectors]
        judge = None
        if seen.odd:
            may = np.ones(len(seen.odd[0]), bool)
            if seen.source is not None:
                may = (seen.source >= 0) & known[seen.source]
            judge = fit_judge(torch.cat(own, dim=1), torch.cat([view[may] for view in seen.odd], dim=1), seed)
        return cls([fit_density(view, seed) for view in own], judge)

    def values(self, views: Sequence[Tensor]) -> F64:
        """(n, views) -ln of the densities, and one more of the judge's scores where there is a judge."""
        with torch.inference_mode():
            found = [density(view) for density, view in zip(self.densities, views)]
            if self.judge is not None:
                found.append(self.judge(torch.cat(list(views), dim=1))[:, 0])
        values: F64 = torch.stack(found, dim=1).double().numpy()
        return values


def _tables(values: F64, views: int) -> dict[str, list[tuple[F64, F64]]]:
    """Name of a table -> its tails, of a population's values (n, views), or with the judge's as last ones."""
    tails = [tail_of(values[:, place]) for place in range(views)]
    odd = together(_applied(tails, values[:, :views]))
    if values.shape[1] == views:
        return {"tails": tails, "whole": [tail_of(odd[:, 0].numpy())]}
    both = np.stack([odd[:, 0].numpy(), values[:, views]], axis=1)
    parts = [tail_of(both[:, place]) for place in range(2)]
    return {"tails": tails, "parts": parts, "whole": [tail_of(joined(_applied(parts, both))[:, 0].numpy())]}


def _applied(tails: Sequence[tuple[F64, F64]], values: F64) -> Tensor:
    found = np.stack([apply_tail(*tail, values[:, place]) for place, tail in enumerate(tails)], axis=1)
    return torch.from_numpy(found).clamp_max(FARTHEST)


def fit_density(values: Tensor, seed: int = 0) -> ViewDensity:
    """The density of vectors (n, d) of a population."""
    plain = values.double()
    centre = plain.median(0).values
    spread = 1.4826 * (plain - centre).abs().median(0).values
    floor = max(1e-9, 1e-3 * float(spread.median()), 1e-3 * float(plain.std(0).median()))
    scale = _SOFT * torch.maximum(spread, 0.1 * plain.std(0)).clamp_min(floor)
    squashed = torch.asinh((plain - centre) / scale)
    mean = squashed.mean(0)
    variances, axes = torch.linalg.eigh(torch.cov((squashed - mean).T).reshape(len(mean), -1))
    variances, axes = variances.flip(0).clamp_min(0), axes.flip(1)
    share = variances.cumsum(0) / variances.sum().clamp_min(1e-30)
    kept = min(_AXES, len(mean), max(2, int((share < _EXPLAINED).sum()) + 1))
    axes = axes[:, :kept]
    left = (squashed - squashed @ axes @ axes.T).square().mean(1)
    logs = (left + 1e-4).log()
    rest = torch.stack([logs.mean(), logs.std().clamp_min(_FLOOR)])
    start = {"centre": centre, "scale": scale, "axes": axes, "rest": rest}
    nothing = {
        "whitening": torch.zeros(kept + 1, kept + 1),
        "offset": torch.zeros(kept + 1),
        "constant": torch.zeros(1),
    }
    reduced = ViewDensity({**start, **nothing}).reduced(values).double().numpy()
    return ViewDensity({**start, **_mixture(reduced, seed)})


def _mixture(points: F64, seed: int) -> dict[str, Tensor]:
    """The mixture of normal distributions of points (n, k), standardised first: a floor under variances is then one."""
    centre, spread = points.mean(0), np.maximum(points.std(0), _FLOOR / _SOFT)
    standard = (points - centre) / spread
    means, factors, weights = _one(standard) if len(standard) < _SEVERAL else _several(standard, seed)
    whitening = factors / spread[None, :, None]  # (components, k, k): (x - mean) @ factor is white
    offset = np.einsum("ck,ckj->cj", means * spread + centre, whitening)
    logdet = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
    constant = np.log(np.maximum(weights, 1e-30)) + logdet
    return {
        "whitening": torch.from_numpy(whitening.transpose(1, 0, 2).reshape(points.shape[1], -1).copy()),
        "offset": torch.from_numpy(offset.ravel().copy()),
        "constant": torch.from_numpy(constant),
    }


def _one(points: F64) -> tuple[F64, F64, F64]:
    """Mean (1, k), Cholesky factor of the precision (1, k, k) and weight (1,) of a normal distribution."""
    covariance = np.cov(points.T).reshape(points.shape[1], -1) + _REGULAR * np.eye(points.shape[1])
    factor = np.linalg.inv(np.linalg.cholesky(covariance)).T
    return points.mean(0)[None], factor[None], np.ones(1)


def _several(points: F64, seed: int) -> tuple[F64, F64, F64]:
    """Means (c, k), factors (c, k, k) and weights (c,) of several normal distributions."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(_COMPONENTS, reg_covar=_REGULAR, random_state=seed, max_iter=_ROUNDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a mixture that is nearly the best is as good
        model.fit(points)
    return model.means_, model.precisions_cholesky_, model.weights_


_REGULAR = 1e-3
"""Added to the variances of a mixture, of points of unit variance."""
_ROUNDS = 40


def tail_of(values: F64) -> tuple[F64, F64]:
    """Knots and slopes (m,) of -lg of the part of a population (n,) that has larger values; beyond, an exponential."""
    ranked = np.sort(np.asarray(values, np.float64))
    fits = [level for level in _LEVELS if (1 - level) * len(ranked) >= _BEYOND]
    padding = [fits[-1]] * (len(_LEVELS) - len(fits))
    knots = np.quantile(ranked, [*fits, *padding])
    least = max(1e-6, 1e-5 * float(np.ptp(ranked)))
    for number in range(1, len(knots)):  # equal values must not make a step
        knots[number] = max(knots[number], knots[number - 1] + least)
    levels = -np.log10(1 - np.array([*fits, *padding]))
    slopes = np.append(np.diff(levels) / np.diff(knots), 0.0)
    last = len(fits) - 1
    excess = ranked[ranked > knots[last]] - knots[last]
    mean = max(least, float(excess.mean())) if len(excess) else least
    slopes[last:] = 1 / (mean * math.log(10))
    return knots, slopes


def apply_tail(knots: F64, slopes: F64, values: F64) -> F64:
    """-lg of the part of the population that is larger, (n,), of values (n,); as `TailTable`."""
    widths = np.append(np.diff(knots), np.inf)
    found: F64 = (np.minimum(np.maximum(values[:, None] - knots, 0.0), widths) * slopes).sum(1)
    return found
