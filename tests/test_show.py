"""Pictures of a survey: which pixels and objects, which way is North, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io.fits import Header

from astroml_plugin.catalog import Catalog, schema
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.labelling.paint import wavelengths
from astroml_plugin.showing.marks import compass, round_below, scale_bar
from astroml_plugin.showing.objects import rims
from astroml_plugin.showing.picture import colour_words, painted
from astroml_plugin.showing.pixels import read_view
from astroml_plugin.showing.view import choose
from astroml_plugin.sky.wcs import Wcs
from astroml_plugin.sources.survey import Survey
from tests import universe
from workflows.cli import main
from workflows.show import show

SHAPE = (300, 400)


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """Three bands; a masked corner in all of them, a masked square in one."""

    def mask(image: np.ndarray, spread: np.ndarray, marks: np.ndarray) -> None:
        marks[:, :20, :30] = int(MaskBit.BAD)
        marks[1, 100:110, 200:210] = int(MaskBit.BAD)
        image[0, 50, 60] = np.nan

    url = str(tmp_path_factory.mktemp("sky") / "survey.zarr")
    return universe.make_survey(url, shape=SHAPE, bands=("i", "g", "r"), change=mask)


@pytest.fixture(scope="module")
def catalog(survey: Survey, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Three rows: one plain, one with a flag in the next tile, one without a position."""
    made = Catalog.create(str(tmp_path_factory.mktemp("cat") / "cat"), schema([]), {"source": survey.id})
    run = made.start_run({"kind": "infer", "source": survey.url})
    wcs = Wcs.from_header(universe.header(*SHAPE))
    x, y = np.array([100.0, 250.0]), np.array([150.0, 40.0])
    ra, dec = wcs.to_sky(x, y)
    infos = []
    for number, tile in enumerate(("field_r1_c0", "field_r0_c1")):
        rows = pa.table(
            {
                **{"object_id": [7 + number], "image": ["field"], "tile": [tile], "primary": [True]},
                **{"x": x[[number]], "y": y[[number]], "ra": ra[[number]], "dec": dec[[number]]},
                "flags": pa.array([2 * number], pa.int32()),
            }
        )
        infos.append(made.write_part(tile, "a" * 16, rows))
    made.commit_manifest(run, infos)
    made.finish_run(run)
    return made


def jacobian(angle: float, *, mirrored: bool = False) -> np.ndarray:
    """Arcsec per pixel (West, North by x, y) of an image whose North is turned by an angle from +y to +x."""
    turn = np.radians(angle)
    matrix = 0.2 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return matrix @ np.diag([-1, 1]) if mirrored else matrix


# ---- marks -------------------------------------------------------------------------------------------------------


def test_the_compass_follows_turned_and_mirrored_images() -> None:
    plain = compass(jacobian(0))
    assert plain.north == pytest.approx((0, 1))
    assert plain.east == pytest.approx((-1, 0))
    turned = compass(jacobian(90))
    assert turned.north == pytest.approx((1, 0), abs=1e-12)
    assert turned.east == pytest.approx((0, 1), abs=1e-12)
    mirrored = compass(jacobian(0, mirrored=True))
    assert mirrored.north == pytest.approx((0, 1))
    assert mirrored.east == pytest.approx((1, 0))


@pytest.mark.parametrize("turn", [0.0, 33.0, 210.0])
@pytest.mark.parametrize("flip", [1, -1])
def test_north_of_a_real_header_raises_the_declination(turn: float, flip: int) -> None:
    cosine, sine = np.cos(np.radians(turn)) * 1e-4, np.sin(np.radians(turn)) * 1e-4
    cards = {"NAXIS": 2, "NAXIS1": 100, "NAXIS2": 100, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 0.01}
    cards |= {"CRVAL2": 60.0, "CRPIX1": 50, "CRPIX2": 50, "CD1_1": -cosine * flip, "CD1_2": sine}
    cards |= {"CD2_1": sine * flip, "CD2_2": cosine, "CUNIT1": "deg", "CUNIT2": "deg"}
    wcs = Wcs.from_header(Header(cards))
    found = compass(wcs.jacobian(50, 50)[0])
    ra0, dec0 = wcs.to_sky(50, 50)
    for (dx, dy), east in ((found.north, 0), (found.east, 1)):
        ra, dec = wcs.to_sky(50 + 5 * dx, 50 + 5 * dy)
        moved = ((ra - ra0 + 180) % 360 - 180) * np.cos(np.radians(60)), dec - dec0
        assert moved[0] * east + moved[1] * (1 - east) == pytest.approx(5e-4, rel=0.02)


def test_scale_bars_are_round_and_fit() -> None:
    bar = scale_bar(400, jacobian(20))
    assert (bar.text, bar.pixels) == ("20 arcsec", pytest.approx(100))
    assert scale_bar(4000, jacobian(0)).text == "2 arcmin"
    assert scale_bar(400, None).text == "100 pixels"
    assert [round_below(v) for v in (0.3, 1.0, 4.99, 60)] == [0.2, 1.0, 2.0, 50.0]


def test_rims_are_the_edges_of_objects() -> None:
    labels = np.zeros((7, 7), np.uint32)
    labels[1:6, 1:4], labels[1:6, 4:6] = 1, 2
    found = rims(labels)
    assert not found[labels == 0].any()
    assert found[3].tolist() == [False, True, False, True, True, True, False]


def test_bands_by_wavelength() -> None:
    assert colour_words(("i", "g", "r")) == "red i, green r, blue g"
    assert colour_words(("VIS", "NISP_H", "NISP_Y", "NISP_J"))[:12] == "red NISP_H, "
    assert colour_words(("HSC-I", "HSC-G", "HSC-R")) == "red HSC-I, green HSC-R, blue HSC-G"
    assert wavelengths(["F435W", "F814W", "F160W"]) == [435, 814, 1600]
    assert wavelengths(["F444W", "F090W", "F200W"]) == [4440, 900, 2000]
    assert wavelengths(["one", "two"]) == [0, 1]


# ---- views and pixels --------------------------------------------------------------------------------------------


def test_a_view_over_tiles_is_the_image(survey: Survey) -> None:
    pixels = read_view(survey, choose(survey), survey.bands)
    truth = universe.field(*SHAPE, 3)
    good = np.isfinite(pixels.image)
    np.testing.assert_array_equal(pixels.image[good], truth[good])
    assert (~good[2]).sum() == 600  # the corner
    assert (~good[1]).sum() == 700
    assert (~good[0]).sum() == 601


def test_blocks_are_means_of_usable_pixels(survey: Survey) -> None:
    pixels = read_view(survey, choose(survey), survey.bands, most=134)
    assert pixels.factor == 3
    assert pixels.image.shape == (3, 100, 134)
    truth = universe.field(*SHAPE, 3)[2, 60:63, 303:306]
    assert pixels.image[2, 20, 101] == pytest.approx(truth.mean(), rel=1e-5)
    assert pixels.bad[0, 16, 20]  # one pixel of nine
    assert np.isfinite(pixels.image[0, 16, 20])


def test_unusable_pixels_are_seen(survey: Survey) -> None:
    shown = painted(read_view(survey, choose(survey), survey.bands))
    assert len(np.unique(shown[:20, :30].reshape(-1, 3), axis=0)) == 1
    assert (shown[105, 205] != shown[120, 205]).any()


def test_tiles_cones_and_objects(survey: Survey, catalog: Catalog) -> None:
    tile = choose(survey, tile="field_r0_c1")
    assert [info.name for info in tile.tiles] == ["field_r0_c1"]
    ra, dec = Wcs.from_header(universe.header(*SHAPE)).to_sky(200.0, 150.0)
    cone = choose(survey, cone=(float(ra[0]), float(dec[0]), 0.001))
    assert cone.circle == pytest.approx((200, 150, 18), abs=0.1)
    assert cone.box.contains(200, 150).all()
    assert cone.box.width == pytest.approx(38, abs=2)
    one = choose(survey, catalog, object_id=8, side=32)
    assert (one.box.x0, one.box.y0, one.box.width) == (234, 24, 32)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"tile": "field_r9_c9"}, "no tile 'field_r9_c9'"),
        ({"image": "other"}, "no image 'other'"),
        ({"cone": (10.0, -80.0, 0.01)}, "no image of the survey reaches"),
        ({"object_id": 5}, "--object needs a catalog"),
        ({"tile": "a", "cone": (1.0, 2.0, 0.1)}, "one of --tile"),
    ],
)
def test_what_is_not_there_is_refused(survey: Survey, wish: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        choose(survey, **wish)


def test_a_survey_without_world_coordinates(tmp_path: Path) -> None:
    survey = universe.make_survey(str(tmp_path / "s.zarr"), shape=(60, 80), tile_size=96, halo=8, wcs=False)
    result = show(survey.url, out=str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert result.objects is None
    with pytest.raises(InputError, match="no image of the survey has any: give --tile or --object"):
        choose(survey, cone=(1.0, 2.0, 0.1))


# ---- the verb ----------------------------------------------------------------------------------------------------


def test_the_verb_draws_a_catalog_and_its_regions(
    catalog: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, regions = tmp_path / "a.html", tmp_path / "a.reg"
    assert main(["show", catalog.url, "--out", str(out), "--regions", str(regions)]) == 0
    assert "2 objects" in capsys.readouterr().out
    text = out.read_text()
    assert text.count("<circle") == 2
    assert 'href="#row1"' in text
    assert "id=row1" in text
    lines = regions.read_text().splitlines()
    assert lines[1] == "icrs"
    assert lines[2].endswith("color=green text={7}")
    assert lines[3].endswith("color=yellow text={8}")
    assert main(["show", catalog.url, "--out", str(tmp_path / "a.gif")]) == 2
    assert "suffix .png or .html" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (["--contrast", "0"], "--contrast is 0: give a number above 0"),
        (["--contrast", "-1"], "--contrast is -1: give a number above 0"),
        (["--contrast", "nan"], "--contrast is nan: give a number above 0"),
        (["--object", "7", "--size", "0"], "--size is 0: give 1 or more"),
    ],
)
def test_numbers_that_draw_nothing_are_refused(
    catalog: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str], wish: list[str], words: str
) -> None:
    assert main(["show", catalog.url, "--out", str(tmp_path / "a.png"), *wish]) == 2
    assert words in capsys.readouterr().err


def test_the_refusal_of_another_thing_names_surveys_and_catalogs(tmp_path: Path) -> None:
    for name in ("nowhere", "my.fits"):
        with pytest.raises(InputError, match=r"no survey and no catalog .*`ingest`.*`infer`"):
            show(tmp_path / name, out=str(tmp_path / "a.png"))


def test_stamps_lie_in_no_field(tmp_path: Path) -> None:
    url = universe.make_stamps(str(tmp_path / "s.zarr"), count=4)
    with pytest.raises(InputError, match="lie in no field"):
        show(url, out=str(tmp_path / "a.png"))
