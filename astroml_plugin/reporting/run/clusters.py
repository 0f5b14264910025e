"""Groups that `cluster` found: their sizes, stability, medoids with stamps, and whether a group is of one tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astroml_plugin.catalog import sql
from astroml_plugin.catalog.annotating.stability import STABLE
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError
from astroml_plugin.reporting.charts import Axis, Bars, Chart
from astroml_plugin.reporting.pages import Block, Missing, Note, Pictures, Section, Table
from astroml_plugin.reporting.run.beside import CLUSTERS, Beside, all_beside, joined, newest
from astroml_plugin.reporting.run.subject import PRIMARY, RunSubject
from astroml_plugin.reporting.run.thumbnails import pictures
from astroml_plugin.reporting.words import many, number, share

TITLE = "Groups without labels"
_SHOWN = 2
"""Annotations that are shown."""

_SEEN = 10
"""Clusters with stamps."""

_MEMBERS = 5
"""Stamps of each besides its medoid."""

_ONE_PLACE = 0.5
"""Part of a cluster in one tile from which it is doubted."""


def section(subject: RunSubject) -> Section | Missing:
    """Sizes, stability and stamps of the newest clusters."""
    known = [one for one in all_beside(subject) if one.kind == CLUSTERS and "medoids" in one.about]
    if not known:
        return Missing(TITLE, "there are none beside the catalog: `cluster CATALOG` makes them")
    text, blocks = newest(subject, known, _SHOWN, _about)
    rule = (
        f"A cluster is stable where its mean Jaccard index over the bootstraps is {STABLE:g} or more. Named in red is "
        "one of which more than half lies in one tile, and at least twice the part of all objects that lies there."
    )
    return Section(TITLE, text, blocks, rule)


def _about(subject: RunSubject, one: Beside) -> tuple[str, list[Block]]:
    about = one.about
    rows = joined(subject, _SIZES.format(name=sql.name(one.name), primary=PRIMARY)).to_pylist()
    counted = {int(row["cluster"]): row for row in rows if row["cluster"] is not None}
    total = sum(int(row["objects"]) for row in rows)
    stable: Mapping[str, Any] = about.get("stability") or {}
    text = (
        f"{one.name}: {many(len(about['medoids']), 'cluster')} by {about['method']} from {', '.join(about['columns'])} "
        f"(scaling {about['scaling']}), fitted on {about['fitted_on']:,} of {about['objects']:,} objects."
    )
    if stable:
        text += (
            f" Over {stable['fits']} bootstraps the adjusted Rand index is {stable['rand']:.2f} "
            f"({stable['low']:.2f} to {stable['high']:.2f}; 1 is the same clusters, 0 is chance)."
        )
    without = sum(int(row["objects"]) for row in rows if row["cluster"] is None)
    if without:
        text += f" {many(without, 'object has', 'objects have')} no finite numbers, and no cluster."
    blocks: list[Block] = [_sizes(one.name, counted, total)]
    table, doubts = _table(one, counted, total, subject.counts["objects"])
    blocks += [Note(doubt, bad=True) for doubt in doubts]
    blocks.append(table)
    return text, [*blocks, *_stamps(subject, one)]


def _sizes(name: str, counted: Mapping[int, Mapping[str, Any]], total: int) -> Chart:
    numbers = sorted(counted, key=lambda cluster: (cluster < 0, cluster))
    part = np.array([counted[cluster]["objects"] for cluster in numbers], float) / max(total, 1)
    places = np.arange(len(numbers))[::-1].astype(float)
    ticks = [_called(cluster) for cluster in numbers][::-1]
    bars = Bars(places, part, sideways=True)
    height = 90 + 24 * len(numbers)
    return Chart(f"{name}: sizes", Axis("part of the objects"), Axis("", ticks=ticks), [bars], height, legend=False)


def _called(cluster: int) -> str:
    return "noise" if cluster < 0 else f"cluster {cluster}"


def _table(one: Beside, counted: Mapping[int, Mapping[str, Any]], total: int, objects: int) -> tuple[Table, list[str]]:
    """All clusters, and sentences on those that are of one tile."""
    jaccard: Sequence[float] = (one.about.get("stability") or {}).get("jaccard") or ()
    medoid = {item["cluster"]: item["object_id"] for item in one.about["medoids"]}
    rows, doubts = [], []
    for cluster in sorted(counted, key=lambda cluster: (cluster < 0, cluster)):
        row = counted[cluster]
        alike = jaccard[cluster] if 0 <= cluster < len(jaccard) else None
        here, everywhere = row["most"] / row["objects"], row["tile_objects"] / max(objects, 1)
        stable = "–" if alike is None else "yes" if alike >= STABLE else "no"
        sizes = [f"{row['objects']:,}", share(row["objects"], total), share(row["flagged"], row["objects"])]
        place = [str(row["tile"]), f"{here:.0%} ({everywhere:.0%} of all)"]
        rows.append([_called(cluster), *sizes, number(alike), stable, str(medoid.get(cluster, "–")), *place])
        if cluster >= 0 and row["objects"] > _SEEN and here > max(_ONE_PLACE, 2 * everywhere):
            doubts.append(
                f"{here:.0%} of {_called(cluster)} of {one.name} lies in {row['tile']}, which has {everywhere:.0%} of "
                "all objects. Look for an artefact there."
            )
    head = ("cluster", "objects", "part", "with a flag", "Jaccard index", "stable", "medoid")
    return Table((*head, "tile with most of it", "part there"), rows, f"{one.name}: clusters"), doubts


def _stamps(subject: RunSubject, one: Beside) -> list[Block]:
    """The medoid of each cluster, and some of its other members."""
    name = sql.name(one.name)
    text = (
        f"SELECT * FROM (SELECT object_id, tile, x, y, {name}.cluster, {name}.medoid, row_number() OVER (PARTITION BY "  # noqa: S608
        f"{name}.cluster ORDER BY {name}.medoid DESC, flags <> 0, hash(object_id)) AS place_ FROM catalog "
        f"JOIN {name} USING (object_id, tile) WHERE {PRIMARY} AND {name}.cluster BETWEEN 0 AND {_SEEN - 1}) "
        f"WHERE place_ <= {1 + _MEMBERS} ORDER BY cluster, place_"
    )
    rows = joined(subject, text).to_pylist()
    try:
        drawn = pictures(subject.pixels(), rows, _caption)
    except AstromlError as error:
        return [Note(f"No pictures of {one.name}: {storage.redact(str(error))}")]
    return [
        Pictures(
            drawn, title=f"{one.name}: medoids, and {_MEMBERS} members of each drawn at random (without a flag first)"
        )
    ]


def _caption(row: Mapping[str, Any]) -> list[str]:
    return [f"cluster {row['cluster']}{', medoid' if row['medoid'] else ''}", str(row["object_id"])]


_SIZES = (
    "WITH each AS (SELECT {name}.cluster AS cluster, tile, count(*) AS n, count(*) FILTER (flags <> 0) AS flagged "
    "FROM catalog JOIN {name} USING (object_id, tile) WHERE {primary} GROUP BY {name}.cluster, tile), "
    "tiles AS (SELECT tile, sum(n) AS objects FROM each GROUP BY tile) "
    "SELECT cluster, sum(n)::BIGINT AS objects, sum(flagged)::BIGINT AS flagged, max(n) AS most, "
    "arg_max(tile, n) AS tile, arg_max(tiles.objects, n)::BIGINT AS tile_objects "
    "FROM each JOIN tiles USING (tile) GROUP BY cluster ORDER BY cluster"
)
"""SQL of the sizes of clusters, and of the tile that has most of each."""
