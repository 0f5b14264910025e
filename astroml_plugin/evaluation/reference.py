"""Distributions of inputs and outputs that others are compared with; a bundle keeps those of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from astroml_plugin.core import foreign
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.evaluation.drift import Distribution
from astroml_plugin.evaluation.inputs import Number

_AGAIN = "train the bundle again, or compare with a catalog by --reference"


@dataclass(frozen=True)
class Reference:
    """Distributions of numbers about objects."""

    inputs: Mapping[Number, Distribution]
    """Numbers about pixels, by band."""
    outputs: Mapping[str, Distribution]
    """Columns of a catalog, by name."""

    @classmethod
    def of(cls, inputs: Mapping[Number, F64], outputs: Mapping[str, F64], groups: I64 | None = None) -> Reference:
        """The reference of some objects; numbers that fewer than 12 of them have are left out.

        Args:
            inputs: number -> (n,).
            outputs: column -> (m,).
            groups: (n,) number of the tile of each of the inputs; None: each is of its own.
        """
        found = {name: Distribution.of(values, groups) for name, values in inputs.items()}
        given = {name: Distribution.of(values) for name, values in outputs.items()}
        return cls(_there(found), _there(given))

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the inputs, in order."""
        return tuple(dict.fromkeys(name.band for name in self.inputs if name.what == "usable"))

    def of_band(self, band: str) -> Reference:
        """This reference for another band, where it is of one band alone: of a bundle that takes any."""
        inputs = {Number(name.what, band if name.band else "", name.unit): one for name, one in self.inputs.items()}
        return Reference(inputs, self.outputs)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        inputs = [{**name._asdict(), **one.to_json()} for name, one in self.inputs.items()]
        return {"inputs": inputs, "outputs": {name: one.to_json() for name, one in self.outputs.items()}}

    @classmethod
    def from_json(cls, value: Any, where: str) -> Reference:
        """The reference that `to_json` gave.

        Raises:
            InputError: it is none.
        """
        told = foreign.record(value, {"inputs": list, "outputs": dict}, where, _AGAIN)
        kinds: Mapping[str, foreign.Kinds] = {"what": str, "band": str, "unit": str}
        inputs = {}
        for item in told["inputs"]:
            named = foreign.record(item, kinds, where, _AGAIN)
            inputs[Number(named["what"], named["band"], named["unit"])] = Distribution.from_json(item, where)
        outputs = {str(name): Distribution.from_json(item, where) for name, item in told["outputs"].items()}
        return cls(inputs, outputs)


def _there(found: Mapping[Any, Distribution | None]) -> dict[Any, Distribution]:
    return {name: one for name, one in found.items() if one is not None}


def plain_columns(columns: Mapping[str, np.ndarray]) -> dict[str, F64]:
    """Columns of one number, as float64: no vectors, texts or flags."""
    return {
        name: np.asarray(values, np.float64)
        for name, values in columns.items()
        if values.ndim == 1 and values.dtype.kind in "fiub" and name != "flags" and not name.endswith("_flags")
    }
