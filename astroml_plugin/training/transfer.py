"""Fine-tuning: a network begins with the weights of a bundle that was trained on other labels, its head new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import Bool
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.plan import Plan, judged_apart
from astroml_plugin.training.unseen import SEEN_WITHOUT_LABELS, learned_from

_JUDGED = ("validation", "test")
_WRAPPED = "network."
"""Begins the names of a network's tensors where a task puts layers around it."""


@dataclass(frozen=True)
class Transferred:
    """Weights that a network took from a bundle."""

    taken: tuple[str, ...]
    """Names of its tensors that have weights of the bundle."""
    fresh: tuple[str, ...]
    """Names of its parameters that are new."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Parameter -> factor on the learning rate."""


def transferred_plan(plan: Plan, start: ModelBundle) -> Plan:
    """The plan of a training that begins with a bundle: of its own identity, and judged on nothing the bundle learned.

    What learned no labels may have seen what is judged: the card tells how much (`transfer_record`).

    Raises:
        InputError: objects of the validation or test side were trained on, and `leaks` in [split] is "refuse".
    """
    if start.task().learns_labels:
        plan = judged_apart(plan, _learned(plan, start), f"bundle {start.name}")
    return replace(plan, identity=storage.digest(plan.identity, start.sha256))


def _learned(plan: Plan, start: ModelBundle) -> Bool:
    """(n,) objects that the bundle was trained on."""
    return learned_from(start, plan.data, plan.task.usable(plan.data.labels), _bands(plan, start))


def _bands(plan: Plan, start: ModelBundle) -> Sequence[str]:
    """Bands by whose pixels training objects of the bundle are known again."""
    return start.bands if set(start.bands) <= set(plan.data.first.bands) else plan.bands


def take_weights(network: nn.Module, plan: Plan, start: ModelBundle) -> Transferred:
    """Give a network the weights of a bundle, in place, but those of its last layer, or layers (`head` in [transfer]).

    A layer that reads bands takes those of the bundle's bands by name; a band that the bundle does not have takes their
    mean, so that a picture that is alike in all bands gives what it gave.

    Raises:
        InputError: the bundle has another kind of network, or no layer of it fits.
    """
    if start.card.network != plan.recipe.network:
        raise InputError(
            f"bundle {start.name} has a network {start.card.network!r} and the recipe {plan.recipe.network!r}: set "
            f'network = "{start.card.network}" and its [network_arguments] in the recipe'
        )
    theirs, ours = _inner(start.network()).state_dict(), network.state_dict()
    inner = _inner(network)
    heads, before = _heads(inner, plan, start), "" if inner is network else _WRAPPED
    taken = {}
    for name, value in ours.items():
        plain = name.removeprefix(before)
        if not name.startswith(before) or plain not in theirs or plain.rpartition(".")[0] in heads:
            continue
        found = _fitted(theirs[plain], value, start.bands, plan.task.bands)
        if found is not None:
            taken[name] = found
    learned = {name for name, _ in network.named_parameters()}
    if not learned & set(taken):
        raise InputError(f"no layer of bundle {start.name} fits the recipe's network: take its [network_arguments]")
    network.load_state_dict({**ours, **taken})
    fresh = tuple(name for name, _ in network.named_parameters() if name not in taken)
    return Transferred(tuple(taken), fresh, _rates(network, set(taken), plan))


def _inner(network: nn.Module) -> nn.Module:
    """The registered network, without what its task puts around it."""
    inner = getattr(network, _WRAPPED[:-1], network)
    return inner if isinstance(inner, nn.Module) else network


def _heads(network: nn.Module, plan: Plan, start: ModelBundle) -> set[str]:
    """Names of the layers at the end that begin anew: of the network, or of each of its `members`."""
    found: dict[str, list[str]] = {}
    modules = dict(network.named_modules())
    for name, module in modules.items():
        if any(one.ndim > 1 for one in module.parameters(recurse=False)):
            parts = name.split(".")
            found.setdefault(".".join(parts[:2]) if parts[0] == "members" else "", []).append(name)
    asked, whole = plan.recipe.transfer.head, not start.task().learns_labels and plan.task.learns_labels
    heads = set()
    for layers in found.values():
        dense = list(takewhile(lambda name: isinstance(modules[name], nn.Linear), reversed(layers)))
        heads |= set(layers[-(asked or (max(1, len(dense)) if whole else 1)) :])
    return heads


def _fitted(theirs: Tensor, ours: Tensor, their_bands: Sequence[str], bands: Sequence[str]) -> Tensor | None:
    """A tensor of the bundle in the shape of ours; None where it cannot be."""
    if theirs.shape == ours.shape:
        return theirs
    reads_bands = theirs.ndim == ours.ndim == 4 and (theirs.shape[1], ours.shape[1]) == (len(their_bands), len(bands))
    if not reads_bands or theirs.shape[0] != ours.shape[0] or theirs.shape[2:] != ours.shape[2:]:
        return None
    known = [their_bands.index(name) if name in their_bands else None for name in bands]
    if any(place is not None for place in known):
        parts = [theirs.mean(1) if place is None else theirs[:, place] for place in known]
        return torch.stack(parts, dim=1)
    return (theirs.sum(1, keepdim=True) / len(bands)).expand_as(ours).contiguous()


def _rates(network: nn.Module, taken: set[str], plan: Plan) -> dict[str, float]:
    """Factors on the learning rate: 1 of what is new, less the nearer a layer is to the pixels."""
    transfer = plan.recipe.transfer
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in network.named_parameters()))
    rates = {}
    for name, _ in network.named_parameters():
        below = len(layers) - 1 - layers.index(name.rpartition(".")[0])
        rates[name] = 1.0 if name not in taken else 0.0 if transfer.frozen else transfer.decay**below
    return rates


def transfer_record(plan: Plan, start: ModelBundle, made: Transferred) -> dict[str, Any]:
    """Record of a start for the card; of one that learned no labels, how many objects that are judged it has seen."""
    record = {"name": start.name, "sha256": start.sha256, "taken": len(made.taken), "new": list(made.fresh)}
    if start.task().learns_labels:
        return record
    learned = _learned(plan, start)
    return {**record, SEEN_WITHOUT_LABELS: {name: int(learned[plan.rows[name]].sum()) for name in _JUDGED}}
