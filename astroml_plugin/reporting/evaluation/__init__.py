"""The page of an evaluation: sections about the figures of merit that `evaluate` wrote."""

from __future__ import annotations

__all__: list[str] = []
