"""Images of lsst-images (Python 3.12 on) become tiles, in memory and through a data butler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.wcs import WCS
from lsst.daf.butler import Butler, DatasetType
from lsst.pipe.base.simple_pipeline_executor import SimplePipelineExecutor

from astroml_plugin.core.flags import MaskBit
from astroml_plugin.lsst.ingesting import IngestCoaddTask
from astroml_plugin.sky.wcs import Box
from tests.lsst_middleware.conftest import DIMENSIONS, add_patches

images = pytest.importorskip("lsst.images", reason="lsst-images needs Python 3.12")
SHAPE, CORNER, CELL = (300, 400), (2000, 1000), 100
INNER = Box(2100, 1100, 2300, 1200)


def the_sky() -> WCS:
    """World coordinates of the array."""
    sky = WCS(naxis=2)
    sky.wcs.ctype, sky.wcs.cunit = ["RA---TAN", "DEC--TAN"], ["deg", "deg"]
    sky.wcs.crval, sky.wcs.crpix, sky.wcs.cdelt = [150, 2], [301, 251], [-0.2 / 3600, 0.2 / 3600]
    return sky


def coadd(band: str, seed: int) -> Any:
    """A CellCoadd in nJy of 3 x 4 cells, the PSF of the first of which is missing."""
    from lsst.images import _cell_grid as cells
    from lsst.images.cells import CellCoadd, CellPointSpreadFunction

    box = images.Box.factory[CORNER[1] : CORNER[1] + SHAPE[0], CORNER[0] : CORNER[0] + SHAPE[1]]
    frame = images.TractFrame(skymap="toy", tract=0, bbox=images.Box.factory[0:5000, 0:6000])
    sky = images.SkyProjection.from_fits_wcs(the_sky(), frame, x0=CORNER[0], y0=CORNER[1])
    pixels = np.random.default_rng(seed).normal(0, 1, SHAPE).astype(np.float32)
    image = images.Image(pixels, bbox=box, unit=units.nJy, sky_projection=sky)
    schema = images.MaskSchema([images.MaskPlane("BAD", ""), images.MaskPlane("SATURATED", "")])
    mask, hit = images.Mask(0, schema=schema, bbox=box), np.zeros(SHAPE, bool)
    hit[150, 160] = True
    mask.set("SATURATED", hit)
    variance = images.Image(np.full(SHAPE, 2, np.float32), bbox=box, unit=units.nJy**2)
    grid = cells.CellGrid(bbox=box, cell_shape=images.YX(y=CELL, x=CELL))
    bounds = cells.CellGridBounds(grid=grid, bbox=box, missing=frozenset({cells.CellIJ(i=0, j=0)}))
    kernels = np.arange(12.0).reshape(3, 4, 1, 1) + np.ones((3, 4, 15, 15))
    inner = images.Box.factory[INNER.y0 : INNER.y1, INNER.x0 : INNER.x1]
    patch = cells.PatchDefinition(id=0, index=images.YX(y=0, x=0), inner_bbox=inner, cells=grid)
    psf = CellPointSpreadFunction(kernels, bounds)
    return CellCoadd(image, mask=mask, variance=variance, band=band, psf=psf, patch=patch)


def test_cell_coadds_become_a_tile(tmp_path: Path) -> None:
    Butler.makeRepo(str(tmp_path / "repo"))
    butler = Butler.from_config(str(tmp_path / "repo"), writeable=True)
    add_patches(butler, "toy", 1)
    butler.registry.insertDimensionData(
        "instrument", {"name": "Cam", "visit_max": 1, "exposure_max": 1, "detector_max": 1}
    )
    place = {"skymap": "toy", "tract": 0, "patch": 0}
    kind = DatasetType("deep_coadd", (*DIMENSIONS, "band"), "CellCoadd", universe=butler.dimensions)
    butler.registry.registerDatasetType(kind)
    butler.collections.register("coadds")
    for seed, band in enumerate("rg"):
        filters = {"instrument": "Cam", "name": band, "band": band}
        butler.registry.insertDimensionData("physical_filter", filters)
        butler.put(coadd(band, seed), kind, place, band=band, run="coadds")
    config = IngestCoaddTask.ConfigClass()
    config.coaddStorageClass, config.inner, config.connections.coadds = "CellCoadd", "coadd", "deep_coadd"
    butler = SimplePipelineExecutor.prep_butler(str(tmp_path / "repo"), inputs=["coadds"], output="tiles")
    executor = SimplePipelineExecutor.from_task_class(IngestCoaddTask, config, butler=butler)
    executor.run(register_dataset_types=True)
    tile = butler.get("surveyTile", place)
    assert (tile.bands, tile.zero_points) == (("g", "r"), (31.4, 31.4))
    assert (tile.info.inner, tile.info.image_shape) == (INNER, (5000, 6000))
    assert (tile.info.image, tile.info.name) == ("toy_tract0", "toy_tract0_patch0")
    outer = tile.info.outer
    assert outer == Box(2000, 1000, 2400, 1300)
    np.testing.assert_array_equal(tile.image[0], coadd("g", 1).image.array)
    assert tile.mask[1, 150, 160] == MaskBit.SATURATED
    assert np.count_nonzero(tile.mask) == 2
    assert (tile.variance == 2).all()
    assert tile.psf.shape == (2, 3, 4, 15, 15)
    assert np.isnan(tile.psf[:, 0, 0]).all()
    np.testing.assert_array_equal(tile.psf[0, :, :, 7, 7].ravel()[1:], np.arange(2.0, 13.0))
    expected = the_sky().all_pix2world([5], [6], 0)
    np.testing.assert_allclose(tile.wcs.to_sky([5], [6]), expected, rtol=0, atol=1e-10)
    assert tile.notes[0] == "band g: the PSF is not known in 1 of 12 cells"
