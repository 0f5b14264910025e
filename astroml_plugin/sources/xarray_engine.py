"""Surveys for xarray: `xarray.open_dataset(URL, engine="astroml")`, with names and places of tiles and bands."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike, fspath
from typing import Any, ClassVar

import numpy as np
import xarray
from xarray.backends import BackendEntrypoint

from astroml_plugin.core import storage
from astroml_plugin.sources.survey import Survey

_CORNERS = [f"{axis}_corner{number}" for number in range(4) for axis in ("ra", "dec")]
_COLUMNS = ["index", "name", "image", "outer_x0", "outer_y0", "pixel_scale", "units", "zero_points", *_CORNERS]


class AstromlBackend(BackendEntrypoint):
    """Opens the survey at a path or URL lazily."""

    description = "Surveys of astroml-plugin: tiles of images on the sky"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = ("filename_or_obj", "drop_variables")

    def open_dataset(  # type: ignore[override]
        self, filename_or_obj: str | PathLike[str], *, drop_variables: str | Iterable[str] | None = None
    ) -> xarray.Dataset:
        """The committed tiles of a survey.

        Args:
            filename_or_obj: path or URL of the survey, local or anything that fsspec knows.
            drop_variables: names of arrays to leave out.

        Returns:
            image, variance, mask (tile, band, y, x) and psf, as far as the survey has them, with coordinates: `tile`,
            `band` (names), `image_name` (tile), `x0`, `y0` (tile: parent pixel of the first one), `ra`, `dec` (tile,
            corner: corners of what the tile owns), `pixel_scale` (tile), `zero_point` and `unit` (tile, band), and
            `wavelength`, `frequency`, `velocity` or `energy` (band) of cubes. Numbers have the attribute `units`.

        Raises:
            InputError: there is no survey.
        """
        url = fspath(filename_or_obj)
        survey = Survey.open(url)
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        store = storage.zarr_store(survey.url, read_only=True)
        found = xarray.open_zarr(store, consolidated=False, chunks=None, drop_variables=dropped)
        table = survey.columns(_COLUMNS)
        index = np.asarray(table["index"])
        if "tile" in found.dims and not np.array_equal(index, np.arange(found.sizes["tile"])):
            found = found.isel(tile=index)
        named: xarray.Dataset = found.assign_coords(_coordinates(survey, table))
        return named.assign_attrs(bands=list(survey.bands))

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """No: the engine is chosen by name, since a survey is a Zarr store that others open too."""
        return False


def _coordinates(survey: Survey, table: Any) -> dict[str, Any]:
    """Name -> (dimensions, values, attributes)."""
    count = len(table)
    sky = {
        axis: np.stack([_numbers(table[f"{axis}_corner{number}"]) for number in range(4)], 1) for axis in ("ra", "dec")
    }
    zero = np.array([[np.nan if value is None else value for value in row] for row in table["zero_points"].to_pylist()])
    per_band = (count, len(survey.bands))
    return {
        "tile": ("tile", _texts(table["name"])),
        "band": ("band", np.array(survey.bands, dtype=str)),
        "image_name": ("tile", _texts(table["image"]), {"description": "parent image"}),
        "x0": ("tile", np.asarray(table["outer_x0"]), {"units": "pix", "description": "parent pixel of the first one"}),
        "y0": ("tile", np.asarray(table["outer_y0"]), {"units": "pix", "description": "parent pixel of the first one"}),
        "ra": (("tile", "corner"), sky["ra"], {"units": "deg", "description": "ICRS, corners of what the tile owns"}),
        "dec": (("tile", "corner"), sky["dec"], {"units": "deg", "description": "ICRS, corners of what the tile owns"}),
        "pixel_scale": ("tile", _numbers(table["pixel_scale"]), {"units": "arcsec", "description": "per pixel"}),
        "zero_point": (("tile", "band"), zero.reshape(per_band), {"units": "mag", "description": "AB, of one unit"}),
        "unit": (("tile", "band"), np.array(table["units"].to_pylist(), dtype=str).reshape(per_band)),
    }


def _numbers(column: Any) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in column.to_pylist()], np.float64)


def _texts(column: Any) -> np.ndarray:
    return np.array(column.to_pylist(), dtype=str)
