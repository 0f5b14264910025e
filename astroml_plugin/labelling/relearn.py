"""The list that a learner makes of a catalog from people's scores."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.ranking import Ranked, Space, score_sql
from astroml_plugin.catalog.ranking.names import numeric_columns
from astroml_plugin.catalog.ranking.top import FOLD_RADIUS, SCORE, counted, details, folded, numbered, pool
from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import with_changes
from astroml_plugin.core.typing import Arcsec
from astroml_plugin.labelling.active import DEFAULT, LEARNERS, relearned
from astroml_plugin.labelling.scorefile import ScoreFile

_SIGN = re.compile(r"(^|_)anomaly_")

POOL = 100_000
"""Objects of highest score that are ranked anew."""


@dataclass(frozen=True)
class OrderOptions:
    """Order of a list of objects, and what is folded in it."""

    score: str | None = None
    """Column or SQL expression, higher first; default `anomaly_score`, or the only `<bundle>_anomaly_score`."""
    where: str | None = None
    """SQL condition on the rows that compete."""
    latent: str | None = None
    """Vector column that likeness and learning go by, see `ranking.Space.of`; a learner sees the columns anomaly_…
    (signs) too where neither this nor `features` is given."""
    features: tuple[str, ...] | None = None
    """Instead: columns of numbers."""
    learner: str = DEFAULT
    """Learner of a list that learns: score_process, forest, astronomaly or gaussian_process."""
    fold_radius: Arcsec = FOLD_RADIUS
    """Arcsec within which rows are folded into the best of them; 0: only equal object_ids are."""


@dataclass(frozen=True)
class LearnOptions(OrderOptions):
    """Objects that a learner ranks anew, and what it sees of them."""

    pool_size: int = POOL
    """Objects of highest score that are ranked anew."""
    scored_too: bool = False
    """Whether objects that were scored already are listed."""
    seed: int = 0
    """Seed of the learner."""


def rerank(
    catalog: Place, scores: ScoreFile | pa.Table, count: int = 100, options: LearnOptions | None = None, **changes: Any
) -> Ranked:
    """Rank the most anomalous objects of a catalog anew, by what people's scores say.

    The learner sees the latent vector and the score of every scored object and predicts what people would say of the
    `pool_size` objects of highest score; memory grows with the pool, not with the catalog.

    Args:
        catalog: path or URL.
        scores: file of scores, or a table of object_id and score (0 to 5).
        count: rows of the list.
        options: the objects and the learner.
        changes: single fields of the options by name.

    Returns:
        The list; rank_score is the predicted value.

    Raises:
        InputError: too few scores, no such columns, scikit-learn is not installed.
    """
    began = time.monotonic()
    learn = with_changes(LearnOptions, options, changes, "the options of a ranking that learns")
    opened = Catalog.open(catalog)
    expression, _ = score_sql(opened.schema, learn.score)
    space = Space.of(opened, latent=learn.latent, features=learn.features)
    if learn.latent is None and learn.features is None:
        space = space.with_columns(signs(opened.schema))
    table = scores.table() if isinstance(scores, ScoreFile) else scores
    ids = np.asarray(table["object_id"], np.int64)
    best = pool(opened, expression, space, where=learn.where, count=learn.pool_size)
    rows = _with_scored(opened, best, ids, expression, space)
    row_of = {identity: row for row, identity in reversed(list(enumerate(rows["object_id"].to_pylist())))}
    score_of = dict(zip(ids.tolist(), table["score"].to_pylist(), strict=True))
    known = [identity for identity in score_of if identity in row_of]
    vectors, values = space.values(rows["vector"]), np.asarray(rows["rank_score"])
    labelled, ratings = [row_of[identity] for identity in known], [score_of[identity] for identity in known]
    worth = relearned(vectors, values, labelled, ratings, learner=learn.learner, seed=learn.seed)
    order = _order(worth, rows, set() if learn.scored_too else set(ids.tolist()))
    ranked = rows.set_column(rows.column_names.index("rank_score"), "rank_score", pa.array(worth)).take(order)
    chosen = folded(ranked, count, learn.fold_radius)
    best = ranked.take(pa.array(chosen.kept))
    listed = numbered(details(opened, expression, best), best["rank_score"], chosen.members)
    by = f"{LEARNERS[learn.learner].about} in {space.name}, from {len(known)} scored objects"
    objects, _ = counted(opened, expression, learn.where)
    away = int(chosen.members.sum() - len(chosen.members))
    return Ranked(opened.url, by, objects, len(order), away, listed, round(time.monotonic() - began, 3))


def signs(schema: pa.Schema) -> list[str]:
    """Columns of an anomaly score's signs: what it rests on, which a learner sees too."""
    return [name for name in numeric_columns(schema) if _SIGN.search(name) and not name.endswith(SCORE)]


def _with_scored(catalog: Catalog, rows: pa.Table, ids: np.ndarray, expression: str, space: Space) -> pa.Table:
    """The pool and the scored objects that are not in it."""
    there = pc.is_in(pa.array(ids), value_set=rows["object_id"].combine_chunks())
    missing = pa.array(ids).filter(pc.invert(there)).to_pylist()
    if not missing:
        return rows
    condition = f"object_id IN ({', '.join(map(str, missing))})"
    more = pool(catalog, expression, space, where=condition, count=max(len(missing), 1) * 4)
    return pa.concat_tables([rows, more], promote_options="permissive")


def _order(worth: np.ndarray, rows: pa.Table, left_out: set[int]) -> pa.Array:
    """Rows by falling worth, equal ones by object_id."""
    ids = np.asarray(rows["object_id"])
    order = np.lexsort([ids, -worth])
    keep = np.isfinite(worth[order]) & ~np.isin(ids[order], np.fromiter(left_out, np.int64, len(left_out)))
    return pa.array(order[keep])
