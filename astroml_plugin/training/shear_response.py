"""The shear response of each object as a linear readout of the network, and what its PSF's ellipticity leaves in it.

The response R_ij = d e_i / d g_j of a measured ellipticity cannot be seen in one image, but its expectation given that
image can be learned: a linear readout of the network's last features is fitted by least squares, so that <e> / <R>
recovers the shear of any sample of the same population that is chosen by what the features know; it costs nothing at
inference. It is fitted either on *pairs*, simulated galaxies of the same noise under +g and -g, where
(e(+g) - e(-g)) / 2g is seen (Pujol et al. 2019, A&A 621, A2), or on *images* of any galaxies, no truth known, by what
`counterfactual` makes of them: noisier by far per stamp, but right for the population that a survey really has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.sources.labels import label_texts
from astroml_plugin.tasks.ellipticity import metacalibration as counterfactual
from astroml_plugin.tasks.ellipticity.task import EllipticityTask
from astroml_plugin.tasks.normalisation import border_pixels, centred_psf, robust_width
from astroml_plugin.training.batches import Batches, BlockStream
from astroml_plugin.training.forward import ready

_RIDGE = 1e-6  # of the mean square of the features
_RIDGES = tuple(10.0**power for power in range(-6, 1))  # to choose from, where what is fitted is noisy
_PARTS = 4  # that ridges are judged on in turn
_FEWEST = 64  # pairs per component, or images per part
_FAILED = int(ObjectFlag.NONFINITE | ObjectFlag.NO_PSF)
_LEVELS = 6  # of the measured error, in each of which the PSF's ellipticity is to leave nothing


class _Sums:
    """What a linear fit of k numbers to f features needs of any number of objects."""

    def __init__(self) -> None:
        self.objects = 0
        self.normal: np.ndarray | float = 0.0
        self.cross: np.ndarray | float = 0.0

    def add(self, features: np.ndarray, wanted: np.ndarray, spared: np.ndarray | float = 0.0) -> None:
        """Objects with features (n, f), the last of them 1, and estimates (n, k).

        Args:
            spared: (f, k), what is too much in the sum of features times `wanted`.
        """
        self.objects += len(features)
        self.normal = self.normal + features.T @ features
        self.cross = self.cross + features.T @ wanted - spared

    def __add__(self, other: _Sums) -> _Sums:
        """Of the objects of both."""
        both = _Sums()
        both.objects = self.objects + other.objects
        both.normal, both.cross = self.normal + other.normal, self.cross + other.cross
        return both

    def solve(self, ridge: float = _RIDGE) -> np.ndarray:
        """(f, k) weights of the least squares."""
        return _ridged(np.asarray(self.normal) / self.objects, np.asarray(self.cross) / self.objects, ridge)

    def loss(self, weights: np.ndarray) -> float:
        """Mean square of what weights (f, k) leave, but for a constant."""
        square = np.einsum("fk,fg,gk->", weights, np.asarray(self.normal), weights)
        return float(square - 2 * (weights * self.cross).sum()) / self.objects


def _ridged(normal: np.ndarray, cross: np.ndarray, ridge: float = _RIDGE, free: bool = True) -> np.ndarray:
    """Least squares with a ridge in units of the mean square; `free`: but for the last weight, the constant's."""
    added = ridge * np.trace(normal) / len(normal) * np.eye(len(normal))
    if free:
        added[-1, -1] = 0.0
    return np.linalg.solve(normal + added, cross)


def _best_ridge(parts: list[_Sums]) -> float:
    """The ridge under which each part is best described by the fit to the others."""

    def loss(ridge: float) -> float:
        left = [sum((other for other in parts if other is not part), _Sums()) for part in parts]
        return sum(part.loss(rest.solve(ridge)) for part, rest in zip(parts, left))

    return min(_RIDGES, key=loss)


def fit_response(
    task: EllipticityTask, network: nn.Module, data: Batches, table: pa.Table, device: str = "cpu"
) -> dict[str, Any]:
    """Fit the network's response outputs in place, on pairs.

    Args:
        task: of the network.
        network: trained, in eval mode.
        data: stamps in sets, in the order of `table`.
        table: their labels `set_id`, `branch` (+g1/0, -g1/0, +g2/90, …), `g1`, `g2`.
        device: where the network is.

    Returns:
        Plain JSON: pairs per component, mean response with its standard error, and what part of its variance the
        readout explains.

    Raises:
        InputError: columns or pairs that are missing, or a network whose last layers are not linear.
    """
    heads = _last_layers(task, network)
    features, means, _ = _observed(task, network, heads, data, device)
    weights = np.empty((features.shape[1], 4))
    report: dict[str, Any] = {"from": "pairs", "pairs": [], "mean": [], "error": [], "explained": []}
    for component in (0, 1):
        plus, minus, shear = _pairs(table, component)
        sums, seen = _Sums(), 0.5 * (features[plus].astype(np.float64) + features[minus])
        wanted = (means[plus] - means[minus]) / (2 * shear[:, None])
        sums.add(seen, wanted)
        weights[:, component::2] = sums.solve()
        residual = (wanted - seen @ weights[:, component::2])[:, component]
        report["pairs"].append(len(plus))
        report["mean"].append([float(value) for value in wanted.mean(0)])
        report["error"].append([float(value) for value in wanted.std(0) / len(wanted) ** 0.5])
        report["explained"].append(float(1 - residual.var() / wanted[:, component].var()))
    _write(task, heads, weights)
    return report


def fit_response_from_images(
    task: EllipticityTask,
    network: nn.Module,
    data: BlockStream,
    device: str = "cpu",
    *,
    draws: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Fit the network's response outputs in place, on images of any galaxies, their noise Gaussian and white.

    Stamps with a pixel that cannot be used, or without PSF, are left out. No other choice may be made among them by
    what their pixels show: the noise's part of the response would no longer cancel.

    Args:
        task: of the network, which takes the PSF.
        network: trained, in eval mode.
        data: stamps with PSF and variance.
        device: where the network is.
        draws: of noise per object.
        seed: of the noise.
        progress: told how many objects are done.

    Returns:
        Plain JSON: images used and left out, mean response with its standard error.

    Raises:
        InputError: too few images, no PSF, or a network whose last layers are not linear.
    """
    if task.settings.psf == "none":
        raise InputError("a response from images needs a model that takes the PSF: fit it on simulated pairs")
    heads = _last_layers(task, network)
    generator = torch.Generator().manual_seed(seed)
    parts, left_out = [_Sums() for _ in range(_PARTS)], 0
    spread = np.zeros((2, 4))
    for batch in data.ordered():
        whole = _whole(task, batch.cutouts)
        left_out += len(batch.cutouts) - len(whole)
        if len(whole) == 0:
            continue
        wanted, features, spared = _imagined(task, network, heads, whole.to(device), generator, draws)
        for number, part in enumerate(parts):
            rows = slice(number, None, _PARTS)
            part.add(features[rows], wanted[rows], spared[rows].sum(0))
        spread += [wanted.sum(0), (wanted**2).sum(0)]
        if progress is not None:
            progress(sum(part.objects for part in parts))
    sums = sum(parts, _Sums())
    if min(part.objects for part in parts) < _FEWEST:
        raise InputError(
            f"{sums.objects} stamps have all pixels and a PSF ({left_out} have not): a response needs thousands"
        )
    ridge = _best_ridge(parts)
    _write(task, heads, sums.solve(ridge))
    mean = spread[0] / sums.objects
    error = np.sqrt((spread[1] / sums.objects - mean**2) / sums.objects)
    found = {"images": sums.objects, "left_out": left_out, "mean": mean.tolist(), "error": error.tolist()}
    return {"from": "images", **found, "ridge": ridge}


def _whole(task: EllipticityTask, cutouts: Cutouts) -> Cutouts:
    """Stamps at the model's size with every pixel and a PSF, the noise of each known."""
    chosen = task.fitted_stamps(cutouts)
    if chosen.psf is None:
        raise InputError("the stamps have no PSF: ingest them with one, a response from images cannot do without")
    _, flags = task.prepare(chosen)
    good = chosen.valid.flatten(1).all(1) & ((flags & _FAILED) == 0)
    chosen = chosen.take(torch.nonzero(good).flatten())
    assert chosen.psf is not None
    chosen = replace(chosen, psf=centred_psf(chosen.psf))
    if chosen.variance is None:
        width = robust_width(border_pixels(chosen.image, None, task.settings.normalisation.border))
        chosen = replace(chosen, variance=width.square()[..., None, None].expand_as(chosen.image).contiguous())
    return chosen


def _imagined(
    task: EllipticityTask,
    network: nn.Module,
    heads: list[nn.Linear],
    cutouts: Cutouts,
    generator: torch.Generator,
    draws: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimates of R11, R12, R21, R22 (n, 4), features (n, f), and what is too much in their products (n, f, 4)."""
    with _listening(heads) as heard, torch.inference_mode():

        def measured(image: Tensor) -> Tensor:
            outputs = network(*task.inputs(replace(cutouts, image=image)))
            return task.intervals(outputs.float().cpu()).mean.double()

        def features(image: Tensor) -> Tensor:
            measured(image)
            return _features(heard, len(image)).double()

        image, variance, psf = cutouts.image, cutouts.variance, cutouts.psf
        assert variance is not None
        assert psf is not None
        shearing = counterfactual.Shearing(psf, image.shape[-1], counterfactual.centres(image, variance))
        found = counterfactual.responses(measured, image, variance, shearing, generator, features=features, draws=draws)
        spared = found.product.flatten(1, 2).transpose(1, 2)
        return found.own.flatten(1).numpy(), features(image).numpy(), spared.numpy()


def fit_leakage(
    task: EllipticityTask, network: nn.Module, data: Batches, table: pa.Table, device: str = "cpu"
) -> dict[str, Any]:
    """Take out of the network's means, in place, what follows the PSF's ellipticity; fit the response afterwards.

    The smallest change of the last layers, in the mean square of what it adds to each member and orientation, after
    which the same galaxies under PSFs of opposite ellipticity have the same mean ellipticity, at every level of the
    measured error.

    Args:
        task: of the network.
        network: trained, in eval mode.
        data: stamps in pairs, in the order of `table`.
        table: their labels `set_id`, `branch` (+psf, -psf), `psf_e1`, `psf_e2`.
        device: where the network is.

    Returns:
        Plain JSON: pairs, slope of (e1, e2) against the PSF's before and after, root mean square of the change.

    Raises:
        InputError: columns or pairs that are missing, or a network whose last layers are not linear.
    """
    heads = _last_layers(task, network)
    signs = torch.tensor([1.0, -1.0] * 2)
    spread = [_Spread() for _ in heads]
    features, means, widths = _observed(task, network, heads, data, device, signs, spread)
    plus, minus = _psf_pairs(table)
    psf = np.stack([table[name].to_numpy()[plus] - table[name].to_numpy()[minus] for name in ("psf_e1", "psf_e2")], 1)
    moved, change = means[plus] - means[minus], (features[plus].astype(np.float64) - features[minus])[:, :-1]
    width = np.log(widths[plus] * widths[minus]).sum(1)
    level = np.searchsorted(np.quantile(width, np.arange(1, _LEVELS) / _LEVELS), width)
    share = np.stack([(level == number) / max(1, (level == number).sum()) for number in range(_LEVELS)], axis=1)
    drivers = np.concatenate([share * psf[:, j : j + 1] for j in (0, 1)], axis=1)
    ends = np.cumsum([head.in_features for head in heads])[:-1]
    wanted = np.split(change.T @ drivers, ends)
    inverse = np.concatenate([_ridged(one.covariance, part, free=False) for one, part in zip(spread, wanted)])
    weights = -inverse @ np.linalg.lstsq(drivers.T @ change @ inverse, drivers.T @ moved, rcond=1e-6)[0]
    parts = np.split(weights, ends)
    _add_to_means(task, heads, parts, [-one.mean @ part for one, part in zip(spread, parts)])
    slopes = [
        [float((e[:, i] * psf[:, i]).sum() / (psf[:, i] ** 2).sum()) for i in (0, 1)]
        for e in (moved, moved + change @ weights)
    ]
    square = [np.trace(part.T @ one.covariance @ part) for one, part in zip(spread, parts)]
    rms = float(np.sqrt(len(heads) * np.sum(square) / 2))
    return {"pairs": len(plus), "before": slopes[0], "after": slopes[1], "rms": rms}


class _Spread:
    """Mean and covariance of the features of one layer, orientations counted one by one."""

    def __init__(self) -> None:
        self.count = 0
        self.total: np.ndarray | float = 0.0
        self.square: np.ndarray | float = 0.0

    def add(self, features: np.ndarray) -> None:
        """(n, f) more."""
        self.count += len(features)
        self.total = self.total + features.sum(0)
        self.square = self.square + features.T @ features

    @property
    def mean(self) -> np.ndarray:
        """(f,)"""
        return np.asarray(self.total) / self.count

    @property
    def covariance(self) -> np.ndarray:
        """(f, f)"""
        return np.asarray(self.square) / self.count - np.outer(self.mean, self.mean)


def _psf_pairs(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Rows under +psf and, of the same sets, under -psf."""
    missing = {"set_id", "branch", "psf_e1", "psf_e2"} - set(table.column_names)
    names = np.array([] if missing else [str(name) for name in label_texts(table, "branch")])
    plus, minus = (np.flatnonzero(names == name) for name in ("+psf", "-psf"))
    if len(plus) < _FEWEST or len(plus) != len(minus):
        raise InputError(
            f"there are {len(plus)} stamps under +psf and {len(minus)} under -psf, and {_FEWEST} pairs are needed: "
            f"simulate with pairs = 'psf'"
        )
    sets = np.asarray(table["set_id"].to_numpy(), np.int64)
    return plus[np.argsort(sets[plus], kind="stable")], minus[np.argsort(sets[minus], kind="stable")]


def _add_to_means(
    task: EllipticityTask, heads: list[nn.Linear], weights: list[np.ndarray], constants: list[np.ndarray]
) -> None:
    """Add readouts (f, 2) and constants (2,) of each layer to the means of every member; members are averaged."""
    with torch.no_grad():
        for head, readout, constant in zip(heads, weights, constants):
            for member in range(head.out_features // task.per_member):
                rows = slice(member * task.per_member, member * task.per_member + 2)
                head.weight[rows] += len(heads) * torch.from_numpy(readout.T).to(head.weight)
                head.bias[rows] += len(heads) * torch.from_numpy(constant).to(head.bias)


def _last_layers(task: EllipticityTask, network: nn.Module) -> list[nn.Linear]:
    """The linear layers that give the outputs: one per member, or one for all."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    for size, count in ((task.per_member, task.settings.members), (task.outputs, 1)):
        found = [layer for layer in linear if layer.out_features == size]
        if len(found) == count:
            return found
    raise InputError("the response needs a network that ends in linear layers, one for each member or one for all")


@contextmanager
def _listening(layers: list[nn.Linear]) -> Iterator[dict[int, Tensor]]:
    """What each layer was given last."""
    heard: dict[int, Tensor] = {}

    def listen(number: int) -> Any:
        def hook(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            heard[number] = given[0].detach()

        return hook

    handles = [layer.register_forward_pre_hook(listen(number)) for number, layer in enumerate(layers)]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _observed(
    task: EllipticityTask,
    network: nn.Module,
    heads: list[nn.Linear],
    data: Batches,
    device: str,
    signs: Tensor | None = None,
    spread: Sequence[_Spread] = (),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, f + 1) as of `_features`, means (n, 2), and half-widths (n, 2); `spread` is told of each layer."""
    features, means, widths = [], [], []
    with _listening(heads) as heard, torch.inference_mode():
        for batch in data.ordered():
            inputs, _, rows = ready(task, batch, device)
            if len(rows) != len(batch.rows):
                raise InputError("the calibration set has stamps without a valid pixel: simulate it without masks")
            found = task.intervals(network(*inputs).float().cpu())
            means.append(found.mean.double().numpy())
            widths.append(found.narrow.double().numpy())
            features.append(_features(heard, len(rows), signs).numpy())
            for one, layer in zip(spread, heard.values()):
                one.add(layer.double().cpu().numpy())
    return np.concatenate(features), np.concatenate(means), np.concatenate(widths)


def _features(heard: dict[int, Tensor], count: int, signs: Tensor | None = None) -> Tensor:
    """(n, f + 1) of `count` objects on the CPU, averaged over the orientations the network gives, the last of them 1.

    Args:
        heard: what each last layer was given, (orientations x n, f).
        count: n.
        signs: (orientations,) factors in the average; default 1.
    """
    layers = [item.float().cpu().reshape(-1, count, item.shape[-1]) for item in heard.values()]
    if signs is not None:
        layers = [layer * signs[: len(layer), None, None] for layer in layers]
    constant = 1.0 if signs is None else float(signs[: len(layers[0])].mean())
    return torch.cat([*(layer.mean(0) for layer in layers), torch.full((count, 1), constant)], dim=1)


def _pairs(table: pa.Table, component: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows under +g, rows under -g of the same set and orientation, and g, for one component of the shear.

    Raises:
        InputError: too few.
    """
    names = np.array([str(name) for name in label_texts(table, "branch")])
    shear = np.asarray(table[f"g{component + 1}"].to_numpy(), np.float64)
    sets = np.asarray(table["set_id"].to_numpy(), np.int64)
    found: list[np.ndarray] = []
    for sign in "+-":
        rows = np.flatnonzero(np.char.startswith(names, f"{sign}g{component + 1}/"))
        found.append(rows[np.lexsort((np.char.rpartition(names[rows], "/")[:, 2], sets[rows]))])
    plus, minus = found
    if len(plus) < _FEWEST or len(plus) != len(minus) or (sets[plus] != sets[minus]).any():
        raise InputError(
            f"the calibration set has {len(plus)} stamps under +g{component + 1} and {len(minus)} under "
            f"-g{component + 1}, and {_FEWEST} pairs of the same sets are needed: simulate with pairs = 'shear'"
        )
    return plus, minus, shear[plus]


def _write(task: EllipticityTask, heads: list[nn.Linear], weights: np.ndarray) -> None:
    """Put the readout (f, 4) of R11, R12, R21, R22 into the response rows of every member; members are averaged."""
    values = torch.from_numpy(weights).float()
    start = 0
    with torch.no_grad():
        for head in heads:
            stop = start + head.in_features
            for member in range(head.out_features // task.per_member):
                last = (member + 1) * task.per_member
                head.weight[last - task.extra : last] = len(heads) * values[start:stop].T.to(head.weight)
                head.bias[last - task.extra : last] = values[-1].to(head.bias)
            start = stop
