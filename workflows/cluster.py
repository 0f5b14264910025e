"""Cluster: groups of like objects without labels, as columns beside the rows of a catalog."""

from __future__ import annotations

from typing import Any

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.annotating import Annotated, ClusterOptions, groups, make
from astroml_plugin.catalog.annotating.run import Progress
from astroml_plugin.catalog.annotating.stability import STABLE
from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import with_changes
from workflows.notebook import shows_progress

__all__ = ["Annotated", "ClusterOptions", "cluster", "show"]

_LISTED = 12


@shows_progress()
def cluster(
    catalog: Place,
    *,
    name: str = "clusters",
    options: ClusterOptions | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Annotated:
    """Find groups of like objects in a catalog, from stored vectors or columns of numbers; no labels, no pixels.

    Clusters are fitted on a sample that is chosen by hashed ids; all rows are assigned, file by file. Run again when
    the catalog has grown, or after a stop: the clusters that were fitted first are used for all rows.

    Args:
        catalog: folder of a catalog, a path or an fsspec URL.
        name: name of the annotation, which is the view's name in queries.
        options: method, number of clusters, columns, scaling, sample.
        progress: called with ("bootstraps", fits done, fits), then ("cluster", files done, files).
        changes: single fields of the options by name, for example `clusters=8` or `features=("size", "flux")`.

    Raises:
        InputError: columns that are no vectors or numbers, objects that have no clusters, an option that cannot be
            used, another annotation of that name.
    """
    chosen = with_changes(ClusterOptions, options, changes, "the options of cluster")
    opened = Catalog.open(catalog)
    return make(opened, name, groups(opened, chosen, progress), progress)


def show(result: Annotated) -> str:
    """Outcome in words: sizes and stability of the clusters, and their medoids."""
    about = result.about
    lost = f"; {result.left_out} rows with repeated ids have none" if result.left_out else ""
    lines = [
        f"{len(about['medoids'])} clusters by {about['method']} from {', '.join(about['columns'])} (scaling "
        f"{about['scaling']}), fitted on {about['fitted_on']:,} of {about['objects']:,} objects "
        f"({about['flagged_left_out']:,} with a flag left out, {about['without_vector']:,} without a finite vector)"
    ]
    stable = about["stability"]
    if stable:
        lines.append(
            f"stability over {stable['fits']} bootstraps: adjusted Rand index {stable['rand']:.2f} "
            f"({stable['low']:.2f} to {stable['high']:.2f}); 1 is the same clusters, 0 is chance"
        )
    for one in about["medoids"][:_LISTED]:
        number = one["cluster"]
        told = f"  cluster {number}: {about['fitted_sizes'][number] / about['fitted_on']:.1%} of the sample"
        if stable:
            alike = stable["jaccard"][number]
            told += f", Jaccard index {alike:.2f}{'' if alike >= STABLE else ' (not stable)'}"
        lines.append(f"{told}, medoid {one['object_id']}")
    if len(about["medoids"]) > _LISTED:
        lines.append(f"  … and {len(about['medoids']) - _LISTED} more")
    if about["fitted_noise"]:
        lines.append(f"  noise (-1): {about['fitted_noise'] / about['fitted_on']:.1%} of the sample")
    lines.append(
        f"{result.rows} rows of {result.files} files ({result.files_skipped} there already) have "
        f"{', '.join(result.columns)}{lost}, in {result.seconds:.1f} s: JOIN {result.name} USING (object_id, tile)"
    )
    return "\n".join(lines)
