"""An evaluation that is asked for a page: metrics.json and the figures beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError

METRICS = "metrics.json"


@dataclass(frozen=True)
class EvaluationSubject:
    """Outcome of `evaluate`."""

    url: str
    """Folder of the evaluation."""
    record: Mapping[str, Any]
    """Content of metrics.json."""

    @classmethod
    def opened(cls, folder: str) -> EvaluationSubject:
        """The evaluation in a folder.

        Raises:
            InputError: metrics.json is of something else.
        """
        record = storage.read_json(storage.join(folder, METRICS))
        if not isinstance(record, Mapping) or not isinstance(record.get("metrics"), Mapping):
            raise InputError(f"{storage.redact(folder)}/{METRICS} is no evaluation: give the --out folder of evaluate")
        return cls(folder, record)

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Figures of merit."""
        found: Mapping[str, Any] = self.record["metrics"]
        return found

    @property
    def catalog(self) -> Mapping[str, Any]:
        """Figures of the catalog columns; empty where there are none."""
        found = self.metrics.get("catalog")
        return found if isinstance(found, Mapping) else {}
