"""Description of a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.description import Description, and_more_of, shown
from astroml_plugin.core.places import Place
from astroml_plugin.training.card import Card, read_card
from astroml_plugin.training.places import locate, shipped_name

_NEEDS = (
    "bands",
    "any_band",
    "coadd",
    "stamp_size",
    "pixel_scale",
    "sizes",
    "psf_fwhm",
    "dtype",
    "psf",
    "assumed_psf_fwhm",
)


def describe_bundle(source: Place) -> Description:
    """Task, input that it needs, training data and figures of merit of a bundle, by its card; no weights are read.

    Raises:
        InputError: no bundle there, or its card was altered.
    """
    url = locate(source)
    return describe_card(read_card(url), url)


def describe_card(card: Card, url: str) -> Description:
    """Description of the bundle at `url` by its card."""
    called = shipped_name(url) or card.name
    prefix = "" if called == card.name else f" (columns beside those of other bundles begin with {card.name}_)"
    facts = {
        "name": called + prefix,
        "task": card.task,
        "network": card.network,
        "what it is": card.description,
        "needs": ", ".join(f"{name} {_few(card.settings[name])}" for name in _NEEDS if card.settings.get(name)),
        "trained on": f"{shown(card.training.get('objects'))} objects of {_few(card.training.get('sources'))}",
        "course": card.training.get("pace", ""),
        "convergence": card.training.get("convergence", ""),
        "licence": card.licence,
        "SHA-256": card.sha256,
    }
    rows = tuple(_figures(card.metrics, ""))
    kept = {name: " ".join(value.split()) for name, value in facts.items() if value}
    return Description(storage.redact(url), "bundle", kept, ("figure", "value"), rows)


def _few(value: Any) -> str:
    """A value in few letters, of a long list the first entries."""
    return and_more_of([shown(one) for one in value]) if isinstance(value, list | tuple) else shown(value)


def _figures(values: Mapping[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{before}{name} ")
        elif isinstance(value, int | float | str):
            yield f"{before}{name}", shown(value)
