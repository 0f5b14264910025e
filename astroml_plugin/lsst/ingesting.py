"""IngestCoaddTask: the coadds of a patch become one tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import lsst.pex.config as pex
import lsst.pipe.base as pipe
from lsst.pipe.base.connectionTypes import Input, Output

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.version import version
from astroml_plugin.lsst.boxes import box_of
from astroml_plugin.lsst.coadds import coadd_of, image_name, in_order, tile_of
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.tile_arrays import HALO, TilePlace

PATCH = ("skymap", "tract", "patch")
"""Dimensions of every task: each runs once for a patch."""


class IngestCoaddConnections(pipe.PipelineTaskConnections, dimensions=PATCH):
    """Coadds of the bands of a patch; one tile."""

    coadds = Input(
        doc="Coadd of each band: pixels, variance, mask, PSF, WCS, calibration.",
        name="deepCoadd_calexp",
        storageClass="ExposureF",
        dimensions=(*PATCH, "band"),
        multiple=True,
        deferLoad=True,
    )
    skyMap = Input(  # noqa: N815 - the name that pipelines give it
        doc="Boxes of tracts and patches.", name="skyMap", storageClass="SkyMap", dimensions=("skymap",)
    )
    tile = Output(doc="Pixels of all bands.", name="surveyTile", storageClass="SurveyTile", dimensions=PATCH)

    def __init__(self, *, config: Any) -> None:
        self.coadds = replace(self.coadds, storageClass=config.coaddStorageClass)
        if config.inner != "skymap":
            del self.skyMap


class IngestCoaddConfig(pipe.PipelineTaskConfig, pipelineConnections=IngestCoaddConnections):
    """Settings: the coadds that are read, and the pixels that a patch owns."""

    coaddStorageClass = pex.Field(  # noqa: N815
        dtype=str,
        default="ExposureF",
        doc="Storage class of the coadds: ExposureF (afw), CellCoadd or MaskedImageV2 (lsst-images), or AstromlCoadd "
        "(FITS files of either, read without their software; they have no PSF).",
    )
    bands = pex.ListField(dtype=str, default=[], doc="Bands of the tile, in this order. Empty: all, by wavelength.")
    inner = pex.ChoiceField(
        dtype=str,
        default="skymap",
        allowed={
            "skymap": "the inner box of the patch in the sky map",
            "coadd": "the inner box that the coadd itself knows (CellCoadd)",
            "border": "the box of the coadd without `border` pixels on each side",
        },
        doc="Pixels that a patch owns: an object belongs to the one patch that owns its pixel.",
    )
    border = pex.RangeField(
        dtype=int, default=100, min=0, doc="Pixels on each side that belong to neighbours (inner: border)."
    )
    halo = pex.RangeField(
        dtype=int,
        default=HALO,
        min=0,
        doc="Pixels around those that the patch owns, at least. Where the coadd has fewer they hold no data, as beyond "
        "the border of an image. Bundles say how many they need; `segmentation` 128.",
    )
    psfCell = pex.RangeField(  # noqa: N815
        dtype=int, default=500, min=16, doc="Pixels between the places where the PSF is asked for."
    )
    psfFromStars = pex.Field(  # noqa: N815
        dtype=bool, default=False, doc="Measure the PSF from stars of the image (AstromlCoadd only)."
    )

    def validate(self) -> None:
        """Refuse options that would do nothing."""
        super().validate()
        if self.psfFromStars and self.coaddStorageClass != "AstromlCoadd":
            raise pex.FieldValidationError(
                type(self).psfFromStars,
                self,
                "only files have no PSF of their own: set coaddStorageClass: AstromlCoadd",
            )


class IngestCoaddTask(pipe.PipelineTask):
    """Make one tile of the coadds of a patch."""

    ConfigClass = IngestCoaddConfig
    _DefaultName = "astromlIngest"

    def runQuantum(self, butlerQC: Any, inputRefs: Any, outputRefs: Any) -> None:  # noqa: N802
        """Read one coadd after the other, and write the tile."""
        handles = {handle.dataId["band"]: handle for handle in butlerQC.get(inputRefs.coadds)}
        patch = None
        if self.config.inner == "skymap":
            sky_map = butlerQC.get(inputRefs.skyMap)
            patch = sky_map[butlerQC.quantum.dataId["tract"]]
        data_id = butlerQC.quantum.dataId
        parameters = {"parameters": {"psf_from_stars": True}} if self.config.psfFromStars else {}
        coadds = {band: handles[band].get(**parameters) for band in self._bands(list(handles))}
        butlerQC.put(self.run(coadds=coadds, dataId=data_id, tractInfo=patch), outputRefs)

    def run(self, coadds: Mapping[str, Any], dataId: Mapping[str, Any], tractInfo: Any = None) -> pipe.Struct:
        """Make a tile.

        Args:
            coadds: band -> what `astroml_plugin.lsst.coadds.coadd_of` takes.
            dataId: skymap, tract and patch: they name the tile.
            tractInfo: the tract of the sky map (`inner: skymap`).

        Returns:
            `tile`.

        Raises:
            InputError: bands that are not there, or that do not lie on each other.
        """
        read = {band: coadd_of(coadds[band], self.config.psfCell) for band in self._bands(list(coadds))}
        first = next(iter(read.values()), None)
        shape = inner = None
        if tractInfo is not None:
            whole = box_of(tractInfo.getBBox())
            shape, inner = (whole.y1, whole.x1), box_of(tractInfo[dataId["patch"]].getInnerBBox())
        elif first is not None and self.config.inner == "border":
            wide, box = self.config.border, first.box
            inner = Box(box.x0 + wide, box.y0 + wide, box.x1 - wide, box.y1 - wide)
        elif first is not None and first.inner is None:
            raise InputError(
                "the coadd does not say which pixels its patch owns: set inner to border, or to skymap and give one"
            )
        image = image_name(dataId["skymap"], dataId["tract"])
        name = f"{image}_patch{dataId['patch']}"
        tile = tile_of(read, TilePlace(image, name, shape=shape, inner=inner, least_halo=self.config.halo))
        self.metadata["bands"] = list(tile.bands)
        self.metadata["version"] = version()
        for number, note in enumerate(tile.notes):
            self.metadata[f"note{number}"] = note
            self.log.info(note)
        return pipe.Struct(tile=tile)

    def _bands(self, have: Sequence[str]) -> list[str]:
        wanted = list(self.config.bands) or in_order(have)
        if missing := [band for band in wanted if band not in have]:
            raise InputError(
                f"the patch has no coadd of band {', '.join(missing)}: make it, or leave it out of `bands`"
            )
        return wanted
