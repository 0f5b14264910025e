"""MeasureTileTask and DetectTileTask: a tile becomes a catalog, of given objects or of found ones.

They add nothing to `measure`: what they give is what it gives.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from typing import Any

import lsst.pex.config as pex
import lsst.pipe.base as pipe
from lsst.pipe.base.connectionTypes import Input, Output, PrerequisiteInput

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.version import version
from astroml_plugin.inference import Measured, measure
from astroml_plugin.inference.in_memory import bands_needed
from astroml_plugin.inference.options import ExecutionOptions, MeasureOptions, ObjectTable
from astroml_plugin.lsst.ingesting import PATCH
from astroml_plugin.lsst.labels import LabelMap
from astroml_plugin.sources.tile import Tile
from astroml_plugin.training.bundle import ModelBundle

BUNDLE_TYPE = "astromlBundle_"
"""Begins the dataset type of a bundle; its name follows."""


class _BundleConnections(pipe.PipelineTaskConnections, dimensions=PATCH):
    """A tile, and bundles by name."""

    tile = Input(
        doc="Pixels of all bands, of which those are read that the bundles need.",
        name="surveyTile",
        storageClass="SurveyTile",
        dimensions=PATCH,
        deferLoad=True,
    )

    def __init__(self, *, config: Any) -> None:
        for name in config.bundles:
            bundle = PrerequisiteInput(
                doc=f"Model bundle {name}: a card and weights, no code.",
                name=f"{BUNDLE_TYPE}{name}",
                storageClass="AstromlBundle",
                dimensions=(),
            )
            setattr(self, f"bundle_{name}", bundle)


class _BundleConfig(pipe.PipelineTaskConfig, pipelineConnections=_BundleConnections):
    """Settings: bundles, and the options of `infer`."""

    bundles = pex.ListField(
        dtype=str,
        default=["ellipticity"],
        doc="Names of bundles; each is read from the dataset type astromlBundle_NAME.",
        listCheck=lambda names: 0 < len(names) == len({*names}),
        itemCheck=str.isidentifier,
    )
    pins = pex.DictField(
        keytype=str, itemtype=str, default={}, doc="Name -> SHA-256 that its bundle must have, 12 digits or more."
    )
    band = pex.Field(dtype=str, optional=True, doc="Band for bundles that take any single one.")
    precision = pex.Field(dtype=str, default="float32", doc="float32, or auto: half precision on CUDA.")
    assumedPsfFwhm = pex.Field(  # noqa: N815
        dtype=float, default=0.0, doc="Arcsec; a round Gaussian of this FWHM stands in for a PSF that is not known."
    )
    resample = pex.Field(dtype=str, default="auto", doc="auto or off: pixels of another scale than a bundle's.")
    zeroPoint = pex.ListField(  # noqa: N815
        dtype=float, default=[], doc="AB magnitude of one unit, where the tile does not know it: one, or one per band."
    )
    options = pex.DictField(
        keytype=str,
        itemtype=str,
        default={},
        doc="Run options of the bundles: NAME or BUNDLE.NAME -> value as in TOML.",
    )
    device = pex.Field(dtype=str, optional=True, doc="Torch device; default CUDA where there is one.")
    batch = pex.Field(dtype=int, optional=True, doc="Stamps per forward.")
    compiling = pex.Field(dtype=str, default="auto", doc="auto, always or never.")

    def measure_options(self) -> MeasureOptions:
        """The options that change rows.

        Raises:
            InputError: a value that cannot be.
        """
        return MeasureOptions(
            self.band,
            self.precision,
            self.assumedPsfFwhm,
            self.resample,
            tuple(self.zeroPoint),
            {name: _value(text) for name, text in self.options.items()},
        )

    def execution_options(self) -> ExecutionOptions:
        """The options that change no row.

        Raises:
            InputError: a value that cannot be.
        """
        return ExecutionOptions(device=self.device, batch=self.batch, compiling=self.compiling)

    def validate(self) -> None:
        """Refuse options that cannot be, before anything runs."""
        super().validate()
        if unknown := [name for name in self.pins if name not in self.bundles]:
            raise pex.FieldValidationError(type(self).pins, self, f"{', '.join(unknown)} is not in bundles")
        try:
            self.measure_options()
        except InputError as error:
            raise pex.FieldValidationError(type(self).options, self, str(error)) from error


class _BundleTask(pipe.PipelineTask):
    """Measures one patch with bundles; networks stay in the process for the next patch."""

    ConfigClass = _BundleConfig

    def runQuantum(self, butlerQC: Any, inputRefs: Any, outputRefs: Any) -> None:  # noqa: N802
        """Read the inputs, measure, write the outputs."""
        inputs = butlerQC.get(inputRefs)
        bundles, handle = [inputs.pop(f"bundle_{name}") for name in self.config.bundles], inputs.pop("tile")
        have = handle.get(component="bands")
        inputs["tile"] = handle.get(
            parameters={"bands": bands_needed(bundles, have, options=self.config.measure_options())}
        )
        butlerQC.put(self.run(bundles=bundles, **inputs), outputRefs)

    def _measure(self, tile: Tile, objects: Any, bundles: Sequence[ModelBundle]) -> Measured:
        for name, bundle in zip(self.config.bundles, bundles, strict=True):
            pin = self.config.pins.get(name, "")
            if not bundle.sha256.startswith(pin) or 0 < len(pin) < 12:
                raise InputError(f"bundle {name} has SHA-256 {bundle.sha256} and {pin} was asked for: give that bundle")
        measured = measure(
            tile,
            objects,
            bundles,
            options=self.config.measure_options(),
            execution=self.config.execution_options(),
            outside="leave",
        )
        self._tell(tile, bundles, measured)
        return measured

    def _tell(self, tile: Tile, bundles: Sequence[ModelBundle], measured: Measured) -> None:
        """Provenance, in the metadata of the task."""
        left = 0 if measured.unplaced is None else measured.unplaced.num_rows
        self.metadata["version"] = version()
        self.metadata["bundles"] = [bundle.name for bundle in bundles]
        self.metadata["sha256"] = [bundle.sha256 for bundle in bundles]
        self.metadata["options"] = json.dumps(self.config.measure_options().identity(), sort_keys=True)
        self.metadata["tile"] = tile.info.name
        self.metadata["rows"] = measured.table.num_rows
        self.metadata["unplaced"] = left
        for name, seconds in measured.seconds.items():
            self.metadata[f"seconds_{name}"] = float(seconds)
        for number, note in enumerate(measured.notes):
            self.metadata[f"note{number}"] = note
            self.log.info(note)
        self.log.info(
            "%d objects measured, %d left out: they lie on no pixel that the patch owns", measured.table.num_rows, left
        )


class MeasureTileConnections(_BundleConnections, dimensions=PATCH):
    """A tile, objects, bundles by name; a catalog."""

    objects = Input(
        doc="Objects of the patch: ids and positions.", name="objectTable", storageClass="ArrowTable", dimensions=PATCH
    )
    catalog = Output(
        doc="Measurements, with units and UCDs.", name="astromlCatalog", storageClass="ArrowTable", dimensions=PATCH
    )


class MeasureTileConfig(_BundleConfig, pipelineConnections=MeasureTileConnections):
    """Settings: bundles, and how the table of objects is read."""

    columns = pex.DictField(
        keytype=str,
        itemtype=str,
        default={},
        doc="Our names (object_id, x, y, ra, dec) -> columns of the table, where they have unusual names. x, y count "
        "pixels of the tract.",
    )


class MeasureTileTask(_BundleTask):
    """Measure given objects. Objects on pixels that another patch owns are left to it."""

    ConfigClass = MeasureTileConfig
    _DefaultName = "astromlMeasure"

    def run(self, tile: Tile, objects: Any, bundles: Sequence[ModelBundle]) -> pipe.Struct:
        """Measure the objects that the patch owns.

        Args:
            tile: pixels of all bands.
            objects: a table of Arrow, astropy or pandas.
            bundles: in the order of the configuration.

        Returns:
            `catalog`: Arrow table, one row per object, in the order given.

        Raises:
            InputError: what does not fit, in one sentence.
        """
        given = ObjectTable(table=objects, columns=dict(self.config.columns) or None)
        return pipe.Struct(catalog=self._measure(tile, given, bundles).table)


class DetectTileConnections(_BundleConnections, dimensions=PATCH):
    """A tile, bundles by name, of which one finds objects; a catalog and a label map."""

    catalog = Output(
        doc="Found objects, with units and UCDs.", name="astromlFound", storageClass="ArrowTable", dimensions=PATCH
    )
    labels = Output(
        doc="Which object each pixel belongs to.", name="astromlLabels", storageClass="AstromlLabels", dimensions=PATCH
    )

    def __init__(self, *, config: Any) -> None:
        super().__init__(config=config)
        if not config.saveLabels:
            del self.labels


class DetectTileConfig(_BundleConfig, pipelineConnections=DetectTileConnections):
    """Settings: bundles that find and measure."""

    saveLabels = pex.Field(dtype=bool, default=True, doc="Write the label map.")  # noqa: N815

    def setDefaults(self) -> None:  # noqa: N802
        """The bundle that finds objects."""
        super().setDefaults()
        self.bundles = ["segmentation"]


class DetectTileTask(_BundleTask):
    """Find objects with one bundle, and measure them with the others in the same go."""

    ConfigClass = DetectTileConfig
    _DefaultName = "astromlDetect"

    def run(self, tile: Tile, bundles: Sequence[ModelBundle]) -> pipe.Struct:
        """Find and measure the objects that the patch owns.

        Args:
            tile: pixels of all bands.
            bundles: in the order of the configuration; one finds objects.

        Returns:
            `catalog`, an Arrow table; `labels`, a `LabelMap`.

        Raises:
            InputError: what does not fit, in one sentence.
        """
        measured = self._measure(tile, None, bundles)
        found = pipe.Struct(catalog=measured.table)
        if self.config.saveLabels and measured.labels is not None:
            found.labels = LabelMap(measured.labels, tile.info.outer, tile.wcs)
        return found


def _value(text: str) -> Any:
    """A value as on the command line: as in TOML, anything else a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
