"""Rank: a short list from a catalog of any size, by a score, by likeness to an object, or learned from scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from astroml_plugin.catalog import Catalog, ranking
from astroml_plugin.catalog.export.facts import with_provenance
from astroml_plugin.catalog.provenance import provenance
from astroml_plugin.catalog.ranking import Ranked
from astroml_plugin.catalog.ranking.index import LatentIndex
from astroml_plugin.catalog.write import write_rows
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.settings import changed, option_of, with_changes
from astroml_plugin.labelling.relearn import OrderOptions, rerank
from astroml_plugin.labelling.scorefile import ScoreFile
from workflows.notebook import shows_progress
from workflows.query import as_text

__all__ = ["LatentIndex", "RankOptions", "Ranked", "rank", "show"]


@dataclass(frozen=True)
class RankOptions(OrderOptions):
    """Order of a list, and what is folded in it."""

    like: int | None = None
    """Instead of a score: the nearest neighbours of this object_id in latent space."""
    learn: bool = False
    """Instead of a score: the order that a learner makes of people's scores (of `label`), without objects scored."""
    scores: Place | None = None
    """File of the scores; default the one beside the catalog."""
    fold_latent: float = 0.0
    """Distance in latent space within which rows are folded too; 0: none."""


@shows_progress()
def rank(
    catalog: Place, *, top: int = 100, options: RankOptions | None = None, to: Place | None = None, **changes: Any
) -> Ranked:
    """The objects of a catalog that are worth a look first.

    Args:
        catalog: folder of a catalog, a path or an fsspec URL.
        top: rows of the list.
        options: the order and the folding.
        to: .parquet, .csv, .ecsv, .fits or .vot file for the list.
        changes: single fields of the options by name, for example `score="p_lens"`.

    Returns:
        The list as an Arrow table with rank, rank_score, folded, then the catalog's columns.

    Raises:
        InputError: an unknown option, no such columns or object, SQL that fails, no scores to learn from.
    """
    catalog, order = text_of(catalog), with_changes(RankOptions, options, changes, "the options of rank")
    if order.like is not None and order.learn:
        raise InputError("a list is either by likeness or by what was learned: give --like or --learn")
    _refuse_useless(order)
    shared: dict[str, Any] = {"where": order.where, "latent": order.latent, "fold_radius": order.fold_radius}
    if order.learn:
        scores = ScoreFile.beside(Catalog.open(catalog), order.scores)
        learning: dict[str, Any] = {"features": order.features, "score": order.score, "learner": order.learner}
        ranked = rerank(catalog, scores, top, **learning, **shared)
    elif order.like is not None:
        ranked = ranking.like(catalog, order.like, top, features=order.features, **shared)
    else:
        ranked = ranking.top(catalog, top, score=order.score, fold_latent=order.fold_latent, **shared)
    if to is not None:
        told = provenance(Catalog.open(catalog), made_by="rank", by=ranked.by, top=top, where=order.where)
        write_rows(with_provenance(ranked.table, told), to)
    return ranked


_REST = "… {count} more columns ({names}): --to FILE writes all"

_USED = {
    "score": {"score", "fold_latent"},
    "like": {"features"},
    "learn": {"features", "score", "learner", "scores"},
}
"""Options that only some orders use, by the option that makes the order."""


def _refuse_useless(order: RankOptions) -> None:
    made_by = "learn" if order.learn else "like" if order.like is not None else "score"
    for name in sorted((set().union(*_USED.values()) - _USED[made_by]).intersection(changed(order))):
        others = " or ".join(f"--{other}" for other in _USED if name in _USED[other])
        raise InputError(f"{option_of(name)} would do nothing here, only with {others}: leave it away")


def show(ranked: Ranked, rows: int = 40) -> str:
    """The first rows as text, and what they are."""
    line = (
        f"top {len(ranked)} of {ranked.ranked} by {ranked.by}, {ranked.folded} near-duplicates folded "
        f"({ranked.objects} objects, {ranked.seconds:.1f} s)"
    )
    left = len(ranked) - rows
    more = f"\n… {left:,} more rows" if left > 0 else ""
    note = f"\n{ranked.note}" if ranked.note else ""
    return f"{as_text(ranked.table, rows, rest=_REST)}{more}\n{line}{note}"
