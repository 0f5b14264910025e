"""A bundle in words: its needs, its columns, and where not to trust it, from its card and the text beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.description import Description, and_more_of, shown
from astroml_plugin.core.errors import AstromlError
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.card import Card

_PAGE = "README.md"
_LIMITS = re.compile(r"^## Limits\s*\n(.*?)(?=^## |^Weights:|\Z)", re.MULTILINE | re.DOTALL)
_BULLET = re.compile(r"^- ", re.MULTILINE)
_LONGEST, _MOST = 330, 7
_WEAK = 0.75
"""Recall on the test split below which a class is named."""
_FIGURES = ("accuracy", "balanced_accuracy", "auroc", "rmse", "foreground_iou", "recall", "mae", "nll", "loss")
_UNITS = {
    "any": "any unit: pixels are divided by their noise",
    "picture": "8-bit pictures as they are",
    "uncalibrated": "without a zero point, as they are",
}


def about_bundle(model: ModelBundle, name: str) -> Description:
    """Input, columns, figures and limits of a bundle that is called by `name`."""
    card, settings = model.card, model.card.settings
    facts = {
        "measures": " ".join(card.description.split()) or card.task,
        "needs": "; ".join(_needs(settings)),
        "gives": _columns(model),
        "trained on": _training(card),
        "measured": _figures(card.metrics.get("test", {})),
        "licence": card.licence,
        "SHA-256": card.sha256[:12],
    }
    told = tuple((name, value) for name, value in facts.items() if value)
    notes = tuple(dict.fromkeys([*_cautions(card), *_limits(model.url)]))
    return Description(storage.redact(name), f"bundle of the task {card.task}", dict(told), notes=notes)


def _needs(settings: Mapping[str, Any]) -> Iterator[str]:
    bands = list(map(str, settings.get("bands") or ()))
    added = list(map(str, settings.get("coadd") or ()))
    several = f", or several of {and_more_of(added)}, which are added up" if added else ""
    yield f"any one band{several}" if settings.get("any_band") else f"bands {and_more_of(bands)}"
    side = settings.get("stamp_size")
    scale = f" of {settings['pixel_scale']:g} arcsec" if settings.get("pixel_scale") else ""
    yield f"{side} x {side} pixels{scale}"
    unit = settings.get("input_unit")
    if unit:
        yield _UNITS.get(unit, f"pixels in {unit}, or with a zero point")
    yield {"required": "a PSF", "none": "no PSF"}.get(str(settings.get("psf")), f"PSF {settings.get('psf')}")


def _columns(model: ModelBundle) -> str:
    """Names of the columns, with units."""
    try:
        columns = model.task().columns()
    except AstromlError as error:
        return f"not known here: {error}"
    return and_more_of([f"{one.name} ({one.unit})" if one.unit else one.name for one in columns], 12)


def _training(card: Card) -> str:
    objects = card.training.get("objects")
    count = objects.get("train") if isinstance(objects, Mapping) else objects
    return f"{count:,} objects" if isinstance(count, int) else ""


def _figures(metrics: Mapping[str, Any]) -> str:
    """The first figures of merit of the test split."""
    told = [f"{name} {shown(metrics[name])}" for name in _FIGURES if isinstance(metrics.get(name), float | list)]
    return ", ".join(told[:4])


def _cautions(card: Card) -> Iterator[str]:
    """Warnings that follow from the card."""
    settings = card.settings
    fwhm = settings.get("psf_fwhm")
    if isinstance(fwhm, list | tuple) and len(fwhm) == 2:
        yield f"PSF images outside a FWHM of {fwhm[0]:g} to {fwhm[1]:g} pixels are flagged OUT_OF_DOMAIN"
    confusion, classes = (card.metrics.get("test", {}).get(name) for name in ("confusion", "classes"))
    rows = [confusion[number] if confusion else [] for number in range(len(classes or ()))]
    weak = [k for k, row in enumerate(rows) if sum(row) and row[k] / sum(row) < _WEAK]
    for k in weak[:_MOST]:
        yield f"class {classes[k]}: {rows[k][k]} of {sum(rows[k])} were found on the test split"
    if len(weak) > _MOST:
        yield f"{len(weak) - _MOST} more classes of which fewer than {_WEAK:.0%} were found on the test split"
    if isinstance(doubt := card.training.get("convergence"), str):
        yield doubt
    if card.metrics and not card.metrics.get("test"):
        yield "it was not measured on a test split"
    prior = settings.get("training_prior")
    if isinstance(prior, list) and classes and len(prior) == len(classes):
        told = and_more_of([f"{name} {share:.2f}" for name, share in zip(classes, prior, strict=True)])
        yield f"probabilities hold for the class fractions of the training ({told}): give yours with --prior"


def _limits(url: str) -> Iterator[str]:
    """Items of the section Limits of the page beside a card; none where there is no page."""
    try:
        text = storage.read_bytes(storage.join(url, _PAGE)).decode("utf-8", "replace")
    except (OSError, AstromlError):
        return
    found = _LIMITS.search(text)
    items = [" ".join(item.split()) for item in _BULLET.split(found[1])] if found else []
    items = [item for item in items if item]
    for item in items[:_MOST]:
        yield item if len(item) <= _LONGEST else f"{_sentences(item)} … ({storage.redact(url)}/{_PAGE})"
    if len(items) > _MOST:
        yield f"{len(items) - _MOST} more limits in {storage.redact(url)}/{_PAGE}"


def _sentences(text: str) -> str:
    """The first whole sentences that fit."""
    end = text.rfind(". ", 0, _LONGEST)
    return text[: end + 1] if end > 80 else text[:_LONGEST].rpartition(" ")[0]
