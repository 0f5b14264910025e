"""Pictures of explanations: each object beside the map of what raised its number and what lowered it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.query import query
from astroml_plugin.core import storage
from astroml_plugin.core.typing import F32
from astroml_plugin.explanation.store import ExplanationStore
from astroml_plugin.labelling.paint import Painter
from astroml_plugin.labelling.pixels import PixelReader

_CLIPPED = 99.5
"""Per cent of the pixels of a map within its scale of colours."""


SHOWN = 8
"""Objects of a picture."""


def first_rows(catalog: Catalog, name: str) -> pa.Table:
    """Summaries of the first objects of an explanation, with x and y."""
    text = f'SELECT * FROM catalog JOIN "{name}" USING (object_id, tile) ORDER BY rank LIMIT {SHOWN}'  # noqa: S608
    return query(catalog.url, text).to_arrow()


def draw(catalog: Catalog, source: str, store: ExplanationStore, rows: pa.Table, to: str) -> None:
    """Draw the objects of some rows: stamp, map of all bands, and map of each band.

    Args:
        catalog: the catalog.
        source: URL of its pixels.
        store: the explanation, with maps.
        rows: its summaries, with x and y.
        to: file of the picture.
    """
    layout, record = store.layout(), store.record() or {}
    reader, array = PixelReader(source, catalog), store.maps()
    stamps = [reader.stamp(row, layout.side) for row in rows.select(["object_id", "tile", "x", "y"]).to_pylist()]
    maps: F32 = np.stack([np.asarray(array[row], np.float32) for row in rows["map_row"].to_pylist()])
    painter = Painter.of([image for image, _ in stamps], reader.bands)
    shown = [painter.picture(image, usable, own=True) for image, usable in stamps]
    maps = maps if painter.noise is None else maps[:, :, ::-1]
    values = [f"{rank}: {value:.3g}" for rank, value in zip(rows["rank"].to_pylist(), rows["value"].to_pylist())]
    figure = figure_of(shown, maps, layout.bands, values, str(record["number"]))
    data = io.BytesIO()
    figure.savefig(data, format=to.rpartition(".")[2].lower(), dpi=120)
    storage.write_atomic(storage.absolute(to), data.getvalue())


def figure_of(stamps: Sequence[Any], maps: F32, bands: Sequence[str], titles: Sequence[str], number: str) -> Any:
    """Figure of objects in rows: picture, sum of the maps, map of each band; red raises the number, blue lowers it.

    Args:
        stamps: pictures (h, w) or (h, w, 3), first row on top.
        maps: (n, channel, h, w), first row on top.
        bands: names of the channels.
        titles: text of each object.
        number: what is explained.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    several = len(bands) > 1
    heads = ["stamp", "all bands" if several else bands[0], *(bands if several else ())]
    figure = Figure(figsize=(1.7 * len(heads), 1.75 * len(stamps) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(stamps), len(heads), squeeze=False)
    for row, (stamp, one, title) in enumerate(zip(stamps, maps, titles, strict=True)):
        planes = [one.sum(0), *(one if several else ())]
        top = max(float(np.percentile(np.abs(planes[0]), _CLIPPED)), 1e-12)
        axes[row, 0].imshow(stamp, cmap="gray", interpolation="nearest")
        axes[row, 0].set_ylabel(title, fontsize=9)
        for axis, plane in zip(axes[row, 1:], planes, strict=True):
            axis.imshow(plane, cmap="RdBu_r", vmin=-top, vmax=top, interpolation="nearest")
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(f"What raises {number} (red) and lowers it (blue)", fontsize=11)
    return figure
