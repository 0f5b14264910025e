"""Numbers of an anomaly search that can be explained: the score and its signs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from astroml_plugin.tasks.base import Task

_NO_STAMPS: Any = None  # the columns that are explained follow from the network's outputs alone


class ExplainedScore(Task):
    """The score, and -lg p of each sign, as the columns of the catalog have them."""

    def explained(self) -> dict[str, str]:
        """Names of columns: the score first, then the signs."""
        return {one.name: one.description for one in self.columns() if one.name.startswith("anomaly_")}

    def explained_value(self, name: str, outputs: Tensor, place: Tensor) -> Tensor:
        """Score or sign (n,)."""
        return self.graph_columns(outputs, _NO_STAMPS)[name]
