"""Recipe: how a bundle is made from labelled data, as one frozen value and as one TOML file."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from astroml_plugin.core import registry
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping, refuse_unknown, to_mapping
from astroml_plugin.tasks.base import Task
from astroml_plugin.training.adversarial import AdversarialSettings
from astroml_plugin.training.sampling import SamplingSettings
from astroml_plugin.training.settings import TrainingSettings
from astroml_plugin.training.splits import SplitSettings
from astroml_plugin.training.typicality_fit import TypicalitySettings


@dataclass(frozen=True)
class TransferSettings:
    """How a training goes on that begins with the weights of a bundle (`train --from`); else it means nothing."""

    frozen: bool = False
    """Only what is new is trained: the last layer, and layers that the bundle does not have."""
    decay: float = 0.85
    """Learning rate of a layer over that of the layer behind it, so that what is near the pixels changes least; 1: all
    alike."""
    head: int = 0
    """Layers with weights at the end that begin anew; 0: the last one, and all dense ones at the end where the bundle
    learned no labels, since they learned another question."""

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1 or self.head < 0:
            raise InputError(
                f"transfer decay ({self.decay}) must be above 0 and at most 1, where all learn alike, and head "
                f"({self.head}) 0 or more"
            )


@dataclass(frozen=True)
class Recipe:
    """How a bundle is made from labelled data."""

    task: str
    """Registered name of the task."""
    network: str = "strided_cnn"
    """Registered name of the network."""
    description: str = ""
    """For the card: what the bundle measures."""
    licence: str = "CC-BY-4.0"
    """For the card: licence of the weights."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The task's settings."""
    network_arguments: dict[str, Any] = field(default_factory=dict)
    """The network's arguments."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """How it is fitted."""
    split: SplitSettings = field(default_factory=SplitSettings)
    """How objects are divided."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    """How often its objects are drawn."""
    adversarial: AdversarialSettings = field(default_factory=AdversarialSettings)
    """How generator and critic of a network that has them are trained before."""
    transfer: TransferSettings = field(default_factory=TransferSettings)
    """How it begins with another bundle's weights, where one is given."""
    typicality: TypicalitySettings = field(default_factory=TypicalitySettings)
    """How the bundle learns what is typical of its training set."""

    def build_task(self) -> Task:
        """The task, its settings and the network's arguments checked.

        Raises:
            InputError: an unknown name; gives the nearest.
        """
        kind = registry.load(registry.TASKS, self.task)
        network = registry.load(registry.NETWORKS, self.network)
        known = set(inspect.signature(network).parameters) - {"bands", "outputs", "psf", "size", "psf_size"}
        refuse_unknown(self.network_arguments, known, "[network_arguments] of the recipe")
        task: Task = kind.from_settings(self.settings, "[settings] of the recipe")
        return task

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe from the tables of a TOML file; the table [search] belongs to a search and is left out.

        Raises:
            InputError: unknown keys or wrong types.
        """
        return from_mapping(cls, {key: value for key, value in values.items() if key != "search"}, "the recipe")


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """Plain values of a recipe for identities: what was made before there were some tables keeps its own."""
    plain = to_mapping(recipe)
    if recipe.transfer == TransferSettings():
        del plain["transfer"]
    if recipe.typicality == TypicalitySettings():
        del plain["typicality"]
    if recipe.sampling == SamplingSettings():
        del plain["sampling"]
    return plain


def to_toml(recipe: Recipe) -> str:
    """The recipe with every default written out."""
    return "\n".join(_table(to_mapping(recipe), ())) + "\n"


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [f"[{'.'.join(map(_key, path))}]"] if path else []
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping) and value is not None}
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += ["", *_table(value, (*path, key))]
    return lines


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value)  # numbers, texts, true and false are the same in TOML
