"""Roles of planes: files as many observatories lay them out, wrong guesses provoked, and real files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import astropy
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import MaskBit
from astroml_plugin.inference.planning import _psf_in_some
from astroml_plugin.sources.ingest.exposures import exposures
from astroml_plugin.sources.ingest.fields import by_name
from astroml_plugin.sources.ingest.fits import list_planes
from astroml_plugin.sources.ingest.mask_bits import shipped_table
from astroml_plugin.sources.ingest.options import IngestOptions
from astroml_plugin.tasks.segmentation.settings import SegmentSettings
from astroml_plugin.tasks.segmentation.task import SegmentTask
from tests.fits_layouts import SHAPE, SKY, Layout, P, layouts, pixels
from tests.test_ingest_fits import run, whole

LAYOUTS = list(layouts())


def test_there_are_enough_layouts() -> None:
    planes = sum(len(layout.planes) * (1 + (len(layout.planes) > 1)) for layout in LAYOUTS)
    assert len({layout.observatory for layout in LAYOUTS}) >= 45
    assert planes >= 300


@pytest.mark.parametrize(
    ("layout", "turned"),
    [(layout, turned) for layout in LAYOUTS for turned in ([False, True] if len(layout.planes) > 1 else [False])],
    ids=lambda value: f"{value.observatory}: {value.file}" if isinstance(value, Layout) else "turned" * value,
)
def test_every_plane_has_its_role(tmp_path: Path, layout: Layout, turned: bool) -> None:
    path, truth = layout.write(tmp_path, turned=turned)
    found = list_planes(str(path))
    told = [(plane.name.upper(), plane.role) for plane in found]
    assert told == [(plane.name.upper(), plane.role) for plane in truth], [plane.why for plane in found]
    assert all(plane.why for plane in found)


REAL = {
    "mask": ("_ood_",),
    "weight": ("_oow_", ".wht.fits"),
    "psf": ("real_galaxy_PSF",),
    "other": ("acs_I_unrot_sci_20_cf",),
}
"""Parts of the names of real files of which all planes have one role; the others are images."""

MIXED = {
    "IMAGE-HDFS-1.34.fits": ["image", "variance", "mask"],
    "subcub_mosaic.fits": ["image", "variance", "other"],
    "CUBE.fits": ["image", "variance"],
    "group.fits": ["image", "psf", "std"] * 4,
}


@pytest.mark.shared_data
def test_every_plane_of_the_real_files_has_its_role(shared_data: Path) -> None:
    count: Counter[str] = Counter()
    for path in sorted(file for file in shared_data.rglob("*") if ".fit" in file.name):
        try:
            planes = list_planes(str(path))
        except InputError as error:
            assert "holds no image" in str(error)  # noqa: PT017 - tables
            continue
        alone = next((role for role, parts in REAL.items() if any(part in path.name for part in parts)), "image")
        assert [plane.role for plane in planes] == MIXED.get(path.name, [alone] * len(planes)), path
        assert not any(plane.lost for plane in planes)
        count.update(plane.role for plane in planes)
    assert sum(count.values()) >= 330


ASTROPY = {
    "o4sp040b0_raw.fits": ["other", "other"],
    "ie6d07ujq_wcs.fits": ["other", "other"],
    "dist_lookup.fits.gz": ["image", "other", "other", "other"],
}
"""Roles in astropy's own test files; every plane of the others is an image."""


def test_every_plane_of_the_files_of_astropy_has_its_role() -> None:
    count = 0
    for path in sorted(file for file in Path(astropy.__file__).parent.rglob("*") if ".fit" in file.name):
        try:
            planes = list_planes(str(path))
        except InputError:
            continue
        assert [plane.role for plane in planes] == ASTROPY.get(path.name, ["image"] * len(planes)), path
        count += len(planes)
    assert count >= 30


def test_ccddata_brings_mask_and_errors(tmp_path: Path, client: Any) -> None:
    masked, errors = np.zeros(SHAPE, bool), np.full(SHAPE, 3.0, "f4")
    masked[5, 6] = True
    data = CCDData(pixels("image", 1), unit="adu", mask=masked, uncertainty=StdDevUncertainty(errors), meta=SKY)
    data.write(tmp_path / "ccd.fits")
    result, survey = run(client, str(tmp_path / "ccd.fits"), tmp_path / "s.zarr")
    assert list(survey.images()) == ["ccd"]
    np.testing.assert_array_equal(whole(survey, "ccd", "variance")[0], np.full(SHAPE, 9, "f4"))
    np.testing.assert_array_equal(whole(survey, "ccd", "mask")[0] > 0, masked)
    assert not any("left out" in warning for warning in result.warnings)


def write(folder: Path, *planes: P, file: str = "a.fits", **primary: Any) -> str:
    """A file with these planes."""
    return str(Layout("", file, planes, primary).write(folder)[0])


def test_planes_go_with_the_image_of_their_name(tmp_path: Path, client: Any) -> None:
    """Euclid's VIS: an image, its RMS and its flags for each quadrant."""
    names = [f"{quadrant}.{kind}" for quadrant in ("1-1.E", "1-1.F") for kind in ("RMS", "FLG", "SCI")]
    role = {"SCI": "image", "RMS": "std", "FLG": "mask"}
    planes = [P(name, role[name[-3:]], {"CRVAL1": 150.0 + (name[4] == "F")}) for name in names]
    _, survey = run(client, write(tmp_path, *planes, file="EUC_VIS.fits"), tmp_path / "s.zarr")
    assert list(survey.images()) == ["EUC_VIS_1_1_E", "EUC_VIS_1_1_F"]
    with fits.open(tmp_path / "EUC_VIS.fits") as hdus:
        for image, quadrant in (("EUC_VIS_1_1_E", "1-1.E"), ("EUC_VIS_1_1_F", "1-1.F")):
            np.testing.assert_array_equal(whole(survey, image)[0], hdus[f"{quadrant}.SCI"].data)
            variance = hdus[f"{quadrant}.RMS"].data.astype(float) ** 2
            np.testing.assert_allclose(whole(survey, image, "variance")[0], variance, rtol=1e-6)
            np.testing.assert_array_equal(whole(survey, image, "mask")[0] > 0, hdus[f"{quadrant}.FLG"].data > 0)


def test_the_first_of_two_masks_is_taken_and_the_other_named(tmp_path: Path, client: Any) -> None:
    planes = (P("SCI", "image"), P("PIXELDQ", "mask"), P("GROUPDQ", "mask"))
    result, survey = run(client, write(tmp_path, *planes), tmp_path / "s.zarr")
    assert (whole(survey, "a", "mask") > 0).sum() == 9
    assert any("GROUPDQ is left out: PIXELDQ is the mask already" in warning for warning in result.warnings)


def test_planes_of_equal_names_go_with_images_in_order_or_not_at_all(tmp_path: Path, client: Any) -> None:
    images = [P("SCI", "image", {"CRVAL1": 150.0 + n}) for n in range(2)]
    masks = [P("MASK", "mask"), P("MASK", "mask")]
    result, survey = run(client, write(tmp_path, *images, *masks), tmp_path / "s.zarr")
    assert list(survey.images()) == ["a_1", "a_2"]
    assert not any("left out" in warning for warning in result.warnings)
    three = write(tmp_path, *images, *masks, P("MASK", "mask"), file="b.fits")
    result, survey = run(client, three, tmp_path / "t.zarr")
    assert any("which image its mask belongs to is not said" in warning for warning in result.warnings)


def test_one_image_of_a_file_brings_its_planes(tmp_path: Path, client: Any) -> None:
    planes = [P("A.SCI", "image"), P("A.RMS", "std"), P("B.SCI", "image", {"CRVAL1": 9.0}), P("B.RMS", "std")]
    _, survey = run(client, write(tmp_path, *planes), tmp_path / "s.zarr", hdu="B.SCI")
    assert list(survey.images()) == ["a"]
    assert survey.tile(0).has_variance


def test_images_of_several_filters_are_bands_with_their_psf(tmp_path: Path, client: Any) -> None:
    layout = next(layout for layout in LAYOUTS if layout.observatory == "Euclid cutout")
    path, _ = layout.write(tmp_path)
    _, survey = run(client, str(path), tmp_path / "s.zarr")
    assert survey.bands == ("VIS", "NIR_Y", "NIR_J", "NIR_H")
    assert list(survey.images()) == ["group"]
    tile = survey.read_tile(survey.tile(0))
    assert tile.psf is not None
    with fits.open(path) as hdus:
        np.testing.assert_array_equal(whole(survey, "group")[2], hdus["NIR_J_FLUX"].data)
        np.testing.assert_array_equal(tile.psf[3, 0, 0], hdus["NIR_H_PSF"].data)
    _, survey = run(client, str(path), tmp_path / "two.zarr", bands="nir_h,VIS")
    assert survey.bands == ("nir_h", "VIS")
    with pytest.raises(InputError, match="has the bands VIS,NIR_Y,NIR_J,NIR_H on one pixel"):
        run(client, str(path), tmp_path / "three.zarr", bands="r")


def test_planes_that_nothing_tells_apart_are_refused_until_said(tmp_path: Path, client: Any) -> None:
    layout = next(layout for layout in LAYOUTS if layout.observatory == "two without names")
    path, _ = layout.write(tmp_path)
    with pytest.raises(InputError, match=r"what each is: say it with --roles, such as 0=image,1=ROLE, where ROLE"):
        run(client, str(path), tmp_path / "s.zarr")
    _, survey = run(client, str(path), tmp_path / "s.zarr", roles="0=image,1=std")
    assert survey.tile(0).has_variance
    for wrong in ("0=picture", "0", "=image"):
        with pytest.raises(InputError, match="must read NAME=ROLE"):
            run(client, str(path), tmp_path / "t.zarr", roles=wrong)
    with pytest.raises(InputError, match="roles are given for SCI, its planes are 0, 1"):
        run(client, str(path), tmp_path / "t.zarr", roles="SCI=image")


def test_losses_and_guesses_are_said(tmp_path: Path, client: Any) -> None:
    planes = (P("SCI", "image"), P("ERR", "std"), P("THING", "other", values="image"))
    planes += (P("MASK", "mask", shape=(5, 6)), P("NOISE", "other", values="light"))
    result, _ = run(client, write(tmp_path, *planes), tmp_path / "s.zarr")
    said = " | ".join(result.warnings)
    assert "THING is left out: no rule knows its name, and SCI is the image (say what it is with --roles THING=" in said
    assert "NOISE is left out: EXTNAME NOISE tells std, but" in said
    assert "MASK is left out: it has 6 x 5 pixels, its image SCI 28 x 24 pixels" in said
    wrong = (P("SCI", "image"), P("VAR", "variance", values="exposure"))
    result, _ = run(client, write(tmp_path, *wrong, file="b.fits"), tmp_path / "t.zarr")
    assert any("VAR is taken as variance (EXTNAME VAR), but its typical error is" in said for said in result.warnings)
    lone = write(tmp_path, P("", "weight"), file="c_weight.fits")
    with pytest.raises(InputError, match=r"no image of the sky: HDU 0 is weight \(file name \(WEIGHT"):
        run(client, lone, tmp_path / "u.zarr")


def test_exposure_maps_give_a_variance_by_the_noise_of_the_image(tmp_path: Path, client: Any) -> None:
    planes = (P("SCI", "image"), P("WHT", "weight", values="exposure"))
    path = write(tmp_path, *planes, EXPTIME=310.0)
    result, survey = run(client, path, tmp_path / "s.zarr")
    variance = whole(survey, "a", "variance")[0]
    assert 2.5 < np.median(variance) < 6
    weight = fits.getdata(path, "WHT")
    np.testing.assert_allclose(variance * weight, np.median(variance * weight), rtol=1e-5)
    assert any("the variance of SCI is a guess: WHT" in said for said in result.warnings)


ACS = {"TELESCOP": "HST", "INSTRUME": "ACS"}


@pytest.mark.parametrize(
    ("cards", "values", "bits"),
    [
        ({"MP_SAT": 1, "HIERARCH MP_DETECTED": 5}, [2, 32, 64], [MaskBit.SATURATED, MaskBit.DETECTED, MaskBit.OTHER]),
        ({"MSKN0000": "CR", "MSKM0000": 4, "MSKN0001": "NO_DATA"}, [4, 2], [MaskBit.COSMIC_RAY, MaskBit.NO_DATA]),
        ({"MSKNAM00": "SAT", "MSKVAL00": 32}, [32], [MaskBit.SATURATED]),
        (
            {"BIT08": (8, "SATURATED"), "BIT01": (1, "OBJECT (detected)")},
            [256, 2],
            [MaskBit.SATURATED, MaskBit.DETECTED],
        ),
        ({"TELESCOP": "JWST"}, [1, 2, 4, 1024], [MaskBit.BAD, MaskBit.SATURATED, 0, 0]),
        (ACS, [256, 2048, 8192, 32, 4], [MaskBit.SATURATED] * 2 + [MaskBit.COSMIC_RAY, 0, MaskBit.BAD]),
        (ACS | {"INSTRUME": "WFC3", "DETECTOR": "IR"}, [256, 2048, 8, 512], [MaskBit.SATURATED, 0] + [MaskBit.BAD] * 2),
        (ACS | {"INSTRUME": "STIS"}, [256, 2048, 8, 128], [MaskBit.SATURATED, 0, MaskBit.BAD, MaskBit.NO_DATA]),
        (ACS | {"INSTRUME": "NICMOS"}, [64, 256, 512, 1024], [MaskBit.SATURATED, MaskBit.BAD, MaskBit.COSMIC_RAY, 0]),
        (ACS | {"INSTRUME": "WFPC"}, [8, 256, 16, 128], [MaskBit.SATURATED, 0, MaskBit.NO_DATA, MaskBit.COSMIC_RAY]),
        ({"HDUCLAS2": "QUALITY", "HDUCLAS3": "MASKONE"}, [1, 0], [0, MaskBit.BAD]),
    ],
)
def test_bits_have_names(tmp_path: Path, client: Any, cards: Any, values: list[int], bits: list[int]) -> None:
    path = write(tmp_path, P("SCI", "image"), P("DQ", "mask", cards))
    with fits.open(path, mode="update") as hdus:
        hdus["DQ"].data[:] = 1 if "HDUCLAS3" in cards else 0
        hdus["DQ"].data[0, : len(values)] = values
    result, survey = run(client, path, tmp_path / "s.zarr")
    assert whole(survey, "a", "mask")[0, 0, : len(values)].tolist() == [int(bit) for bit in bits]
    assert not any("mean" in warning for warning in result.warnings)


def test_single_bits_of_a_known_mask_can_be_changed(tmp_path: Path, client: Any) -> None:
    path = write(tmp_path, P("SCI", "image"), P("DQ", "mask", {"MP_CR": 3, "HIERARCH MP_BRIGHT_OBJECT": 4}))
    with fits.open(path, mode="update") as hdus:
        hdus["DQ"].data[0, :4] = 8, 16, 64, 0
    for change, bits in (
        ("auto", [MaskBit.COSMIC_RAY, MaskBit.OTHER, MaskBit.OTHER]),
        ("auto:bright_object=IGNORE", [MaskBit.COSMIC_RAY, 0, MaskBit.OTHER]),
        ("auto:64=BAD,CR=SUSPECT", [MaskBit.SUSPECT, MaskBit.OTHER, MaskBit.BAD]),
    ):
        out = tmp_path / f"{len(change)}.zarr"
        assert whole(run(client, path, out, mask_map=change)[1], "a", "mask")[0, 0, :3].tolist() == bits
    with pytest.raises(InputError, match="with bits out of CR, BRIGHT_OBJECT or values"):
        run(client, path, tmp_path / "t.zarr", mask_map="auto:STAR=BAD")


def test_unknown_bits_are_bad_and_that_is_said(tmp_path: Path, client: Any) -> None:
    path = write(tmp_path, P("SCI", "image"), P("DQ", "mask"))
    with fits.open(path, mode="update") as hdus:
        hdus["DQ"].data[0, :2] = 2, 4
    result, survey = run(client, path, tmp_path / "s.zarr")
    assert whole(survey, "a", "mask")[0, 0, :3].tolist() == [MaskBit.BAD, MaskBit.BAD, 0]
    assert any("what the values of DQ mean is not known" in warning for warning in result.warnings)
    assert shipped_table(ACS | {"INSTRUME": "FOC"}) is None  # not the bits of ACS
    _, survey = run(client, path, tmp_path / "t.zarr", mask_map="bits:1=BAD,2=SATURATED,4=IGNORE")
    assert whole(survey, "a", "mask")[0, 0, :3].tolist() == [MaskBit.SATURATED, 0, 0]


def test_parts_of_one_image_in_several_files_come_together_by_their_names(tmp_path: Path, client: Any) -> None:
    names = {"int": "image", "unc": "std", "cov": "exposure", "msk": "mask"}
    for atlas in ("1497p015", "1498p015"):
        for part, role in names.items():
            write(tmp_path, P("", role), file=f"{atlas}_ac51-w1-{part}-3.fits")
    result, survey = run(client, str(tmp_path / "*.fits"), tmp_path / "s.zarr")
    assert list(survey.images()) == ["1497p015_ac51-w1-int-3", "1498p015_ac51-w1-int-3"]
    errors = fits.getdata(tmp_path / "1498p015_ac51-w1-unc-3.fits").astype(float)
    np.testing.assert_allclose(whole(survey, "1498p015_ac51-w1-int-3", "variance")[0], errors**2, rtol=1e-6)
    assert (whole(survey, "1497p015_ac51-w1-int-3", "mask") > 0).sum() == 9
    said = " | ".join(result.warnings)
    assert "1497p015_ac51-w1-int-3 (1497p015_ac51-w1-cov-3 as its exposure" in said
    again, _ = run(client, str(tmp_path / "*.fits"), tmp_path / "s.zarr")
    assert (again.units_done, again.units_skipped) == (0, 2)
    alone = str(tmp_path / "1497p015_ac51-w1-unc-3.fits")
    with pytest.raises(InputError, match="give its image with it"):
        run(client, alone, tmp_path / "t.zarr")


def test_files_of_one_survey_come_together_by_the_words_of_its_names(tmp_path: Path, client: Any) -> None:
    for number, band in enumerate(("VIS", "NIR-Y")):
        parts = {f"BGSUB-MOSAIC-{band}": "image", f"MOSAIC-{band}-RMS": "std", f"MOSAIC-{band}-FLAG": "mask"}
        parts |= {f"BGMOD-{band}": "other", f"GRID-PSF-{band}": "psf", f"CATALOG-PSF-{band}": "psf"}
        for part, role in parts.items():
            write(
                tmp_path, P("", role, {"CRVAL1": 150.0 + number}), file=f"EUC_MER_{part}_TILE1-{part[:2]}_2024T1.fits"
            )
    result, survey = run(client, str(tmp_path / "EUC*.fits"), tmp_path / "s.zarr")
    assert len(survey.images()) == 2
    for name in survey.images():
        assert (whole(survey, name, "mask") > 0).sum() == 9
        assert np.nanmedian(whole(survey, name, "variance")) == pytest.approx(4, rel=0.1)
    assert survey.read_tile(survey.tile(0)).psf is None
    assert "left out, as its name tells no image" in " | ".join(result.warnings)


def test_one_mask_serves_several_filters_and_the_infrared_has_its_own(tmp_path: Path) -> None:
    for band in ("r", "g", "W1"):
        write(tmp_path, P(f"IMAGE_{band}", "image"), file=f"legacysurvey-1p0-image-{band}.fits")
        write(tmp_path, P(f"INVVAR_{band}", "weight"), file=f"legacysurvey-1p0-invvar-{band}.fits")
        write(tmp_path, P("", "other"), file=f"legacysurvey-1p0-depth-{band}.fits")
    masks = write(tmp_path, P("WISEM1", "mask"), P("MASKBITS", "mask"), file="legacysurvey-1p0-maskbits.fits")
    with fits.open(masks, mode="update") as hdus:
        hdus["WISEM1"].data[0, 0] = 64
    names = [str(tmp_path / f"legacysurvey-1p0-image-{band}.fits") for band in ("g", "r", "W1")]
    urls = [*names, *(str(path) for path in sorted(tmp_path.glob("*.fits")) if str(path) not in names)]
    found = by_name(urls, IngestOptions())
    assert found.images == names
    assert all(files["mask"] == masks and "weight" in files for files in found.beside.values())
    chosen = {name: exposures(name, IngestOptions(), found.beside[name])[0].mask for name in names}
    assert [plane.name for plane in chosen.values() if plane is not None] == ["MASKBITS", "MASKBITS", "WISEM1"]


def test_basic_data_of_spitzer_have_each_their_own_errors(tmp_path: Path) -> None:
    parts = ("bcd", "cbcd", "bunc", "cbunc", "bimsk")
    urls = [write(tmp_path, P("", "image"), file=f"SPITZER_I1_1_0001_2_{part}.fits") for part in parts]
    found = by_name(urls, IngestOptions())
    assert found.images == urls[:2]
    assert found.beside == {urls[0]: {"std": urls[2], "mask": urls[4]}, urls[1]: {"std": urls[3], "mask": urls[4]}}


def test_data_quality_of_wfpc2_goes_with_its_chips(tmp_path: Path, client: Any) -> None:
    hst = {"TELESCOP": "HST", "INSTRUME": "WFPC2"}
    for part, role in (("c0m", "image"), ("c1m", "mask")):
        chips = [P("SCI", role, {"CRVAL1": 150.0 + n}, version=n) for n in (1, 2)]
        path = write(tmp_path, *chips, file=f"u2ou1234_{part}.fits", **hst)
    with fits.open(path, mode="update") as hdus:
        hdus["SCI", 2].data[0, :2] = 8, 1024
    _, survey = run(client, str(tmp_path / "u2*.fits"), tmp_path / "s.zarr")
    assert whole(survey, "u2ou1234_c0m_2", "mask")[0, 0, :3].tolist() == [MaskBit.SATURATED, 0, 0]


def test_the_plane_of_an_array_that_is_light_is_taken(tmp_path: Path, client: Any) -> None:
    stokes = {"CTYPE4": "STOKES", "CRVAL4": 1.0, "CRPIX4": 2.0, "CDELT4": 1.0, "BUNIT": "Jy/beam"}
    terms = "the other 2 of SPECLNMF are terms of the spectrum"
    for name, cards, taken, told in (
        ("qiu", stokes | {"CDELT4": -1.0}, 1, "Stokes I is taken, Q, 0 left out"),
        ("terms", {"CTYPE4": "SPECLNMF"}, 0, terms),
    ):
        path = write(tmp_path, P("", "image", cards, shape=(3, 1, *SHAPE)), file=f"{name}.fits")
        result, survey = run(client, path, tmp_path / f"{name}.zarr", background="off")
        assert survey.bands == ("c000",)
        np.testing.assert_array_equal(whole(survey, name)[0], fits.getdata(path)[taken, 0])
        assert told in " | ".join(result.warnings)


def test_a_psf_in_some_tiles_only_is_said_with_counts(tmp_path: Path, client: Any) -> None:
    write(tmp_path, P("SCI", "image"), P("PSF", "psf"), file="a.fits")
    write(tmp_path, P("SCI", "image"), file="b.fits")
    _, survey = run(client, [str(tmp_path / name) for name in ("a.fits", "b.fits")], tmp_path / "s.zarr")
    assert survey.tiles_without_psf() == ["b_r0_c0"]
    detecting = SegmentTask(SegmentSettings(bands=survey.bands))
    assert "1 of 2 tiles have no PSF (b_r0_c0)" in _psf_in_some([detecting], survey)


@pytest.mark.parametrize("packed", [False, True])
def test_stokes_i_of_several_frequencies(tmp_path: Path, client: Any, packed: bool) -> None:
    stokes = {"CTYPE3": "STOKES", "CRVAL3": 1.0, "CRPIX3": 1.0, "CDELT3": 1.0}
    stokes |= {"CTYPE4": "FREQ", "CRVAL4": 1.4e9, "CRPIX4": 1.0, "CDELT4": 1e7, "CUNIT4": "Hz"}
    swapped = {key[:-1] + {"3": "4", "4": "3"}[key[-1]]: value for key, value in stokes.items()}
    values = np.arange(6, dtype="f4").reshape(3, 2, 1, 1) * 100 + pixels("image", 1)  # (FREQ, STOKES, y, x)
    for name, cards, data in (("a", stokes, values), ("b", swapped, values.swapaxes(0, 1))):
        header = fits.Header(SKY | cards)
        packing = {"compression_type": "GZIP_1", "quantize_level": 0}
        hdu = fits.CompImageHDU(data, header, **packing) if packed else fits.ImageHDU(data, header)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / f"{name}.fits")
        result, survey = run(client, tmp_path / f"{name}.fits", tmp_path / f"{name}.zarr", background="off")
        assert survey.bands == ("f1400", "f1410", "f1420")
        np.testing.assert_array_equal(whole(survey, name), values[:, 0])
        assert "Stokes I is taken, Q left out" in " ".join(result.warnings)
    time = SKY | stokes | {"CTYPE3": "TIME"}
    fits.PrimaryHDU(values, fits.Header(time)).writeto(tmp_path / "t.fits")
    with pytest.raises(InputError, match="3 planes of FREQ and 2 planes of TIME, and bands lie along one axis: write"):
        run(client, tmp_path / "t.fits", tmp_path / "t.zarr")


def test_an_image_and_a_corrected_one_need_a_word(tmp_path: Path, client: Any) -> None:
    path = write(tmp_path, P("SCI", "image"), P("SCI_BKSUB", "image"), P("ERR", "std"))
    with pytest.raises(InputError, match="nothing tells which is meant: say it with --roles SCI=image"):
        run(client, path, tmp_path / "s.zarr")
    result, survey = run(client, path, tmp_path / "s.zarr", roles="SCI_BKSUB=image", background="off")
    np.testing.assert_array_equal(whole(survey, "a")[0], fits.getdata(path, "SCI_BKSUB"))
    assert survey.tile(0).has_variance
    assert any("SCI_BKSUB is the image by hand" in warning for warning in result.warnings)


def test_numbers_of_the_wcs_that_are_text_are_read(tmp_path: Path, client: Any) -> None:
    _, survey = run(client, write(tmp_path, P("", "image", {"CRPIX1": "14.0"})), tmp_path / "s.zarr")
    wcs = survey.images()["a"].wcs()
    assert wcs is not None
    np.testing.assert_allclose(wcs.to_sky(13.0, 11.0), [[150.0], [2.0]], atol=1e-9)
    result, survey = run(client, write(tmp_path, P("", "image", {"CRPIX1": "x"}), file="b.fits"), tmp_path / "t.zarr")
    assert survey.images()["b"].wcs() is None
    assert any("has no sky coordinates: its WCS cannot be used" in warning for warning in result.warnings)
