"""Rank: a short list from a catalog of any size, by a score, by likeness to an object, or learned from scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from astroml_plugin.catalog import Catalog, ranking
from astroml_plugin.catalog.query import write_rows
from astroml_plugin.catalog.ranking import Ranked
from astroml_plugin.catalog.ranking.index import LatentIndex
from astroml_plugin.catalog.ranking.top import FOLD_RADIUS
from astroml_plugin.core.errors import InputError
from astroml_plugin.labelling.active import DEFAULT
from astroml_plugin.labelling.relearn import rerank
from astroml_plugin.labelling.scorefile import ScoreFile
from workflows.query import as_text

__all__ = ["LatentIndex", "Ranked", "rank", "show"]


def rank(
    catalog: str,
    *,
    top: int = 100,
    score: str | None = None,
    where: str | None = None,
    like: int | None = None,
    learn: bool = False,
    scores: str | None = None,
    latent: str | None = None,
    features: Sequence[str] | None = None,
    learner: str = DEFAULT,
    fold_radius: float = FOLD_RADIUS,
    fold_latent: float = 0.0,
    to: str | None = None,
) -> Ranked:
    """The objects of a catalog that are worth a look first.

    Args:
        catalog: folder of a catalog, a path or an fsspec URL.
        top: rows of the list.
        score: column or SQL expression, higher first; default `anomaly_score`, or the only `<bundle>_anomaly_score`.
        where: SQL condition on the rows that compete.
        like: instead, the nearest neighbours of this object_id in latent space.
        learn: instead, what a learner makes of people's scores (of `label`), without the objects that were scored.
        scores: their file; default the one beside the catalog.
        latent, features: the space of `like` and `learn`: a vector column, or columns of numbers.
        learner: score_process, forest, astronomaly or gaussian_process.
        fold_radius: arcsec within which rows are folded into the best of them; 0: only equal object_ids are.
        fold_latent: distance in latent space within which rows are folded too; 0: none.
        to: .parquet, .csv, .fits or .vot file for the list.

    Returns:
        The list as an Arrow table with rank, rank_score, folded, then the catalog's columns.

    Raises:
        InputError: no such columns or object, SQL that fails, no scores to learn from.
    """
    if like is not None and learn:
        raise InputError("a list is either by likeness or by what was learned: give --like or --learn")
    shared: dict[str, Any] = {"where": where, "fold_radius": fold_radius}
    if learn:
        given = ScoreFile.beside(Catalog.open(catalog), scores)
        space: dict[str, Any] = {"latent": latent, "features": features, "score": score, "learner": learner}
        found = rerank(catalog, given, top, **space, **shared)
    elif like is not None:
        found = ranking.like(catalog, like, top, latent=latent, features=features, **shared)
    else:
        found = ranking.top(catalog, top, score=score, latent=latent, fold_latent=fold_latent, **shared)
    if to is not None:
        write_rows(found.table, to)
    return found


def show(found: Ranked, rows: int = 40) -> str:
    """The first rows as text, and what they are."""
    line = (
        f"top {len(found)} of {found.ranked} by {found.by}, {found.folded} near-duplicates folded "
        f"({found.objects} objects, {found.seconds:.1f} s)"
    )
    return f"{as_text(found.table, rows)}\n{line}"
