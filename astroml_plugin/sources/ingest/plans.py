"""Which planes make which image of a survey: bands of one field on one pixel grid, and their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest.bands import BandPlan, PsfImage, band_plan
from astroml_plugin.sources.ingest.exposures import Exposure, exposures, needed
from astroml_plugin.sources.ingest.fields import NO_FILE, Field, is_pattern
from astroml_plugin.sources.ingest.looking import apart
from astroml_plugin.sources.ingest.opening import stem_of
from astroml_plugin.sources.ingest.options import FitsOptions
from astroml_plugin.sources.ingest.planes import Plane
from astroml_plugin.sources.ingest.words import is_band
from astroml_plugin.sources.spectral import SpectralAxis
from astroml_plugin.sources.tile_table import check_name

_GRID_TOLERANCE = 0.05
"""Pixels by which the bands of one field may differ in their WCS."""


@dataclass(frozen=True)
class ImagePlan:
    """One parent image: what to read for each band."""

    name: str
    shape: tuple[int, int]
    """(height, width)."""
    header: str | None
    """World-coordinate cards; None without a WCS."""
    bands: tuple[BandPlan, ...]
    field: Field
    spectral: SpectralAxis | None = None
    """Wavelengths of the bands, where the image is a cube that tells them."""
    notes: tuple[str, ...] = ()
    """Planes left out, what cannot be used and what is guessed, one sentence each."""

    @property
    def whole(self) -> bool:
        """Whether a file must be read as a whole, so that its tiles are worked on together."""
        return any(band.image is not None and band.image.whole for band in self.bands)


def plan_field(field: Field, bands: Sequence[str], options: FitsOptions) -> list[ImagePlan]:
    """The images of one field.

    Raises:
        InputError: a file cannot be read, or bands differ in number of images, shape or WCS.
    """
    beside: dict[str, dict[str, str]] = {}
    for image, role, file in field.beside:
        beside.setdefault(image, {})[role] = file
    files = {url: exposures(url, options, beside.get(url, {})) for url in field.urls if url != NO_FILE}
    if len(field.urls) == 1:
        columns, notes = _columns_of_file(field.urls[0], files[field.urls[0]], bands, options.channels)
    else:
        _refuse_other_counts(files)
        notes = []
        columns = [
            [files[url][number] if url != NO_FILE else None for url in field.urls]
            for number in range(len(next(iter(files.values()))))
        ]
    stem = options.name or _field_name(field.urls, bands)
    plans = [_image_plan(stem, column, len(columns) > 1, field, options) for column in columns]
    said = [note for found in files.values() for exposure in found for note in exposure.notes]
    return [replace(plans[0], notes=(*said, *notes, *plans[0].notes)), *plans[1:]]


def _columns_of_file(
    url: str, found: Sequence[Exposure], bands: Sequence[str], channels: str | None = None
) -> tuple[list[list[Exposure | None]], list[str]]:
    """Images of one file, each as its bands, and what is said of those that have other bands."""
    shown = storage.redact(url)
    if (names := bands_of_file(found)) is not None:
        place = {name.upper(): exposure for name, exposure in zip(names, found, strict=True)}
        if any(band.upper() not in place for band in bands):
            raise InputError(
                f"{shown} has the bands {','.join(names)} on one pixel grid: name some of them with --bands"
            )
        left = [name for name in names if name.upper() not in {band.upper() for band in bands}]
        return [[place[band.upper()] for band in bands]], [f"band {name} is left out (see --bands)" for name in left]
    if (planes := _chosen_planes(found, bands, channels)) is not None:
        cube = found[0]
        return [[replace(cube, channel=plane) for plane in planes]], _left_out(found[1:], cube, bands)
    chosen = [exposure for exposure in found if (exposure.image.planes or 1) == len(bands)]
    if not chosen:
        raise InputError(
            f"{shown} has {found[0].image.size}, the survey {len(bands)} bands: name as many bands as the "
            "cube has planes"
        )
    left = _left_out([exposure for exposure in found if exposure not in chosen], chosen[0], bands)
    return [[exposure] * len(bands) for exposure in chosen], left


def _left_out(others: Sequence[Exposure], chosen: Exposure, bands: Sequence[str]) -> list[str]:
    told = f"is left out: it has not the {len(bands)} bands of {chosen.image.label}"
    return [f"{other.image.label} {told}" for other in others]


def _chosen_planes(found: Sequence[Exposure], bands: Sequence[str], channels: str | None) -> list[int] | None:
    """Planes of a cube that are the bands: those of a range, or named among others; None where all are taken.

    Raises:
        InputError: a range for a file without wavelengths, or of other planes than the survey has bands.
    """
    axis = found[0].image.spectral
    if channels is not None:
        if axis is None:
            raise InputError(f"{found[0].image.label} has no wavelengths that channels could choose: leave them out")
        planes = axis.within(channels)
        if len(planes) != len(bands):
            raise InputError(f"{len(planes)} planes lie in the channels {channels}, the survey has {len(bands)} bands")
        return planes
    names = () if axis is None else axis.names()
    if len(bands) < len(names) and {*bands} <= {*names}:
        return [names.index(band) for band in bands]
    return None


def names_of_cube(exposure: Exposure, channels: str | None) -> tuple[str, ...]:
    """Names of the bands of a cube by its wavelengths; () where it has none."""
    axis = exposure.image.spectral
    if axis is None:
        return ()
    return (axis if channels is None else axis.chosen(axis.within(channels))).names()


def bands_of_file(found: Sequence[Exposure]) -> tuple[str, ...] | None:
    """Names of the bands of a file whose images are one piece of sky in several filters; None for others."""
    images = [exposure.image for exposure in found]
    names = [image.key if is_band(image.key) else image.cards.get("FILTER", "") for image in images]
    if len(images) < 2 or not all(names) or len({name.upper() for name in names}) < len(names):
        return None
    if any(image.planes is not None or image.shape != images[0].shape for image in images):
        return None
    if any(not image.header for image in images):
        return tuple(names) if all(is_band(image.key) and not image.header for image in images) else None
    return tuple(names) if all(_apart(images[0], image) <= _GRID_TOLERANCE for image in images) else None


def _refuse_other_counts(files: dict[str, list[Exposure]]) -> None:
    counts = {url: len(found) for url, found in files.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{stem_of(url)} {count}" for url, count in counts.items())
        raise InputError(f"the bands of one field have different numbers of images ({listed}): choose one with `hdu`")
    for url, found in files.items():
        if any(exposure.image.planes not in (None, 1) for exposure in found):
            raise InputError(f"{storage.redact(url)} is a cube of {found[0].image.size}: name one band per plane")


def _image_plan(
    stem: str, column: Sequence[Exposure | None], several: bool, field: Field, options: FitsOptions
) -> ImagePlan:
    given = [exposure for exposure in column if exposure is not None]
    for exposure in given[1:]:
        if exposure is not given[0]:
            _refuse_other_grid(given[0].image, exposure.image)
    header = next((exposure.image.header for exposure in given if exposure.image.header), None)
    plans, notes = [], []
    for number, found in enumerate(column):
        plan, doubts = (BandPlan(None), []) if found is None else band_plan(found, number, options)
        plans.append(replace(plan, psf=_psf_of(number, len(column), field, options) or plan.psf))
        notes += doubts
    name = check_name(f"{stem}_{given[0].label}" if several else stem)
    spectral = given[0].image.spectral if len(column) > 1 and given[0].image.planes else None
    if spectral is not None and given[0].channel is not None:
        spectral = spectral.chosen([exposure.channel or 0 for exposure in given])
    return ImagePlan(name, given[0].image.shape, header, tuple(plans), field, spectral, tuple(dict.fromkeys(notes)))


def _psf_of(number: int, bands: int, field: Field, options: FitsOptions) -> PsfImage | None:
    psf = options.psf
    if not psf:
        return None
    if is_pattern(psf):
        url = field.urls[number if len(field.urls) > 1 else 0]
        return None if url == NO_FILE else PsfImage(needed(psf[0], url))
    if len(psf) not in (1, bands):
        raise InputError(f"{len(psf)} PSF files for {bands} bands: give one for all, or one per band")
    return PsfImage(psf[number if len(psf) > 1 else 0])


def _refuse_other_grid(first: Plane, other: Plane) -> None:
    """Bands of one field must share shape and, where both have one, WCS."""
    a, b = stem_of(first.url), stem_of(other.url)
    if first.shape != other.shape:
        raise InputError(
            f"bands of one field have different shapes: {a} has {first.size}, {b} {other.size}; "
            "resample them first, or ingest them as separate surveys"
        )
    if not first.header or not other.header or first.header == other.header:
        return
    apart = _apart(first, other)
    if apart > _GRID_TOLERANCE:
        raise InputError(
            f"bands of one field have different pixel grids: the WCS of {a} and {b} differ by {apart:.2f} pixels; "
            "resample them first, or check the order of the files"
        )


def _apart(first: Plane, other: Plane) -> float:
    """Pixels by which the WCS of two planes of one shape differ at most."""
    assert first.header is not None
    assert other.header is not None
    return apart(first.header, other.header, first.shape)


def _field_name(urls: Sequence[str], bands: Sequence[str]) -> str:
    """The stem the files share once each band's name is taken out as a word; else the first file's stem."""
    stems = [(stem_of(url), band) for url, band in zip(urls, bands, strict=False) if url != NO_FILE]
    if len(urls) > 1:
        bare = {re.sub(rf"(^|[-_.]){re.escape(band)}(?=[-_.]|$)", "", stem).strip("-_.") for stem, band in stems}
        if len(bare) == 1 and (name := bare.pop()):
            return name
    return stems[0][0]
