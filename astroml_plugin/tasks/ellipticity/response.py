"""The shear response of each object as a linear readout of the network, and what its PSF's ellipticity leaves in it.

The response R_ij = d e_i / d g_j of a measured ellipticity cannot be seen in one image, but its expectation given that
image can be learned: a linear readout of the network's last features is fitted by least squares, so that <e> / <R>
recovers the shear of any sample of the same population that is chosen by what the features know; it costs nothing at
inference. It is fitted either on *pairs*, simulated galaxies of the same noise under +g and -g, where
(e(+g) - e(-g)) / 2g is seen (Pujol et al. 2019, A&A 621, A2), or on *images* of any galaxies, no truth known, by what
`metacalibration` makes of them: noisier by far per stamp, but right for the population that a survey really has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.ellipticity import metacalibration
from astroml_plugin.tasks.ellipticity.readout import (
    FeatureSpread,
    NormalEquations,
    add_to_means,
    best_ridge,
    features_of,
    last_layers,
    listening,
    ridge_solution,
    write_response,
)
from astroml_plugin.tasks.intervals import IntervalTask
from astroml_plugin.tasks.normalisation import border_width, centred_psf
from astroml_plugin.tasks.response_fit import ResponseFit

_PARTS = 4  # that ridges are judged on in turn
_FEWEST = 64  # pairs per component, or images per part
_FAILED = int(ObjectFlag.NONFINITE | ObjectFlag.NO_PSF)
_LEVELS = 6  # of the measured error, in each of which the PSF's ellipticity is to leave nothing


def fit_response(task: IntervalTask, network: nn.Module, stamps: Iterable[Cutouts], table: pa.Table) -> dict[str, Any]:
    """Fit the network's response outputs in place, on pairs.

    Args:
        task: of the network.
        network: trained, in eval mode.
        stamps: batches of stamps in sets, in the order of `table`.
        table: their labels `set_id`, `branch` (+g1/0, -g1/0, +g2/90, …), `g1`, `g2`.

    Returns:
        Plain JSON: pairs per component, mean response with its standard error, and what part of its variance the
        readout explains.

    Raises:
        InputError: columns or pairs that are missing, or a network whose last layers are not linear.
    """
    heads = last_layers(task, network)
    features, means, _ = _observed(task, network, heads, stamps)
    weights = np.empty((features.shape[1], 4))
    report: dict[str, Any] = {"from": "pairs", "pairs": [], "mean": [], "error": [], "explained": []}
    for component in (0, 1):
        plus, minus, shear = _pairs(table, component)
        sums, seen = NormalEquations(), 0.5 * (features[plus].astype(np.float64) + features[minus])
        wanted = (means[plus] - means[minus]) / (2 * shear[:, None])
        sums.add(seen, wanted)
        weights[:, component::2] = sums.solve()
        residual = (wanted - seen @ weights[:, component::2])[:, component]
        report["pairs"].append(len(plus))
        report["mean"].append([float(value) for value in wanted.mean(0)])
        report["error"].append([float(value) for value in wanted.std(0) / len(wanted) ** 0.5])
        report["explained"].append(float(1 - residual.var() / wanted[:, component].var()))
    write_response(task, heads, weights)
    return report


def fit_response_from_images(
    task: IntervalTask,
    network: nn.Module,
    stamps: Iterable[Cutouts],
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
        stamps: batches of them, with PSF and variance.
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
    heads = last_layers(task, network)
    generator = torch.Generator().manual_seed(seed)
    parts, left_out = [NormalEquations() for _ in range(_PARTS)], 0
    spread = np.zeros((2, 4))
    for batch in stamps:
        whole = _whole(task, batch)
        left_out += len(batch) - len(whole)
        if len(whole) == 0:
            continue
        wanted, features, noise = _imagined(task, network, heads, whole, generator, draws)
        for number, part in enumerate(parts):
            rows = slice(number, None, _PARTS)
            part.add(features[rows], wanted[rows], noise[rows].sum(0))
        spread += [wanted.sum(0), (wanted**2).sum(0)]
        if progress is not None:
            progress(sum(part.objects for part in parts))
    sums = sum(parts, NormalEquations())
    if min(part.objects for part in parts) < _FEWEST:
        raise InputError(
            f"{sums.objects} stamps have all pixels and a PSF ({left_out} have not): a response needs thousands"
        )
    ridge = best_ridge(parts)
    write_response(task, heads, sums.solve(ridge))
    mean = spread[0] / sums.objects
    error = np.sqrt((spread[1] / sums.objects - mean**2) / sums.objects)
    report = {"images": sums.objects, "left_out": left_out, "mean": mean.tolist(), "error": error.tolist()}
    return {"from": "images", **report, "ridge": ridge}


def _whole(task: IntervalTask, cutouts: Cutouts) -> Cutouts:
    """Stamps at the model's size with every pixel and a PSF, the noise of each known."""
    stamps = task.fitted_stamps(cutouts)
    if stamps.psf is None:
        raise InputError("the stamps have no PSF: ingest them with one, a response from images cannot do without")
    _, flags = task.prepare(stamps)
    good = stamps.valid.flatten(1).all(1) & ((flags & _FAILED) == 0)
    stamps = stamps.take(torch.nonzero(good).flatten())
    assert stamps.psf is not None
    stamps = replace(stamps, psf=centred_psf(stamps.psf))
    if stamps.variance is None:
        width = border_width(stamps.image, None, task.settings.normalisation.border)
        stamps = replace(stamps, variance=width.square()[..., None, None].expand_as(stamps.image).contiguous())
    return stamps


def _imagined(
    task: IntervalTask,
    network: nn.Module,
    heads: list[nn.Linear],
    cutouts: Cutouts,
    generator: torch.Generator,
    draws: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimates of R11, R12, R21, R22 (n, 4), features (n, f), and what is too much in their products (n, f, 4)."""
    with listening(heads) as heard, torch.inference_mode():

        def measured(image: Tensor) -> Tensor:
            outputs = network(*Task.prepare(task, replace(cutouts, image=image))[0])
            return task.intervals(outputs.float().cpu()).mean.double()

        def features(image: Tensor) -> Tensor:
            measured(image)
            return features_of(heard, len(image)).double()

        image, variance, psf = cutouts.image, cutouts.variance, cutouts.psf
        assert variance is not None
        assert psf is not None
        shearing = metacalibration.Shearing(psf, image.shape[-1], metacalibration.centres(image, variance))
        responses = metacalibration.responses(
            measured, image, variance, shearing, generator, features=features, draws=draws
        )
        noise = responses.product.flatten(1, 2).transpose(1, 2)
        return responses.own.flatten(1).numpy(), features(image).numpy(), noise.numpy()


def fit_leakage(task: IntervalTask, network: nn.Module, stamps: Iterable[Cutouts], table: pa.Table) -> dict[str, Any]:
    """Take out of the network's means, in place, what follows the PSF's ellipticity; fit the response afterwards.

    The smallest change of the last layers, in the mean square of what it adds to each member and orientation, after
    which the same galaxies under PSFs of opposite ellipticity have the same mean ellipticity, at every level of the
    measured error.

    Args:
        task: of the network.
        network: trained, in eval mode.
        stamps: batches of stamps in pairs, in the order of `table`.
        table: their labels `set_id`, `branch` (+psf, -psf), `psf_e1`, `psf_e2`.

    Returns:
        Plain JSON: pairs, slope of (e1, e2) against the PSF's before and after, root mean square of the change.

    Raises:
        InputError: columns or pairs that are missing, or a network whose last layers are not linear.
    """
    heads = last_layers(task, network)
    signs = torch.tensor([1.0, -1.0] * 2)
    spread = [FeatureSpread() for _ in heads]
    features, means, widths = _observed(task, network, heads, stamps, signs, spread)
    plus, minus = _psf_pairs(table)
    psf = np.stack([table[name].to_numpy()[plus] - table[name].to_numpy()[minus] for name in ("psf_e1", "psf_e2")], 1)
    moved, change = means[plus] - means[minus], (features[plus].astype(np.float64) - features[minus])[:, :-1]
    width = np.log(widths[plus] * widths[minus]).sum(1)
    level = np.searchsorted(np.quantile(width, np.arange(1, _LEVELS) / _LEVELS), width)
    share = np.stack([(level == number) / max(1, (level == number).sum()) for number in range(_LEVELS)], axis=1)
    drivers = np.concatenate([share * psf[:, j : j + 1] for j in (0, 1)], axis=1)
    ends = np.cumsum([head.in_features for head in heads])[:-1]
    wanted = np.split(change.T @ drivers, ends)
    inverse = np.concatenate([ridge_solution(one.covariance, part, free=False) for one, part in zip(spread, wanted)])
    weights = -inverse @ np.linalg.lstsq(drivers.T @ change @ inverse, drivers.T @ moved, rcond=1e-6)[0]
    parts = np.split(weights, ends)
    add_to_means(task, heads, parts, [-one.mean @ part for one, part in zip(spread, parts)])
    slopes = [
        [float((e[:, i] * psf[:, i]).sum() / (psf[:, i] ** 2).sum()) for i in (0, 1)]
        for e in (moved, moved + change @ weights)
    ]
    square = [np.trace(part.T @ one.covariance @ part) for one, part in zip(spread, parts)]
    rms = float(np.sqrt(len(heads) * np.sum(square) / 2))
    return {"pairs": len(plus), "before": slopes[0], "after": slopes[1], "rms": rms}


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


def _observed(
    task: IntervalTask,
    network: nn.Module,
    heads: list[nn.Linear],
    stamps: Iterable[Cutouts],
    signs: Tensor | None = None,
    spread: Sequence[FeatureSpread] = (),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, f + 1) as of `features_of`, means (n, 2), and half-widths (n, 2); `spread` is told of each layer."""
    features, means, widths = [], [], []
    with listening(heads) as heard, torch.inference_mode():
        for batch in stamps:
            inputs, flags = task.prepare(batch)
            if bool((flags & int(ObjectFlag.NONFINITE) != 0).any()):
                raise InputError("the calibration set has stamps without a valid pixel: simulate it without masks")
            intervals = task.intervals(network(*inputs).float().cpu())
            means.append(intervals.mean.double().numpy())
            widths.append(intervals.narrow.double().numpy())
            features.append(features_of(heard, len(batch), signs).numpy())
            for layer_spread, layer in zip(spread, heard.values()):
                layer_spread.add(layer.double().cpu().numpy())
    return np.concatenate(features), np.concatenate(means), np.concatenate(widths)


def _pairs(table: pa.Table, component: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows under +g, rows under -g of the same set and orientation, and g, for one component of the shear.

    Raises:
        InputError: too few.
    """
    names = np.array([str(name) for name in label_texts(table, "branch")])
    shear = np.asarray(table[f"g{component + 1}"].to_numpy(), np.float64)
    sets = np.asarray(table["set_id"].to_numpy(), np.int64)
    sorted_rows: list[np.ndarray] = []
    for sign in "+-":
        rows = np.flatnonzero(np.char.startswith(names, f"{sign}g{component + 1}/"))
        sorted_rows.append(rows[np.lexsort((np.char.rpartition(names[rows], "/")[:, 2], sets[rows]))])
    plus, minus = sorted_rows
    if len(plus) < _FEWEST or len(plus) != len(minus) or (sets[plus] != sets[minus]).any():
        raise InputError(
            f"the calibration set has {len(plus)} stamps under +g{component + 1} and {len(minus)} under "
            f"-g{component + 1}, and {_FEWEST} pairs of the same sets are needed: simulate with pairs = 'shear'"
        )
    return plus, minus, shear[plus]


def fit(task: IntervalTask, network: nn.Module, stamps: Iterable[Cutouts], asked: ResponseFit) -> dict[str, Any]:
    """Fit a network in place as asked; gives plain JSON of the report."""
    if asked.kind == "leakage":
        return fit_leakage(task, network, stamps, asked.labels)
    if asked.kind == "pairs":
        return fit_response(task, network, stamps, asked.labels)
    return fit_response_from_images(task, network, stamps, draws=asked.draws, seed=asked.seed, progress=asked.progress)
