"""How many rows of a run are unlike what their bundle was trained on, and the sentence that a run says of most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.inference.models import RunModel
from astroml_plugin.training.typicality import COLUMN

MOST = 0.5
"""Part of a bundle's rows above which it is about the survey and not about objects."""

_FEWEST = 30
"""Rows below which a run says nothing."""
_ALL, _UNLIKE = "all", "unlike"


def counted(table: pa.Table, models: Sequence[RunModel]) -> dict[str, int]:
    """Rows with a typicality, and those of them below the limit: by bundle, a space, and which of the two."""
    found = {}
    for model in models:
        if model.typicality is not None:
            name = COLUMN.name if len(models) == 1 else f"{model.ref.name}_{COLUMN.name}"
            limit = pa.scalar(model.typicality.false_flags, pa.float32())
            found[f"{model.ref.name} {_ALL}"] = len(table) - table[name].null_count
            found[f"{model.ref.name} {_UNLIKE}"] = pc.sum(pc.less(table[name], limit)).as_py() or 0
    return found


def sentences(counts: Mapping[str, int]) -> tuple[str, ...]:
    """One for each bundle that most rows are unlike the training of.

    Args:
        counts: of `counted`, summed over units.
    """
    said = []
    for key, unlike in counts.items():
        bundle, _, which = key.rpartition(" ")
        rows = counts.get(f"{bundle} {_ALL}", 0)
        if which == _UNLIKE and rows >= _FEWEST and unlike > MOST * rows:
            said.append(
                f"{unlike:,} of {rows:,} rows are {ObjectFlag.OUT_OF_DOMAIN.name} for bundle {bundle}: this survey is "
                f"unlike what it was trained on, and nobody measured how good its answers are here. Fit what is "
                f"typical on stamps of this survey (fit-typicality), so that the flag tells its objects apart, and "
                f"check answers on objects whose truth is known"
            )
    return tuple(said)
