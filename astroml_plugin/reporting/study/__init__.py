"""The page of a search for hyperparameters: its trials, the best of them, and what mattered."""

from __future__ import annotations

__all__: list[str] = []
