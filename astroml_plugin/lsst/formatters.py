"""How a data butler stores tiles, bundles, coadds and label maps; `butler/` in this folder names these classes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from lsst.daf.butler import FormatterV2, StorageClassDelegate

from astroml_plugin.core.errors import InputError
from astroml_plugin.lsst.boxes import box_of
from astroml_plugin.lsst.coadds import Coadd, coadd_of_file
from astroml_plugin.lsst.labels import LabelMap
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.tile import Tile
from astroml_plugin.sources.tile_file import COMPONENTS, read_component
from astroml_plugin.training.bundle import ModelBundle


class SurveyTileFormatter(FormatterV2):
    """A `Tile` as the FITS file of `Tile.write`; with `bbox`, `bands` or for a component nothing else is read."""

    default_extension = ".fits"
    can_read_from_stream = True
    can_read_from_local_file = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """The tile, or a part of it, of a local file."""
        return self._read(path, component)

    def read_from_stream(self, stream: Any, component: str | None = None, expected_size: int = -1) -> Any:
        """A part of the tile of a file anywhere; the whole comes from a local copy."""
        whole = component is None and not self.file_descriptor.parameters
        return NotImplemented if whole else self._read(stream, component)

    def write_local_file(self, in_memory_dataset: Tile, uri: Any) -> None:
        """Write the file of a tile."""
        in_memory_dataset.write(uri.ospath)

    def _read(self, file: Any, component: str | None) -> Any:
        parameters = self.file_descriptor.parameters
        part = _box(parameters), _bands(parameters)
        return Tile.from_file(file, *part) if component is None else read_component(file, component, *part)


class SurveyTileDelegate(StorageClassDelegate):
    """Components and boxes of a tile that is in memory."""

    def getComponent(self, composite: Tile, componentName: str) -> Any:  # noqa: N802
        """A plane, the WCS or the bands."""
        if componentName not in COMPONENTS:
            raise AttributeError(f"a tile has no component {componentName!r}: choose one of {', '.join(COMPONENTS)}")
        return list(composite.bands) if componentName == "bands" else getattr(composite, componentName)

    def handleParameters(self, inMemoryDataset: Tile, parameters: Mapping[str, Any] | None = None) -> Any:  # noqa: N802
        """The tile, or the pixels of `bbox` in `bands`."""
        return inMemoryDataset.part(_box(parameters), _bands(parameters)) if parameters else inMemoryDataset


class BundleFormatter(FormatterV2):
    """A `ModelBundle` as the zip of its folder: verified when it is read; nothing in it is executed."""

    default_extension = ".zip"
    can_read_from_uri = True

    def read_from_uri(self, uri: Any, component: str | None = None, expected_size: int = -1) -> Any:
        """The verified bundle."""
        return ModelBundle.from_bytes(uri.read(), str(uri))

    def to_bytes(self, in_memory_dataset: ModelBundle) -> bytes:
        """The zip, the same every time."""
        return in_memory_dataset.to_zip()


class CoaddFileFormatter(FormatterV2):
    """A coadd in a FITS file of afw or lsst-images, read without their software; it is never written."""

    default_extension = ".fits"
    supported_extensions = frozenset({".fits", ".fits.gz", ".fits.fz", ".fz"})
    can_read_from_local_file = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Coadd:
        """The pixels of one band."""
        parameters = self.file_descriptor.parameters or {}
        return coadd_of_file(path, psf_from_stars=bool(parameters.get("psf_from_stars", False)))

    def write_local_file(self, in_memory_dataset: Any, uri: Any) -> None:
        """Refused: ingest the file that there is."""
        raise InputError("a coadd is not written here: ingest its FITS file (butler ingest-files)")


class LabelsFormatter(FormatterV2):
    """A `LabelMap` as a compressed FITS image."""

    default_extension = ".fits"
    can_read_from_local_file = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> LabelMap:
        """The map, or the pixels of `bbox`."""
        box = _box(self.file_descriptor.parameters)
        found = LabelMap.read(path)
        return found if box is None else found.part(box)

    def to_bytes(self, in_memory_dataset: LabelMap) -> bytes:
        """The file."""
        sink = io.BytesIO()
        in_memory_dataset.write(sink)
        return sink.getvalue()


def _box(parameters: Mapping[str, Any] | None) -> Box | None:
    given = (parameters or {}).get("bbox")
    return None if given is None else box_of(given)


def _bands(parameters: Mapping[str, Any] | None) -> list[str] | None:
    given = (parameters or {}).get("bands")
    return [given] if isinstance(given, str) else given
