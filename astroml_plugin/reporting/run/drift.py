"""Has the sky of a catalog moved away from that of the training, or of another catalog: inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.evaluation.drift import (
    CHANCE,
    FEWEST,
    STABILITY,
    Distribution,
    Drift,
    Tolerance,
    between_tiles,
    drift_from,
)
from astroml_plugin.evaluation.inputs import TOLERANCES, Number
from astroml_plugin.evaluation.reference import Reference
from astroml_plugin.reporting.charts import Axis, Chart, Grid
from astroml_plugin.reporting.options import ReportOptions
from astroml_plugin.reporting.pages import Block, Missing, Note, Section, Table
from astroml_plugin.reporting.run.sampling import Sampled, sampled
from astroml_plugin.reporting.run.subject import RunSubject
from astroml_plugin.reporting.words import label, many, number
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.reference import reference_of

TITLE = "Drift"
_NAMED = 8
_DRAWN = 10
"""Columns of a chart of distances."""

RULE = (
    f"Reported is what has a population stability index above {STABILITY:g} and a two-sample (Kolmogorov) distance "
    "beyond that of chance, or has more than half of its values beyond the ends of the reference and half of its "
    f"width. Distances are judged so that chance alone would report one page in {1 / CHANCE:.0f}; objects of one tile "
    "share its seeing and noise and count as few. A tenth of an input's value, or a fifth of the noise, is no drift. "
    "Beyond the training is what is reported and has more than a fifth of its values outside of the middle 90 %."
)

TRAINING = (
    "A training set is not a survey: it may be simulated, and has other fractions of classes, magnitudes and sizes. So "
    "what is reported here is no error that was found. It says where the network has to answer about images that it "
    "hardly knows, or answers otherwise than it did. What its normalisation takes away (levels, noise) is left out. "
    "How good the answers are is told by labels (`evaluate`); whether this sky is like another that you trust, by "
    "`--reference CATALOG`."
)


@dataclass(frozen=True)
class Found:
    """One number, compared as a whole and tile by tile."""

    name: str
    """For people."""
    band: str
    """Band of an input, empty of a colour and where it is of all; "outputs" of a column."""
    whole: Drift
    """All tiles together."""
    tiles: Mapping[int, Drift]
    """Number of a tile -> its own drift."""

    @property
    def moved(self) -> list[int]:
        """Tiles that are reported."""
        return [tile for tile, drift in self.tiles.items() if drift.reported]

    @property
    def reported(self) -> bool:
        """Whether the whole or any tile is reported."""
        return self.whole.reported or bool(self.moved)

    @property
    def outside(self) -> bool:
        """Whether what is reported lies where the reference has few values."""
        return any(drift.outside for drift in (self.whole, *self.tiles.values()))


OUTPUTS = "outputs"


def section(subject: RunSubject) -> Section | Missing:
    """Distances of inputs and outputs from the reference, by band and tile."""
    if not subject.counts["objects"]:
        return Missing(TITLE, "the catalog has no rows")
    named, reference = reference_for(subject)
    if reference is None:
        return Missing(TITLE, named)
    mine = sampled(subject)
    found = compared(reference, mine)
    if not found:
        return Missing(TITLE, f"nothing of the catalog can be compared with {named}: {mine.why or 'no common numbers'}")
    texts = [
        f"Compared with {named}: {many(len(mine.tile), 'object')} of {many(len(mine.tiles), 'tile')}, "
        f"{len(mine.looked):,} of them with their pixels. Inputs are numbers about the pixels of each band; outputs "
        "are columns of the catalog."
    ]
    if left := _left_out(reference, mine):
        texts.append(f"Not compared, as the catalog lacks them or has them in another unit: {left}.")
    if mine.why:
        texts.append(f"Without pixels: {mine.why}." if not mine.inputs else f"Some pixels are away: {mine.why}.")
    trained = subject.options.reference is None
    if trained:
        texts.append(TRAINING)
    moved = [one for one in found if one.reported]
    blocks: list[Block] = [_verdict(found, mine.tiles)] if not trained else of_training(found, mine.tiles)
    blocks += [_table(moved, "Reported")] if moved else []
    blocks += [*_grids(found, mine.tiles), _table(found, "All inputs and outputs", folded=True)]
    return Section(TITLE, "\n\n".join(texts), blocks, RULE)


# ---- references --------------------------------------------------------------------------------------------------


def reference_for(subject: RunSubject) -> tuple[str, Reference | None]:
    """(its name, the reference); or (why there is none, None).

    Raises:
        InputError: the catalog that was named is none.
    """
    if "reference" not in subject.shared:
        given = subject.options.reference
        subject.shared["reference"] = _of_bundles(subject) if given is None else _of_catalog(given)
    found: tuple[str, Reference | None] = subject.shared["reference"]
    return found


def _of_catalog(url: str) -> tuple[str, Reference | None]:
    with RunSubject.opened(url, ReportOptions()) as other:
        if not other.counts["objects"]:
            raise InputError(f"{storage.redact(url)} has no rows to compare with: give another catalog by --reference")
        rows = sampled(other)
    name = "/".join(storage.redact(other.catalog.url).rstrip("/").split("/")[-2:])
    inputs = {name: values for name, values in rows.inputs.items() if name.what != "signal"}  # flux tells it
    reference = Reference.of(inputs, {}, rows.looked)
    outputs = {key: Distribution.of(values, rows.tile) for key, values in rows.outputs.items()}
    there = {key: one for key, one in outputs.items() if one is not None}
    return f"the catalog {name}", Reference(reference.inputs, there)


def _of_bundles(subject: RunSubject) -> tuple[str, Reference | None]:
    """The distributions of the training of the bundles that measured the catalog."""
    known = subject.catalog.identity.get("bundles") or {}
    inputs: Mapping[Number, Distribution] = {}
    outputs: dict[str, Distribution] = {}
    names = []
    for name, (called, url) in subject.bundles.items():
        found = _of_bundle(url, str(known[name]))
        if found is None:
            continue
        names.append(called)
        outputs |= {key if len(known) == 1 else f"{name}_{key}": one for key, one in found.outputs.items()}
        inputs = inputs or _for_bands(found, subject).inputs
    if not names:
        told = ", ".join(called for called, _ in subject.bundles.values()) or "no bundle that is named"
        why = f"no distributions of the training are at hand (bundles: {told})"
        return f"{why}: give a catalog to compare with by --reference", None
    whose = f" (inputs: of {names[0]})" if len(names) > 1 else ""
    return f"the training of {', '.join(names)}{whose}", Reference(inputs, outputs)


def _of_bundle(url: str, sha256: str) -> Reference | None:
    try:
        bundle = ModelBundle.load(url)
        return reference_of(bundle) if bundle.sha256 == sha256 else None
    except (AstromlError, OSError):
        return None


def _for_bands(reference: Reference, subject: RunSubject) -> Reference:
    """The reference of a bundle that takes any one band, for the band that was measured."""
    bands = subject.source.bands if subject.source is not None else ()
    settings = subject.catalog.identity.get("settings")
    chosen = settings.get("band") if isinstance(settings, dict) else None
    if len(reference.bands) == 1 and reference.bands[0] not in bands and (chosen or len(bands) == 1):
        return reference.of_band(str(chosen or bands[0]))
    return reference


def _left_out(reference: Reference, mine: Sampled) -> str:
    """Inputs of the reference that the catalog does not have."""
    missing = [str(name) for name in reference.inputs if name not in mine.inputs] if mine.inputs else []
    return ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")


# ---- comparison --------------------------------------------------------------------------------------------------


def compared(reference: Reference, mine: Sampled) -> list[Found]:
    """Every number that both have, inputs first."""
    inputs = [(name, one) for name, one in reference.inputs.items() if name in mine.inputs]
    outputs = [(name, one) for name, one in reference.outputs.items() if name in mine.outputs]
    level = CHANCE / max(1, (len(inputs) + len(outputs)) * (1 + len(mine.tiles)))
    found = [
        _compared(str(name), _group(name), one, (mine.inputs[name], mine.looked), level, TOLERANCES.get(name.what))
        for name, one in inputs
    ]
    found += [_compared(name, OUTPUTS, one, (mine.outputs[name], mine.tile), level, None) for name, one in outputs]
    return [one for one in found if one is not None]


def _group(name: Number) -> str:
    return "" if name.what == "colour" else name.band


def _compared(
    name: str, band: str, reference: Distribution, mine: tuple[F64, I64], level: float, tolerance: Tolerance | None
) -> Found | None:
    values, groups = mine
    good = np.isfinite(values)
    if good.sum() < FEWEST:
        return None
    values, groups = values[good], groups[good]
    whole = drift_from(reference, values, groups, level=level, tolerance=tolerance)
    assert whole is not None
    part = between_tiles(reference, values, groups)
    tiles = {}
    for tile in np.unique(groups).tolist():
        at = groups == tile
        drift = drift_from(reference, values[at], groups[at], level=level, tolerance=tolerance, shared=part)
        if drift is not None:
            tiles[tile] = drift
    return Found(name, band, whole, tiles)


# ---- blocks ------------------------------------------------------------------------------------------------------


def _verdict(found: Sequence[Found], names: Sequence[str]) -> Note:
    moved = [one for one in found if one.reported]
    if not moved:
        return Note(f"Nothing is reported: {many(len(found), 'number')} are like the reference.")
    return Note(f"Reported, {len(moved)} of {many(len(found), 'number')}: {_listed(moved, names)}.", bad=True)


def of_training(found: Sequence[Found], names: Sequence[str]) -> list[Block]:
    """Two notes: numbers beyond the training, and those in another mix of what it has."""
    outside = [one for one in found if one.outside]
    mixed = [one for one in found if one.reported and not one.outside]
    if not outside and not mixed:
        return [_verdict(found, names)]
    count = many(len(found), "number")
    notes: list[Block] = []
    if outside:
        notes.append(Note(f"Beyond the training, {len(outside)} of {count}: {_listed(outside, names)}.", bad=True))
    if mixed:
        text = "Spread otherwise, but where the training has values too"
        notes.append(Note(f"{text}, {len(mixed)} of {count}: {_listed(mixed, names)}."))
    return notes


def _listed(moved: Sequence[Found], names: Sequence[str]) -> str:
    told = [
        f"{one.name} (median {number(one.whole.median)}, in the reference {number(one.whole.usual)}"
        f"{_where(one, names)})"
        for one in moved[:_NAMED]
    ]
    return "; ".join(told) + (f", and {len(moved) - _NAMED} more" if len(moved) > _NAMED else "")


def _where(one: Found, names: Sequence[str]) -> str:
    if one.whole.reported or not one.moved:
        return ""
    return f", only in {', '.join(names[tile] for tile in one.moved[:3])}{' and others' if len(one.moved) > 3 else ''}"


def _table(found: Sequence[Found], title: str, *, folded: bool = False) -> Table:
    rows = [
        [
            *(one.name, "yes" if one.reported else "no", number(one.whole.median), number(one.whole.usual)),
            *(f"{one.whole.stability:.2f}", f"{one.whole.distance:.2f}", f"{one.whole.chance:.2f}"),
            *(
                f"{one.whole.covered:.0%}",
                f"{one.whole.beyond:.0%}",
                f"{len(one.moved)} of {len(one.tiles)}",
                f"{one.whole.count:,}",
            ),
        ]
        for one in sorted(found, key=lambda one: (not one.reported, one.band == OUTPUTS))
    ]
    head = ("number", "reported", "median", "in the reference", "stability index", "distance", "by chance")
    return Table((*head, "in its middle 90 %", "beyond it", "tiles reported", "values"), rows, title, folded=folded)


def _grids(found: Sequence[Found], names: Sequence[str]) -> list[Block]:
    """A chart of distances, tile by tile, for each band and for the outputs."""
    if len(names) < 2:
        return []
    bands = list(dict.fromkeys(one.band for one in found))
    charts: list[Block] = []
    for band in bands:
        mine = [one for one in found if one.band == band]
        mine = sorted(mine, key=lambda one: -one.whole.distance)[:_DRAWN] if len(mine) > _DRAWN else mine
        title = "Outputs" if band == OUTPUTS else f"Inputs of band {band}" if band else "Inputs of several bands"
        charts.append(_grid(title, mine, names))
    return charts


def _grid(title: str, mine: Sequence[Found], names: Sequence[str]) -> Chart:
    values = np.full((len(names), len(mine)), np.nan)
    texts = [["" for _ in mine] for _ in names]
    for column, one in enumerate(mine):
        for tile, drift in one.tiles.items():
            row = len(names) - 1 - tile
            values[row, column] = drift.distance
            texts[row][column] = "drift" if drift.reported else ""
    ticks = [label(name, 20) for name in names][::-1]
    what = [label(one.name.partition(" [")[0].removesuffix(f" {one.band}"), 16) for one in mine]
    return Chart(
        f"{title}: two-sample distance from the reference",
        Axis("", ticks=what),
        Axis("", ticks=ticks),
        [Grid(values, texts, "distance", (0.0, 1.0))],
        height=int(150 + math.ceil(22 * len(names))),
        alt=f"{title}, tile by tile: {sum(text == 'drift' for row in texts for text in row)} cells are reported",
    )
