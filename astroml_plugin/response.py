"""The shear response of each object, from a calibration set of sheared stamps that no one else uses.

The response R_ij = d e_i / d g_j of a measured ellipticity cannot be seen in one image, but its expectation given that
image can be learned: sets of simulated galaxies of the same noise under +g and -g give (e(+g) - e(-g)) / 2g, and a
linear readout of the network's last features is fitted to it by least squares. Since a least-squares mean is unbiased,
<e> / <R> recovers the shear of any sample that is chosen by what the features know; it costs nothing at inference.
The pairs are those of Pujol et al. (2019, A&A 621, A2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from astroml_plugin.errors import InputError
from astroml_plugin.tasks.base import label_texts
from astroml_plugin.tasks.ellipticity import EllipticityTask
from astroml_plugin.training import Batches, ready

_RIDGE = 1e-6  # of the mean square of the features
_FEWEST = 64  # pairs per component


def fit_response(
    task: EllipticityTask, network: nn.Module, data: Batches, table: pa.Table, device: str = "cpu"
) -> dict[str, Any]:
    """Fit the network's response outputs in place.

    Args:
        task: of the network.
        network: trained, in eval mode.
        data: stamps in sets, in the order of `table`.
        table: their labels `set_id`, `branch` (+g1/0, -g1/0, +g2/90, …), `g1`, `g2`.
        device: where the network is.

    Returns:
        Plain JSON: pairs used, mean response, and what part of its variance the readout explains.

    Raises:
        InputError: columns or pairs that are missing, or a network whose last layers are not linear.
    """
    heads = _last_layers(task, network)
    features, means = _observed(task, network, heads, data, device)
    report: dict[str, Any] = {"pairs": [], "mean": [], "explained": []}
    for component in (0, 1):
        plus, minus, shear = _pairs(table, component)
        wanted = (means[plus] - means[minus]) / (2 * shear[:, None])
        seen = 0.5 * (features[plus] + features[minus])
        weights = _least_squares(seen, wanted)
        _write(task, heads, weights, component)
        residual = wanted - seen @ weights
        report["pairs"].append(len(plus))
        report["mean"].append([float(value) for value in wanted.mean(0)])
        report["explained"].append(float(1 - residual[:, component].var() / wanted[:, component].var()))
    return report


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
    task: EllipticityTask, network: nn.Module, heads: list[nn.Linear], data: Batches, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, f + 1), averaged over the orientations the network gives, the last of them 1; and means (n, 2)."""
    features, means = [], []
    with _listening(heads) as heard, torch.inference_mode():
        for batch in data.ordered():
            inputs, _, rows = ready(task, batch, device)
            if len(rows) != len(batch.rows):
                raise InputError("the calibration set has stamps without a valid pixel: simulate it without masks")
            outputs = network(*inputs).float().cpu()
            means.append(task.intervals(outputs).mean.double().numpy())
            layers = [item.reshape(-1, len(rows), item.shape[-1]).mean(0) for item in heard.values()]
            features.append(
                torch.cat([*layers, torch.ones(len(rows), 1, device=layers[0].device)], dim=1).cpu().numpy()
            )
    return np.concatenate(features).astype(np.float64), np.concatenate(means)


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


def _least_squares(features: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(f, 2) weights of a slightly regularised linear fit; the last feature, the constant, is free."""
    normal = features.T @ features
    ridge = _RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal))
    ridge[-1, -1] = 0.0
    return np.linalg.solve(normal + ridge, features.T @ wanted)


def _write(task: EllipticityTask, heads: list[nn.Linear], weights: np.ndarray, component: int) -> None:
    """Put the readout of d e / d g_component into the response rows of every member; members are averaged."""
    values = torch.from_numpy(weights).float()
    start = 0
    with torch.no_grad():
        for head in heads:
            stop = start + head.in_features
            for member in range(head.out_features // task.per_member):
                for e in (0, 1):
                    row = (member + 1) * task.per_member - task.extra + 2 * e + component
                    head.weight[row] = len(heads) * values[start:stop, e].to(head.weight)
                    head.bias[row] = values[-1, e].to(head.bias)
            start = stop
