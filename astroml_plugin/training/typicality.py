"""How typical objects are of a bundle's training set: the file beside the card, and the network that tells it.

The file is safetensors: numbers of densities and tails, and in its header the names of views. Nothing is executed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from astroml_plugin.catalog import Column
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.typing import Columns
from astroml_plugin.networks.taps import Taps
from astroml_plugin.networks.typicality import (
    Improbability,
    Judge,
    MapViews,
    TailTable,
    ViewDensity,
    Views,
    WithTypicality,
    WithTypicalityMap,
)

FILE = "typicality.safetensors"
"""Name of the file in the folder of a bundle."""

RECORD = "typicality"
"""Key of a card's training record: the digest of the file, and what it was fitted on."""

COLUMN = Column(
    "typicality",
    "float32",
    "",
    "stat.probability",
    "Part of the training population that is less typical; OUT_OF_DOMAIN below the bundle's false-flag rate",
)
"""The column of a bundle that has this file."""

_FORMAT = "2"
_AGAIN = "get the bundle again, or fit it anew (astroml-plugin fit-typicality)"
_MOST_VIEWS = 32


@dataclass(frozen=True, eq=False)
class Typicality:
    """Densities and tails of a training population, as read from a bundle."""

    numbers: Mapping[str, Tensor]
    """`NUMBER.NAME` -> tensor, the number that of the view; knots, slopes of the tails; `judge.NAME` of the judge."""
    views: tuple[str, ...]
    """Names of the views in order, see `networks.typicality.Views`."""
    false_flags: float
    """Part of the training population that is flagged."""
    turns: Mapping[str, int]
    """Layer among the views -> its answers per object; of windows, side of its pixels that a cell has."""
    stride: int = 0
    """Side of a cell in pixels, where objects are found in windows; 0 of stamps."""

    @cached_property
    def improbability(self) -> Improbability:
        """The densities and tails as layers."""
        densities = [
            ViewDensity({name: self.numbers[f"{place}.{name}"] for name in ViewDensity.NUMBERS})
            for place in range(len(self.views))
        ]
        tails, whole = self._table("tails"), self._table("whole")
        if "judge.centre" not in self.numbers:
            return Improbability(densities, tails, whole).eval()
        judge = Judge({name: self.numbers[f"judge.{name}"] for name in Judge.NUMBERS})
        return Improbability(densities, tails, whole, judge, self._table("parts")).eval()

    def _table(self, name: str) -> TailTable:
        return TailTable(self.numbers[f"{name}.knots"], self.numbers[f"{name}.slopes"])

    def to_bytes(self) -> bytes:
        """The file."""
        head = {"format": _FORMAT, "views": json.dumps(list(self.views)), "false_flags": repr(self.false_flags)}
        head |= {"turns": json.dumps(dict(self.turns)), "stride": str(self.stride)}
        plain = {name: value.contiguous().clone() for name, value in self.numbers.items()}
        return safetensors.torch.save(plain, head)

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Typicality:
        """Read a file back; `name` is that of the bundle, for messages.

        Raises:
            InputError: it is no such file, or of a newer format.
        """
        try:
            head = _header(data)
            if head.get("format") != _FORMAT:
                raise InputError(
                    f"{FILE} of bundle {name} has format {head.get('format')} and this version reads {_FORMAT}: "
                    f"upgrade astroml-plugin, or {_AGAIN}"
                )
            views, rate = tuple(map(str, json.loads(head["views"]))), float(head["false_flags"])
            turns = {str(name): int(count) for name, count in json.loads(head["turns"]).items()}
            stride = int(head["stride"])
            if not 0 < rate < 1 or not 0 < len(views) <= _MOST_VIEWS or set(turns) != {*Views.layers_of(views)}:
                raise ValueError(f"{len(views)} views, {len(turns)} layers, false flags {rate}")
            found = cls(safetensors.torch.load(data), views, rate, turns, stride)
            found.improbability  # noqa: B018 - refuses numbers that do not fit
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{FILE} of bundle {name} cannot be read ({error}): {_AGAIN}") from None
        return found

    def taps(self, network: nn.Module, name: str) -> Taps:
        """Ears on the layers of a bundle's network; `name` is that of the bundle.

        Raises:
            InputError: the network has no such layer.
        """
        try:
            layers = {name: self.turns[name] for name in Views.layers_of(self.views)}
            return Taps(network, layers, whole=self.stride > 0)
        except ValueError as error:
            raise InputError(f"{FILE} of bundle {name} does not fit its network ({error}): {_AGAIN}") from None

    def around(self, network: nn.Module, taps: Taps, shapes: Any) -> nn.Module:
        """A network whose last number, or last map, tells the typicality.

        Args:
            network: as inference runs it, on its device.
            taps: of the bundle's network, which is this one or within it.
            shapes: (channels, h, w) of each input, `Task.input_shapes()`.
        """
        device = next((item.device for item in network.parameters()), None)
        improbability = copy.deepcopy(self.improbability).to(device)
        if not self.stride:
            return WithTypicality(network, taps, Views(self.views, shapes).to(device), improbability).eval()
        layers = {name: self.turns[name] for name in Views.layers_of(self.views)}
        views = MapViews(self.views, layers, self.stride)
        return WithTypicalityMap(network, taps, views, improbability, self.stride).eval()

    def told(
        self, typicality: Tensor, columns: Columns, flags: np.ndarray, resampled: np.ndarray | None = None
    ) -> tuple[Columns, np.ndarray]:
        """Columns with `typicality`, and flags (n,) int32 with OUT_OF_DOMAIN where an object is not typical.

        Args:
            typicality: (n,) of the network.
            columns: of the task; where all its numbers are NaN, so is the typicality.
            flags: (n,) of the task.
            resampled: (n,) bool, where pixels were brought to another scale: their noise is not that of the fit, so the
                typicality is NaN; None: nowhere.
        """
        values = typicality.detach().float().cpu().numpy().copy()
        numbers = [column for column in columns.values() if column.dtype.kind == "f"]
        if numbers:
            values[np.all([np.isnan(column).all(tuple(range(1, column.ndim))) for column in numbers], axis=0)] = np.nan
        if resampled is not None:
            values[resampled] = np.nan
        bits = np.where(values < self.false_flags, flags | int(ObjectFlag.OUT_OF_DOMAIN), flags)
        return {**columns, COLUMN.name: values}, bits


def _header(data: bytes) -> dict[str, str]:
    """The texts in the header of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    found = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return {str(key): str(value) for key, value in found.items()}
