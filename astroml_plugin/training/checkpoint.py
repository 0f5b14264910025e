"""Checkpoints of trainings: one safetensors file each, its plain values in the header. Never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from astroml_plugin.core import storage
from astroml_plugin.core.errors import DamagedError, InputError
from astroml_plugin.training.settings import EpochRecord

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"


def write_checkpoint(url: str, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Write tensors by name and plain values, with the `identity` of the training among them, whole or not at all."""
    packed = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    state = json.dumps(plain)
    storage.write_atomic(
        url, safetensors.torch.save(packed, metadata={"state": state, "sha256": _digest(packed, state)})
    )


def read_checkpoint(out: str, name: str, identity: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and plain values of the checkpoint `name` in the folder `out`; None where there is none.

    Raises:
        InputError: the checkpoint belongs to a training of another identity.
        DamagedError: its bytes were changed.
    """
    url = storage.join(out, name)
    data = _read(url)
    if data is None:
        return None
    plain, state, sha256 = _plain_values(data, url)
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise _damaged(url, error) from error
    if sha256 is not None and sha256 != _digest(tensors, state):
        raise _damaged(url, "its SHA-256 is another")
    if plain.get("identity") != identity:
        raise InputError(
            f"{storage.redact(out)} holds the checkpoint of a training with another recipe, seed or data: "
            f"choose another output or remove it"
        )
    return tensors, plain


def history_of(out: str) -> list[EpochRecord]:
    """Records of the epochs that the checkpoint in `out` holds; none where there is no checkpoint."""
    url = storage.join(out, CHECKPOINT)
    data = _read(url)
    history = [] if data is None else _plain_values(data, url)[0].get("history", [])
    if not isinstance(history, list):
        raise _damaged(url, "its history is no list")
    return history


def read_log(out: str) -> list[EpochRecord]:
    """Records of the log in `out`, which may be one epoch ahead of the checkpoint; none where there is no log."""
    url = storage.join(out, LOG)
    records = storage.read_lines(url)
    if not all(isinstance(record, dict) for record in records):
        raise storage.damaged(url, "a line is no record")
    return records


def write_log(out: str, history: list[EpochRecord]) -> None:
    """Write the whole log of a training."""
    storage.write_atomic(storage.join(out, LOG), "".join(json.dumps(record) + "\n" for record in history).encode())


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose name starts with the prefix, by the rest of their name."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by their name behind a prefix."""
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimizer by parameter number and name, as "3.exp_avg"."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": value
        for number, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    state = optimizer.state_dict()
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        state["state"].setdefault(int(number), {})[key] = value
    optimizer.load_state_dict(state)


def _read(url: str) -> bytes | None:
    return storage.read_bytes(url) if storage.exists(url) else None


def _plain_values(data: bytes, url: str) -> tuple[dict[str, Any], str, str | None]:
    """Plain values in the header of a checkpoint, their text, and the digest that vouches for all (older: None)."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")].decode())["__metadata__"]
        return dict(json.loads(header["state"])), str(header["state"]), header.get("sha256")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _damaged(url, error) from error


def _damaged(url: str, reason: object) -> DamagedError:
    told = f"{storage.redact(url)} is damaged ({' '.join(str(reason).split())[:100]})"
    return DamagedError(f"{told}: put a copy of it back, or remove it: the training then begins anew")


def _digest(tensors: Mapping[str, Tensor], state: str) -> str:
    """Hex SHA-256 of tensors and the text of the plain values."""
    hashed = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        value = tensors[name]
        hashed.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        hashed.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()
