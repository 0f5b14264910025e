"""The bundle `segmentation` on the real images: what catalogs made by others have, found or not, and what else."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from torch import nn

from astroml_plugin.evaluation.detection_metrics import match
from astroml_plugin.pixels import Tile
from astroml_plugin.tasks.detection import Detections
from astroml_plugin.tasks.segmentation.task import SegmentTask
from astroml_plugin.tasks.segmentation.whole_tile import field_of, maps_of
from benchmarks.harness import shared_data
from tests.pages import table

Scene = tuple[str, Tile, np.ndarray, np.ndarray, tuple[str, ...]]
"""Name, pixels, x and y of the catalog, bands."""


def section(task: SegmentTask, network: nn.Module) -> tuple[str, dict[str, Any]]:
    """Catalogs matched."""
    rows, data = [], {}
    for name, tile, x, y, bands in scenes():
        found = found_in(task, network, tile, bands)
        height, width = tile.image.shape[1:]
        inside = (x > 2) & (y > 2) & (x < width - 3) & (y < height - 3)
        matched = match(found.x, found.y, x[inside], y[inside])
        hit = len(set(matched[matched >= 0].tolist()))
        more = int((matched < 0).sum())
        data[name] = {"catalog": int(inside.sum()), "found": hit, "more": more}
        rows.append([name, int(inside.sum()), hit, more])
    if not rows:
        return "The real images are not there.", {}
    text = table(["real image", "in the catalog", "found within 3 pixels", "detections beside"], rows)
    return text, {"real": data}


def found_in(task: SegmentTask, network: nn.Module, tile: Tile, bands: tuple[str, ...]) -> Detections:
    """Objects of an image."""
    other = task.for_bands(bands)
    assert isinstance(other, SegmentTask)
    return other.detect(maps_of(other, network, tile), field_of(tile, bands))


def scenes() -> list[Scene]:
    """Those that are there."""
    return [made for make in (_ntt, _spitzer, _hsc) if (made := make()) is not None]


def flat(image: np.ndarray, cell: int = 64) -> Tile:
    """An image without its background; the noise is that of the background's mesh."""
    import sep

    data = np.ascontiguousarray(np.nan_to_num(image), np.float32)
    bad = ~np.isfinite(image)
    background = sep.Background(data, mask=bad, bw=cell, bh=cell)
    flat = np.where(bad, np.nan, data - background.back()).astype(np.float32)
    return Tile(flat[None], (background.rms() ** 2).astype(np.float32)[None])


def _ntt() -> Scene | None:
    folder = shared_data("ntt")
    if folder is None:
        return None
    image = fits.getdata(folder / "sep_ntt_emmi_256.fits").astype(np.float32)
    listed = Table.read(folder / "sep_ntt_emmi_256.sextractor.cat", format="ascii.sextractor")
    return "NTT/EMMI", flat(image), *(np.asarray(listed[f"{axis}_IMAGE"]) - 1.0 for axis in "XY"), ("r",)


def _spitzer() -> Scene | None:
    folder = shared_data("spitzer")
    if folder is None:
        return None
    with fits.open(folder / "spitzer_example_image.fits") as opened:
        image, wcs = opened[0].data.astype(np.float32), WCS(opened[0].header)
    listed = Table.read(folder / "spitzer_example_catalog.xml", format="votable")
    names = {name.lower(): name for name in listed.colnames}
    x, y = wcs.all_world2pix(*(np.asarray(listed[names[key]], float) for key in ("l", "b")), 0)
    return "Spitzer IRAC", flat(image, 32), x, y, ("irac",)


def _hsc() -> Scene | None:
    path = shared_data("hsc_cosmos_35.npz")
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as kept:
        image, variance = (kept[name].astype(np.float32) for name in ("images", "variance"))
        bands, catalog = [str(name) for name in kept["filters"]], kept["catalog"]
    return "HSC, five bands", Tile(image, variance), catalog["x"], catalog["y"], tuple(bands)
