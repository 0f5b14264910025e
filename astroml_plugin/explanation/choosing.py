"""Subject of an explanation of a catalog: the bundle, its number, the pixels, and the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from astroml_plugin.catalog import Catalog, sql
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.ranking.names import check_numeric, numeric_columns, unknown
from astroml_plugin.catalog.ranking.top import condition
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping, refuse_unknown
from astroml_plugin.explanation.options import ExplainOptions
from astroml_plugin.inference.forward import prepared_bands
from astroml_plugin.inference.job import Job
from astroml_plugin.inference.models import task_for
from astroml_plugin.inference.options import ExecutionOptions, MeasureOptions
from astroml_plugin.inference.planning import assigned, check_bundles, load_bundles, pixels_needed
from astroml_plugin.sources.stamps import Stamps, open_source
from astroml_plugin.sources.survey import Survey
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.tasks.run_options import option_names
from astroml_plugin.training.bundle import ModelBundle

_FOUND = "label_id"
"""Column of catalogs whose objects a bundle has found."""
_BY = "--by COLUMN"


@dataclass(frozen=True)
class Asked:
    """Everything that decides an explanation but its method."""

    catalog: Catalog
    """The catalog."""
    source: Survey | Stamps
    """Survey or stamps with the pixels."""
    job: Job
    """Values that the engine's units share, as in the run that measured the rows."""
    task: Task
    """The bundle's task, with the options of that run."""
    number: str
    """Number that is explained."""
    by: str | None
    """Column that ranks."""
    compared: str
    """Number of the task that this column holds; empty where there is none."""

    @property
    def found(self) -> bool:
        """Whether a bundle found the objects: they are measured where they are, and not centred."""
        return _FOUND in self.catalog.schema.names

    @property
    def side(self) -> int:
        """Pixels of a stamp's side."""
        return window_side(self.task)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the channels that are explained."""
        bands = prepared_bands(self.task, self.source.bands, self.job.bundles[0].band)
        named, channels = self.task.explained_bands(bands), int(self.task.example_inputs(1)[0].shape[1])
        return named if len(named) == channels else tuple(f"channel_{number}" for number in range(channels))


def window_side(task: Task) -> int:
    """Pixels of the side of a stamp: of a bundle that finds objects, all that reaches a pixel's answer."""
    if isinstance(task, DetectingTask):
        return 2 * task.stride * -(-(task.overlap + task.stride) // task.stride)
    return task.stamp_size


def asked(catalog: str, options: ExplainOptions) -> Asked:
    """Find bundle, source, number and order, and check that they belong to the catalog.

    Raises:
        InputError: one of them is missing, unknown, or of another catalog.
    """
    opened = Catalog.open(catalog)
    records = [one for one in opened.runs() if one.get("kind", "infer") == "infer"]
    last = records[-1] if records else {}
    known = opened.identity.get("bundles")
    if not isinstance(known, Mapping) or not known:
        raise InputError(f"{storage.redact(catalog)} does not say which bundles measured it: it cannot be explained")
    name, url = _bundle(opened, last, known, options)
    bundle = ModelBundle.load(url)
    if bundle.sha256 != known[name]:
        raise InputError(
            f"bundle {bundle.name} ({bundle.sha256[:12]}…) did not measure this catalog, {name} "
            f"({str(known[name])[:12]}…) did: give it with --bundle, or explain another catalog"
        )
    source = _source(opened, last, options.source)
    task, measure = bundle.task(), _measure(last, opened, bundle.task(), name)
    loaded = [(replace(ref, name=name), model) for ref, model in load_bundles(bundle)]
    execution = ExecutionOptions(device=options.device)
    bundles, job = assigned(loaded, source, measure, execution)
    job = replace(job, source=storage.absolute(source.url), catalog=opened.url)
    if isinstance(task, DetectingTask) and not isinstance(source, Survey):
        raise InputError(f"bundle {name} finds objects in a survey: give the survey with --source")
    check_bundles(bundles, source, job)
    job = replace(job, **pixels_needed(bundles, source, job))
    task = task_for(job, job.bundles[0], task)
    if isinstance(task, DetectingTask):
        job = replace(job, stamp_size=window_side(task) + 2 * task.stride)  # windows begin at its multiples
    by = _by(opened, task, name, len(known) > 1, options.by)
    number, compared = _number(task, name, by, options.number)
    return Asked(opened, source, job, task, number, by, compared)


def _bundle(
    catalog: Catalog, last: Mapping[str, Any], known: Mapping[str, Any], options: ExplainOptions
) -> tuple[str, str]:
    """(name in the catalog, URL) of the bundle."""
    urls = {str(one.get("name")): str(one.get("url")) for one in last.get("bundles") or ()}
    if options.bundle in known:
        return str(options.bundle), urls.get(str(options.bundle), str(options.bundle))
    if options.bundle is not None:
        given = ModelBundle.load(options.bundle)
        same = [str(name) for name, sha256 in known.items() if sha256 == given.sha256]
        if not same:
            raise InputError(
                f"bundle {given.name} ({given.sha256[:12]}…) did not measure this catalog: {', '.join(known)} did"
            )
        return same[0], options.bundle
    fitting = list(known)
    if len(known) > 1 and options.by:
        fitting = [name for name in known if options.by.startswith(f"{name}_")]
    if len(fitting) != 1:
        raise InputError(f"the catalog is of the bundles {', '.join(known)}: choose one by --bundle NAME, or by {_BY}")
    return str(fitting[0]), urls.get(str(fitting[0]), str(fitting[0]))


def _source(catalog: Catalog, last: Mapping[str, Any], given: str | None) -> Survey | Stamps:
    url = given or last.get("source")
    if not url:
        raise InputError("the catalog does not say where its pixels are: give the survey or stamps with --source")
    try:
        source = open_source(str(url))
    except InputError as error:
        raise InputError(f"{error}; give the survey or stamps of this catalog with --source") from error
    expected = catalog.identity.get("source")
    if expected != source.id:
        raise InputError(
            f"{storage.redact(str(url))} is not what the catalog was made from (its id is {source.id[:8]}…, the "
            f"catalog's source {str(expected)[:8]}…): give that one with --source"
        )
    return source


def _measure(last: Mapping[str, Any], catalog: Catalog, task: Task, name: str) -> MeasureOptions:
    """Options of the run that measured the rows, those of other bundles left out."""
    mine = {item.name for item in fields(MeasureOptions)}
    settings = last.get("settings") or catalog.identity.get("settings") or {}
    given = {key: value for key, value in dict(settings).items() if key in mine}
    options = dict(given.get("options") or {})
    own = set(option_names(task))
    kept = {key: value for key, value in options.items() if key in own and _meant(task, key, value)}
    kept |= {key.removeprefix(f"{name}."): value for key, value in options.items() if key.startswith(f"{name}.")}
    given |= {"options": kept, "precision": "float32"}
    if not task.takes_any_band and not isinstance(task, DetectingTask):
        given["band"] = None
    return from_mapping(MeasureOptions, given, "the settings of the catalog's run")


def _meant(task: Task, name: str, value: Any) -> bool:
    """Whether an option of a run was for this bundle, such as a prior of its own classes."""
    try:
        return bool(type(task).takers(name, value, [task]))
    except InputError:
        return False


def _by(catalog: Catalog, task: Task, name: str, several: bool, given: str | None) -> str | None:
    """The column that ranks; None where nothing is said and nothing is usual."""
    schema = catalog.schema
    if given is not None:
        if given not in schema.names:
            raise unknown(schema, given, _BY)
        check_numeric(schema, given, _BY)
        return given
    positive = getattr(task.settings, "positive", "")
    for usual in (f"p_{positive}", "anomaly_score"):
        column = f"{name}_{usual}" if several else usual
        if column in numeric_columns(schema):
            return column
    return None


def _number(task: Task, name: str, by: str | None, given: str | None) -> tuple[str, str]:
    """(what is explained, the number of the task that the column holds)."""
    known = task.explained()
    if not known:
        raise InputError(f"bundle {name} gives no number of an object that could be explained: choose another bundle")
    if given is not None:
        refuse_unknown([given], known, "--number")
    held = "" if by is None else by.removeprefix(f"{name}_")
    held = held if held in known else by if by in known else ""
    odds = f"logit_{(held or (by or '').removeprefix(f'{name}_')).removeprefix('p_')}"
    chosen = given or (odds if odds in known else held) or next(iter(known))
    return chosen, held or ""


def chosen_rows(asked: Asked, top: int, where: str | None) -> tuple[pa.Table, int]:
    """The rows to be explained, in order of their rank, and how many were left out as their id is there twice.

    Args:
        asked: catalog and order.
        top: rows of highest value; 0: all rows.
        where: SQL condition on the rows that compete.

    Returns:
        object_id, tile, x, y, ra, dec, score (float64, null where nothing ranks), label_id (null where the objects were
        given), rank from 1.

    Raises:
        InputError: no column ranks the rows, or no row is left.
    """
    if top < 0:
        raise InputError(f"--top {top}: give 1 or more, or 0 for all rows")
    if top and asked.by is None:
        raise InputError(f"say which column ranks the objects, by {_BY}; or --top 0 explains all rows")
    score = "NULL::DOUBLE" if asked.by is None else f"({sql.name(asked.by)})::DOUBLE"
    finite = "" if asked.by is None else f" AND isfinite({score})"
    label = _FOUND if asked.found else "NULL::INTEGER"
    text = (
        f"SELECT object_id, tile, x, y, ra, dec, {score} AS score, {label} AS {_FOUND} FROM catalog "  # noqa: S608
        f"WHERE {condition(where)}{finite} ORDER BY score DESC, object_id, tile, x, y"
    )
    found = query(asked.catalog.url, text + (f" LIMIT {top}" if top else "")).to_arrow()
    if not found.num_rows:
        ranked = f"a value of {asked.by}" if asked.by else "what is asked for"
        raise InputError(f"no row of the catalog has {ranked}: choose another column by {_BY}, or another --where")
    found = found.append_column("rank", pa.array(range(1, found.num_rows + 1), pa.int64()))
    counts = found.group_by(["object_id", "tile"]).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1))
    if not twice.num_rows:
        return found, 0
    keys = {(row["object_id"], row["tile"]) for row in twice.to_pylist()}
    pairs = zip(found["object_id"].to_pylist(), found["tile"].to_pylist(), strict=True)
    once = found.filter(pa.array([pair not in keys for pair in pairs]))
    return once, found.num_rows - once.num_rows


def identity(asked: Asked, options: ExplainOptions, rows: pa.Table) -> dict[str, Any]:
    """All that decides an explanation, as plain JSON."""
    keys = [rows[name].to_pylist() for name in ("object_id", "tile")]
    decided = ("method", "baseline", "draws", "tolerance", "forwards", "window", "stride", "seed", "maps")
    ref = asked.job.bundles[0]
    return {
        "source": asked.source.id,
        "bundle": ref.sha256,
        "settings": json.loads(ref.options),
        "number": asked.number,
        "rows": storage.digest(*keys),
        "outlines": "label maps" if asked.found else "light",
        **{name: getattr(options, name) for name in decided},
    }
