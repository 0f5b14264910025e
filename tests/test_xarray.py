"""xarray opens a survey by the engine `astroml`: names along the axes, places, units, lazily, also remote."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray

from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.spectral import SpectralAxis
from astroml_plugin.sources.survey import Survey
from astroml_plugin.sources.xarray_engine import AstromlBackend
from tests import universe


@pytest.mark.parametrize("place", ["here", "memory://there/survey.zarr"])
def test_axes_have_names_places_and_units(tmp_path: Path, place: str) -> None:
    url = str(tmp_path / "survey.zarr")
    survey = universe.make_survey(url, bands=("g", "r"), zero_points=[31.4, None])
    if place != "here":
        fsspec.filesystem("memory").put(url, place, recursive=True)
        survey = Survey.open(place)
    opened = xarray.open_dataset(survey.url, engine=AstromlBackend)
    tiles = list(survey.iter_tiles())
    assert opened["tile"].values.tolist() == [info.name for info in tiles]
    assert opened["band"].values.tolist() == ["g", "r"]
    ra = opened["ra"].sel(tile=tiles[3].name).values
    wcs, info = tiles[3].wcs(), tiles[3]
    assert wcs is not None
    corner = np.array([info.inner.x0 - info.outer.x0, info.inner.y0 - info.outer.y0]) - 0.5
    np.testing.assert_allclose((ra[0], opened["dec"].values[3, 0]), np.ravel(wcs.to_sky(*corner)), atol=1e-9)
    assert (opened["ra"].attrs["units"], opened["pixel_scale"].attrs["units"]) == ("deg", "arcsec")
    np.testing.assert_array_equal(opened["zero_point"].values[0], [31.4, np.nan])
    assert opened["unit"].values[0].tolist() == ["nJy", "nJy"]
    assert int(opened["x0"].values[1]) == tiles[1].outer.x0
    chosen = opened["image"].sel(band="r", tile=tiles[2].name)
    np.testing.assert_array_equal(chosen.values, survey.read_tile(tiles[2]).image[1])
    lazy = xarray.open_dataset(survey.url, engine=AstromlBackend, chunks={"tile": 1}, drop_variables="mask")
    assert (lazy["image"].chunks[0], "mask" in lazy) == ((1,) * len(tiles), False)


def test_tiles_that_are_not_committed_are_not_there(tmp_path: Path) -> None:
    survey = universe.make_survey(str(tmp_path / "survey.zarr"))
    survey.reserve(2)
    opened = xarray.open_dataset(survey.url, engine=AstromlBackend)
    assert opened.sizes["tile"] == len(survey)


def test_a_cube_keeps_its_wavelengths(tmp_path: Path) -> None:
    axis = SpectralAxis("wavelength", "Angstrom", (4750.0, 4751.25), (1.25, 1.25), "air")
    Survey.create(str(tmp_path / "s.zarr"), bands=("a", "b"), tile_size=64, halo=8, spectral=axis)
    opened = xarray.open_dataset(str(tmp_path / "s.zarr"), engine=AstromlBackend)
    assert opened["image"].coords["wavelength"].values.tolist() == [4750.0, 4751.25]
    assert opened["wavelength"].attrs["units"] == "Angstrom"


def test_what_is_no_survey_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        xarray.open_dataset(str(tmp_path / "nothing.zarr"), engine=AstromlBackend)
    with pytest.raises(InputError):
        xarray.open_dataset(universe.make_stamps(str(tmp_path / "stamps.zarr")), engine=AstromlBackend)
    assert not AstromlBackend().guess_can_open("survey.zarr")


def test_the_engine_is_registered() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    module, name = project["entry-points"]["xarray.backends"]["astroml"].split(":")
    assert getattr(import_module(module), name) is AstromlBackend
