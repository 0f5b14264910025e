"""The page of a survey or of stamps: tiles, bands, depth, noise, PSF and masks."""

from __future__ import annotations

__all__: list[str] = []
