"""ModelBundle: a trained model as a folder of two files, a card in JSON and weights in safetensors. Never pickle.

Nothing in a bundle is executed: task and network are looked up by their registered names, weights are numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial

import safetensors.torch
from torch import nn

from astroml_plugin.core import registry, storage
from astroml_plugin.core.description import and_more_of
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.tasks.base import Task
from astroml_plugin.training import known_objects, zipped
from astroml_plugin.training.building import folded, load_network
from astroml_plugin.training.card import CARD, FORMAT, Card, card_bytes, parse_card, read_card, write_card
from astroml_plugin.training.info import describe_card
from astroml_plugin.training.known_objects import KnownObjects
from astroml_plugin.training.places import locate, shipped, shipped_name, split_pin
from astroml_plugin.training.typicality import FILE as TYPICALITY_FILE
from astroml_plugin.training.typicality import RECORD, Typicality

__all__ = ["CARD", "FORMAT", "WEIGHTS", "Card", "ModelBundle", "locate", "shipped"]

WEIGHTS = "weights.safetensors"
_MEMORY = "memory:"
"""Begins the `url` of a bundle that was never a folder here."""
_KNOWN = "known_objects"
"""Key of a card's training record: the digest of the record of training objects."""
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz", ".dill")


@dataclass(frozen=True, repr=False)
class ModelBundle:
    """A verified bundle in memory."""

    url: str
    """Where it was read from."""
    card: Card
    """Description: task, network, training, metrics."""
    weights: bytes = field(repr=False)
    """The safetensors file, a few MB at most."""
    record: bytes | None = field(default=None, repr=False)
    """The file of training objects of a bundle that was read from memory; None where it is read when asked for."""
    typical: bytes | None = field(default=None, repr=False)
    """The file of what is typical of the training set, as `record`."""

    @classmethod
    def load(cls, source: Place) -> ModelBundle:
        """Read and verify a bundle.

        Args:
            source: path, fsspec URL, or the name of a bundle that ships with the package; `SOURCE@SHA256` pins it to
                the identity that `ModelBundle.sha256` gives, whole or its first twelve digits or more.

        Raises:
            InputError: no bundle there, a newer format, an altered card or weights, another bundle than the pinned one,
                a pickle in the folder.
        """
        url, pinned = locate(source), split_pin(source)[1]
        _refuse_pickles(storage.list_files(url), storage.redact(url))
        card = read_card(url)
        if not card.sha256.startswith(pinned):
            raise InputError(
                f"bundle {storage.redact(url)} has SHA-256 {card.sha256[:12]}… and {pinned[:12]}… was asked for: get "
                f"the right bundle, or leave @SHA256 away"
            )
        try:
            weights = storage.read_bytes(storage.join(url, WEIGHTS))
        except FileNotFoundError:
            raise InputError(
                f"bundle {storage.redact(url)} has no {WEIGHTS}: it is incomplete, copy it again"
            ) from None
        _refuse_altered(card, weights, storage.redact(url))
        return cls(url, card, weights)

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "a bundle in memory") -> ModelBundle:
        """Verify a bundle that is a zip archive of its folder, as from a folder; nothing is written to disk.

        Args:
            data: the archive, for example of `to_zip`.
            source: where it comes from, for messages.

        Raises:
            InputError: as `load`; or no archive of one bundle, paths outside its folder, more than is allowed.
        """
        files, shown = zipped.unpacked(data, source), storage.redact(source)
        _refuse_pickles(files, shown)
        card = parse_card(files[CARD], shown)
        if WEIGHTS not in files:
            raise InputError(f"bundle {shown} has no {WEIGHTS}: it is incomplete, copy it again")
        _refuse_altered(card, files[WEIGHTS], shown)
        beside = files.get(known_objects.FILE, b""), files.get(TYPICALITY_FILE, b"")
        return cls(f"{_MEMORY}{card.sha256}", card, files[WEIGHTS], *beside)

    def to_zip(self) -> bytes:
        """The bundle as a zip archive of its folder: card, weights and what lies beside; the same every time."""
        files = {CARD: card_bytes(self.card), WEIGHTS: self.weights}
        if self.card.training.get(_KNOWN) is not None:
            files[known_objects.FILE] = self._record()
        if (typical := self.typicality_file()) is not None:
            files[TYPICALITY_FILE] = typical
        return zipped.packed(files, self.name)

    @classmethod
    def save(
        cls,
        url: Place,
        network: nn.Module,
        card: Card,
        known: KnownObjects | None = None,
        typical: bytes | None = None,
    ) -> ModelBundle:
        """Write weights and what lies beside them, then the card that vouches for all.

        Args:
            url: folder or URL.
            network: whose weights are kept.
            card: its digests are filled in.
            known: the training objects, `known_objects()` of a bundle that is written again; None leaves the bundle
                without a record of them.
            typical: what is typical of them, `typicality_file()` of a bundle that is written again with layers that
                give the same; None leaves the bundle without.
        """
        # cloned: a layer that the network holds under two names stands in the file under both
        url = text_of(url)
        state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
        weights = safetensors.torch.save(state)
        storage.write_atomic(storage.join(url, WEIGHTS), weights)
        card = _with_typicality(url, _with_known(url, card, known), typical)
        signed = write_card(url, replace(card, weights_sha256=hashlib.sha256(weights).hexdigest()))
        return cls(url, signed, weights)

    def known_objects(self) -> KnownObjects | None:
        """Read the record of the training objects; None where the bundle has none.

        Raises:
            InputError: the card names a record that is absent or altered.
        """
        told = self.card.training.get(_KNOWN)
        if told is None:
            return None
        return KnownObjects.from_bytes(self._record(), self.name)

    def _record(self) -> bytes:
        """The file of training objects that the card names."""
        return self._beside(known_objects.FILE, _KNOWN, self.record)

    def typicality_file(self) -> bytes | None:
        """The file of what is typical of the training set; None where the bundle has none.

        Raises:
            InputError: the card names a file that is absent or altered.
        """
        if self.card.training.get(RECORD) is None:
            return None
        return self._beside(TYPICALITY_FILE, RECORD, self.typical)

    def typicality(self) -> Typicality | None:
        """Typicality of the training set, read once; None where the bundle was made without.

        Raises:
            InputError: the card names a file that is absent, altered or no such file.
        """
        return self._typicality

    @cached_property
    def _typicality(self) -> Typicality | None:
        data = self.typicality_file()
        return None if data is None else Typicality.from_bytes(data, self.name)

    def _beside(self, name: str, key: str, held: bytes | None) -> bytes:
        """A file beside the card, which holds its digest under `key`; `held` where it is in memory."""
        told, content = self.card.training.get(key), held
        if content is None:
            try:
                content = storage.read_bytes(storage.join(self.url, name))
            except FileNotFoundError:
                content = b""
        if not isinstance(told, Mapping) or hashlib.sha256(content).hexdigest() != told.get("sha256"):
            raise InputError(
                f"{name} of bundle {storage.redact(self.url)} is absent or was altered: get the bundle again"
            )
        return content

    @property
    def sha256(self) -> str:
        """Identity of the bundle: hex SHA-256 over the card, which holds that of the weights."""
        return self.card.sha256

    @property
    def name(self) -> str:
        """Name in the card: the prefix of columns, and a part of the identity of catalogs."""
        return self.card.name

    @property
    def called(self) -> str:
        """Name for people: of a bundle that ships the one by which it is asked for, whatever its card says."""
        return shipped_name(self.url) or self.card.name

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the input, in order."""
        return tuple(self.card.settings.get("bands") or ())

    @property
    def stamp_size(self) -> int:
        """Side of the input in pixels."""
        return self.task().stamp_size

    @property
    def pixel_scale(self) -> float | None:
        """Arcsec per pixel of the training data."""
        return self.card.settings.get("pixel_scale")

    def __repr__(self) -> str:
        size = self.card.settings.get("stamp_size")
        bands = "any one band" if self.card.settings.get("any_band") else f"bands {and_more_of(self.bands)}"
        scale = f" of {self.pixel_scale:.4g} arcsec" if self.pixel_scale else ""
        place = "" if self.url.startswith(_MEMORY) else f" {storage.redact(self.url)}"
        return f"ModelBundle {self.name}{place}: {self.card.task}, {bands}, {size} pixels{scale}, {self.sha256[:12]}"

    def _repr_html_(self) -> str:
        return describe_card(self.card, self.url)._repr_html_()

    def task(self) -> Task:
        """The task with the card's settings, made once: tasks do not change.

        Raises:
            InputError: the task is not installed here, or the card's settings are not its own.
        """
        return self._task

    @cached_property
    def _task(self) -> Task:
        kind = registry.load(registry.TASKS, self.card.task)
        task: Task = kind.from_settings(self.card.settings, f"settings of bundle {self.name}")
        return task

    def __getstate__(self) -> dict[str, object]:
        """Fields alone travel to other processes."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def network(self, *, fused: bool = False) -> nn.Module:
        """Build the network with the bundle's weights, in eval mode on the CPU.

        Args:
            fused: ready for inference (`folding.fuse`): batch normalisation folded into convolutions, activations in
                place; faster, and compared with the plain network: where the two differ, the plain one.

        Raises:
            InputError: the weights are no safetensors, or belong to another network.
        """
        given = self.card.network_arguments
        arguments = {**given, "pretrained": False} if given.get("pretrained") else given  # nothing is fetched
        task = self.task()
        network = load_network(partial(task.build_network, self.card.network, arguments), self.weights, self.name)
        return folded(network, task.example_inputs) if fused else network


def _with_known(url: str, card: Card, known: KnownObjects | None) -> Card:
    """The card with the digest of the record of training objects, which is written."""
    if known is None:
        return _with_file(url, card, _KNOWN, known_objects.FILE, None)
    facts = {"sha256": "", "kept": len(known.pixels), "fraction": known.fraction}
    return _with_file(url, card, _KNOWN, known_objects.FILE, known.to_bytes(), facts)


def _with_typicality(url: str, card: Card, typical: bytes | None) -> Card:
    """The card with the digest of the file of what is typical, which is written."""
    return _with_file(url, card, RECORD, TYPICALITY_FILE, typical, card.training.get(RECORD))


def _with_file(
    url: str, card: Card, key: str, name: str, content: bytes | None, facts: Mapping[str, object] | None = None
) -> Card:
    """The card with facts and digest of a file beside it under a key, the file written; without the key for None."""
    if content is None:
        return replace(card, training={one: value for one, value in card.training.items() if one != key})
    storage.write_atomic(storage.join(url, name), content)
    told = {**(facts or {}), "sha256": hashlib.sha256(content).hexdigest()}
    return replace(card, training={**card.training, key: told})


def _refuse_altered(card: Card, weights: bytes, shown: str) -> None:
    """Raise InputError where the weights are not those that the card vouches for."""
    found = hashlib.sha256(weights).hexdigest()
    if found != card.weights_sha256:
        raise InputError(
            f"the weights of bundle {shown} were altered (SHA-256 {found[:12]}…, "
            f"the card says {card.weights_sha256[:12]}…): get the bundle again or retrain it"
        )


def _refuse_pickles(names: Iterable[str], shown: str) -> None:
    """A file that could run code when loaded has no place in a bundle."""
    found = [name for name in names if name.lower().endswith(_PICKLES)]
    if found:
        raise InputError(
            f"bundle {shown} holds {', '.join(found[:3])}: pickled files can run code and are refused; "
            f"remove them, weights belong in {WEIGHTS}"
        )
