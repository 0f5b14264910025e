"""Attributions judged on a sample of the explained objects: pixels in their order, and networks drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import AstromlError
from astroml_plugin.core.hashing import mixed
from astroml_plugin.core.typing import I64
from astroml_plugin.explanation.attribution import Attribution
from astroml_plugin.explanation.baselines import baselines_of
from astroml_plugin.explanation.checks import gains, last_and_all, rank_correlations
from astroml_plugin.explanation.methods import attributed, shares
from astroml_plugin.explanation.store import ExplanationStore
from astroml_plugin.explanation.target import Seen, Target
from astroml_plugin.explanation.trust import SCHEMA
from astroml_plugin.explanation.work import ExplainUnit, Question, over_tiles, seen_parts
from astroml_plugin.inference.reading import BlockWork, TileWork
from astroml_plugin.inference.resident import process_cache

_DRAWN = "explain drawn anew"
_SEED = 0
"""Seed of the sample, of random orders of pixels and of new weights: the same objects are judged in every run."""
_AT_ONCE = 16
"""Objects of one unit."""


def sample_of(units: Sequence[ExplainUnit], count: int, judged: pa.Table) -> list[ExplainUnit]:
    """Units of at most so many objects drawn from those of some units, those that are judged already left out.

    Args:
        units: whose blocks are there.
        count: objects of the sample.
        judged: those of earlier runs.
    """
    keys = np.concatenate([mixed(np.asarray(unit.rows["object_id"]), _SEED) for unit in units])
    last = np.sort(keys)[min(count, len(keys)) - 1]
    there = set(zip(judged["object_id"].to_pylist(), judged["tile"].to_pylist(), strict=True))
    return [part for unit in units for part in _parts(unit, last, there)]


def _parts(unit: ExplainUnit, last: Any, there: set[tuple[int, str]]) -> Iterator[ExplainUnit]:
    ids = np.asarray(unit.rows["object_id"])
    chosen = np.flatnonzero(mixed(ids, _SEED) <= last)
    pairs = zip(ids[chosen].tolist(), unit.rows["tile"].take(pa.array(chosen)).to_pylist(), strict=True)
    chosen = chosen[np.array([pair not in there for pair in pairs], bool)]
    for start in range(0, len(chosen), _AT_ONCE):
        rows = unit.rows.take(pa.array(chosen[start : start + _AT_ONCE]))
        tiles = set(rows["tile"].to_pylist())
        places = tuple(place for place in unit.tiles if (place[0] if isinstance(place, tuple) else place.name) in tiles)
        yield replace(unit, rows=rows.combine_chunks(), tiles=places, labelled=frozenset())


def judge_unit(unit: ExplainUnit) -> int:
    """Judge the attributions of the rows of a unit and write what was found; how many they are.

    Raises:
        AstromlError: pixels cannot be read.
        OSError: nothing can be written.
    """
    asked = unit.question

    def one_tile(work: TileWork | BlockWork, rows: pa.Table, labels: Any, device: str) -> list[pa.Table]:
        return [_judged(asked, target, seen, part) for target, seen, part, _ in seen_parts(asked, work, rows, device)]

    table = pa.concat_tables([part for parts in over_tiles(unit, one_tile) for part in parts])
    ExplanationStore(asked.url).write_judged(table)
    return int(table.num_rows)


def _judged(asked: Question, target: Target, seen: Seen, rows: pa.Table) -> pa.Table:
    """Rows of `trust.SCHEMA`; null for objects without a number."""
    ids: I64 = np.asarray(rows["object_id"])
    make: Callable[[Target], Attribution] = lambda one: attributed(one, seen, asked.how, ids)  # noqa: E731
    found = make(target)
    baseline = baselines_of(target, seen, asked.how, ids)[0]
    gained = gains(target, seen, baseline, shares(found, asked.how.method, seen.image - baseline), ids, _SEED)
    key = (_DRAWN, asked.job.bundles[0].sha256, asked.number, str(seen.image.device))
    last, every = (
        rank_correlations(found.maps, make(changed).maps)
        for changed in process_cache(key, lambda: last_and_all(target, _SEED))
    )
    columns = (gained.deletion, gained.insertion, gained.difference, last, every)
    known = np.isfinite(found.value.double().cpu().numpy())
    numbers = {
        name: pa.array(column, mask=~(known & np.isfinite(column)))
        for name, column in zip(SCHEMA.names[2:], columns, strict=True)
    }
    return pa.table({"object_id": rows["object_id"], "tile": rows["tile"], **numbers}).cast(SCHEMA)


def judge(
    store: ExplanationStore,
    units: Sequence[ExplainUnit],
    count: int,
    run: Callable[[Callable[[ExplainUnit], Any], Sequence[ExplainUnit]], Iterator[Any]],
    say: Callable[[str, int, int], None],
) -> pa.Table:
    """Judge a sample of the objects of some units, unless they are judged already; all that are judged.

    Args:
        store: of the explanation.
        units: whose blocks are there.
        count: objects of the sample.
        run: gives the outcomes of a function of units.
        say: called with ("judged", objects done, objects).
    """
    waiting = sample_of(units, count, store.judged())
    total, ended = sum(unit.rows.num_rows for unit in waiting), 0
    for outcome in run(judge_unit, waiting) if waiting else ():
        if outcome.error is not None and not isinstance(outcome.error, AstromlError):
            raise outcome.error
        ended += outcome.item.rows.num_rows
        say("judged", ended, total)
    return store.judged()
