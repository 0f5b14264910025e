"""Images of one file with the planes that belong to them: which errors, mask and PSF go with which image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.sources.ingest.fits import list_images, list_planes
from astroml_plugin.sources.ingest.opening import stem_of
from astroml_plugin.sources.ingest.options import FitsOptions
from astroml_plugin.sources.ingest.planes import Plane
from astroml_plugin.sources.ingest.roles import given_roles
from astroml_plugin.sources.ingest.words import EXPOSURE, IMAGE, MASK, PSF, STD, VARIANCE, WEIGHT, is_band, tokens_of

COMPANIONS = (VARIANCE, STD, WEIGHT, EXPOSURE, MASK, PSF)
"""Roles of planes that belong to an image."""


@dataclass(frozen=True)
class Exposure:
    """An image of one file with what belongs to it."""

    image: Plane
    label: str
    """Name among the images of its file."""
    variance: Plane | None = None
    std: Plane | None = None
    weight: Plane | None = None
    exposure: Plane | None = None
    mask: Plane | None = None
    psf: Plane | None = None
    channel: int | None = None
    """Plane of a cube that is taken for a band; None: the plane of the band's number."""
    notes: tuple[str, ...] = ()
    """Planes left out, and what cannot be used, one sentence each."""

    def of(self, role: str) -> Plane | None:
        """The plane of a role among `COMPANIONS`."""
        found: Plane | None = getattr(self, role)
        return found

    @property
    def noise(self) -> Plane | None:
        """The plane that gives the variance: variance, else standard deviation, weight, exposure map."""
        return self.variance or self.std or self.weight or self.exposure


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


def needed(pattern: str, url: str) -> str:
    """The file that belongs to image file `url` by `pattern`; InputError where no pair applies."""
    found = companion(pattern, url)
    if found is None:
        raise InputError(f"pattern {pattern!r} does not apply to {storage.redact(url)}: add an OLD=NEW pair for it")
    return found


def exposures(url: str, options: FitsOptions, beside: Mapping[str, str] = MappingProxyType({})) -> list[Exposure]:
    """The images of one file with what belongs to them, from the same file, by the patterns, or from `beside`.

    Args:
        url: the file.
        options: of the ingest.
        beside: role -> file that holds the planes of that role.

    Raises:
        InputError: the file cannot be read, or holds no image of which it is known that it is one.
    """
    roles = {} if options.roles is None else given_roles(options.roles)
    planes = _chosen(url, options, roles)
    images = [plane for plane in planes if plane.role == IMAGE]
    labels = _labels(images)
    found = [Exposure(image, label) for image, label in zip(images, labels, strict=True)]
    notes = [*_lost(planes), *(note for image in images for note in _wcs_notes(image))]
    found, more = _paired(found, [plane for plane in planes if plane.role in COMPANIONS])
    patterns = {VARIANCE: options.variance_pattern, WEIGHT: options.weight_pattern, MASK: options.mask_pattern}
    given = {**beside, **{role: needed(pattern, url) for role, pattern in patterns.items() if pattern}}
    listed = {other: tuple(list_planes(other, roles if other == url else None)) for other in {*given.values()}}
    found = [_with_files(exposure, number, given, listed) for number, exposure in enumerate(found)]
    return [replace(found[0], notes=(*found[0].notes, *notes, *more)), *found[1:]]


def _chosen(url: str, options: FitsOptions, roles: Mapping[str, str]) -> list[Plane]:
    """Planes of a file; with `hdu` one image alone, and what may belong to it."""
    if options.hdu is None:
        return list_images(url, roles)
    planes = list_planes(url, roles)
    chosen = [plane for plane in planes if options.hdu in (plane.name, f"{plane.name},{plane.version}", str(plane.hdu))]
    if not chosen:
        names = ", ".join(plane.extname for plane in planes)
        raise InputError(f"{storage.redact(url)} has no image HDU {options.hdu!r}: its planes are {names}")
    kept = [plane for plane in planes if plane.role in COMPANIONS and plane not in chosen]
    images = [replace(plane, role=IMAGE, why="by hand (hdu)") for plane in chosen]
    return [*images, *(replace(plane, lost=False) for plane in kept)]


def _labels(images: Sequence[Plane]) -> list[str]:
    """Names of the images of one file that differ: what EXTNAME tells beside the role, EXTVER, or the HDU's number."""
    plain = [plane.key if plane.why.startswith("EXTNAME") else plane.extname for plane in images]
    several = len({plane.version for plane in images}) > 1
    labels = [
        "_".join(part for part in (label, str(plane.version) if several or not label else "") if part)
        for plane, label in zip(images, plain, strict=True)
    ]
    counts = Counter(labels)
    labels = [str(p.hdu) if counts[label] > 1 else label for p, label in zip(images, labels, strict=True)]
    return [re.sub(r"[^\w.+-]+", "_", label) for label in labels]


def _lost(planes: Sequence[Plane]) -> list[str]:
    return [
        f"{plane.label} is left out: {plane.why} (say what it is with --roles {plane.extname}=ROLE)"
        for plane in planes
        if plane.lost
    ]


def _wcs_notes(image: Plane) -> list[str]:
    lost = f"{image.label} has no sky coordinates: its WCS cannot be used ({image.wcs_problem})"
    return [
        *([lost] if image.wcs_problem else []),
        *(f"{image.label}: {note}" for note in (*image.wcs_notes, *image.notes)),
    ]


def _paired(found: list[Exposure], others: Sequence[Plane]) -> tuple[list[Exposure], list[str]]:
    """Exposures with their planes of the same file, and what is said of planes that belong to none."""
    notes = []
    for plane in others:
        owners = _owners(plane, found, others)
        alike = [number for number in owners if _on_its_grid(plane, found[number].image)]
        if owners and not alike:
            image = found[owners[0]].image
            notes.append(f"{plane.label} is left out: it has {plane.size}, its image {image.label} {image.size}")
        elif not alike:
            notes.append(f"{plane.label} is left out: which image its {plane.role} belongs to is not said")
        elif all(found[number].of(plane.role) for number in alike):
            first = found[alike[0]].of(plane.role)
            assert first is not None
            notes.append(f"{plane.label} is left out: {first.label} is the {plane.role} already")
        for number in alike:
            if found[number].of(plane.role) is None:
                taken: dict[str, Any] = {plane.role: plane}
                found[number] = replace(found[number], **taken)
    return found, notes


def _owners(plane: Plane, found: Sequence[Exposure], others: Sequence[Plane]) -> list[int]:
    """Numbers of the images that a plane belongs to: by reference, key and EXTVER, order, or as the only one."""
    images = [exposure.image for exposure in found]
    if named := [n for n, image in enumerate(images) if _refers(plane, image)]:
        return named
    twins = [p for p in others if (p.role, p.key, p.version) == (plane.role, plane.key, plane.version)]
    equals = [n for n, image in enumerate(images) if (image.key, image.version) == (plane.key, plane.version)]
    if len(twins) > 1 and len(images) > 1:
        row = equals if len(equals) == len(twins) else [*range(len(images))]
        return [row[twins.index(plane)]] if len(row) == len(twins) else []
    alike = [n for n, image in enumerate(images) if image.key == plane.key]
    shared = [n for n, image in enumerate(images) if not plane.key and image.version == plane.version]
    numbered = [n for n, image in enumerate(images) if _number(image.key) == _number(plane.key) != ""]
    choices = (equals, shared, alike if len(alike) == 1 else [], numbered if len(numbered) == 1 else [])
    alone = [0] if len(images) == 1 else []
    return next((choice for choice in choices if choice), alone)


def _refers(plane: Plane, image: Plane) -> bool:
    """Whether keywords of one name the other (SCIDATA, ERRDATA, QUALDATA)."""
    if plane.version != image.version:
        return False
    to_image = plane.cards.get("SCIDATA", "")
    from_image = (image.cards.get("ERRDATA", ""), image.cards.get("QUALDATA", ""))
    return bool(to_image and to_image == image.name) or bool(plane.name and plane.name in from_image)


def _number(key: str) -> str:
    match = re.search(r"\d+$", key)
    return match[0].lstrip("0") if match else ""


def _on_its_grid(plane: Plane, image: Plane) -> bool:
    if plane.role == PSF:
        return plane.planes is None or plane.planes == image.planes
    return plane.shape == image.shape and plane.planes in (None, image.planes)


def _with_files(
    exposure: Exposure, position: int, given: Mapping[str, str], listed: Mapping[str, Sequence[Plane]]
) -> Exposure:
    """Exposure with planes of other files, which the patterns name."""
    added: dict[str, Any] = {}
    for role, url in given.items():
        plane = _matching(url, listed[url], exposure.image, position, role)
        if not _on_its_grid(plane, exposure.image):
            raise InputError(
                f"{role} {storage.redact(url)} has {plane.size}, its image {storage.redact(exposure.image.url)} "
                f"{exposure.image.size}: give files of one pixel grid"
            )
        added[role] = plane
    noise = (VARIANCE, STD, WEIGHT, EXPOSURE)
    if {*noise} & {*added}:  # they come before those of the image's own file
        added = {**dict.fromkeys(noise), **added}
    return replace(exposure, **added)


def _matching(url: str, planes: Sequence[Plane], image: Plane, position: int, role: str) -> Plane:
    """The plane of a companion file for `image`: of its role, of its name, at its position, or the only one."""
    if url == image.url:
        planes = [plane for plane in planes if plane.role == role]
    of_role = [plane for plane in planes if plane.role == role]
    candidates = _of_its_band(of_role or list(planes), image)
    alike = [plane for plane in candidates if (plane.name, plane.version) == (image.name, image.version)]
    alike += [plane for plane in candidates if (plane.key, plane.version) == (image.key, image.version)]
    if alike:
        return alike[0]
    if len(candidates) == 1:
        return candidates[0]
    if position < len(candidates):
        return candidates[position]
    if not candidates:
        raise InputError(
            f"{storage.redact(url)} has no {role} for the filter of {storage.redact(image.url)}: leave it out"
        )
    raise InputError(
        f"{storage.redact(url)} has {len(candidates)} planes for {role}, none for HDU {image.extname} of its image"
    )


def _of_its_band(planes: Sequence[Plane], image: Plane) -> list[Plane]:
    """Planes without those of another filter: of the filter of the image where there are some, else of no filter."""
    named = [plane for plane in planes if is_band(plane.key)]
    if not named or len({plane.key for plane in planes}) < len(planes):
        return list(planes)
    bands = {image.key, image.cards.get("FILTER", "").upper(), *tokens_of(stem_of(image.url))}
    return [plane for plane in named if plane.key in bands] or [plane for plane in planes if plane not in named]
