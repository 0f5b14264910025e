"""Coadds of whoever holds them become tiles: what afw, lsst-images and their files look like, without LSST code.

afw is not on the package index: `Exposure` here has the methods of its ExposureF that are called, no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from astropy.io import fits

import astroml_plugin as ap
import astroml_plugin.lsst
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.lsst.boxes import box_of
from astroml_plugin.lsst.coadds import Coadd, coadd_of, coadd_of_file, image_name, in_order, tile_of
from astroml_plugin.lsst.labels import LabelMap
from astroml_plugin.sky.wcs import Box, Wcs
from tests import universe

CORNER = (400, 300)
SHAPE = (120, 150)
PLANES = {"BAD": 0, "SAT": 3, "DETECTED": 5, "NO_DATA": 8}
TRACT = fits.Header.fromstring(universe.header(1000, 1200), sep="\n")


class Point(NamedTuple):
    """lsst.geom.Point2D."""

    x: float
    y: float


@dataclass
class Box2I:
    """lsst.geom.Box2I."""

    x0: int
    y0: int
    width: int
    height: int

    def getBeginX(self) -> int:  # noqa: N802
        return self.x0

    def getBeginY(self) -> int:  # noqa: N802
        return self.y0

    def getEndX(self) -> int:  # noqa: N802
        return self.x0 + self.width

    def getEndY(self) -> int:  # noqa: N802
        return self.y0 + self.height


@dataclass
class Plane:
    """Image and mask of afw."""

    array: Any

    def getArray(self) -> Any:  # noqa: N802
        return self.array

    def getMaskPlaneDict(self) -> dict[str, int]:  # noqa: N802
        return PLANES


class Cards(dict):  # type: ignore[type-arg]
    """lsst.daf.base.PropertyList."""

    def names(self) -> list[str]:
        return list(self)

    def getScalar(self, name: str) -> Any:  # noqa: N802
        return self[name]


class Exposure:
    """lsst.afw.image.ExposureF; its WCS counts pixels of the tract, its PSF grows along x and ends at x = 500."""

    def __init__(self, seed: int, magnitude: float = 31.4) -> None:
        self.image, self.variance = universe.field(*SHAPE, 1, seed)[0], np.full(SHAPE, 2.0, np.float32)
        self.mask = np.zeros(SHAPE, np.int32)
        self.mask[7, 9], self.mask[8, 9], self.mask[9, 9] = 1 << 3, 1 << 5, 1 << 20
        self.magnitude = magnitude

    def getMaskedImage(self) -> Any:  # noqa: N802
        return self

    def getImage(self) -> Plane:  # noqa: N802
        return Plane(self.image)

    def getVariance(self) -> Plane:  # noqa: N802
        return Plane(self.variance)

    def getMask(self) -> Plane:  # noqa: N802
        return Plane(self.mask)

    def getBBox(self) -> Box2I:  # noqa: N802
        return Box2I(*CORNER, SHAPE[1], SHAPE[0])

    def getWcs(self) -> Any:  # noqa: N802
        return self

    def getFitsMetadata(self) -> Cards:  # noqa: N802
        return Cards({name: TRACT[name] for name in TRACT if not name.startswith("NAXIS")})

    def getPsf(self) -> Any:  # noqa: N802
        return self

    def getAveragePosition(self) -> Point:  # noqa: N802
        return Point(1, 1)

    def computeKernelImage(self, place: Point) -> Plane:  # noqa: N802
        if place.x > 500:
            raise RuntimeError("no image contributes here")
        side = 11 if place.x < 450 else 15
        return Plane(np.full((side, side), 1 / side**2))

    def getPhotoCalib(self) -> Any:  # noqa: N802
        return self

    def instFluxToMagnitude(self, flux: float) -> float:  # noqa: N802
        return self.magnitude - 2.5 * float(np.log10(flux))


def test_exposures_become_a_tile() -> None:
    coadds = {band: coadd_of(Exposure(seed), 50) for seed, band in enumerate("gr")}
    inner = Box(410, 310, 540, 410)
    tile = tile_of(coadds, ap.TilePlace("tract", "patch", shape=(1000, 1200), inner=inner))
    assert (tile.bands, tile.info.inner, tile.info.image_shape) == (("g", "r"), inner, (1000, 1200))
    assert tile.zero_points == (31.4, 31.4)
    y, x = CORNER[1] - tile.info.outer.y0, CORNER[0] - tile.info.outer.x0
    np.testing.assert_array_equal(tile.image[1, : SHAPE[0] + y, : SHAPE[1] + x], Exposure(1).image[-y:, -x:])
    assert tile.mask is not None
    seen = {int(tile.mask[0, 8 + y + line, 9 + x]) for line in (-1, 0, 1) if 8 + y + line >= 0 and 9 + x >= 0}
    assert seen <= {MaskBit.SATURATED, MaskBit.DETECTED, MaskBit.OTHER}
    whole = Wcs.from_header(TRACT)
    assert tile.wcs is not None
    np.testing.assert_allclose(
        tile.wcs.to_sky(0, 0), whole.to_sky(tile.info.outer.x0, tile.info.outer.y0), rtol=0, atol=1e-11
    )
    psf = coadds["g"].psf
    assert psf is not None
    assert psf.shape == (2, 3, 15, 15)
    assert np.isnan(psf[:, 2]).all()
    assert psf[0, 0, 7, 7] == pytest.approx(1 / 121)
    assert psf[0, 0, 0, 0] == 0
    assert tile.notes[0] == "band g: the PSF is not known in 2 of 6 cells"


def test_a_halo_that_the_coadd_lacks_holds_no_data() -> None:
    inner = Box(410, 310, 540, 410)
    place = ap.TilePlace("tract", "patch", shape=(1000, 1200), inner=inner, least_halo=30)
    tile = tile_of({"r": coadd_of(Exposure(1))}, place)
    assert tile.info.outer == Box(380, 280, 570, 440)
    np.testing.assert_array_equal(tile.image[0, 20:140, 20:170], Exposure(1).image)
    assert np.isnan(tile.image).sum() == 160 * 190 - 120 * 150
    assert tile.mask is not None
    assert (tile.mask[0, :20] == MaskBit.NO_DATA).all()


def test_masks_are_those_of_ingest() -> None:
    mask = coadd_of(Exposure(0)).mask
    assert mask is not None
    assert [int(value) for value in mask[7:10, 9]] == [MaskBit.SATURATED, MaskBit.DETECTED, MaskBit.OTHER]
    assert np.count_nonzero(mask) == 3


def afw_file(path: Path, seed: int, **cards: Any) -> Path:
    """The file that afw writes of an exposure, but for its models."""
    exposure = Exposure(seed)
    header = Wcs.from_header(TRACT).shifted(*CORNER, SHAPE).header
    image = fits.Header.fromstring(header, sep="\n")
    image.update({"BUNIT": "nJy", **cards})
    planes = fits.Header([(f"HIERARCH MP_{name}", bit) for name, bit in PLANES.items()])
    hdus = [fits.ImageHDU(exposure.image, image, name="IMAGE"), fits.ImageHDU(exposure.mask, planes, name="MASK")]
    fits.HDUList([fits.PrimaryHDU(), *hdus, fits.ImageHDU(exposure.variance, name="VARIANCE")]).writeto(path)
    return path


LTV = {"LTV1": -float(CORNER[0]), "LTV2": -float(CORNER[1])}
LINEAR = {"CTYPE1A": "LINEAR", "CTYPE2A": "LINEAR", "CRVAL1A": CORNER[0], "CRVAL2A": CORNER[1]}


@pytest.mark.parametrize("cards", [LTV, LINEAR, {}], ids=["afw", "lsst-images", "nowhere"])
def test_files_lie_where_their_exposures_do(tmp_path: Path, cards: dict[str, Any]) -> None:
    file, memory = coadd_of_file(afw_file(tmp_path / "coadd.fits", 3, **cards)), coadd_of(Exposure(3))
    np.testing.assert_array_equal(file.image, memory.image)
    np.testing.assert_array_equal(file.mask, memory.mask)
    assert file.variance is not None
    np.testing.assert_array_equal(file.variance, memory.variance)
    assert (file.zero_point, file.psf) == (31.4, None)
    assert file.box == (memory.box if cards else Box(0, 0, SHAPE[1], SHAPE[0]))
    assert ("its tract" in " ".join(file.notes)) == (not cards)
    assert file.wcs is not None
    assert memory.wcs is not None
    np.testing.assert_allclose(file.wcs.to_sky(3, 4), memory.wcs.to_sky(3, 4), rtol=0, atol=1e-11)


def test_what_does_not_fit_is_one_sentence() -> None:
    place = ap.TilePlace("tract")
    with pytest.raises(InputError, match="no coadd of this patch"):
        tile_of({}, place)
    one = coadd_of(Exposure(0))
    other = Coadd(one.image, None, None, Box(0, 0, SHAPE[1], SHAPE[0]))
    with pytest.raises(InputError, match="band r covers"):
        tile_of({"g": one, "r": other}, place)
    with pytest.raises(InputError, match="a coadd cannot be a ndarray"):
        coadd_of(np.zeros((3, 3)))
    for wrong in ("1,2,3,4", (1, 2, 3), (1.0, 2.0, 3.0, 4.0), None):
        with pytest.raises(InputError, match="no box of pixels"):
            box_of(wrong)


def test_boxes_bands_and_names() -> None:
    assert box_of(Box2I(1, 2, 3, 4)) == box_of([1, 2, 4, 6]) == Box(1, 2, 4, 6)

    @dataclass
    class Interval:
        start: int
        stop: int

    @dataclass
    class ImagesBox:
        x: Interval = field(default_factory=lambda: Interval(1, 4))
        y: Interval = field(default_factory=lambda: Interval(2, 6))

    assert box_of(ImagesBox()) == Box(1, 2, 4, 6)
    assert in_order(["y", "N708", "g", "u", "VIS", "i"]) == ["u", "g", "i", "y", "N708", "VIS"]
    assert image_name("DC2/cells v1", 9813) == "DC2_cells_v1_tract9813"


def test_label_maps_on_disk(tmp_path: Path) -> None:
    labels = np.zeros((40, 50), np.uint32)
    labels[5:9, 7:12] = 70_000
    wcs = Wcs.from_header(universe.header(40, 50))
    LabelMap(labels, Box(-10, 20, 40, 60), wcs).write(tmp_path / "labels.fits")
    found = LabelMap.read(tmp_path / "labels.fits")
    np.testing.assert_array_equal(found.labels, labels)
    assert found.box == Box(-10, 20, 40, 60)
    part = found.part(Box(-5, 25, 5, 30))
    np.testing.assert_array_equal(part.labels, labels[5:10, 5:15])
    assert part.wcs is not None
    np.testing.assert_allclose(part.wcs.to_sky(0, 0), wcs.to_sky(5, 5), rtol=0, atol=1e-11)
    (tmp_path / "labels.fits").write_bytes((tmp_path / "labels.fits").read_bytes()[:3000])
    with pytest.raises(ap.AstromlError, match="make it again"):
        LabelMap.read(tmp_path / "labels.fits")


def test_configuration_and_pipelines_are_packaged() -> None:
    folder = Path(astroml_plugin.lsst.__file__).parent
    classes = yaml.safe_load((folder / "butler/storageClasses.yaml").read_text())["storageClasses"]
    stores = yaml.safe_load((folder / "butler/datastores/fileDatastore.yaml").read_text())["datastore"]["formatters"]
    assert {*stores} == {*classes} - {"AstromlWcs"}
    source = (folder / "formatters.py").read_text()
    assert all(f"class {name.rpartition('.')[2]}(" in source for name in stores.values())
    for kind in classes.values():
        module, _, name = kind["pytype"].rpartition(".")
        assert hasattr(__import__(module, fromlist=[name]), name)
    pipelines = [yaml.safe_load(file.read_text()) for file in sorted((folder / "pipelines").glob("*.yaml"))]
    assert len(pipelines) == 3
    for pipeline in pipelines:
        (task,) = pipeline["tasks"].values()
        module, _, name = task["class"].rpartition(".")
        assert f"class {name}(" in (folder / f"{module.rpartition('.')[2]}.py").read_text()
    settings = (folder.parents[1] / "pyproject.toml").read_text()
    assert all(f"lsst/{pattern}" in settings for pattern in ("butler/*.yaml", "butler/*/*.yaml", "pipelines/*.yaml"))


def test_rows_of_a_coadd_file_are_those_of_its_ingest(tmp_path: Path) -> None:
    """Bit for bit, wherever the patch lies in its tract."""
    universe.make_bundle(str(tmp_path / "kind"))
    file, bundle = afw_file(tmp_path / "coadd.fits", 3, **LTV), ap.ModelBundle.load(tmp_path / "kind")
    random = np.random.default_rng(1)
    ids, x, y = np.arange(30), random.uniform(25, 120, 30), random.uniform(25, 90, 30)
    x[0] = y[0] = 21  # its stamp holds the saturated pixel
    alone = ap.measure(ap.Tile.from_fits(file, bands="r"), {"object_id": ids, "x": x, "y": y}, bundle).table
    inner = Box(CORNER[0] + 20, CORNER[1] + 20, CORNER[0] + 130, CORNER[1] + 100)
    place = ap.TilePlace("tract", "patch", shape=(1000, 1200), inner=inner, least_halo=64)
    tile = tile_of({"r": coadd_of_file(file)}, place)
    given = {"object_id": ids, "x": x + CORNER[0], "y": y + CORNER[1]}
    ours = ap.measure(tile, given, bundle).table
    for name in set(ours.column_names) - {"image", "tile", "x", "y", "ra", "dec", "_healpix_29"}:
        assert ours[name].equals(alone[name]), name
    for name in ("ra", "dec"):
        np.testing.assert_allclose(ours[name], alone[name], rtol=0, atol=1e-11)
    assert len(set(ours["flags"].to_pylist())) > 1
