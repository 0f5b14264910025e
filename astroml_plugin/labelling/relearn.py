"""The list that a learner makes of a catalog from people's scores."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.ranking import Ranked, Space, score_sql
from astroml_plugin.catalog.ranking.names import numeric_columns
from astroml_plugin.catalog.ranking.top import FOLD_RADIUS, SCORE, counted, details, folded, numbered, pool
from astroml_plugin.labelling.active import DEFAULT, LEARNERS, relearned
from astroml_plugin.labelling.scorefile import ScoreFile

_SIGN = re.compile(r"(^|_)anomaly_")

POOL = 100_000
"""Objects of highest score that are ranked anew."""


def rerank(
    catalog: str,
    scores: ScoreFile | pa.Table,
    count: int = 100,
    *,
    score: str | None = None,
    where: str | None = None,
    latent: str | None = None,
    features: Sequence[str] | None = None,
    learner: str = DEFAULT,
    pool_size: int = POOL,
    fold_radius: float = FOLD_RADIUS,
    scored_too: bool = False,
    seed: int = 0,
) -> Ranked:
    """Rank the most anomalous objects of a catalog anew, by what people's scores say.

    The learner sees the latent vector and the score of every scored object and predicts what people would say of the
    `pool_size` objects of highest score; memory grows with the pool, not with the catalog.

    Args:
        catalog: path or URL.
        scores: file of scores, or a table of object_id and score (0 to 5).
        count: rows of the list.
        score: the unsupervised score, see `ranking.score_sql`.
        where: SQL condition on the rows that compete.
        latent, features: what the learner sees beside the score, see `ranking.Space.of`; if neither is given, the
            latent vector and the columns anomaly_… (signs).
        learner: one of `LEARNERS`.
        pool_size: objects that are ranked anew.
        fold_radius: arcsec within which rows are folded into the best of them.
        scored_too: list objects that were scored already.
        seed: of the learner.

    Returns:
        The list; rank_score is the predicted value.

    Raises:
        InputError: too few scores, no such columns, scikit-learn is not installed.
    """
    began = time.monotonic()
    opened = Catalog.open(catalog)
    expression, _ = score_sql(opened.schema, score)
    space = Space.of(opened, latent=latent, features=features)
    if latent is None and features is None:
        space = space.with_columns(signs(opened.schema))
    given = scores.table() if isinstance(scores, ScoreFile) else scores
    ids = np.asarray(given["object_id"], np.int64)
    rows = _with_scored(opened, pool(opened, expression, space, where=where, count=pool_size), ids, expression, space)
    place = {identity: row for row, identity in reversed(list(enumerate(rows["object_id"].to_pylist())))}
    said = dict(zip(ids.tolist(), given["score"].to_pylist(), strict=True))
    known = [identity for identity in said if identity in place]
    labelled, values = [place[identity] for identity in known], [said[identity] for identity in known]
    worth = relearned(
        space.values(rows["vector"]), np.asarray(rows["rank_score"]), labelled, values, learner=learner, seed=seed
    )
    order = _order(worth, rows, set() if scored_too else set(ids.tolist()))
    ranked = rows.set_column(rows.column_names.index("rank_score"), "rank_score", pa.array(worth)).take(order)
    chosen = folded(ranked, count, fold_radius)
    kept = ranked.take(pa.array(chosen.kept))
    table = numbered(details(opened, expression, kept), kept["rank_score"], chosen.members)
    by = f"{LEARNERS[learner].about} in {space.name}, from {len(known)} scored objects"
    objects, _ = counted(opened, expression, where)
    away = int(chosen.members.sum() - len(chosen.members))
    return Ranked(opened.url, by, objects, len(order), away, table, round(time.monotonic() - began, 3))


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
