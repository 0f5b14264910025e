"""Cubes keep their wavelengths: in the names of bands, in the store, for xarray, and for the choice of planes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from astropy.io import fits
from astropy.wcs import WCS

from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest import FitsOptions, describe_fits
from astroml_plugin.sources.ingest.fits import list_planes
from astroml_plugin.sources.spectral import SpectralAxis, spectral_axis
from astroml_plugin.sources.survey import Survey
from workflows.info import info
from workflows.ingest import ingest

SKY = {
    **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 5.0, "CRPIX2": 4.0, "CRVAL1": 150.0, "CRVAL2": 2.0},
    **{"CDELT1": -5e-5, "CDELT2": 5e-5, "BUNIT": "nJy", "CRPIX3": 1.0},
}
AIR = {"CTYPE3": "AWAV", "CUNIT3": "Angstrom", "CRVAL3": 4750.0, "CDELT3": 1.25}
BARE = fits.HDUList([fits.PrimaryHDU()])


def axis_of(cards: dict[str, Any], planes: int = 5) -> SpectralAxis | None:
    return spectral_axis(fits.Header({"CRPIX3": 1.0} | cards), BARE, 3, planes)


def write(path: Path, planes: int = 6, shape: tuple[int, ...] = (), **cards: Any) -> str:
    """A cube whose values are the plane's number, with a variance."""
    header = fits.Header({**SKY, **AIR, **cards})
    pixels = np.broadcast_to(np.arange(planes, dtype="f4")[:, None, None], (planes, 8, 10)).copy()
    pixels = pixels.reshape(shape or pixels.shape)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(pixels, header, name="DATA")]
    hdus += [fits.ImageHDU(pixels + 1, header, name="STAT")]
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return str(path)


READ: dict[str, tuple[dict[str, Any], str, list[float], str]] = {
    "Angstrom, air": (AIR, "wavelength", [4750.0, 4751.25], "w4751_25"),
    "Angstrom, vacuum": (
        AIR | {"CTYPE3": "WAVE", "CUNIT3": "m", "CRVAL3": 2.1e-6, "CDELT3": 1e-9},
        "wavelength",
        [21000.0, 21010.0],
        "w21010",
    ),
    "um, vacuum": (
        AIR | {"CTYPE3": "WAVE", "CUNIT3": "um", "CRVAL3": 5.1, "CDELT3": 1e-3},
        "wavelength",
        [5.1, 5.101],
        "w5_101",
    ),
    "Angstrom, ": (AIR | {"CTYPE3": "LINEAR", "CUNIT3": "Angstroms"}, "wavelength", [4750.0, 4751.25], "w4751_25"),
    "Angstrom, air, by PC": (
        AIR | {"CUNIT3": "nm", "CRVAL3": 475.0, "CDELT3": 1.0, "PC3_3": 0.125},
        "wavelength",
        [4750.0, 4751.25],
        "w4751_25",
    ),
    "MHz, ": ({"CTYPE3": "FREQ", "CRVAL3": 1.42e9, "CDELT3": -1e4}, "frequency", [1420.0, 1419.99], "f1419_99"),
    "GHz, ": (
        {"CTYPE3": "FREQ", "CUNIT3": "GHz", "CRVAL3": 140.0, "CDELT3": 1e-6},
        "frequency",
        [140.0, 140.000001],
        "f140_000001",
    ),
    "km/s, ": (
        {"CTYPE3": "VELO-LSR", "CUNIT3": "M/S", "CRVAL3": -2e4, "CDELT3": 1300.0},
        "velocity",
        [-20.0, -18.7],
        "vm18_7",
    ),
    "eV, ": ({"CTYPE3": "ENER", "CUNIT3": "keV", "CRVAL3": 0.5, "CDELT3": 0.1}, "energy", [500.0, 600.0], "e600"),
}


@pytest.mark.parametrize("name", READ)
def test_values_unit_medium_and_names(name: str) -> None:
    cards, kind, values, second = READ[name]
    unit, medium = name.split(", ")[:2]
    axis = axis_of(cards)
    assert axis is not None
    assert (axis.kind, axis.unit, axis.medium) == (kind, unit, medium)
    np.testing.assert_allclose(axis.values[:2], values, rtol=2e-7)
    np.testing.assert_allclose(axis.widths, abs(values[1] - values[0]), rtol=1e-5)
    assert axis.names()[1] == second
    assert all(text.isidentifier() for text in axis.names())
    assert SpectralAxis.from_metadata(axis.to_metadata()) == axis


def test_what_else_the_header_says() -> None:
    axis = axis_of({"CTYPE3": "FREQ", "CRVAL3": 1.42e9, "CDELT3": 1e4, "RESTFRQ": 1.420405752e9, "SPECSYS": "LSRK"})
    assert axis is not None
    assert (axis.rest, axis.frame) == (1.420405752e9, "LSRK")
    assert axis_of({"CTYPE3": "STOKES", "CRVAL3": 1.0, "CDELT3": 1.0}) is None
    assert axis_of({"CTYPE3": "LINEAR", "CRVAL3": 1.0, "CDELT3": 1.0}) is None
    assert axis_of({}) is None


def test_energies_of_a_counts_cube_are_those_of_its_bins(tmp_path: Path) -> None:
    edges = 100 * 2.0 ** np.arange(4)  # MeV
    columns = [
        fits.Column(name, "E", unit="keV", array=values * 1e3)
        for name, values in (("E_MIN", edges[:-1]), ("E_MAX", edges[1:]))
    ]
    cards = {"CTYPE3": "Energy", "CRPIX3": 1.0, "CRVAL3": 100.0, "CDELT3": 100.0, "CUNIT3": "MeV"}
    cube = fits.PrimaryHDU(np.ones((3, 8, 8), "f4"), fits.Header(cards))
    fits.HDUList([cube, fits.BinTableHDU.from_columns(columns, name="EBOUNDS")]).writeto(tmp_path / "ccube.fits")
    axis = list_planes(str(tmp_path / "ccube.fits"))[0].spectral
    assert axis is not None
    assert axis.unit == "GeV"
    np.testing.assert_allclose(axis.values, np.array([0.1, 0.2, 0.4]) * 2**0.5, rtol=1e-5)
    np.testing.assert_allclose(axis.widths, [0.1, 0.2, 0.4], rtol=1e-5)


def test_logarithmic_wavelengths_are_those_of_astropy() -> None:
    cards = {"CTYPE3": "WAVE-LOG", "CUNIT3": "Angstrom", "CRVAL3": 3621.6, "CD3_3": 0.83, "CRPIX3": 1.0}
    axis = axis_of(cards, 4000)
    assert axis is not None
    linear = {name.replace("CD3_3", "CDELT1").replace("3", "1"): value for name, value in cards.items()}
    np.testing.assert_allclose(axis.values, WCS(fits.Header(linear)).all_pix2world(np.arange(4000), 0)[0] * 1e10)
    assert axis.values[3999] == pytest.approx(3621.6 * np.exp(0.83 * 3999 / 3621.6), rel=1e-9)
    assert len({*axis.names()}) == 4000


def test_wavelengths_of_a_table_in_the_file(tmp_path: Path, client: Any) -> None:
    waves = np.array([5.0, 5.1, 5.3, 5.6, 6.0, 6.5])
    file = write(tmp_path / "a.fits", CTYPE3="WAVE-TAB", CUNIT3="um", CRVAL3=1.0, CDELT3=1.0)
    with fits.open(file, mode="update") as hdus:
        for hdu in hdus[1:]:
            hdu.header.update({"PS3_0": "WCS-TABLE", "PS3_1": "COORDS", "PV3_3": 1})
        column = fits.Column("COORDS", "6D", dim="(1,6)", array=waves.reshape(1, 6, 1))
        hdus.append(fits.BinTableHDU.from_columns([column], name="WCS-TABLE"))
    result = ingest(file, out=str(tmp_path / "s.zarr"), client=client, halo=2)
    axis = Survey.open(result.source).spectral
    assert axis is not None
    np.testing.assert_allclose(axis.values, waves)
    assert axis.unit == "um"
    with fits.open(file, mode="update") as hdus:
        del hdus["WCS-TABLE"]
    result = ingest(file, out=str(tmp_path / "t.zarr"), client=client, halo=2)
    assert any("axis WAVE-TAB cannot be read: bands are numbered" in warning for warning in result.warnings)
    assert Survey.open(result.source).bands[:2] == ("c000", "c001")


def test_a_cube_keeps_its_wavelengths(tmp_path: Path, client: Any) -> None:
    file = write(tmp_path / "a.fits")
    survey = Survey.open(ingest(file, out=str(tmp_path / "s.zarr"), client=client, halo=2).source)
    assert survey.bands == ("w4750_00", "w4751_25", "w4752_50", "w4753_75", "w4755_00", "w4756_25")
    assert survey.spectral is not None
    assert str(survey.spectral) == "6 wavelengths from 4750 to 4756.25 Angstrom in air, step 1.25"
    opened = xarray.open_zarr(survey.url, consolidated=False, chunks=None)
    assert opened["image"].coords["wavelength"].values.tolist() == list(survey.spectral.values)
    assert opened["wavelength"].attrs == {"units": "Angstrom", "medium": "air"}
    chosen = opened["image"].where(opened["wavelength"] > 4755.5, drop=True)
    assert float(chosen.max()) == 5
    tile = survey.read_tile(survey.tile(0), ["w4753_75"])
    assert np.nanmax(tile.image) == 3
    told = str(describe_fits(file))
    assert "spectral axis: 6 wavelengths from 4750 to 4756.25 Angstrom in air, step 1.25" in told
    assert "without" not in told
    assert "6 wavelengths" in str(info(survey.url))
    again = ingest(file, out=survey.url, client=client)
    assert (again.units_done, again.units_skipped) == (0, 1)


def test_planes_are_chosen_by_wavelength_or_name(tmp_path: Path, client: Any) -> None:
    file = write(tmp_path / "a.fits")
    wanted = ("w4751_25", "w4752_50", "w4753_75")
    for number, options in enumerate(({"channels": "4751:4754"}, {"bands": ",".join(wanted)})):
        made = ingest(file, out=str(tmp_path / f"{number}.zarr"), client=client, halo=2, **options)
        survey = Survey.open(made.source)
        assert survey.bands == wanted
        assert survey.spectral is not None
        assert survey.spectral.values == (4751.25, 4752.5, 4753.75)
        tile = survey.read_tile(survey.tile(0))
        assert np.nanmax(tile.image, (1, 2)).tolist() == [1, 2, 3]
        assert tile.variance is not None
        assert np.nanmax(tile.variance, (1, 2)).tolist() == [2, 3, 4]
    survey = Survey.open(
        ingest(file, out=str(tmp_path / "r.zarr"), client=client, halo=2, bands="w4755_00,w4750_00").source
    )
    assert np.nanmax(survey.read_tile(survey.tile(0)).image, (1, 2)).tolist() == [4, 0]
    named = ingest(file, out=str(tmp_path / "n.zarr"), client=client, halo=2, channels=":4751.25", bands="blue,red")
    assert Survey.open(named.source).bands == ("blue", "red")
    for channels, said in (("9:10", "no plane lies"), ("blue", "must read LOW:HIGH"), ("1", "must read LOW:HIGH")):
        with pytest.raises(InputError, match=said):
            ingest(file, out=str(tmp_path / "x.zarr"), client=client, channels=channels)


def test_another_cube_has_the_wavelengths_of_the_survey(tmp_path: Path, client: Any) -> None:
    out = str(tmp_path / "s.zarr")
    ingest(write(tmp_path / "a.fits"), out=out, client=client, halo=2)
    assert not [
        w for w in ingest(write(tmp_path / "b.fits", CRVAL3=4750.01), out=out, client=client).warnings if "axis" in w
    ]
    said = ingest(write(tmp_path / "c.fits", CRVAL3=4750.25), out=out, client=client).warnings
    assert any("differs from that of the survey by 0.20 planes" in warning for warning in said)
    for name, cards in (("d", {"CRVAL3": 4760.0}), ("e", {"CTYPE3": "WAVE"})):
        with pytest.raises(InputError, match=f"{name}.fits.*use a new output"):
            ingest(write(tmp_path / f"{name}.fits", **cards), out=out, client=client)
    assert len(list(Survey.open(out).iter_tiles())) == 3


@pytest.mark.parametrize("packed", [False, True])
def test_a_degenerate_axis_between_the_planes(packed: bool, tmp_path: Path, client: Any) -> None:
    """The order of CASA: (frequency, Stokes, y, x)."""
    cards = {"CTYPE3": "STOKES", "CUNIT3": "", "CRVAL3": 1.0, "CDELT3": 1.0, "CTYPE4": "FREQ", "CUNIT4": "Hz"}
    file = write(tmp_path / "a.fits", shape=(6, 1, 8, 10), **cards, CRVAL4=1.42e9, CDELT4=1e6, CRPIX4=1.0)
    if packed:
        with fits.open(file) as hdus:
            again = [
                fits.CompImageHDU(hdu.data, hdu.header, compression_type="RICE_1", quantize_level=0) for hdu in hdus[1:]
            ]
            fits.HDUList([fits.PrimaryHDU(), *again]).writeto(file, overwrite=True)
    survey = Survey.open(ingest(file, out=str(tmp_path / "s.zarr"), client=client, halo=2).source)
    assert survey.bands[:2] == ("f1420", "f1421")
    assert np.nanmax(survey.read_tile(survey.tile(0)).image, (1, 2)).tolist() == [0, 1, 2, 3, 4, 5]
    assert "without STOKES" in str(describe_fits(file))


def test_a_survey_from_before_has_no_axis_and_digests_stay(tmp_path: Path) -> None:
    survey = Survey.create(str(tmp_path / "s.zarr"), bands=("g", "r"), tile_size=40, halo=0)
    assert survey.spectral is None
    assert "channels" not in FitsOptions().identity()
    assert FitsOptions(channels="1:2").identity()["channels"] == "1:2"


@pytest.mark.shared_data
def test_cubes_of_muse(shared_data: Path, tmp_path: Path, client: Any) -> None:
    file = str(shared_data / "muse" / "subcub_mosaic.fits")
    told = str(describe_fits(file))
    assert "500 wavelengths from 4750 to 5373.75 Angstrom in air, step 1.25" in told
    assert "w4750_00 to w5373_75 (500)" in told
    made = ingest(file, out=str(tmp_path / "s.zarr"), client=client, channels="5000:5005", halo=2)
    survey = Survey.open(made.source)
    info = survey.tile(0)
    with fits.open(file) as hdus:
        planes = hdus["DATA"].data[200:205]
    assert survey.spectral is not None
    assert survey.spectral.values == (5000.0, 5001.25, 5002.5, 5003.75, 5005.0)
    pixels = survey.read_tile(info).image[:, -info.outer.y0 :, -info.outer.x0 :][:, :30, :30]
    np.testing.assert_array_equal(pixels, planes)
    assert "1595 wavelengths from 7300" in str(describe_fits(str(shared_data / "muse" / "CUBE.fits")))
