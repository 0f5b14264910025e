"""Choices of every task's run options, by name; these need no torch."""

from __future__ import annotations

RESAMPLE = ("auto", "off")
"""Choices for pixels of another scale."""
