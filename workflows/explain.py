"""Explain: which pixels made a number, for the top of a catalog, as columns beside its rows and maps in Zarr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from astroml_plugin import explanation
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.settings import with_changes
from astroml_plugin.explanation.options import ExplainOptions, Explanation
from workflows.notebook import shows_progress

if TYPE_CHECKING:
    from astroml_plugin.explanation.run import Progress

__all__ = ["ExplainOptions", "Explanation", "explain", "show"]


@shows_progress()
def explain(
    catalog: Place,
    *,
    name: str = "explained",
    top: int = 1000,
    options: ExplainOptions | None = None,
    client: Any = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Explanation:
    """Say which pixels made a number of the rows of a catalog; run again to go on after a stop.

    Args:
        catalog: folder of a catalog, a path or an fsspec URL.
        name: name of the explanation, which is the view's name in queries.
        top: objects with the highest values of the column that ranks; 0: all rows.
        options: which rows, which number, which method.
        client: Dask client, or what `cluster.connect` takes; default threads of this process.
        progress: called with ("explained", objects done, objects).
        changes: single fields of the options by name, for example `by="p_lens"` or `method="occlusion"`.

    Raises:
        InputError: a column, bundle, source, number or option that cannot be used; one sentence says what to do.
    """
    return explanation.explain_rows(
        text_of(catalog), name, top, with_changes(ExplainOptions, options, changes, "explain"), client, progress
    )


def show(result: Explanation) -> str:
    """Outcome in words."""
    lines = [
        f"explained {result.number} of {result.rows} objects by {result.method} ({result.rows_skipped} there already, "
        f"{result.forwards:g} looks each) in {result.seconds:.1f} s"
    ]
    lines += result.words
    if result.left_out:
        lines.append(f"{result.left_out} rows with repeated ids have none")
    lines.append(f"JOIN {result.name} USING (object_id, tile)" + (f"; maps in {result.maps}" if result.maps else ""))
    return "\n".join(lines)
