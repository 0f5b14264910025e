"""Runtimes of a run's networks, as its record names them."""

from __future__ import annotations

from collections.abc import Mapping

Ran = dict[str, dict[str, int]]
"""Bundle -> runtime and number format -> objects (windows, of a bundle that finds objects)."""


def by_bundle(forms: Mapping[str, int]) -> Ran:
    """The counts of `meter.Meter.forms` by bundle."""
    found: Ran = {}
    for name, count in sorted(forms.items()):
        bundle, runtime, number = name.rsplit(" ", 2)
        found.setdefault(bundle, {})[f"{runtime} {number}"] = count
    return found
