"""Circles on the sky as people write them: numbers, astropy's objects, sexagesimal text; words behind --cone."""

from __future__ import annotations

import math

import pytest
from astropy import units as u
from astropy.coordinates import Angle, SkyCoord

from astroml_plugin.catalog.cones import checked_cone
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import with_changes
from astroml_plugin.cutting import CutoutOptions
from astroml_plugin.sky.circles import circle_of
from workflows.rank import RankOptions
from workflows.verbs.cone_words import joined_cones

PLACE = SkyCoord("10h00m28.6s", "-02d12m21s")
RADIUS = 5 / 3600

SAME = (
    (PLACE, 5 * u.arcsec),
    (PLACE, Angle("5arcsec")),
    (PLACE.galactic, "5arcsec"),
    (PLACE, RADIUS),
    (PLACE.ra, PLACE.dec, 5 * u.arcsec),
    (PLACE.ra.deg, PLACE.dec, Angle(5, "arcsec")),
    (PLACE.ra.hourangle * u.hourangle, PLACE.dec.rad * u.rad, RADIUS),
    ("10h00m28.6s", "-02d12m21s", '5"'),
    ("10h00m28.6s -02d12m21s", 5 * u.arcsec),
    "10h00m28.6s -02d12m21s 5arcsec",
    "10h 00m 28.6s -02d 12m 21s 5 arcsec",
    "10:00:28.6 -02:12:21 5arcsec",
    "10 00 28.6 -02 12 21 5arcsec",
    "10h00m28.6s, −02°12′21″, 5″",
    "150d07m09s -2d12m21s 5000mas",
    f"{PLACE.ra.deg:.12f} {PLACE.dec.deg:.12f} {RADIUS:.15f}",
    f"({PLACE.ra.deg:.12f}, {PLACE.dec.deg:.12f}, {RADIUS:.15f})",
    f"{PLACE.ra.deg:.12f}deg {PLACE.dec.deg:.12f}deg {5 / 60:.12f}arcmin",
)


@pytest.mark.parametrize("given", SAME, ids=str)
def test_one_circle_in_many_words(given: object) -> None:
    ra, dec, radius = checked_cone(given)
    assert SkyCoord(ra, dec, unit="deg").separation(PLACE) < 1e-3 * u.arcsec
    assert radius == pytest.approx(RADIUS, rel=1e-9)


def test_a_degree_of_zero_has_a_sign() -> None:
    assert circle_of("0h0m4s -00d30m00s 1arcmin") == pytest.approx((1 / 60, -0.5, 1 / 60))
    assert circle_of("5.5h +90d 1deg")[:2] == (82.5, 90.0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("M51 5arcmin", "'M51' is no position: names of objects are not looked up, as there is no network"),
        ("NGC 1068 1arcmin", "'NGC' is no position"),
        ("M51", "give right ascension, declination and radius"),
        ("150.1 2.2", "give right ascension, declination and radius"),
        ("10h75m00s 2d 1arcmin", "'10h75m00s' is no right ascension"),
        ("150 2h 1arcmin", "'2h' is no declination"),
        ("150 2 5parsec", "'5parsec' is no radius"),
        ("150 2 0:01:00", "'0:01:00' is no radius"),
        ("150 -95 1", "within ±90"),
        ("150 2 -1arcsec", "radius in"),
        (PLACE, "needs a radius beside its centre"),
        ((SkyCoord([1, 2], [3, 4], unit="deg"), 1 * u.deg), "must be one position"),
        ((150, 2, 5 * u.nJy), "the radius of a cone is 5.0 nJy"),
        ((150, [2, 3], 1), "the declination of a cone"),
        ((150, 2), "give right ascension"),
        (150, "give right ascension"),
        ((math.nan, 2, 1), "in degrees"),
    ],
    ids=str,
)
def test_what_is_no_circle_is_one_sentence(given: object, says: str) -> None:
    with pytest.raises(InputError) as caught:
        checked_cone(given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "cone", "left"),
    [
        (["150", "-2", "1", "SELECT 1"], "150 -2 1", ["SELECT 1"]),
        (["10h00m28.6s", "-02d12m21s", "5arcsec"], "10h00m28.6s -02d12m21s 5arcsec", []),
        (["10h00m28.6s -02d12m21s 5arcsec", "SELECT 1"], "10h00m28.6s -02d12m21s 5arcsec", ["SELECT 1"]),
        (["10", "00", "28.6", "-02", "12", "21", "5arcsec"], "10 00 28.6 -02 12 21 5arcsec", []),
        (["10h", "00m", "28.6s", "-02d", "12m", "21s", "5", "arcsec", "--json"], None, ["--json"]),
        (["150.1", "2.2", "5", "arcsec", "catalog"], "150.1 2.2 5 arcsec", ["catalog"]),
        (["150.1", "2.2", "0.05", "2026"], "150.1 2.2 0.05", ["2026"]),
        (["M51", "5arcmin", "SELECT 1"], "M51 5arcmin", ["SELECT 1"]),
        (["150.1,", "-2.2,", "5arcsec"], "150.1, -2.2, 5arcsec", []),
        (["150.1", "2.2", "--json"], "150.1 2.2", ["--json"]),
    ],
)
def test_words_of_a_cone_on_a_command_line(typed: list[str], cone: str | None, left: list[str]) -> None:
    before = ["query", "catalog"]
    expected = " ".join(typed[: len(typed) - len(left)]) if cone is None else cone
    assert joined_cones([*before, "--cone", *typed]) == [*before, f"--cone={expected}", *left]


def test_a_cone_without_words_is_left_to_the_parser() -> None:
    for words in (["query", "--cone"], ["query", "--cone", "--json"], ["query", "--cone=1 2 3"]):
        assert joined_cones(words) == words


def test_options_that_are_angles_take_quantities() -> None:
    assert with_changes(RankOptions, None, {"fold_radius": 0.5 * u.arcmin}, "").fold_radius == 30.0
    assert with_changes(CutoutOptions, None, {"size_arcsec": Angle("12.8arcsec")}, "").size_arcsec == pytest.approx(
        12.8
    )
    for value in (5 * u.nJy, [1, 2] * u.arcsec):
        with pytest.raises(InputError, match="must be one angle in arcsec"):
            with_changes(RankOptions, None, {"fold_radius": value}, "")
    with pytest.raises(InputError, match="takes no quantity"):
        with_changes(RankOptions, None, {"fold_latent": 5 * u.arcsec}, "")
