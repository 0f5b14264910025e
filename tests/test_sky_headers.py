"""World coordinates of others' headers: used as astropy does, over the whole image and in tiles, or their loss said."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import astropy.wcs
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, DistortionLookupTable

from astroml_plugin.core.errors import InputError
from astroml_plugin.sky.headers import Coordinates, astropy_quiet, coordinates_of
from astroml_plugin.sky.wcs import Wcs, cut_tiles, separation
from astroml_plugin.sources.ingest import describe_fits
from astroml_plugin.sources.survey import Survey
from workflows.ingest import ingest

DATA = Path(astropy.wcs.__file__).parent / "tests" / "data"
PLAIN = {
    **{"NAXIS": 2, "NAXIS1": 100, "NAXIS2": 80, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"},
    **{"CRPIX1": 50.0, "CRPIX2": 40.0, "CRVAL1": 150.0, "CRVAL2": 2.0, "CDELT1": -5e-5, "CDELT2": 5e-5},
}
WITHOUT_SCALE = {name: value for name, value in PLAIN.items() if not name.startswith("CDELT")}


def grid(width: int, height: int, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(-0.5, width - 0.5, count), np.linspace(-0.5, height - 0.5, count))
    return x.ravel(), y.ravel()


def read(cards: dict[str, object] | fits.Header) -> Coordinates:
    header = fits.Header()
    with astropy_quiet():
        header.update(cards)
    return coordinates_of(header)


def assert_agrees(wcs: Wcs, truth: WCS, width: int, height: int, size: int, halo: int) -> float:
    """The largest miss in pixels against astropy on the true file: pixel to sky and back, whole and by tile."""
    x, y = grid(width, height)
    with astropy_quiet():
        sky = truth.pixel_to_world(x, y).icrs
    misses = [separation(*wcs.to_sky(x, y), sky.ra.deg, sky.dec.deg) * 3600 / wcs.pixel_scale]
    for tile in cut_tiles(height, width, size, halo):
        box = tile.outer
        inside = (x >= box.x0) & (x < box.x1) & (y >= box.y0) & (y < box.y1)
        part = pickle.loads(pickle.dumps(wcs.shifted(box.x0, box.y0, (box.height, box.width))))
        back_x, back_y = part.to_pixel(sky.ra.deg[inside], sky.dec.deg[inside])
        misses += [np.hypot(back_x + box.x0 - x[inside], back_y + box.y0 - y[inside])]
        there = part.to_sky(x[inside] - box.x0, y[inside] - box.y0)
        misses += [separation(*there, sky.ra.deg[inside], sky.dec.deg[inside]) * 3600 / wcs.pixel_scale]
    largest = float(np.max(np.concatenate(misses)))  # NaN fails too
    assert largest < 0.001
    return largest


def test_lookup_tables_of_hst_come_along_over_the_whole_chip() -> None:
    with fits.open(DATA / "dist_lookup.fits.gz") as hdus, astropy_quiet():
        header = hdus[1].header.copy()
        header["NAXIS1"], header["NAXIS2"] = 4096, 2048  # astropy has cut the pixels, not the coordinates
        truth = WCS(header, hdus)
        found = coordinates_of(header, hdus)
    assert found.notes == ()
    assert found.cards is not None
    wcs = Wcs(found.cards)
    assert_agrees(wcs, truth, 4096, 2048, 1024, 64)
    plain = Wcs("\n".join(line for line in found.cards.split("\n") if not line.startswith("COMMENT")))
    x, y = grid(4096, 2048, 20)
    lost = separation(*plain.to_sky(x, y), *wcs.to_sky(x, y)) * 3600 / wcs.pixel_scale
    assert lost.max() > 0.09  # what the tables are worth


def test_lookup_tables_go_to_fits_files() -> None:
    with fits.open(DATA / "dist_lookup.fits.gz") as hdus:
        wcs = Wcs(str(coordinates_of(hdus[1].header, hdus).cards)).shifted(700, 300, (512, 512))
    header, tables = wcs.fits_parts()
    assert len(tables) == 3
    written = fits.HDUList([fits.PrimaryHDU(np.zeros((512, 512), np.int16), header), *tables])
    with astropy_quiet():
        read_back = WCS(written[0].header, written)
        x, y = grid(512, 512, 9)
        sky = read_back.pixel_to_world(x, y).icrs
    assert (separation(*wcs.to_sky(x, y), sky.ra.deg, sky.dec.deg) * 3600 / wcs.pixel_scale).max() < 1e-4


def test_tables_of_the_detector_alone() -> None:
    with fits.open(DATA / "ie6d07ujq_wcs.fits") as hdus, astropy_quiet():
        header = hdus[0].header.copy()
        header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, 2048, 2048
        truth, found = WCS(header, hdus), coordinates_of(header, hdus)
    assert_agrees(Wcs(str(found.cards)), truth, 2048, 2048, 1200, 100)


@pytest.mark.parametrize("what", ["no file", "no table", "too large", "other kind"])
def test_distortion_that_is_lost_is_said(what: str) -> None:
    header = fits.Header(PLAIN | {"CPDIS1": "Lookup", "CPERR1": 0.25})
    header.append(fits.Card.fromstring("DP1     = 'EXTVER: 1'".ljust(80)))
    header.append(fits.Card.fromstring("DP1     = 'NAXES: 2'".ljust(80)))
    header.append(fits.Card.fromstring("DP1     = 'AXIS.1: 1'".ljust(80)))
    header.append(fits.Card.fromstring("DP1     = 'AXIS.2: 2'".ljust(80)))
    hdus = fits.HDUList([fits.PrimaryHDU()])
    if what == "too large":
        wcs = WCS(fits.Header(PLAIN))
        wcs.cpdis1 = DistortionLookupTable(np.full((600, 600), 0.5, "f4"), (1, 1), (1, 1), (1, 1))
        wcs.cpdis2 = wcs.cpdis1
        hdus = wcs.to_fits()
        header = hdus[0].header
    if what == "other kind":
        header["CPDIS1"] = "Polynomial"
    found = coordinates_of(header, None if what == "no file" else hdus)
    assert found.cards is not None  # the rest of the WCS is used
    assert (found.notes[0].split(" px")[0].split()[-1]) == ("0.5" if what == "too large" else "0.25")


def test_a_plate_of_the_dss_has_its_solution() -> None:
    with fits.open(DATA / "dss.14.29.56-62.41.05.fits.gz") as hdus, astropy_quiet():
        header = hdus[0].header.copy()
        truth = WCS(header)
        found = coordinates_of(header, hdus)
        assert_agrees(Wcs(str(found.cards)), truth, 100, 100, 64, 16)
        header["NAXIS1"], header["NAXIS2"] = 2000, 3000
        assert_agrees(Wcs(str(coordinates_of(header).cards)), WCS(header), 2000, 3000, 1100, 50)
        for name in [name for name in header if name.startswith(("AMD", "PLT", "PPO", "CNP", "XPI", "YPI"))]:
            del header[name]
        plain = Wcs(str(coordinates_of(header).cards))
    assert separation(*plain.to_sky(0, 0), *truth.all_pix2world(0, 0, 0)) * 3600 / plain.pixel_scale > 0.3
    assert found.notes == ()


@pytest.mark.parametrize("code", ["CAR", "CEA", "MER", "CYP", "HPX"])
@pytest.mark.parametrize("reference", ["first pixel", "far outside", "middle", "flipped"])
def test_maps_round_the_sky_have_no_hole(code: str, reference: str) -> None:
    """Truth: astropy where the reference pixel is in the middle of the map."""
    turn = 288.0 if code == "CYP" else 360.0  # CYP: PV2_2 times as wide
    middle = {"NAXIS": 2, "NAXIS1": 720, "NAXIS2": 240, "CTYPE1": f"GLON-{code}", "CTYPE2": f"GLAT-{code}"}
    middle |= {"CRPIX1": 360.5, "CRPIX2": 120.5, "CRVAL1": 30.0, "CRVAL2": 0.0}
    middle |= {"CDELT1": -turn / 720, "CDELT2": 0.25}
    middle |= {"PV2_1": 1.0, "PV2_2": 0.8} if code == "CYP" else {}
    asked = dict(middle)
    pixels = {"first pixel": 1.0, "far outside": 360.5 + 7200, "middle": 360.5, "flipped": 360.5}[reference]
    asked["CRPIX1"], asked["CRVAL1"] = pixels, 30.0 - (pixels - 360.5) * 0.5
    if reference == "flipped":
        middle["CDELT1"] = asked["CDELT1"] = turn / 720
    x, y = np.meshgrid(np.arange(0, 720, 7.25), np.arange(1, 239, 9.5))
    x, y = x.ravel(), y.ravel()
    longitude, latitude = WCS(fits.Header(middle)).all_pix2world(x, y, 0)
    assert np.isfinite(longitude).all()
    sky = SkyCoord(longitude, latitude, unit="deg", frame="galactic").icrs
    wcs = Wcs(str(read(asked).cards))
    tile = wcs.shifted(300, -10, (300, 420))
    for one, dx, dy in ((wcs, 0, 0), (tile, 300, -10)):
        inside = (x >= dx) & (x < dx + (420 if dx else 720))
        there = one.to_sky(x - dx, y - dy)
        assert separation(*there, sky.ra.deg, sky.dec.deg).max() * 3600 < 1e-3
        back = one.to_pixel(sky.ra.deg[inside], sky.dec.deg[inside])
        assert np.abs(back[0] + dx - x[inside]).max() < 1e-4
        assert np.abs(back[1] + dy - y[inside]).max() < 1e-4
    assert wcs.shifted(0, -1000, (2000, 720)).pixel_scale > 0  # a tile whose middle is beyond the pole


def test_of_two_pixels_of_a_position_the_one_nearer_the_centre_is_given() -> None:
    cards = {"NAXIS": 2, "NAXIS1": 800, "NAXIS2": 200, "CTYPE1": "RA---CAR", "CTYPE2": "DEC--CAR"}
    cards |= {"CRPIX1": 1.0, "CRPIX2": 100.5, "CRVAL1": 200.0, "CRVAL2": 0.0, "CDELT1": -0.5, "CDELT2": 0.5}
    wcs = Wcs(str(read(cards).cards))
    np.testing.assert_allclose(wcs.to_sky([20, 740], [50, 50])[0], [190, 190])
    np.testing.assert_allclose(wcs.to_pixel(*wcs.to_sky([20.0, 740.0, 50, 770], [50] * 4))[0], [740, 740, 50, 50])


SAME = {
    "velocity axis of the unit M/S": {"CTYPE3": "VELO-LSR", "CUNIT3": "M/S", "CRVAL3": 0.0, "CDELT3": -7.3e5},
    "unknown third axis": {"CTYPE3": "WAVE-XXX", "CUNIT3": "angstroms of air", "CRVAL3": 1.0, "CDELT3": 1.0},
    "third axis without a step": {"CTYPE3": "FREQ", "CRVAL3": 1e9, "CDELT3": 0.0},
    "matrix row of a third axis": {"CTYPE3": "FREQ", "CD1_1": -5e-5, "CD2_2": 5e-5, "CD3_3": 0.0, "WCSAXES": 3},
    "mixed with a plane that is one": {"CTYPE3": "FREQ", "CRPIX3": 1.0, "PC1_3": 0.1, "PC1_1": 1.0, "PC2_2": 1.0},
    "a table for the third axis": {"CTYPE3": "WAVE-TAB", "PS3_0": "WCS-TABLE", "PS3_1": "COORDS", "CUNIT3": "nm"},
    "numbers as text": {"CRVAL1": "150.0", "CDELT1": "-5e-5", "CRPIX2": " 40.0"},
    "matrix as text": {"CD1_1": "-5e-5", "CD2_2": "5e-5"},
    "Degrees": {"CUNIT1": "Degrees", "CUNIT2": "DEG"},
    "arcsec": {"CUNIT1": "arcsec", "CRVAL1": 540000.0, "CDELT1": -0.18},
    "SIP and PV": {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "PV1_1": 1.0, "PV2_1": 1.0, "A_ORDER": 2}
    | {"B_ORDER": 2, "A_2_0": 0.0, "PV1_5": 0.0},
    "equinox as text": {"EQUINOX": "2000.0", "RADESYS": "ICRS"},
    "equinox that is none": {"EQUINOX": 0.0},
    "no NAXIS": {"NAXIS": 0},
    "date of old": {"DATE-OBS": "11/03/76"},
}


@pytest.mark.parametrize("name", SAME)
def test_the_sky_is_that_of_the_plain_header(name: str) -> None:
    base = WITHOUT_SCALE if "CD1_1" in SAME[name] else PLAIN
    found = read(base | SAME[name])
    x, y = grid(100, 80, 4)
    with astropy_quiet():
        ra, dec = WCS(fits.Header(PLAIN)).all_pix2world(x, y, 0)
    assert separation(*Wcs(str(found.cards)).to_sky(x, y), ra, dec).max() < 1e-10
    assert bool(found.notes) == (name == "equinox that is none")
    assert found.dropped == ((SAME[name]["CTYPE3"],) if "CTYPE3" in SAME[name] else ())


def test_frames_by_their_other_names() -> None:
    for name, frame, equinox in (("fk5", "fk5", "J2000"), ("J2000", "fk5", "J2000"), ("B1950", "fk4", "B1950")):
        right = SkyCoord(150.0, 2.0, unit="deg", frame=frame, equinox=equinox).icrs
        wcs = Wcs(str(read(PLAIN | {"RADESYS": name}).cards))
        assert separation(*wcs.to_sky(49, 39), right.ra.deg, right.dec.deg) * 3600 < 1e-3


def test_an_alternate_wcs_is_used_where_it_is_the_only_one() -> None:
    other = {f"{name}A" if name[0] == "C" else name: value for name, value in PLAIN.items()}
    found = read(other)
    np.testing.assert_allclose(Wcs(str(found.cards)).to_sky(49, 39), [[150.0], [2.0]])
    assert "alternate WCS A" in found.notes[0]


UNUSABLE = {
    "GAPPT": {"RADESYS": "GAPPT"},
    "ITRS": {"RADESYS": "ITRS"},
    "its sky is on axes 2 and 3": {"CTYPE1": "FREQ", "CTYPE2": "RA---SIN", "CTYPE3": "DEC--SIN"},
    "no number": {"CRVAL1": "10:00:00"},
    "no row for axis 2": {"CD1_1": 1e-5, "CD2_2": 0.0},
    "depends on axis 3": {"CTYPE3": "FREQ", "CRPIX3": 3.0, "PC1_3": 0.1},
    "axes MALN-CAR": {"CTYPE1": "MALN-CAR", "CTYPE2": "MALT-CAR"},
    "Mismatched units": {"CUNIT1": "pixel"},
    "Unrecognized celestial": {"CTYPE1": "AZ---TAN", "CTYPE2": "ALT--TAN"},
}


@pytest.mark.parametrize("why", UNUSABLE)
def test_a_wcs_that_cannot_be_used_says_why(why: str) -> None:
    found = read(PLAIN | UNUSABLE[why])
    assert found.cards is None
    assert why in found.problem
    assert " line " not in found.problem
    with pytest.raises(InputError, match="pixel positions"):
        Wcs.from_header(fits.Header(PLAIN | UNUSABLE[why]))


def test_what_is_assumed_is_said() -> None:
    assert "no pixel scale" in read(WITHOUT_SCALE).notes[0]
    assert "EPOCH 1987.3" in read(PLAIN | {"EPOCH": 1987.3}).notes[0]
    assert read(PLAIN | {"EPOCH": 1950.0}).notes == ()
    assert read({"NAXIS": 2, "CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}) == Coordinates(None)


@pytest.mark.parametrize("file", sorted(DATA.glob("maps/*.hdr")), ids=lambda file: file.stem)
def test_every_projection_agrees_with_astropy(file: Path) -> None:
    with astropy_quiet():
        header = fits.Header.fromstring(file.read_bytes().decode("latin-1"))
        truth = WCS(header)
        x, y = grid(int(header["NAXIS1"]), int(header["NAXIS2"]), 25)
        ra, dec = truth.all_pix2world(x, y, 0)
        sky = SkyCoord(ra, dec, unit="deg", frame="fk5").icrs
    wcs = Wcs(str(coordinates_of(header).cards))
    for one, dx, dy in ((wcs, 0, 0), (wcs.shifted(60, 50, (90, 80)), 60, 50)):
        found = one.to_sky(x - dx, y - dy)
        assert (np.isfinite(found[0]) >= np.isfinite(ra)).all()
        on = np.isfinite(ra)
        assert separation(*found, sky.ra.deg, sky.dec.deg)[on].max() < 1e-7
        back = one.to_pixel(sky.ra.deg[on], sky.dec.deg[on])
        ok = np.isfinite(back[0])
        assert ok.mean() > 0.9
        assert np.hypot(back[0] + dx - x[on], back[1] + dy - y[on])[ok].max() < 0.02


@pytest.mark.parametrize(("name", "number"), [("dist_lookup.fits.gz", 1), ("dss.14.29.56-62.41.05.fits.gz", 0)])
def test_tiles_of_an_ingested_file_carry_the_whole_wcs(name: str, number: int, tmp_path: Path, client: Any) -> None:
    result = ingest(str(DATA / name), out=str(tmp_path / "s.zarr"), client=client, tile_size=64, halo=8)
    assert not [warning for warning in result.warnings if "WCS" in warning or "axis" in warning]
    survey = Survey.open(result.source)
    with fits.open(DATA / name) as hdus, astropy_quiet():
        truth = WCS(hdus[number].header, hdus)
        x, y = grid(100, 100, 12)
        sky = truth.pixel_to_world(x, y).icrs
    tiles = list(survey.iter_tiles())
    assert len(tiles) == 9
    for wcs, dx, dy in (
        *((info.wcs(), info.outer.x0, info.outer.y0) for info in tiles),
        *((image.wcs(), 0, 0) for image in survey.images().values()),
    ):
        assert wcs is not None
        back = wcs.to_pixel(sky.ra.deg, sky.dec.deg)
        assert np.hypot(back[0] + dx - x, back[1] + dy - y).max() < 0.001
    told = str(describe_fits(str(DATA / name)))
    assert ("3 lookup tables" if number else "plate solution") in told


def test_a_wcs_that_loses_something_is_told_at_ingest(tmp_path: Path, client: Any) -> None:
    cards = PLAIN | {"CPDIS1": "Lookup", "CPERR1": 0.25, "CTYPE3": "VELO-LSR", "CUNIT3": "M/S", "CRVAL3": 0.0}
    header = fits.Header(cards | {"CDELT3": -7e5, "CRPIX3": 1.0})
    fits.writeto(tmp_path / "a.fits", np.zeros((1, 80, 100), np.float32), header)
    result = ingest(str(tmp_path / "a.fits"), out=str(tmp_path / "s.zarr"), client=client)
    (warning,) = [warning for warning in result.warnings if "lookup" in warning]
    assert "up to 0.25 px" in warning
    wcs = Survey.open(result.source).images()["a"].wcs()
    assert wcs is not None
    np.testing.assert_allclose(wcs.to_sky(49, 39), [[150.0], [2.0]])
    assert "without VELO-LSR" in str(describe_fits(str(tmp_path / "a.fits")))


def test_a_second_card_of_a_side_is_no_size() -> None:
    header = fits.Header(PLAIN)
    header.append(fits.Card("NAXIS1", "text"), end=True)
    assert Wcs.from_header(header).shape == (80, 100)
