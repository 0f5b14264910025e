"""The page of a comparison of methods on the same objects."""

from __future__ import annotations

__all__: list[str] = []
