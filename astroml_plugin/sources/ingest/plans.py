"""Which files make which image of a survey: fields, companions (weight, mask), identity, agreement of pixel grids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sky.wcs import Wcs, separation
from astroml_plugin.sources.ingest.fits import FitsImage, list_images
from astroml_plugin.sources.ingest.masks import MaskMap, mask_map
from astroml_plugin.sources.ingest.opening import stem_of
from astroml_plugin.sources.ingest.options import FitsOptions
from astroml_plugin.sources.ingest.pixels import Pixels
from astroml_plugin.sources.tile_table import check_name

NO_FILE = "-"
"""Stands in the list of inputs for a band that a field does not have."""

_GRID_TOLERANCE = 0.05
"""Pixels by which the bands of one field may differ in their WCS."""


@dataclass(frozen=True)
class Field:
    """Input files of one field, one per band, or one cube."""

    urls: tuple[str, ...]
    """Image files in band order; `NO_FILE` where a band is missing."""
    source: str
    """Identity of all files as JSON text [[url, size, modified], ...]."""
    source_id: str
    """Digest of the identity and the options."""


@dataclass(frozen=True)
class BandPlan:
    """Where one band of one image comes from."""

    image: Pixels | None
    """None: this image does not have the band."""
    variance: Pixels | None = None
    weight: Pixels | None = None
    error: Pixels | None = None
    mask: Pixels | None = None
    mask_map: MaskMap | None = None
    saturation: float | None = None
    unit: str = ""
    zero_point: float | None = None
    psf: str | None = None
    factor: float = 1.0
    """Factor by which pixels are multiplied, a power of ten; `unit` and `zero_point` are those after it."""

    @property
    def has_variance(self) -> bool:
        """Whether variance comes with it, in any form."""
        return bool(self.variance or self.weight or self.error)


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

    @property
    def whole(self) -> bool:
        """Whether a file must be read as a whole, so that its tiles are worked on together."""
        return any(band.image is not None and band.image.whole for band in self.bands)


def companion(pattern: str, url: str) -> str | None:
    """The file that belongs to image file `url` by `pattern`; None where no "old=new" pair applies."""
    folder, slash, file = url.rpartition("/")
    if "{stem}" in pattern:
        return folder + slash + pattern.replace("{stem}", stem_of(url))
    for pair in pattern.split(","):
        old, equals, new = pair.partition("=")
        if not old or not equals:
            raise InputError(f"pattern {pattern!r} must be OLD=NEW for the file name, or hold {{stem}}")
        if old in file:
            before, _, after = file.rpartition(old)
            return f"{folder}{slash}{before}{new}{after}"
    return None


def _needed(pattern: str, url: str) -> str:
    found = companion(pattern, url)
    if found is None:
        raise InputError(f"pattern {pattern!r} does not apply to {storage.redact(url)}: add an OLD=NEW pair for it")
    return found


def drop_companions(urls: Sequence[str], options: FitsOptions) -> list[str]:
    """The inputs without those that are weight or mask files of other inputs (a shell's *.fits gives them all)."""
    patterns = [p for p in (options.variance_pattern, options.weight_pattern, options.mask_pattern) if p]
    others = {other for url in urls for pattern in patterns if (other := companion(pattern, url)) not in (None, url)}
    return [url for url in urls if url not in others]


def _is_pattern(psf: Sequence[str]) -> bool:
    return len(psf) == 1 and ("{stem}" in psf[0] or "=" in psf[0])


def _files(url: str, options: FitsOptions) -> list[str]:
    """Every file read for one image file."""
    if url == NO_FILE:
        return []
    patterns = [options.variance_pattern, options.weight_pattern, options.mask_pattern]
    patterns += list(options.psf) if _is_pattern(options.psf) else []
    return [url, *(_needed(pattern, url) for pattern in patterns if pattern)]


def fields_of(urls: Sequence[str], group: int, bands: Sequence[str], options: FitsOptions) -> list[Field]:
    """Inputs taken `group` at a time as the bands of one field, with their identity (one stat a file, no reading).

    Raises:
        InputError: the number of inputs is no multiple of `group`, or a file is not there.
    """
    if len(urls) % group:
        raise InputError(
            f"{len(urls)} files are no multiple of {group} bands ({','.join(bands)}): give one file per band and "
            f"field, {NO_FILE!r} where a field lacks a band"
        )
    fields = [tuple(urls[start : start + group]) for start in range(0, len(urls), group)]
    files = [[file for url in field for file in _files(url, options)] for field in fields]
    extra = [] if _is_pattern(options.psf) else list(options.psf)
    known = _identities({file for names in files for file in names} | set(extra))
    settings = {**options.identity(), "bands": list(bands)}
    found = []
    for field, names in zip(fields, files, strict=True):
        if not names:
            raise InputError(f"a field of only {NO_FILE!r} has no image: give at least one file")
        identity = [known[name] for name in [*names, *extra]]
        source_id = storage.digest(identity, list(field), settings)[:16]
        found.append(Field(field, json.dumps(identity), source_id))
    return found


def _identities(urls: Iterable[str]) -> dict[str, list[object]]:
    ordered = sorted(urls)
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(ordered, pool.map(file_identity, ordered), strict=True))


def file_identity(url: str) -> list[object]:
    """[url, size, modified] of a file; InputError when it is not there."""
    try:
        if storage.is_local(url):
            status = storage.local_path(url).stat()
            return [url, status.st_size, f"{status.st_mtime_ns}"]
        filesystem, path = storage.filesystem(url)
        info = storage.retrying(filesystem.info, path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{storage.redact(url)} does not exist: check the path") from None
    except OSError as error:
        raise InputError(f"{storage.redact(url)} cannot be reached: {storage.redact(str(error))}") from error
    changed = next(
        (str(info[key]) for key in ("ETag", "etag", "LastModified", "mtime", "created") if info.get(key)), ""
    )
    return [storage.redact(url), info.get("size"), changed]


@dataclass(frozen=True)
class _Exposure:
    """The HDUs of one image in one file."""

    label: str
    image: FitsImage
    variance: FitsImage | None = None
    weight: FitsImage | None = None
    error: FitsImage | None = None
    mask: FitsImage | None = None


def exposures(url: str, options: FitsOptions) -> list[_Exposure]:
    """The images of one file with what belongs to them, from the same file or by the patterns."""
    images = list_images(url)
    if options.hdu is not None:
        images = [image for image in images if options.hdu in (image.extname, str(image.hdu))]
        if not images:
            raise InputError(f"{storage.redact(url)} has no image HDU {options.hdu!r}")
    named = any(image.extname.upper() in ("IMAGE", "SCI") for image in images)
    found: list[_Exposure] = []
    for image in images:
        if image.role != "image" or (named and image.extname.upper() not in ("IMAGE", "SCI")):
            continue
        others: dict[str, Any] = {
            i.role: i for i in images if named and i.role != "image" and i.version == image.version
        }
        label = str(image.version) if named else image.extname
        found.append(_with_companions(_Exposure(label, image, **others), len(found), options))
    for exposure in found:
        _refuse_other_shape(exposure)
    return found


def _with_companions(exposure: _Exposure, position: int, options: FitsOptions) -> _Exposure:
    patterns = {"variance": options.variance_pattern, "weight": options.weight_pattern, "mask": options.mask_pattern}
    given = {role: _needed(pattern, exposure.image.url) for role, pattern in patterns.items() if pattern}
    added: dict[str, Any] = {role: _matching(url, exposure.image, position) for role, url in given.items()}
    return replace(exposure, **added)


def _matching(url: str, image: FitsImage, position: int) -> FitsImage:
    """The HDU of a companion file for `image`: same EXTNAME, else same position, else the only one."""
    candidates = list_images(url, any_role=True)
    for candidate in candidates:
        if candidate.extname == image.extname and candidate.version == image.version:
            return candidate
    if len(candidates) == 1:
        return candidates[0]
    if position < len(candidates):
        return candidates[position]
    raise InputError(f"{storage.redact(url)} has {len(candidates)} images, none for HDU {image.extname} of its image")


def _refuse_other_shape(exposure: _Exposure) -> None:
    image = exposure.image
    for other in (exposure.variance, exposure.weight, exposure.error, exposure.mask):
        if other is not None and (other.shape != image.shape or other.planes not in (None, image.planes)):
            raise InputError(
                f"{other.role} {storage.redact(other.url)} has {_size(other)}, its image {storage.redact(image.url)} "
                f"{_size(image)}: give files of one pixel grid"
            )


def _size(image: FitsImage) -> str:
    planes = "" if image.planes is None else f"{image.planes} planes of "
    return f"{planes}{image.shape[1]} x {image.shape[0]} pixels"


def plan_field(field: Field, bands: Sequence[str], options: FitsOptions) -> list[ImagePlan]:
    """The images of one field.

    Raises:
        InputError: a file cannot be read, or bands differ in number of images, shape or WCS.
    """
    files = {url: exposures(url, options) for url in field.urls if url != NO_FILE}
    first = next(iter(files))
    if len(field.urls) == 1:
        chosen = [e for e in files[first] if (e.image.planes or 1) == len(bands)]
        if not chosen:
            raise InputError(
                f"{storage.redact(first)} has {_size(files[first][0].image)}, the survey {len(bands)} bands: "
                "name as many bands as the cube has planes"
            )
        columns: list[list[_Exposure | None]] = [[exposure] * len(bands) for exposure in chosen]
    else:
        _refuse_other_counts(files)
        columns = [
            [files[url][number] if url != NO_FILE else None for url in field.urls]
            for number in range(len(files[first]))
        ]
    stem = options.name or _field_name(field.urls, bands)
    return [_image_plan(stem, column, len(columns) > 1, field, options) for column in columns]


def _refuse_other_counts(files: dict[str, list[_Exposure]]) -> None:
    counts = {url: len(found) for url, found in files.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{stem_of(url)} {count}" for url, count in counts.items())
        raise InputError(f"the bands of one field have different numbers of images ({listed}): choose one with `hdu`")
    for url, found in files.items():
        if any(exposure.image.planes not in (None, 1) for exposure in found):
            raise InputError(f"{storage.redact(url)} is a cube of {_size(found[0].image)}: name one band per plane")


def _image_plan(
    stem: str, column: Sequence[_Exposure | None], several: bool, field: Field, options: FitsOptions
) -> ImagePlan:
    given = [exposure for exposure in column if exposure is not None]
    for exposure in given[1:]:
        if exposure is not given[0]:
            _refuse_other_grid(given[0].image, exposure.image)
    header = next((exposure.image.header for exposure in given if exposure.image.header), None)
    plans = []
    for number, found in enumerate(column):
        plan = BandPlan(None) if found is None else _band_plan(found, number, options)
        plans.append(replace(plan, psf=_psf_of(number, len(column), field, options)))
    name = check_name(f"{stem}_{given[0].label}" if several else stem)
    return ImagePlan(name, given[0].image.shape, header, tuple(plans), field)


def _band_plan(exposure: _Exposure, number: int, options: FitsOptions) -> BandPlan:
    image = exposure.image
    planes = {
        role: other.plane(number)
        for role in ("variance", "weight", "error", "mask")
        if (other := getattr(exposure, role)) is not None
    }
    zero = options.zero_point
    zero_point = image.zero_point if not zero else zero[number if len(zero) > 1 else 0]
    saturation = options.saturation if options.saturation is not None else image.saturation
    factor = 1.0 if image.sample is None else image.sample.factor
    return BandPlan(
        image=image.plane(number),
        **planes,
        mask_map=mask_map(options.mask_map, exposure.mask.keywords) if exposure.mask else None,
        saturation=None if saturation is None else saturation * factor,
        unit=image.unit if factor == 1 else f"{1 / factor:.0e} {image.unit}".strip(),
        zero_point=None if zero_point is None else zero_point + 2.5 * float(np.log10(factor)),
        factor=factor,
    )


def _psf_of(number: int, bands: int, field: Field, options: FitsOptions) -> str | None:
    psf = options.psf
    if not psf:
        return None
    if _is_pattern(psf):
        url = field.urls[number if len(field.urls) > 1 else 0]
        return None if url == NO_FILE else _needed(psf[0], url)
    if len(psf) not in (1, bands):
        raise InputError(f"{len(psf)} PSF files for {bands} bands: give one for all, or one per band")
    return psf[number if len(psf) > 1 else 0]


def _refuse_other_grid(first: FitsImage, other: FitsImage) -> None:
    """Bands of one field must share shape and, where both have one, WCS."""
    a, b = stem_of(first.url), stem_of(other.url)
    if first.shape != other.shape:
        raise InputError(
            f"bands of one field have different shapes: {a} has {_size(first)}, {b} {_size(other)}; "
            "resample them first, or ingest them as separate surveys"
        )
    if not first.header or not other.header or first.header == other.header:
        return
    height, width = first.shape
    x, y = np.array([0, width - 1, 0, width - 1, width / 2]), np.array([0, 0, height - 1, height - 1, height / 2])
    one, two = Wcs(first.header), Wcs(other.header)
    apart = float(np.nanmax(separation(*one.to_sky(x, y), *two.to_sky(x, y)))) * 3600 / one.pixel_scale
    if apart > _GRID_TOLERANCE:
        raise InputError(
            f"bands of one field have different pixel grids: the WCS of {a} and {b} differ by {apart:.2f} pixels; "
            "resample them first, or check the order of the files"
        )


def _field_name(urls: Sequence[str], bands: Sequence[str]) -> str:
    """The stem the files share once each band's name is taken out as a word; else the first file's stem."""
    stems = [(stem_of(url), band) for url, band in zip(urls, bands, strict=False) if url != NO_FILE]
    if len(urls) > 1:
        bare = {re.sub(rf"(^|[-_.]){re.escape(band)}(?=[-_.]|$)", "", stem).strip("-_.") for stem, band in stems}
        if len(bare) == 1 and (name := bare.pop()):
            return name
    return stems[0][0]
