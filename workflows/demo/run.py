"""The main job on a small sky, start to end: simulate, FITS, ingest, train, find and measure, query, picture."""

from __future__ import annotations

import pyarrow as pa
from distributed import Client

from astroml_plugin.compute import cluster
from astroml_plugin.core import storage
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.evaluation.gallery import simulated_picture
from astroml_plugin.simulation import Sky, write_fits
from astroml_plugin.simulation.profiles import load_galsim
from astroml_plugin.sources.survey import Survey
from workflows.demo.images import demo_images
from workflows.demo.matches import FAINTEST, DemoMatches
from workflows.demo.models import DemoSky, image_models, train_model
from workflows.demo.steps import FINDER, DemoResult, Steps, shown
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.progress import Reporter
from workflows.query import query
from workflows.segmentation_map import read_labels


def demo(
    *,
    out: Place = "demo-output",
    images: Place | None = None,
    progress: Reporter | None = None,
    size: DemoSky | None = None,
) -> DemoResult:
    """Run the main job start to end and leave a catalog and a picture; run again, it takes up what is there.

    Args:
        out: folder that everything goes to.
        images: folder with real FITS images to run on instead of the simulated sky.
        progress: where steps and progress are told (default: stderr).
        size: how large the simulated sky and the training sets are.

    Raises:
        InputError: GalSim is not installed, or `images` holds nothing that can be read.
    """
    folder, size = storage.absolute(out), size or DemoSky()
    load_galsim()
    report = progress or Reporter()
    with cluster.connect("local") as client:
        if images is not None:
            return demo_images(folder, text_of(images), client, report, image_models(size.training, size.epochs))
        return _demo_sky(folder, size, client, report)


def _demo_sky(out: str, size: DemoSky, client: Client, report: Reporter) -> DemoResult:
    step = Steps(report, 7)
    step("simulating a sky and writing it as FITS files")
    sky = size.sky()
    truth = _write_sky(sky, storage.join(out, "sky"))
    step("ingesting the FITS files into a Survey")
    survey = _ingest(sky, out, size, client, report)
    bundles = []
    for model, what in zip(size.models(), ("a galaxy ellipticity model", "a class model"), strict=True):
        step(f"simulating {model.count} stamps and training {what}")
        bundles.append(train_model(model, out, client, report).bundle)
    step("finding every object and measuring it: three networks, one pass over the pixels, no catalogue given")
    catalog = storage.join(out, "catalog")
    infer(survey, bundle=[FINDER, *bundles], out=catalog, band="r", client=client, progress=report)
    step("querying the catalog")
    rows = query(catalog, "SELECT * FROM catalog").to_arrow()
    classes = _class_counts(catalog)
    near = query(catalog, "SELECT count(*) AS n FROM catalog", cone=(sky.ra, sky.dec, 0.01)).to_arrow()["n"][0].as_py()
    step("drawing the picture")
    picture = storage.join(out, "demo.png")
    found = DemoMatches(rows, truth)
    shapes = found.shapes()
    note = f"{len(rows)} objects found in the pixels and measured by three networks in one pass"
    simulated_picture(picture, shapes, found.snapshots(Survey.open(survey), read_labels(catalog)), note)
    summary = _summary(out, sky, found, classes, near, step.seconds)
    return DemoResult(out, (catalog,), (picture,), len(rows), round(step.seconds, 1), summary)


def _write_sky(sky: Sky, folder: str) -> pa.Table:
    """The sky's FITS files and truth; what is there already is kept (the truth is written last)."""
    url = storage.join(folder, "truth.parquet")
    if not storage.exists(url):
        storage.write_table(url, write_fits(sky, folder).truth)
    return storage.read_table(url)


def _ingest(sky: Sky, out: str, size: DemoSky, client: Client, report: Reporter) -> str:
    bands = sky.camera.bands
    files = [storage.join(out, "sky", f"{sky.name}_{band}.fits") for band in bands]
    result = ingest(
        files,
        out=storage.join(out, "survey.zarr"),
        bands=bands,
        tile_size=size.tile_size,
        halo=size.halo,
        psf=storage.join(out, "sky", f"{sky.name}_psf.fits"),
        name=sky.name,
        client=client,
        progress=report,
    )
    return result.source


def _class_counts(catalog: str) -> list[tuple[str, int]]:
    sql = 'SELECT classes_label, count(*) AS n FROM catalog WHERE "primary" GROUP BY classes_label ORDER BY n DESC'
    table = query(catalog, sql).to_arrow()
    return list(zip(table["classes_label"].to_pylist(), table["n"].to_pylist(), strict=True))


def _summary(out: str, sky: Sky, found: DemoMatches, classes: list[tuple[str, int]], near: int, seconds: float) -> str:
    count, rmse = found.shapes().scatter(20, 50)
    counts = ", ".join(f"{number} {name}" for name, number in classes)
    folder = shown(out)
    catalog = f"{folder}/catalog"
    return f"""
{found.rows} objects found and measured, in {catalog} ({counts}); {near} of them within 0.01 deg of the centre.
Found: {found.complete:.0%} of the objects of S/N > {FAINTEST:g}; {found.pure:.0%} of what was found is really there.
Ellipticity RMSE per component at S/N 20-50: {rmse:.3f} ({count} galaxies); classes right: {found.accuracy():.0%}.
Picture: {folder}/demo.png   All of it took {seconds:.0f} s.

Try next:
  astroml-plugin query {catalog} "SELECT object_id, ra, dec, shapes_e1, shapes_e2, classes_label FROM catalog LIMIT 5"
  astroml-plugin query {catalog} --cone {sky.ra} {sky.dec} 0.01 --to near.fits
  astroml-plugin segmentation-map {catalog} --tile {sky.name}_r0_c0 --to outlines.fits      # which pixels are whose
  astroml-plugin infer {folder}/survey.zarr --bundle {folder}/bundles/shapes --objects {folder}/sky/truth.parquet \\
      --out {folder}/given                    # the same for a catalogue that you have
  astroml-plugin demo --images DIR            # your own FITS images, with or without catalogues beside them
  astroml-plugin ingest --help                # bring a survey of your own
""".strip()  # noqa: S608 - text for a person
