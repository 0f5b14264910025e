"""Zero points in AB from the headers of many telescopes, right or not given."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from astroml_plugin.core.errors import InputError
from astroml_plugin.pixels import plausible
from astroml_plugin.sources.ingest import FitsOptions
from astroml_plugin.sources.ingest.exposures import exposures
from astroml_plugin.sources.ingest.photometry import Calibration, calibrate
from tests.test_ingest_fits import WCS_CARDS, noise, run, write


def jansky(value: float) -> float:
    """AB magnitude of a flux density."""
    return 8.9 - 2.5 * math.log10(value)


def known(unit: str = "", stem: str = "a", **cards: Any) -> Calibration:
    """Calibration of an image of 0.18 arcsec per pixel with these cards."""
    header = fits.Header()
    header.update({**WCS_CARDS, **cards})
    wcs = "\n".join(card.image for card in fits.Header(WCS_CARDS).cards)
    return calibrate(header, fits.Header(), unit, stem, wcs)


PIXEL = math.radians(5e-5) ** 2
HST = {"PHOTFLAM": 7.03e-20, "PHOTPLAM": 8045.0}
CASES: list[tuple[str, str, str, dict[str, Any], float]] = [
    ("WISE W1", "DN", "1497p015_ac51-w1-int-3", {"MAGZP": 20.5, "TELESCOP": "WISE", "BAND": 1}, 20.5 + jansky(309.54)),
    ("WISE W4", "DN", "1497p015_ac51-w4-int-3", {"MAGZP": 13.0, "TELESCOP": "WISE"}, 13 + jansky(8.363)),
    ("unWISE", "", "unwise-1-w2-img-m", {"MAGZP": (22.5, "in Vega mag"), "BAND": 2}, 22.5 + jansky(171.787)),
    ("2MASS", "DN", "aJ", {"MAGZP": 20.8, "TELESCOP": "2MASS", "FILTER": "h"}, 20.8 + jansky(1024.0)),
    ("UKIDSS", "", "w", {"MAGZPT": 23.0, "TELESCOP": "UKIRT", "FILTER": "K", "EXPTIME": 10.0}, 23 + 2.5 + 1.9),
    ("UKIDSS WFCAM", "", "w", {"MAGZPT": 23.0, "TELESCOP": "UKIRT", "FILTER": "K", "EXP_TIME": 10.0}, 23 + 2.5 + 1.9),
    ("VISTA", "", "v", {"MAGZPT": 23.0, "TELESCOP": "ESO-VISTA", "FILTER": "Ks", "EXPTIME": 10.0}, 23 + 2.5 + 1.827),
    ("Johnson", "adu", "a", {"MAGZERO": 25.0, "MAGSYS": "Vega", "FILTER": "V"}, 25.02),
    ("AB said", "adu", "a", {"MAGZERO": (24.6, "AB zeropoint"), "FILTER": "J"}, 24.6),
    ("per second", "adu", "a", {"MAGZPT": (25.0, "mag of 1 ADU/s"), "EXPTIME": 100.0}, 30.0),
    ("per second both", "adu/s", "a", {"MAGZPT": (25.0, "mag of 1 ADU/s"), "EXPTIME": 100.0}, 25.0),
    ("LSST", "adu", "calexp", {"FLUXMAG0": 1e12}, 30.0),
    ("Pan-STARRS", "", "stk", {"HIERARCH FPA.ZP": 25.0, "EXPTIME": 1000.0}, 32.5),
    ("nanomaggy", "nanomaggy", "frame", {}, 22.5),
    ("nmgy", "NMGY", "frame", {}, 22.5),
    *[
        (unit, unit, "a", {}, jansky(value))
        for unit, value in {"nJy": 1e-9, "µJy": 1e-6, "UJY": 1e-6, "mJy": 1e-3}.items()
    ],
    ("SDSS frame", "", "frame-r-001000-1-0100", {"NMGY": 0.0047}, 22.5),
    ("cgs", "erg/s/cm2/Hz", "a", {}, -48.6),
    ("MJy/sr", "MJy/sr", "a", {}, jansky(1e6 * PIXEL)),
    ("JWST", "MJy/sr", "a", {"PIXAR_SR": 1.03 * PIXEL}, jansky(1.03e6 * PIXEL)),
    ("mJy/arcsec2", "mJy/arcsec2", "a", {}, jansky(1e-3 * 0.18**2)),
    ("Jy/beam", "Jy/beam", "a", {"BMAJ": 1e-3, "BMIN": 1e-3}, jansky(4 * math.log(2) / math.pi * (5e-5 / 1e-3) ** 2)),
    ("arcsec", "Jy/beam", "a", {"BMAJ": (3.6, "[arcsec]"), "BMIN": 3.6}, jansky(4 * math.log(2) / math.pi * 0.05**2)),
    ("AIPS", "JY/BEAM", "a", {"HISTORY": "AIPS   CLEAN BMAJ=  1.0000E-03 BMIN=  1.0000E-03 BPA=  0.0"}, 15.541),
    ("HST per second", "ELECTRONS/S", "a", HST, 25.947),
    ("HST counts", "ELECTRONS", "a", {**HST, "EXPTIME": 500.0}, 32.694),
    ("f lambda", "erg/s/cm2/Angstrom", "a", {"PHOTPLAM": 8000.0}, -21.923),
    ("GALEX", "", "AIS_1-nd-int", {"TELESCOP": "GALEX"}, 20.08),
]


@pytest.mark.parametrize(("name", "unit", "stem", "cards", "zero_point"), CASES, ids=[case[0] for case in CASES])
def test_zero_points_are_ab(name: str, unit: str, stem: str, cards: dict[str, Any], zero_point: float) -> None:
    found = known(unit, stem, **cards)
    assert found.zero_point == pytest.approx(zero_point, abs=0.002)
    assert not found.doubt
    assert found.why
    assert found.system == (
        "Vega" if name in ("unWISE", "2MASS", "UKIDSS", "UKIDSS WFCAM", "VISTA", "Johnson") or "WISE" in name else "AB"
    )


@pytest.mark.parametrize(
    ("unit", "cards", "says"),
    [
        ("adu", {}, "BUNIT adu is no flux"),
        ("", {}, "no BUNIT and no zero point"),
        *[(unit, {}, "no flux") for unit in ("K", "1e400 Jy", "-1 Jy", "0 Jy", "mag(AB)", "dex(K)", "((((", "Jy/0")],
        ("Jy/beam", {}, "the beam"),
        ("Jy/beam", {"BMAJ": 1.4, "BMIN": 1.4}, "are they degrees?"),
        ("10**-20 Angstrom-1 cm-2 erg s-1", {}, "no flux"),
        ("", HST, "does not say whether"),
        ("adu", {"MAGZP": 20.0, "TELESCOP": "WISE"}, "offset to AB is not known"),
        ("adu", {"MAGZERO": "unknown"}, "MAGZERO unknown is no AB magnitude"),
        *[
            ("adu", {card: value}, f"{card} {value} is no AB magnitude")
            for card, values in {
                "MAGZERO": (0.0, 1e-05, 1.0, -1.0, 99.0, 99.9, -99.0, 999.0, -999.0, 1000000000.0, False, "nan"),
                "PHOTZP": (50.0,),
                "FLUXMAG0": (0.0, -1.0, 1.0, 1e30),
            }.items()
            for value in values
        ],
    ],
)
def test_no_zero_point_is_guessed(unit: str, cards: dict[str, Any], says: str) -> None:
    found = known(unit, **cards)
    assert found.zero_point is None
    assert says in found.why + found.doubt


def test_zero_points_that_nobody_means_leave_the_next_best() -> None:
    assert known("adu", MAGZERO=99.0, ZPT=26.0).zero_point == 26.0
    assert known("nJy", MAGZERO=99.0).zero_point == pytest.approx(31.4, abs=0.002)
    assert not known("nJy", MAGZERO=99.0).doubt
    meant = [5.1, 8.9, 16.4, 20.5, 23.9, 31.4, 38.0, -21.9, -48.6, -56.1]
    assert plausible(meant).all()
    odd = [0.0, 1.0, -1.0, 1e-5, 99.0, -99.0, 99.99, 999.0, -999.0, 1e9, -9.99, np.nan, np.inf, -np.inf]
    assert not plausible(odd).any()


def test_contradictions_are_said() -> None:
    assert "neither BUNIT nor EXPTIME says" in known("", MAGZPT=23.0, TELESCOP="UKIRT", FILTER="K").doubt
    assert "neither BUNIT nor EXPTIME says" in known("adu", MAGZPT=(25.0, "mag of 1 ADU/s")).doubt
    assert "differ by 4.40 mag" in known("nJy", MAGZERO=27.0).doubt
    assert "taken as AB" in known("adu", MAGZERO=23.0, FILTER="Ks").doubt
    both = known("", PHOTZP=30.0, MAGZERO=25.0)
    assert both.zero_point == 25
    assert both.doubt.startswith("MAGZERO 25 and PHOTZP 30 differ by 5.00 mag, the first is taken")
    small = known("MJy/sr", PIXAR_SR=PIXEL / 4)
    assert small.zero_point == pytest.approx(jansky(1e6 * PIXEL), abs=1e-3)
    assert "PIXAR_SR is 0.25 times the area of a pixel by the WCS" in small.doubt


def test_a_zero_point_of_0_is_meant_where_the_pixels_are_that_faint(tmp_path: Path, client: Any) -> None:
    faint = write(tmp_path / "faint.fits", noise() * 1e-12, MAGZERO=0.0)
    counts = write(tmp_path / "counts.fits", noise(), MAGZERO=0.0)
    for path, stated in ((faint, True), (counts, False)):
        image = exposures(path, FitsOptions())[0].image
        assert (image.calibration.zero_point == 0) == stated
        assert "MAGZERO 0" in (image.calibration.doubt or image.calibration.why)
    _, survey = run(client, faint, tmp_path / "s.zarr", zero_point=(0.0,))
    assert survey.tile(0).zero_points == {"c000": pytest.approx(22.5)}  # of the stored unit, 1e-9
    with pytest.raises(InputError, match="zero point 0 is no AB magnitude of one unit of the pixels"):
        run(client, counts, tmp_path / "t.zarr", zero_point=(0.0,))
    assert not (tmp_path / "t.zarr").exists()


def test_the_survey_keeps_ab_and_how_it_is_known(tmp_path: Path, client: Any) -> None:
    cards = {"BUNIT": "DN", "MAGZP": 20.5, "BAND": 1, "TELESCOP": "WISE"}
    path = write(tmp_path / "1497p015_ac51-w1-int-3.fits", noise(), **cards)
    result, survey = run(client, path, tmp_path / "s.zarr")
    info = survey.tile(0)
    assert info.zero_points["c000"] == pytest.approx(23.1732, abs=1e-4)
    assert info.calibrations == {"c000": "MAGZP 20.5 Vega (WISE W1: AB +2.673)"}
    assert result.warnings == ()
    result, survey = run(client, path, tmp_path / "t.zarr", zero_point=21.0)
    assert (survey.tile(0).zero_points, survey.tile(0).calibrations) == (
        {"c000": 21.0},
        {"c000": "by hand (zero_point)"},
    )
    files = [write(tmp_path / f"{name}.fits", noise() + np.float32(n), BUNIT="adu") for n, name in enumerate("ab")]
    result, survey = run(client, files, tmp_path / "u.zarr")
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("a and 1 more: no zero point: BUNIT adu is no flux")
    assert survey.tile(0).zero_points == {"c000": None}
