"""Bundles and checkpoints of strangers: cards of foreign values, headers of weights that lie."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from astroml_plugin.core import storage
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.checkpoint import history_of, read_checkpoint, read_log, write_checkpoint
from tests import universe
from tests.fuzz.drawing import RAW, changed, changes, json_bytes, json_changed, json_changes, mostly


def signed(card: Any) -> Any:
    """A card with the digest that fits what it says, as an attacker would sign it."""
    if not isinstance(card, dict):
        return card
    try:
        return {**card, "card_sha256": storage.digest({k: v for k, v in card.items() if k != "card_sha256"})}
    except (TypeError, ValueError):
        return card


def read(folder: str) -> None:
    """All that a run asks of a bundle before it measures."""
    bundle = ModelBundle.load(folder)
    assert isinstance(bundle.name, str)
    assert all(isinstance(band, str) for band in bundle.bands)
    bundle.task()
    assert isinstance(bundle.stamp_size, int)
    assert bundle.pixel_scale is None or isinstance(bundle.pixel_scale, float | int)
    bundle.network(fused=True)


class Cards:
    """card.json: foreign types, nesting, big numbers; signed, so that no digest gives them away."""

    name = "bundle cards"
    strategy = st.tuples(
        st.integers(0, 63),
        json_changes(1) | json_changes(3),
        st.booleans() | st.just(True),
        st.none() | changes(3),
        mostly((None,), RAW, 16),
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bundles"
        self.bases = []
        for number, (task, network, settings, arguments) in enumerate(_bases()):
            made = Path(_bundle(self.folder / str(number), task, network, settings, arguments))
            self.bases.append((made, json.loads((made / "card.json").read_bytes())))

    def run(self, case: Any) -> None:
        """Read one."""
        which, edits, sign, byte_edits, raw = case
        place, card = self.bases[which % len(self.bases)]
        made = json_changed(card, edits)
        data = json_bytes(signed(made) if sign else made)
        if byte_edits is not None and which < 8:
            data = changed(data, byte_edits)
        (place / "card.json").write_bytes(data if raw is None else raw)
        read(str(place))


def _bases() -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    small = {"widths": [4, 8]}
    stamps = {"bands": ["r"], "stamp_size": 32, "pixel_scale": 0.2}
    return [
        ("classify", "strided_cnn", {**stamps, "classes": ["a", "b"], "normalisation": {"unit": "noise"}}, small),
        ("ellipticity", "strided_cnn", stamps, {**small, "hidden": 8, "pooling": "grid"}),
        ("segment", "unet", {**stamps, "stamp_size": 64}, {"widths": [4, 8], "depth": [1, 1], "head": 4}),
        ("classify", "residual_cnn", {**stamps, "classes": ["a", "b"]}, small),
        ("classify", "mlp", {**stamps, "classes": ["a", "b"]}, {"hidden": [8]}),
        ("anomaly", "autoencoder", stamps, {"widths": [2, 4], "hidden": 8}),
        ("ellipticity", "polar_cnn", {**stamps, "stamp_size": 48, "psf": "none"}, {"widths": [4, 4, 8], "hidden": 8}),
        ("classify", "equivariant_cnn", {**stamps, "classes": ["a", "b"]}, {}),
    ]


def _bundle(folder: Path, task: str, network: str, settings: dict[str, Any], arguments: dict[str, Any]) -> str:
    from astroml_plugin.core.registry import TASKS, load
    from astroml_plugin.training.bundle import Card

    torch.manual_seed(0)
    made = load(TASKS, task).from_settings(settings)
    ModelBundle.save(
        folder, made.build_network(network, arguments), Card("b", task, made.to_settings(), network, arguments)
    )
    return str(folder)


class Weights:
    """weights.safetensors whose header or bytes are foreign; the card's digests are made to fit."""

    name = "safetensors headers"
    strategy = st.tuples(
        st.sampled_from(("header", "header", "length", "bytes", "value")),
        json_changes(3),
        changes(),
        st.sampled_from((0, 1, 7, 8, 100, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64 - 1)),
        st.sampled_from(("F64", "F16", "BF16", "I64", "BOOL", "U8", "F8_E4M3", "X", None)),
    )

    def __init__(self, folder: Path) -> None:
        self.place = Path(universe.make_bundle(str(folder / "weights")))
        self.card = json.loads((self.place / "card.json").read_bytes())
        self.data = (self.place / "weights.safetensors").read_bytes()

    def made(self, case: Any) -> bytes:
        """A file of weights."""
        what, edits, byte_edits, length, kind = case
        size = int.from_bytes(self.data[:8], "little")
        header, rest = json.loads(self.data[8 : 8 + size]), self.data[8 + size :]
        if what == "length":
            return struct.pack("<Q", length) + self.data[8:]
        if what == "bytes":
            return changed(self.data, byte_edits)
        if what == "value":
            for entry in header.values():
                if "dtype" in entry:
                    entry["dtype"] = kind
        else:
            header = json_changed(header, edits)
        text = json_bytes(header)
        return struct.pack("<Q", len(text)) + text + rest

    def run(self, case: Any) -> None:
        """Read one."""
        data = self.made(case)
        (self.place / "weights.safetensors").write_bytes(data)
        card = {**self.card, "weights_sha256": hashlib.sha256(data).hexdigest()}
        (self.place / "card.json").write_bytes(json_bytes(signed(card)))
        read(str(self.place))


class Checkpoints:
    """checkpoint.safetensors and log.jsonl of a training."""

    name = "checkpoints and logs of training"
    strategy = st.tuples(
        st.sampled_from(("header", "state", "bytes", "raw", "log")), json_changes(2), changes(), st.sampled_from(RAW)
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkpoints"
        self.folder.mkdir()
        self.place = self.folder / "checkpoint.safetensors"
        record = {"epoch": 1, "seconds": 1.0, "train_loss": 1.0, "validation_loss": 0.5}
        self.state = {"identity": "i", "epoch": 1, "history": [record]}
        self.tensors = {"network.a": torch.zeros(3), "optimizer.0.step": torch.zeros(())}
        write_checkpoint(str(self.place), self.tensors, self.state)
        self.data = self.place.read_bytes()
        self.log = json.dumps(record).encode() + b"\n"

    def run(self, case: Any) -> None:
        """Read one."""
        what, edits, byte_edits, raw = case
        log = self.log
        data = self.data
        if what == "state":
            write_checkpoint(str(self.place), self.tensors, json_changed(self.state, edits))
            data = self.place.read_bytes()
        elif what == "header":
            size = int.from_bytes(data[:8], "little")
            text = json_bytes(json_changed(json.loads(data[8 : 8 + size]), edits))
            data = struct.pack("<Q", len(text)) + text + data[8 + size :]
        elif what == "bytes":
            data = changed(data, byte_edits)
        elif what == "raw":
            data = raw
        else:
            log = (
                changed(log, byte_edits)
                if len(edits) == 1
                else json_bytes(json_changed(json.loads(log), edits)) + b"\n"
            )
        self.place.write_bytes(data)
        (self.folder / "log.jsonl").write_bytes(log)
        read_checkpoint(str(self.folder), self.place.name, "i")
        history_of(str(self.folder))
        read_log(str(self.folder))
