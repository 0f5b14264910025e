"""A whole explanation of a catalog: planned, carried out on any Dask client, written beside the rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import runs
from astroml_plugin.compute.cluster import Outcome, client_of, run_window
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.core.locking import alone_in
from astroml_plugin.explanation.choosing import Asked, asked, chosen_rows, identity
from astroml_plugin.explanation.extension import refuse_taken, sampled, taken_by, write_extension
from astroml_plugin.explanation.judging import judge
from astroml_plugin.explanation.label_outlines import labelled_tiles
from astroml_plugin.explanation.options import ExplainOptions, Explanation, MethodOptions
from astroml_plugin.explanation.pictures import draw, first_rows
from astroml_plugin.explanation.store import ARRAY, MAPS, ExplanationStore
from astroml_plugin.explanation.summaries import Layout
from astroml_plugin.explanation.trust import trust_of
from astroml_plugin.explanation.words import findings, of_trust
from astroml_plugin.explanation.work import ExplainUnit, Question, explain_unit
from astroml_plugin.inference import check_workers
from astroml_plugin.inference.driver import prepare_workers, release_workers
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.tile_table import TileInfo

Progress = Callable[[str, int, int], None]

BLOCK_BYTES = 2**24
"""Bytes of the maps of one block, about."""
_MOST = 512
"""Rows of a block, at most."""


def explain_rows(
    catalog: str, name: str, top: int, options: ExplainOptions, client: Any = None, progress: Progress | None = None
) -> Explanation:
    """Explain rows of a catalog; run again to go on after an interruption.

    Args:
        catalog: path or URL of the catalog.
        name: of the explanation.
        top: rows of highest value; 0: all.
        options: which, what and how.
        client: Dask client, or what `cluster.connect` takes; default threads of this process.
        progress: called with ("explained", objects done, objects).

    Raises:
        InputError: something that cannot be used; one sentence says what to do.
    """
    began = time.monotonic()
    about = asked(catalog, options)
    storage.refuse_web(about.catalog.url)
    annotation = refuse_taken(about.catalog, name)
    rows, left_out = chosen_rows(about, top, options.where)
    with alone_in(about.catalog.url, "explains"), client_of(client) as opened:
        plan = _planned(about, name, options, _by_tile(about, rows))
        check_workers(opened, about.job)
        done = _Tally(plan, progress or (lambda what, done, total: None))
        done.carry_out(opened)
        there = plan.store.done()
        finished = [unit for unit in plan.units if unit.block in there]
        judged = plan.store.judged()
        if options.faithfulness and finished:
            judged = judge(plan.store, finished, options.faithfulness, partial(_over, opened), done.say)
        tiles = {unit.block: unit.rows["tile"].unique().to_pylist() for unit in finished}
        write_extension(about.catalog, annotation, plan.store, tiles)
    if options.picture is not None and finished:
        draw(about.catalog, about.source.url, plan.store, first_rows(about.catalog, name), options.picture)
    table = sampled(plan.store, [unit.block for unit in finished]) if finished else None
    trust = trust_of(judged)
    told = [*(findings(table, about.bands, about.side) if table is not None else ()), *of_trust(trust)]
    complete = None if table is None else table["complete"].drop_null().to_numpy(zero_copy_only=False)
    return Explanation(
        catalog=about.catalog.url,
        name=name,
        bundle=about.job.bundles[0].name,
        number=about.number,
        method=options.method,
        objects=plan.rows,
        rows=done.rows,
        rows_skipped=plan.rows - done.rows - done.lost,
        left_out=left_out,
        complete=float(complete.mean()) if complete is not None and len(complete) else None,
        forwards=0.0 if table is None else round(float(np.mean(table["forwards"].to_numpy())), 1),
        maps=None if options.maps == "none" else storage.join(plan.store.url, MAPS, ARRAY),
        words=tuple(one.sentence for one in told),
        seconds=round(time.monotonic() - began, 3),
        failed=tuple(done.failed),
        differs=done.differs,
        trust=trust,
    )


@dataclass(frozen=True)
class _Plan:
    """Everything that is known before the first unit."""

    store: ExplanationStore
    units: tuple[ExplainUnit, ...]
    rows: int


def _planned(about: Asked, name: str, options: ExplainOptions, rows: pa.Table) -> _Plan:
    store = ExplanationStore.of(about.catalog.url, name)
    own, layout = identity(about, options, rows), Layout(about.bands, about.side)
    record = store.record()
    if record is None:
        each = 4 * len(layout.bands) * layout.side**2
        block = int(np.clip(BLOCK_BYTES // each, 1, min(_MOST, -(-rows.num_rows // 8))))
        facts = {"identity": own, "number": about.number, "bands": list(layout.bands), "side": layout.side}
        store.begin({**facts, "rows": rows.num_rows, "block": block, "made": runs.now()}, options.maps)
    elif error := taken_by(record, own, name, store.url):
        raise error
    block = int((store.record() or {})["block"])
    how = MethodOptions(**{item.name: getattr(options, item.name) for item in fields(MethodOptions)})
    question = Question(about.job, about.number, about.compared, about.found, how, options.maps, layout, store.url)
    places = _places(about.source, rows["tile"].unique().to_pylist())
    starts = range(0, rows.num_rows, block)
    labelled = labelled_tiles(about.catalog) if about.found else frozenset()
    units = tuple(
        _unit(question, number, start, rows.slice(start, block), places, labelled)
        for number, start in enumerate(starts)
    )
    return _Plan(store, units, rows.num_rows)


def _unit(
    question: Question, number: int, start: int, rows: pa.Table, places: dict[str, Any], labelled: frozenset[int]
) -> ExplainUnit:
    tiles = tuple(places[name] for name, _ in groupby(rows["tile"].to_pylist()))
    mine = labelled & {place.index for place in tiles if isinstance(place, TileInfo)}
    return ExplainUnit(question, number, start, rows.combine_chunks(), tiles, mine)


def _by_tile(about: Asked, rows: pa.Table) -> pa.Table:
    """The rows tile by tile, in the order of the source, within a tile by rank."""
    places = _places(about.source, rows["tile"].unique().to_pylist())
    number = {name: place[1] if isinstance(place, tuple) else place.index for name, place in places.items()}
    index = pa.array([number[name] for name in rows["tile"].to_pylist()], pa.int64())
    ordered = rows.append_column("index", index).sort_by([("index", "ascending"), ("rank", "ascending")])
    return ordered.drop_columns(["index"])


def _places(source: Survey | Stamps, names: Sequence[str]) -> dict[str, Any]:
    """Tile -> its `TileInfo`, or block of stamps -> its name and number.

    Raises:
        InputError: the source has no such tile or block any more.
    """
    wanted = set(names)
    if isinstance(source, Stamps):
        found: dict[str, Any] = {one.name: (one.name, one.index) for one in source.units() if one.name in wanted}
    else:
        found = {info.name: info for info in source.iter_tiles() if info.name in wanted}
    if missing := sorted(wanted - set(found)):
        raise InputError(
            f"the source has no {missing[0]}{' and others' if len(missing) > 1 else ''}, which rows of the catalog are "
            "of: it was replaced since, run infer again"
        )
    return found


def _over(
    client: Any, function: Callable[[ExplainUnit], Any], units: Sequence[ExplainUnit]
) -> Iterator[Outcome[ExplainUnit]]:
    """Outcomes of a function of units, as they end."""
    plugin, _ = prepare_workers(client)
    try:
        yield from run_window(client, function, iter(units))
    finally:
        release_workers(client, plugin)


@dataclass
class _Tally:
    """Counts of a run in progress; lives in the driver."""

    plan: _Plan
    say: Progress
    rows: int = 0
    lost: int = 0
    """Objects of units that failed."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    differs: float | None = None

    def carry_out(self, client: Any) -> None:
        """Run the units whose block is not there yet."""
        there = self.plan.store.done()
        waiting = [unit for unit in self.plan.units if unit.block not in there]
        ended = self.plan.rows - sum(unit.rows.num_rows for unit in waiting)
        for outcome in _over(client, explain_unit, waiting):
            self._take(outcome.item, outcome.value, outcome.error)
            ended += outcome.item.rows.num_rows
            self.say("explained", ended, self.plan.rows)

    def _take(self, unit: ExplainUnit, value: Any, error: BaseException | None) -> None:
        if error is None:
            self.rows += value.rows
            if np.isfinite(value.differs):
                self.differs = max(self.differs or 0.0, value.differs)
        elif isinstance(error, InputError):
            raise error
        elif isinstance(error, OSError):
            place = storage.redact(self.plan.store.url)
            raise InputError(f"{place} cannot be written: {storage.redact(str(error))}") from error
        elif isinstance(error, AstromlError):
            self.lost += unit.rows.num_rows
            first = unit.rows["tile"][0].as_py()
            self.failed.append((f"{unit.rows.num_rows} objects of {first}", storage.redact(str(error))))
        else:
            raise error
