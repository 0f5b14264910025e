"""Files into a Source: the verb `ingest`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from astroml_plugin.core.description import Descriptions
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.core.settings import with_changes
from astroml_plugin.sources.alerts import is_packets
from astroml_plugin.sources.ingest import (
    IngestOptions,
    IngestResult,
    Progress,
    describe_fits,
    describe_npz,
    expand,
    ingest_alerts,
    ingest_fits,
    ingest_stamps,
)
from astroml_plugin.sources.ingest.in_memory import as_list, given_images, is_from_python, is_scene
from astroml_plugin.sources.ingest.npz import is_archive
from astroml_plugin.sources.writer import only_writer
from workflows.notebook import shows_progress

__all__ = ["IngestOptions", "dry_run", "ingest"]


@shows_progress()
def ingest(
    inputs: Sequence[Place | Any] | Place | Any,
    *,
    out: Place,
    options: IngestOptions | None = None,
    client: Any = None,
    progress: Progress | None = None,
    **changes: Any,
) -> IngestResult:
    """Bring FITS images into a Survey, or stamps into Stamps; a rerun reads nothing that is done.

    Args:
        inputs: FITS files, folders, `*` patterns or URLs; .npz archives; one folder of pictures (with `table`); or
            alert packets (.avro, folders of them; with `kind` also tar archives and Parquet).
            Several bands of one field are as many files in the order of `bands` ("-" for a band it lacks). From Python
            also an HDUList, CCDData, NDData, an array, (array, WCS), or a list of these.
        out: the store; made when it is not there, added to when it is.
        options: how files are read and cut.
        client: Dask client, or what `cluster.connect` takes; default threads of this process.
        progress: called with ("ingest", units done, units known of).
        changes: single fields of the options by name, for example `tile_size=1024`; `bands` and `psf` may be text
            such as "g,r,i", `npz_map` text such as "images=x,label=y", `zero_point` one number.

    Raises:
        InputError: bad files, an unknown option, an output with other settings, or one that another ingest is writing.
    """
    chosen = with_changes(IngestOptions, options, _parsed(changes), "the options of ingest")
    items, out = as_list(inputs), text_of(out)
    if chosen.table is None and not items:
        raise InputError("nothing to ingest: name FITS files, .npz archives, or a folder with --table")
    with only_writer(out):
        return _ingest(items, out, chosen, client, progress)


def _ingest(items: list[Any], out: str, chosen: IngestOptions, client: Any, progress: Progress | None) -> IngestResult:
    """Take the inputs in by what they are."""
    if chosen.table is None and _are_packets(items, chosen):
        chosen.refuse_useless("alerts")
        return ingest_alerts([text_of(item) for item in items], out, chosen, client, progress)
    archives = [item for item in items if not is_from_python(item) and is_archive(text_of(item))]
    scenes = [] if chosen.table is not None else [item for item in archives if is_scene(text_of(item))]
    chosen.refuse_useless("pictures" if chosen.table is not None else "npz" if len(archives) > len(scenes) else "FITS")
    if chosen.table is None and len(scenes) == len(archives):
        with given_images(items, out, chosen.bands) as given:
            named = chosen if given.bands is None else replace(chosen, bands=given.bands)
            return ingest_fits(expand(given.urls), out, named, client, progress)
    if scenes or any(map(is_from_python, items)) or (archives and len(archives) < len(items)):
        raise InputError("images and archives of stamps cannot go into one store: ingest them apart")
    return ingest_stamps([text_of(item) for item in items], out, chosen, client, progress)


def _are_packets(items: Sequence[Any], options: IngestOptions) -> bool:
    """Whether inputs are alert packets: all of them, or none."""
    if options.kind is not None and not any(map(is_from_python, items)):
        return True
    found = [not is_from_python(item) and is_packets(text_of(item)) for item in items]
    if any(found) and not all(found):
        raise InputError("alert packets and other inputs cannot go into one store: ingest them apart, or say --kind")
    return all(found)


def dry_run(inputs: Any, *, options: IngestOptions | None = None, **changes: Any) -> Descriptions:
    """Describe what `ingest` would take each file and plane for; nothing is written.

    Args:
        inputs: files as in `ingest`; "-" is passed over.
        options: as in `ingest`.
        changes: single fields of the options by name.

    Raises:
        InputError: a file that is not there or cannot be read, or an unknown option.
    """
    chosen = with_changes(IngestOptions, options, _parsed(changes), "the options of ingest")
    items = as_list(inputs)
    if any(map(is_from_python, items)):
        raise InputError("a dry run looks at files: write the image to one, or ingest it")
    urls = [text_of(item) for item in items]
    archives = [url for url in urls if is_archive(url)]
    files = expand([url for url in urls if url not in archives and url != "-"])
    return Descriptions([*(describe_npz(url) for url in archives), *(describe_fits(url, chosen) for url in files)])


def _parsed(changes: dict[str, Any]) -> dict[str, Any]:
    """Options as they are stored, from the short forms that people type."""
    values = dict(changes)
    if isinstance(bands := values.get("bands"), str):
        values["bands"] = tuple(band.strip() for band in bands.split(","))
    if isinstance(psf := values.get("psf"), str):
        pattern = "=" in psf or "{stem}" in psf
        values["psf"] = (psf,) if pattern else tuple(name for name in psf.split(",") if name)
    if isinstance(psf, PathLike):
        values["psf"] = (text_of(psf),)
    if isinstance(pairs := values.get("npz_map"), str):
        values["npz_map"] = _mapping(pairs)
    if isinstance(zero_point := values.get("zero_point"), int | float):
        values["zero_point"] = (float(zero_point),)
    if isinstance(hdu := values.get("hdu"), int):
        values["hdu"] = str(hdu)
    return {name: value for name, value in values.items() if value is not None}


def _mapping(text: str) -> dict[str, str]:
    """part -> key of "images=x,label=y"."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(part and key for part, _, key in pairs):
        raise InputError(f"npz_map {text!r} must read PART=KEY,PART=KEY, for example images=x,label=y")
    return {part.strip(): key.strip() for part, _, key in pairs}
