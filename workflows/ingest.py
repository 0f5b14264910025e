"""Files into a Source: the verb `ingest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest import FitsOptions, IngestResult, Progress, expand, ingest_fits, ingest_stamps


def ingest(
    inputs: Sequence[str] | str,
    *,
    out: str,
    bands: Sequence[str] | str | None = None,
    tile_size: int | None = None,
    halo: int | None = None,
    npz_map: Mapping[str, str] | str | None = None,
    layout: str | None = None,
    table: str | None = None,
    variance_pattern: str | None = None,
    weight_pattern: str | None = None,
    mask_pattern: str | None = None,
    mask_map: str = "auto",
    psf: Sequence[str] | str = (),
    hdu: str | int | None = None,
    saturation: float | None = None,
    zero_point: Sequence[float] | float = (),
    name: str | None = None,
    block: int | None = None,
    pixel_scale: float | None = None,
    client: Any = None,
    progress: Progress | None = None,
) -> IngestResult:
    """Bring FITS images into a Survey, or stamps into Stamps; a rerun reads nothing that is done.

    Args:
        inputs: FITS files, folders, `*` patterns or URLs; .npz archives; or one folder of pictures (with `table`).
            Several bands of one field are as many files in the order of `bands` ("-" for a band it lacks).
        out: the store; made when it is not there, added to when it is.
        bands: names of the bands, a sequence or "g,r,i"; default c000, c001, ... (or what the .npz says).
        tile_size: outer side of a tile in pixels; default: what holds the largest image, at most 4096.
        halo: pixels a tile shares with its neighbours on every side; default 128.
        npz_map: part -> key in the archive, for example {"images": "x", "label": "y"} or "images=x,label=y".
        layout: axes of the archive's images, for example "nyxc".
        table: CSV or Parquet table with id_str and file_loc (relative to the folder) and label columns.
        variance_pattern: name of an image's variance file: "old=new" in the file name or "{stem}.var.fits".
        weight_pattern: the same for inverse-variance weights, for example "ooi=oow,oki=oow".
        mask_pattern: the same for masks, for example "ooi=ood,oki=ood".
        mask_map: meaning of mask values: auto, codes, bits, nonzero, or e.g. "codes:1=BAD,3=SATURATED".
        psf: PSF images: one file, one per band, or one pattern as above.
        hdu: EXTNAME or number of the only HDU to take.
        saturation: level from which pixels count as saturated; default the header's SATURATE.
        zero_point: magnitude zero point, one or one per band; default from the header.
        name: name of the parent image when there is only one field; default from the file name.
        block: stamps per unit; default about 32 MB.
        pixel_scale: arcsec per pixel of stamps.
        client: Dask client, or what `cluster.connect` takes; default threads of this process.
        progress: called with ("ingest", units done, units known of).

    Raises:
        InputError: bad files, or an output with other settings.
    """
    given = [inputs] if isinstance(inputs, str) else list(inputs)
    names = [band.strip() for band in bands.split(",")] if isinstance(bands, str) else bands
    archives = [url for url in given if url.lower().endswith(".npz")]
    if not given and table is None:
        raise InputError("nothing to ingest: name FITS files, .npz archives, or a folder with --table")
    if table is not None or archives:
        if archives and len(archives) < len(given):
            raise InputError("FITS files and .npz archives cannot go into one store: ingest them apart")
        stamps: dict[str, Any] = {"npz_map": _mapping(npz_map), "layout": layout, "table": table, "block": block}
        return ingest_stamps(
            given, out=out, bands=names, pixel_scale=pixel_scale, client=client, progress=progress, **stamps
        )
    options = FitsOptions(
        hdu=None if hdu is None else str(hdu),
        variance_pattern=variance_pattern,
        weight_pattern=weight_pattern,
        mask_pattern=mask_pattern,
        mask_map=mask_map,
        psf=_psf_names(psf),
        saturation=saturation,
        zero_point=(float(zero_point),) if isinstance(zero_point, int | float) else tuple(zero_point),
        name=name,
    )
    tiling: dict[str, Any] = {"bands": names, "tile_size": tile_size, "halo": halo}
    return ingest_fits(expand(given), out=out, options=options, client=client, progress=progress, **tiling)


def _mapping(npz_map: Mapping[str, str] | str | None) -> Mapping[str, str]:
    """part -> key, also from "images=x,label=y"."""
    if not isinstance(npz_map, str):
        return npz_map or {}
    pairs = [pair.partition("=") for pair in npz_map.split(",")]
    if not all(part and key for part, _, key in pairs):
        raise InputError(f"npz_map {npz_map!r} must read PART=KEY,PART=KEY, for example images=x,label=y")
    return {part.strip(): key.strip() for part, _, key in pairs}


def _psf_names(psf: Sequence[str] | str) -> tuple[str, ...]:
    """Files, or one pattern, also from comma-separated text."""
    if not isinstance(psf, str):
        return tuple(psf)
    return (psf,) if "=" in psf or "{stem}" in psf else tuple(name for name in psf.split(",") if name)
