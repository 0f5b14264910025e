"""Sentences for a report, from the summaries of many objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog.schema import is_vector, matrix
from astroml_plugin.core.typing import F64
from astroml_plugin.explanation.summaries import CELLS
from astroml_plugin.explanation.trust import Trust

_FAR_ABOVE = 2.0
"""Times its part of the pixels above which a place of the stamp is worth a sentence."""
_HALF = 0.5
"""Part of the attribution outside the outlines above which it is worth a sentence."""
_DENSER = 1.1
"""Times their part of the pixels that outlines must have of the attribution, or it is spread as if they did not
count."""
_MOST_OF_IT = 0.9
"""Part of the pixels from which on outlines are the whole stamp."""
_INTERNAL = {"signal", "usable"}
"""Channels of tasks that find objects, which are no bands."""
_PLACES = ("low", "middle", "high")


@dataclass(frozen=True)
class Finding:
    """One thing that summaries say."""

    about: str
    """One of outside, outline, core, band, place, top, completeness, unfaithful, faithfulness."""
    fraction: float
    """Mean part of the attribution, over the objects."""
    chance: float
    """Part that it would be if attribution were spread evenly; NaN where that means nothing."""
    sentence: str
    """The finding in words."""


def findings(table: pa.Table, bands: Sequence[str], side: int) -> list[Finding]:
    """Things that the summaries of some objects say: bands and places first that hold more than their share.

    "outside" is said where more than half of the attribution lies outside the outlines, or where outlines have less
    than 1.1 times their part of the pixels, up to nine tenths of these.

    Args:
        table: rows with the columns of `summaries.Layout.columns`.
        bands: names of the channels.
        side: pixels of a stamp's side.
    """
    if not table.num_rows:
        return []
    mean = {name: _mean(table[name]) for name in table.column_names if name.endswith(("_fraction", "_area"))}
    if not np.isfinite(mean["outline_fraction"]):
        return [Finding("completeness", 0.0, np.nan, "No object has any attribution: the number depends on no pixel.")]
    outline, area = float(mean["outline_fraction"]), float(mean["outline_area"]) / side**2
    places = _of_places(mean)
    found = [*_of_bands(mean, bands), *places, *_of_outside(outline, area, bool(places))]
    text = f"{_part(outline)} of the attribution lies within the objects' {_outlines(table)}, which have "
    text += f"{_part(area)} of the pixels."
    found.append(Finding("outline", outline, area, text))
    core, top = float(mean["core_fraction"]), float(mean["top_fraction"])
    found.append(Finding("core", core, np.nan, f"{core:.0%} lies within 3 pixels of the objects' places."))
    found.append(Finding("top", top, np.nan, f"The ten strongest pixels of an object hold {top:.0%}."))
    return [*found, *_of_sums(table)]


def of_trust(trust: Trust | None) -> list[Finding]:
    """Findings of judged objects: "unfaithful" where something is wrong, and the figures as "faithfulness"."""
    if trust is None:
        return []
    value, told = trust.deletion.value, " ".join(trust.sentences())
    wrong = [Finding("unfaithful", value, 0.0, sentence) for sentence in trust.warnings()]
    return [*wrong, Finding("faithfulness", value, 0.0, told)]


def _part(fraction: float) -> str:
    """A part in percent, of small ones two digits."""
    return f"{fraction:.0%}" if fraction >= 0.0995 or fraction == 0 else f"{100 * fraction:.2g}%"


def _of_outside(outline: float, area: float, placed: bool) -> list[Finding]:
    """A finding where most of the attribution lies outside the outlines, or is spread as if they did not count."""
    if outline >= _HALF and (outline >= _DENSER * area or area >= _MOST_OF_IT):
        return []
    text = f"{_part(1 - outline)} of the attribution lies outside the outlines, which leave {_part(1 - area)} of the "
    text += "pixels: the network looks at something else than the objects"
    if not placed:
        text += (
            ", spread over the stamp: look for a mark over all of it, such as a watermark, or for what the sky tells"
        )
    return [Finding("outside", 1 - outline, 1 - area, f"{text}.")]


def _outlines(table: pa.Table) -> str:
    part = float(np.mean(table["outline_stored"].to_numpy(zero_copy_only=False)))
    if part == 0:
        return "outlines"
    return "outlines" + (" (those of the label maps)" if part == 1 else f" ({part:.0%} of them of the label maps)")


def in_words(table: pa.Table, bands: Sequence[str], side: int) -> str:
    """The sentences of `findings`, one a line."""
    return "\n".join(one.sentence for one in findings(table, bands, side))


def _mean(column: pa.ChunkedArray) -> F64:
    """Mean over the rows that have a value: a number, or (k,) of vectors."""
    values = matrix(column) if is_vector(column.type) else np.asarray(column.to_numpy(), np.float64)
    known = values[np.isfinite(values).reshape(len(values), -1).all(1)]
    return np.asarray(known.mean(0) if len(known) else np.nan, np.float64)


def _of_bands(mean: Mapping[str, F64], bands: Sequence[str]) -> list[Finding]:
    if len(bands) < 2 or set(bands) == _INTERNAL:
        return []
    most, chance = int(mean["band_fraction"].argmax()), 1 / len(bands)
    part = float(mean["band_fraction"][most])
    rest = ", ".join(f"{name} {_part(float(value))}" for name, value in zip(bands, mean["band_fraction"]))
    text = f"{part:.0%} of the attribution lies in band {bands[most]} ({rest}; {chance:.0%} each by chance)."
    return [Finding("band", part, chance, text)]


def _of_places(mean: Mapping[str, F64]) -> list[Finding]:
    """The ninth of the stamp that holds most, unless it is the middle one or holds little more than its share."""
    most, chance = int(mean["cell_fraction"].argmax()), 1 / CELLS**2
    part = float(mean["cell_fraction"][most])
    if most == CELLS**2 // 2 or part < _FAR_ABOVE * chance:
        return []
    row, column = divmod(most, CELLS)
    text = (
        f"{part:.0%} of the attribution lies in one ninth of the stamp, at {_PLACES[column]} x and {_PLACES[row]} y, "
        "and not where the objects are: look for a mark or a defect of the images there."
    )
    return [Finding("place", part, chance, text)]


def _of_sums(table: pa.Table) -> list[Finding]:
    known = table["complete"].drop_null().to_numpy()
    if not len(known):
        return []
    part, worst = float(known.mean()), float(np.nanmedian(table["completeness_error"].to_numpy()))
    text = f"The attributions of {part:.0%} of the objects add up within the tolerance (median error {worst:.1e})."
    if part < _HALF:
        text += " Leave the others out by WHERE complete, or give more --forwards."
    return [Finding("completeness", part, np.nan, text)]
