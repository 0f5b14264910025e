"""The main job on a small sky, start to end: simulate, FITS, ingest, train, find and measure, query, picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from distributed import Client

from astroml_plugin.compute import cluster
from astroml_plugin.core import storage
from astroml_plugin.evaluation.detection_metrics import match
from astroml_plugin.simulation import Camera, Population, Sky, write_fits
from astroml_plugin.simulation.profiles import load_galsim
from astroml_plugin.sources.survey import Survey
from workflows.demo.images import demo_images
from workflows.demo.models import DemoModel, image_models, sky_models, train_model
from workflows.demo.pictures import Shapes, Snapshot, cut, simulated_picture
from workflows.demo.steps import FINDER, DemoResult, Steps, shown
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.progress import Reporter
from workflows.query import query
from workflows.segmentation_map import LabelImage, read_labels

_FAINTEST = 10.0
"""S/N from which what was found is compared with the truth."""

_SHOWN = 16
_CUTOUT = 40


@dataclass(frozen=True)
class DemoSky:
    """How large a demo is; tests take a small one."""

    side: int = 1792
    """Pixels of the sky's sides."""
    tile_size: int = 1024
    halo: int = 128
    density: float = 40.0
    """Objects per arcmin^2."""
    training: float = 1.0
    """Factor on the number of training stamps."""
    epochs: int = 10
    """Passes over them."""

    def sky(self) -> Sky:
        """The sky that is looked at."""
        population = Population(star_fraction=0.15, bulge_probability=0.3)
        return Sky(self.side, self.side, seed=2026, density=self.density, population=population, camera=Camera())

    def models(self) -> tuple[DemoModel, DemoModel]:
        """What is measured on it."""
        return sky_models(self.training, self.epochs)


def demo(
    out: str = "demo-output",
    images: str | None = None,
    *,
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
    out, size = storage.absolute(out), size or DemoSky()
    load_galsim()
    report = progress or Reporter()
    with cluster.connect("local") as client:
        if images is not None:
            return demo_images(out, images, client, report, image_models(size.training, size.epochs))
        return _demo_sky(out, size, client, report)


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
    found = _Found(rows, truth)
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


class _Found:
    """Catalog rows beside the truth of the objects that they are: each the other's nearest, within 3 pixels."""

    def __init__(self, rows: pa.Table, truth: pa.Table) -> None:
        places = [table[axis].to_numpy() for table in (rows, truth) for axis in "xy"]
        number = match(*places)
        hit = np.flatnonzero(number >= 0)
        mine, theirs = rows.take(hit), truth.take(number[hit])
        self.rows = len(rows)
        self.pure = len(hit) / max(1, len(rows))
        self.complete = float(
            (theirs["snr"].to_numpy() > _FAINTEST).sum() / (truth["snr"].to_numpy() > _FAINTEST).sum()
        )
        self.columns: dict[str, Any] = {name: np.array(mine[name].to_pylist()) for name in mine.column_names}
        for name in ("class", "e1", "e2", "snr", "mag"):
            self.columns[f"true_{name}"] = np.array(theirs[name].to_pylist())

    def _pairs(self, names: tuple[str, str]) -> np.ndarray:
        return np.stack([self.columns[name].astype(float) for name in names], axis=1)

    def shapes(self) -> Shapes:
        """Measured and true ellipticities of galaxies of S/N above `_FAINTEST`."""
        measured, true = self._pairs(("shapes_e1", "shapes_e2")), self._pairs(("true_e1", "true_e2"))
        snr = self.columns["true_snr"].astype(float)
        kept = (snr > _FAINTEST) & np.isfinite(measured).all(1) & np.isfinite(true).all(1)
        return Shapes(true[kept], measured[kept], snr[kept])

    def accuracy(self) -> float:
        """Share of right classes among objects of S/N above `_FAINTEST`."""
        kept = self.columns["true_snr"].astype(float) > _FAINTEST
        return float(np.mean((self.columns["classes_label"] == self.columns["true_class"])[kept]))

    def snapshots(self, survey: Survey, outlines: LabelImage) -> list[Snapshot]:
        """Bright objects of all classes, cut from the survey's tiles, and their outlines."""
        chosen = self._examples()
        numbers = dict(zip(outlines.objects["object_id"].to_pylist(), outlines.objects["label"].to_pylist()))
        tiles = {info.name: info for info in survey.iter_tiles()}
        read: dict[str, np.ndarray] = {}
        shots = []
        for i in chosen:
            info = tiles[self.columns["tile"][i]]
            if info.name not in read:
                read[info.name] = survey.read_tile(info).image
            x, y = float(self.columns["x"][i]) - info.outer.x0, float(self.columns["y"][i]) - info.outer.y0
            label = str(self.columns["classes_label"][i])
            probability = float(self.columns[f"classes_p_{label}"][i])
            true = str(self.columns["true_class"][i])
            title = f"{label} {probability:.2f}" + ("" if true == label else f" (is {true})")
            pixels = cut(read[info.name], x, y, _CUTOUT)
            around = cut(outlines.labels[None], self.columns["x"][i], self.columns["y"][i], _CUTOUT)[0]
            own = around == numbers.get(int(self.columns["object_id"][i]), -1)
            shots.append(Snapshot(pixels, title, label, true == label, own))
        return shots

    def _examples(self) -> list[int]:
        """As many of each true class, spread over S/N 20 and more."""
        snr, true = self.columns["true_snr"].astype(float), self.columns["true_class"]
        rng, groups = np.random.default_rng(1), []
        for name in np.unique(true):
            candidates = np.flatnonzero((true == name) & (snr > 20) & (snr < 300) & (self.columns["flags"] == 0))
            groups.append(rng.permutation(candidates)[: _SHOWN // 3 + 1])
        return [int(i) for group in groups for i in group][:_SHOWN]


def _summary(out: str, sky: Sky, found: _Found, classes: list[tuple[str, int]], near: int, seconds: float) -> str:
    count, rmse = found.shapes().scatter(20, 50)
    counts = ", ".join(f"{number} {name}" for name, number in classes)
    folder = shown(out)
    catalog = f"{folder}/catalog"
    return f"""
{found.rows} objects found and measured, in {catalog} ({counts}); {near} of them within 0.01 deg of the centre.
Found: {found.complete:.0%} of the objects of S/N > {_FAINTEST:g}; {found.pure:.0%} of what was found is really there.
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
