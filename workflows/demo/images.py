"""The second mode of `demo`: real FITS images of a folder, with the catalogues that lie beside them or without any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from distributed import Client

from astroml_plugin.catalog.objects import ObjectSettings
from astroml_plugin.catalog.objects.folder import FolderImage, find_images
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError, InputError
from astroml_plugin.evaluation.gallery import Field, Snapshot, cut, images_picture
from astroml_plugin.sources.flatten import flatten_survey, mosaic
from astroml_plugin.sources.survey import Survey
from workflows.demo.models import DemoModel, train_model
from workflows.demo.steps import FINDER, DemoResult, Steps, shown
from workflows.infer import ObjectTable, infer
from workflows.ingest import ingest
from workflows.progress import Reporter
from workflows.query import query

_HALO, _SHOWN, _CUTOUT = 128, 8, 32

_DRAWN = 6
"""Images in the picture; all are measured."""


@dataclass(frozen=True)
class _Measured:
    """One image that went all the way."""

    catalog: str
    field: Field
    rows: int
    line: str
    """For the summary."""


def demo_images(out: str, images: str, client: Client, report: Reporter, models: Sequence[DemoModel]) -> DemoResult:
    """Ingest, measure and draw the images of a folder with a shape and a class model; see `workflows.demo.demo`."""
    found = find_images(images)
    step = Steps(report, len(found) + 3)
    bundles = []
    for model, what in zip(models, ("a shape model", "a class model"), strict=True):
        step(f"simulating {model.count} stamps and training {what} for any band, pixel scale and PSF")
        bundles.append(train_model(model, storage.join(out, "any"), client, report).bundle)
    done: list[_Measured] = []
    lines: list[str] = []
    for entry in found:
        step(f"{entry.stem}: ingest, measure, query")
        try:
            done.append(_measure(entry, out, bundles, client, report))
            lines.append(done[-1].line)
        except AstromlError as error:
            lines.append(f"{entry.stem}: left out, {storage.redact(str(error))}")
    if not done:
        raise InputError(f"no image in {storage.redact(images)} could be measured: {'; '.join(lines)}")
    step("drawing the picture")
    picture = storage.join(out, "images.png")
    images_picture(picture, [one.field for one in done[:_DRAWN]])
    catalogs = tuple(one.catalog for one in done)
    rows = sum(one.rows for one in done)
    summary = _summary(lines, catalogs, picture, step.seconds)
    return DemoResult(out, catalogs, (picture,), rows, round(step.seconds, 1), summary)


def _measure(entry: FolderImage, out: str, bundles: list[str], client: Client, report: Reporter) -> _Measured:
    """One image to its catalog."""
    folder = storage.join(out, "images", f"{entry.stem}-{storage.digest(entry.url)[:6]}")
    result = ingest(
        [entry.url],
        out=storage.join(folder, "survey.zarr"),
        halo=_HALO,
        weight_pattern=entry.weight,
        mask_pattern=entry.mask,
        client=client,
        progress=report,
    )
    survey = Survey.open(result.source)
    given: dict[str, Any] = {}
    if entry.catalogue is None:
        survey, source = flatten_survey(survey, storage.join(folder, "flat.zarr")), f"objects: found by {FINDER}"
        bundles = [FINDER, *bundles]
    else:
        source = f"objects: {entry.catalogue.rsplit('/', 1)[-1]}"
        how = entry.settings or ObjectSettings()
        given = {"objects": ObjectTable(**vars(how), table=entry.catalogue)}
    catalog = storage.join(folder, "catalog")
    given |= {"band": survey.bands[0], "client": client, "progress": report}
    measured = infer(survey.url, bundle=bundles, out=catalog, **given)
    drawn, rows = _field(entry, survey, catalog, source)
    outside = f", {measured.unplaced} outside the image" if measured.unplaced else ""
    line = f"{entry.stem}: {rows} objects measured{outside} ({source})"
    return _Measured(catalog, drawn, rows, line)


def _field(entry: FolderImage, survey: Survey, catalog: str, source: str) -> tuple[Field, int]:
    """Field to draw (the parent image with most objects, some of them cut out), and rows of the catalog."""
    table = query(catalog, "SELECT * FROM catalog ORDER BY object_id").to_arrow()
    if not table.num_rows:
        raise InputError("it has no object that is seen, or none of its catalogue's lies on it")
    name = Counter(table["image"].to_pylist()).most_common(1)[0][0]
    rows = [row for row in table.to_pylist() if row["image"] == name]
    image, _ = mosaic(survey, [info for info in survey.iter_tiles() if info.image == name])
    labels = [row["classes_label"] or "none" for row in rows]
    x, y = (np.array([row[axis] for row in rows]) for axis in ("x", "y"))
    picked = _most_certain(rows)
    snapshots = [
        Snapshot(cut(image[None], rows[i]["x"], rows[i]["y"], _CUTOUT), _title(rows[i]), labels[i]) for i in picked
    ]
    return Field(entry.stem, image, x, y, labels, snapshots, source), table.num_rows


def _title(row: dict[str, Any]) -> str:
    label = row["classes_label"]
    size = float(np.hypot(row["shapes_e1"], row["shapes_e2"]))
    return f"{label} {row[f'classes_p_{label}']:.2f}  |e| {size:.2f}"


def _most_certain(rows: list[dict[str, Any]]) -> list[int]:
    """Indices of a few unflagged rows, the surest of each class in turn."""
    by_class: dict[str, list[tuple[float, int]]] = {}
    for i, row in enumerate(rows):
        if row["classes_label"] is not None:
            sure = row[f"classes_p_{row['classes_label']}"] - (1.0 if row["flags"] & 7 else 0.0)
            by_class.setdefault(row["classes_label"], []).append((-sure, i))
    queues = [sorted(group) for _, group in sorted(by_class.items())]
    chosen: list[int] = []
    while len(chosen) < _SHOWN and any(queues):
        chosen += [queue.pop(0)[1] for queue in queues if queue]
    return chosen[:_SHOWN]


def _summary(lines: Sequence[str], catalogs: Sequence[str], picture: str, seconds: float) -> str:
    told = "\n".join(f"  {line}" for line in lines)
    return f"""
Measured by models that were trained on simulated stars and galaxies only: they show the way, they are no measurement.
{told}
Picture of the first {_DRAWN}: {shown(picture)}   All of it took {seconds:.0f} s.

Try next:
  astroml-plugin query {shown(catalogs[0])} "SELECT object_id, x, y, classes_label, flags FROM catalog LIMIT 9"
  astroml-plugin train classify --data your_labelled_stamps.zarr --out my_bundle      # learn from images like yours
  astroml-plugin infer SURVEY --bundle my_bundle --objects TABLE --out CATALOG
""".strip()  # noqa: S608 - text for a person
