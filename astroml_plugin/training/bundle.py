"""ModelBundle: a trained model as a folder of two files, a card in JSON and weights in safetensors. Never pickle.

Nothing in a bundle is executed: task and network are looked up by their registered names, weights are numbers.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from astroml_plugin.compute.device import FOLDED, difference
from astroml_plugin.core import registry as plugins
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.networks.folding import fuse
from astroml_plugin.tasks.base import Task

FORMAT = 1
"""Version of the bundle's layout; a reader refuses newer ones."""

CARD, WEIGHTS = "card.json", "weights.safetensors"
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz", ".dill")
_SHIPPED = Path(__file__).parents[1] / "bundles"


@dataclass(frozen=True)
class Card:
    """What the model is, plain values only."""

    name: str
    """Name of the bundle, the prefix of its columns when several bundles run together."""
    task: str
    """Registered name of the task."""
    settings: dict[str, Any]
    """The task's settings: bands, pixel scale, stamp size, normalisation, classes, …"""
    network: str
    """Registered name of the network."""
    network_arguments: dict[str, Any] = field(default_factory=dict)
    """Its arguments beyond bands, outputs and psf."""
    training: dict[str, Any] = field(default_factory=dict)
    """Training data and its digest, splits, seed, epochs, recipe."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures of merit on the validation and test splits."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of Python and of the packages that made it."""
    description: str = ""
    """For people: what it measures and on what."""
    licence: str = ""
    """Licence of the weights."""
    weights_sha256: str = ""
    """Hex SHA-256 of the weights' file."""
    format: int = FORMAT
    """Version of the layout."""


@dataclass(frozen=True)
class ModelBundle:
    """A verified bundle in memory."""

    url: str
    """Where it was read from."""
    card: Card
    """What it is."""
    weights: bytes = field(repr=False)
    """The safetensors file, a few MB at most."""

    @classmethod
    def load(cls, source: str | Path) -> ModelBundle:
        """Read and verify a bundle.

        Args:
            source: path, fsspec URL, or the name of a bundle that ships with the package.

        Raises:
            InputError: no bundle there, a newer format, altered weights, a pickle in the folder.
        """
        url = locate(str(source))
        _refuse_pickles(url)
        card = _read_card(url)
        try:
            weights = storage.read_bytes(storage.join(url, WEIGHTS))
        except FileNotFoundError:
            raise InputError(
                f"bundle {storage.redact(url)} has no {WEIGHTS}: it is incomplete, copy it again"
            ) from None
        found = hashlib.sha256(weights).hexdigest()
        if found != card.weights_sha256:
            raise InputError(
                f"the weights of bundle {storage.redact(url)} were altered (SHA-256 {found[:12]}…, "
                f"the card says {card.weights_sha256[:12]}…): get the bundle again or retrain it"
            )
        return cls(url, card, weights)

    @classmethod
    def save(cls, url: str | Path, network: nn.Module, card: Card) -> ModelBundle:
        """Write weights, then the card that vouches for them; returns the bundle as written."""
        # cloned: a layer that the network holds under two names stands in the file under both
        state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
        weights = safetensors.torch.save(state)
        signed = replace(card, weights_sha256=hashlib.sha256(weights).hexdigest(), format=FORMAT)
        storage.write_atomic(storage.join(str(url), WEIGHTS), weights)
        storage.write_json(storage.join(str(url), CARD), _plain(signed))
        return cls(str(url), signed, weights)

    @property
    def sha256(self) -> str:
        """Identity of the bundle: hex SHA-256 over the card, which holds that of the weights."""
        return storage.digest(_plain(self.card))

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return self.card.name

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the input, in order."""
        return tuple(self.card.settings.get("bands", ()))

    @property
    def stamp_size(self) -> int:
        """Side of the input in pixels."""
        return self.task().stamp_size

    @property
    def pixel_scale(self) -> float | None:
        """Arcsec per pixel of the training data."""
        return self.card.settings.get("pixel_scale")

    def task(self) -> Task:
        """The task with the card's settings.

        Raises:
            InputError: the task is not installed here, or the card's settings are not its own.
        """
        kind = plugins.load(plugins.TASKS, self.card.task)
        return kind.from_settings(self.card.settings, f"settings of bundle {self.name}")

    def network(self, *, fused: bool = False) -> nn.Module:
        """The network with the bundle's weights, in eval mode on the CPU.

        Args:
            fused: ready for inference (`folding.fuse`): batch normalisation folded into convolutions,
                activations in place; faster, and compared with the plain network: where the two differ, the plain one.

        Raises:
            InputError: the weights are no safetensors, or belong to another network.
        """
        given = self.card.network_arguments
        own = {**given, "pretrained": False} if given.get("pretrained") else given  # nothing is fetched for its weights
        network = self.task().build_network(self.card.network, own)
        try:
            network.load_state_dict(safetensors.torch.load(self.weights))
        except SafetensorError as error:
            raise InputError(f"the weights of bundle {self.name} are no safetensors ({error}): get it again") from None
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            raise InputError(
                f"the weights of bundle {self.name} do not fit network {self.card.network}: {first}"
            ) from None
        network.eval().requires_grad_(False)
        return _folded(network, self.task().example_inputs) if fused else network


def _folded(network: nn.Module, example: Callable[[], Sequence[Tensor]]) -> nn.Module:
    """Return a faster copy of a trained network where both answer `example` alike, else the network itself.

    Then a RuntimeWarning says that it runs as it was trained, and why.
    """
    try:
        folded = fuse(copy.deepcopy(network))
        inputs = example()
        with torch.inference_mode():
            gap = difference(network(*inputs), folded(*(item.clone() for item in inputs)))
    except Exception as error:  # noqa: BLE001 - layers of others may refuse a copy, a new weight, or the example
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    else:
        if gap <= FOLDED:
            return folded
        reason = f"folded, its answers differ by {gap:.2g} of their range"
    warnings.warn(
        f"network {type(network).__name__} runs as it was trained, without folding ({reason})",
        RuntimeWarning,
        stacklevel=3,
    )
    return network


def shipped() -> list[str]:
    """Names of the bundles that ship with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{CARD}"))


def locate(source: str) -> str:
    """The URL of a bundle given by path, URL or shipped name.

    Raises:
        InputError: there is none; lists those that ship.
    """
    if storage.exists(storage.join(source, CARD)):
        return source
    if source in shipped():
        return str(_SHIPPED / source)
    names = ", ".join(shipped()) or "none"
    raise InputError(f"no bundle at {storage.redact(source)} (no {CARD} there); bundles that ship: {names}")


def _plain(card: Card) -> dict[str, Any]:
    return {item.name: getattr(card, item.name) for item in fields(card)}


def _read_card(url: str) -> Card:
    """The card, its format checked before its fields."""
    try:
        values = storage.read_json(storage.join(url, CARD))
    except ValueError as error:
        raise InputError(
            f"{CARD} of bundle {storage.redact(url)} is not JSON ({error}): get the bundle again"
        ) from None
    version = values.get("format") if isinstance(values, Mapping) else None
    if not isinstance(version, int) or version > FORMAT:
        raise InputError(
            f"bundle {storage.redact(url)} has format {version} and this version reads up to {FORMAT}: "
            f"upgrade astroml-plugin"
        )
    known = {item.name for item in fields(Card)}
    missing = {"name", "task", "settings", "network", "weights_sha256"} - set(values)
    if missing or not set(values) <= known:
        odd = ", ".join(sorted(missing | (set(values) - known)))
        raise InputError(f"{CARD} of bundle {storage.redact(url)} has missing or unknown fields: {odd}")
    return Card(**values)


def _refuse_pickles(url: str) -> None:
    """A file that could run code when loaded has no place in a bundle."""
    found = [name for name in storage.list_files(url) if name.lower().endswith(_PICKLES)]
    if found:
        raise InputError(
            f"bundle {storage.redact(url)} holds {', '.join(found[:3])}: pickled files can run code and are refused; "
            f"remove them, weights belong in {WEIGHTS}"
        )
