"""The page of a run: sections about a catalog, in the order in which they are read."""

from __future__ import annotations

__all__: list[str] = []
