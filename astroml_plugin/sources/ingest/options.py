"""Options of an ingest: one object for FITS files, archives and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.core.settings import changed, option_of, refuse_choices
from astroml_plugin.core.typing import Arcsec
from astroml_plugin.pixels import refuse_implausible
from astroml_plugin.sources.alerts.kinds import CHOICES
from astroml_plugin.sources.arrays import CODECS
from astroml_plugin.sources.ingest import sky

_LEAST_MESH = 16


@dataclass(frozen=True)
class FitsOptions:
    """How FITS files are read; everything here changes pixels, so it belongs to a source's identity."""

    hdu: str | None = None
    """EXTNAME or number of the only image to take."""
    roles: str | None = None
    """Roles of planes by EXTNAME, pattern or HDU number: "SCI=image,ERR=std,DQ=mask,*.PSF=psf"; see `words.ROLES`."""
    variance_pattern: str | None = None
    """Variance file of an image: "old=new" in the file name (several by comma), or a name such as "{stem}.var.fits"."""
    weight_pattern: str | None = None
    """Inverse-variance weight file of an image, for example "ooi=oow,oki=oow"; a weight of 0 marks a BAD pixel."""
    mask_pattern: str | None = None
    """Mask or data-quality file of an image, for example "ooi=ood,oki=ood"."""
    mask_map: str = "auto"
    """Meaning of mask values: auto, codes, bits, nonzero, zero, or e.g. "bits:1=BAD,4=IGNORE"; see `masks.mask_map`."""
    psf: tuple[str, ...] = ()
    """PSF images: one file for all bands, one per band, or one pattern as above."""
    saturation: float | None = None
    """Level from which pixels get SATURATED; default SATURATE of the header."""
    zero_point: tuple[float, ...] = ()
    """AB magnitude of one unit of flux: one for all bands or one per band; default from the header of FITS files, or
    the array zero_point of an archive."""
    channels: str | None = None
    """Planes of a cube by their wavelength (frequency, velocity), LOW:HIGH in the unit that `info` shows."""
    background: str = sky.AUTO
    """Sky to take off: auto (a mesh where it is clear of 0), mesh (always), level (one level) or off."""
    background_mesh: int | None = None
    """Side of the mesh's cells in pixels, larger than the objects; default 128."""
    psf_from_stars: bool = False
    """Measure the PSF on the stars of each image, varying over the field, where no file brings one."""
    name: str | None = None
    """Name of the parent image when there is only one field; default from the file name."""

    def __post_init__(self) -> None:
        refuse_choices(self, {"background": sky.CHOICES}, "option")
        if self.background_mesh is not None and self.background_mesh < _LEAST_MESH:
            raise InputError(f"background_mesh must be {_LEAST_MESH} pixels or more, not {self.background_mesh}")

    def zero_points(self, bands: Sequence[str], by_pixels: bool = False) -> tuple[float, ...]:
        """One zero point per band; none where none is given.

        Args:
            bands: of the survey or stamps.
            by_pixels: whether finite numbers are judged later, by the noise of each image.

        Raises:
            InputError: another number of zero points, or numbers that are none.
        """
        if not by_pixels or not all(map(math.isfinite, self.zero_point)):
            refuse_implausible(self.zero_point, "ingest --zero-point")
        if len(self.zero_point) not in (0, 1, len(bands)):
            told = f"{len(self.zero_point)} zero points for the bands {', '.join(bands)}"
            raise InputError(f"{told}: give one for all, or one per band")
        return self.zero_point * len(bands) if len(self.zero_point) == 1 else self.zero_point

    def identity(self) -> dict[str, Any]:
        """Values that enter a source's digest: all but the name, which changes no pixel.

        Options that are younger than some surveys enter where they change pixels.
        """
        plain = {item.name: getattr(self, item.name) for item in fields(FitsOptions)} | {"name": None}
        idle = {"background": sky.OFF, "background_mesh": None, "channels": None, "psf_from_stars": False}
        return {name: value for name, value in plain.items() if name not in idle or value != idle[name]}


@dataclass(frozen=True)
class IngestOptions(FitsOptions):
    """Everything that an ingest can be told."""

    bands: tuple[str, ...] | None = None
    """Names of the bands; default by filters or wavelengths in the file, else c000, c001, …; those in the .npz."""
    tile_size: int | None = None
    """Outer side of a tile in pixels; default: as large as the largest image, at most 4096."""
    halo: int | None = None
    """Pixels that a tile shares with its neighbours on every side; default 128."""
    npz_map: dict[str, str] = field(default_factory=dict)
    """Part -> key in the archive, for example {"images": "x", "label": "y"}."""
    layout: str | None = None
    """Axes of the archive's images, for example "nyxc"."""
    table: Place | None = None
    """CSV or Parquet table with id_str and file_loc (relative to the folder) and label columns."""
    block: int | None = None
    """Stamps per unit; default about 32 MB."""
    codec: str | None = None
    """How pixels are compressed: zstd (default), lz4 (larger, read faster) or none; see docs/performance.md."""
    pixel_scale: Arcsec | None = None
    """Arcsec per pixel of stamps."""
    kind: str | None = None
    """Kind of alert packets: ztf (also Gattini-IR, WINTER, TURBO), lsst, or auto; archives and Parquet need it."""
    schema: Place | None = None
    """Avro schema (.avsc) of alert packets that come without one, as messages of Kafka do."""
    stamp_size: int | None = None
    """Side of the stamps of alerts in pixels; default as in the first packet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind is not None:
            refuse_choices(self, {"kind": CHOICES}, "option")
        if self.codec is not None:
            refuse_choices(self, {"codec": CODECS}, "option")
        for name, least in (("tile_size", 1), ("halo", 0), ("block", 1), ("stamp_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{option_of(name)} {value}: give a whole number from {least} on")

    @property
    def codec_of_new(self) -> str:
        """Codec of a store that is made."""
        return self.codec or CODECS[0]

    def checked_scale(self) -> float | None:
        """The pixel scale that is given.

        Raises:
            InputError: it is none.
        """
        if self.pixel_scale is not None and not 0 < self.pixel_scale < math.inf:
            raise InputError(f"--pixel-scale {self.pixel_scale}: give arcsec per pixel, a number above 0")
        return self.pixel_scale

    def refuse_useless(self, kind: str) -> None:
        """Refuse options that do nothing for inputs of a kind.

        Args:
            kind: "FITS", "npz", "pictures" or "alerts".

        Raises:
            InputError: names them.
        """
        of_fits = {"name", *(item.name for item in fields(FitsOptions)), "tile_size", "halo"} - {"zero_point"}
        of_alerts = {"kind", "schema", "stamp_size"}
        of_stamps = {"npz_map", "layout", "block", "pixel_scale", *of_alerts}
        useless = {
            "FITS": of_stamps,
            "npz": of_fits | of_alerts,
            "pictures": of_fits | {"npz_map", "layout"} | of_alerts,
            "alerts": of_fits | {"npz_map", "layout", "bands", "table", "zero_point"},
        }[kind]
        told = [option_of(name) for name in changed(self) if name in useless]
        if told:
            inputs = {"FITS": "FITS images", "alerts": "alert packets"}.get(kind, "stamps")
            named = of_alerts.intersection(changed(self)) and kind != "alerts"
            others = "alert packets" if named else "stamps" if kind == "FITS" else "FITS images"
            only = "" if kind == "alerts" else f", only for {others}"
            raise InputError(f"{', '.join(told)} would do nothing for {inputs}{only}: leave it away")
