"""Images from Python, and scenes of .npz archives, as FITS files beside the output, named by their content.

The files are read as any other, by any worker, and removed when all their tiles are stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import NDData
from astropy.wcs import WCS

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import Array
from astroml_plugin.sky.wcs import astropy_quiet
from astroml_plugin.sources.ingest.npz import NpzArray, decoded, is_archive, open_npz

_GIVEN = re.compile(r"/given/([0-9a-f]{32})/([^/]+)\.fits$")
_NOISE = {"std": ("ERR", 1), "var": ("VARIANCE", 2), "ivar": ("IVAR", -2)}
"""Kind of astropy's uncertainties -> EXTNAME, and power of the image's unit."""

_KINDS = (
    "a path, an HDUList, CCDData, NDData, an array (band, y, x) or (y, x), (array, WCS), or a list of these: "
    "this is a {kind}"
)


@dataclass(frozen=True)
class GivenImages:
    """Inputs of an ingest, all as files."""

    urls: tuple[str, ...]
    """Files, in the order of the inputs."""
    made: tuple[str, ...]
    """Files that were made here, and are removed in the end."""
    bands: tuple[str, ...] | None
    """Names of the bands, where a scene says them."""

    def forget(self) -> None:
        """Remove the files that were made here."""
        for url in self.made:
            storage.remove(url)


def content_of(url: str) -> list[object] | None:
    """Identity of a file that was made here: its name and the digest of its content; None of any other file."""
    found = _GIVEN.search(url)
    return None if found is None else [found[2], found[1]]


def is_from_python(item: Any) -> bool:
    """Whether an input is no path, URL or pattern."""
    return not isinstance(item, str | os.PathLike)


def as_list(inputs: Any) -> list[Any]:
    """One input or several as a list; (array, WCS) is one."""
    one = isinstance(inputs, str | os.PathLike | fits.HDUList | NDData | np.ndarray) or _is_pair(inputs)
    if not one and not isinstance(inputs, Sequence):
        raise InputError("ingest takes " + _KINDS.format(kind=type(inputs).__name__))
    return [inputs] if one else list(inputs)


def _is_pair(item: Any) -> bool:
    """Whether it is an array with its WCS or header."""
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], WCS | fits.Header)


def is_scene(url: str) -> bool:
    """Whether an archive holds one scene: `filters`, and as many planes of `images` (band, y, x)."""
    with open_npz(url) as archive:
        images, filters = archive.get("images"), archive.get("filters")
        if images is None or filters is None or len(images.shape) != 3:
            return False
        return filters.shape == images.shape[:1] and filters.dtype.kind in "SU"


def as_files(inputs: Sequence[Any], out: str, bands: tuple[str, ...] | None) -> GivenImages:
    """All inputs as files.

    Args:
        inputs: paths, URLs, images from Python, archives of a scene.
        out: URL of the survey, below which files are made.
        bands: names of the bands, None where nobody gave any.

    Raises:
        InputError: an input that is no image, or says something that a survey cannot hold.
    """
    folder = storage.join(storage.absolute(out), "tiles", "given")
    urls, made, named = [], [], bands
    for item in inputs:
        if not is_from_python(item):
            url = os.fspath(item)
            if not is_archive(url):
                urls.append(url)
                continue
            stem = re.sub(r"\.npz$", "", storage.path_of(url).rstrip("/").rpartition("/")[2], flags=re.IGNORECASE)
            hdus, filters = _scene(url)
            if bands is not None and len(bands) != len(filters):
                told = f"{len(filters)} bands ({', '.join(filters)}), and {len(bands)} names are given"
                raise InputError(f"{storage.redact(url)} has {told}")
            if named is not None and bands is None and filters != named:
                raise InputError("the scenes differ in their filters: ingest them apart, or name the bands (--bands)")
            named = bands or filters
        else:
            hdus, stem = _hdus(item, bands), _stem(item)
        urls.append(_kept(hdus, stem, folder))
        made.append(urls[-1])
    return GivenImages(tuple(urls), tuple(made), named)


@contextlib.contextmanager
def given_images(inputs: Sequence[Any], out: str, bands: tuple[str, ...] | None) -> Iterator[GivenImages]:
    """`as_files`; the files are removed at the end, whatever happens: the same call makes them again."""
    given = as_files(inputs, out, bands)
    try:
        yield given
    finally:
        given.forget()


def _kept(hdus: fits.HDUList, stem: str, folder: str) -> str:
    """The file of HDUs, named by its content."""
    held = io.BytesIO()
    with astropy_quiet():
        hdus.writeto(held, output_verify="silentfix+ignore")
    data = held.getvalue()
    digest = hashlib.sha256(data).hexdigest()[:32]
    url = storage.join(folder, digest, f"{stem or f'image_{digest[:8]}'}.fits")
    if not storage.exists(url):
        storage.write_atomic(url, data)
    return url


def _stem(item: Any) -> str:
    """Name of an image from Python: of the file that it was read from; empty where there is none."""
    name = item.filename() if isinstance(item, fits.HDUList) else None
    plain = re.sub(r"(\.(fits?|fts|fz|gz|bz2|xz|zip))*$", "", os.path.basename(name or ""), flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9_.-]", "_", plain)


def _hdus(item: Any, bands: tuple[str, ...] | None) -> fits.HDUList:
    """HDUs of an image from Python."""
    if isinstance(item, fits.HDUList):
        return item
    if _is_pair(item):
        array, told = item
        known = {"meta": told} if isinstance(told, fits.Header) else {"wcs": told}
        item = NDData(_plain(array), unit=getattr(array, "unit", None), **known)
    elif isinstance(item, np.ndarray):
        item = NDData(_plain(item), mask=_mask_of(item), unit=getattr(item, "unit", None))
    if not isinstance(item, NDData):
        raise InputError("ingest takes " + _KINDS.format(kind=type(item).__name__))
    return _of_nddata(item, bands)


def _plain(values: Any) -> Array:
    return np.asarray(getattr(values, "value", np.ma.getdata(values)))


def _mask_of(values: Any) -> Array | None:
    return np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None


def _of_nddata(item: Any, bands: tuple[str, ...] | None) -> fits.HDUList:
    """HDUs of NDData or CCDData: IMAGE with unit, WCS and meta, its noise by kind, MASK (true is bad), PSF."""
    values = _numbers(np.asarray(item.data), "the image")
    if values.ndim == 3 and (bands is None or len(bands) != len(values)):
        raise InputError(
            f"an image of shape {values.shape} from Python has {len(values)} bands: name as many (bands='g,r,i')"
        )
    if values.ndim not in (2, 3) or min(values.shape) < 1:
        raise InputError(f"an image from Python has the shape {values.shape}: give (y, x), or (band, y, x) with names")
    if getattr(item, "flags", None) is not None:
        raise InputError("flags of NDData say nothing that a survey knows: put what is bad into its mask")
    header, tables = _header(item)
    found = [fits.PrimaryHDU(), fits.ImageHDU(values, header, "IMAGE")]
    if item.uncertainty is not None:
        name, noise = _noise(item, values.shape)
        found.append(fits.ImageHDU(noise, name=name))
    if item.mask is not None:
        mask = np.asarray(item.mask)
        if mask.shape != values.shape:
            raise InputError(f"the mask has shape {mask.shape}, the image {values.shape}: give one value per pixel")
        bits = fits.ImageHDU((mask != 0).astype(np.uint8), name="MASK")
        bits.header["MP_BAD"] = 0
        found.append(bits)
    if getattr(item, "psf", None) is not None:
        found.append(fits.ImageHDU(_numbers(np.asarray(item.psf), "the PSF"), name="PSF"))
    return fits.HDUList([*found, *tables])


def _numbers(values: Array, what: str) -> Array:
    if values.dtype.kind not in "biuf":
        raise InputError(f"{what} holds {values.dtype}, no real numbers: convert it")
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8):
        return values.astype(np.float32 if values.dtype.itemsize < 4 else np.float64)
    return values


def _header(item: Any) -> tuple[fits.Header, list[Any]]:
    """Header of the image, and HDUs of lookup tables that its WCS has."""
    header = fits.Header()
    meta = item.meta if isinstance(item.meta, fits.Header) else _cards(item.meta)
    with astropy_quiet():
        header.extend(meta, strip=True, update=True)
        tables: list[Any] = []
        if item.wcs is not None:
            wcs = getattr(item.wcs, "low_level_wcs", item.wcs)
            if not isinstance(wcs, WCS):
                raise InputError(f"a WCS of type {type(wcs).__name__} has no FITS cards: give an astropy.wcs.WCS")
            made = wcs.to_fits(relax=True)
            header.extend(made[0].header, strip=True, update=True)
            tables = list(made[1:])
    if item.unit is not None:
        header["BUNIT"] = _unit_text(u.Unit(item.unit))
    return header, tables


def _unit_text(unit: u.UnitBase) -> str:
    try:
        return str(unit.to_string("fits"))
    except ValueError:
        return str(unit)


def _cards(meta: Any) -> fits.Header:
    """The entries of a dictionary that FITS cards can hold."""
    header = fits.Header()
    for key, value in dict(meta or {}).items():
        named = isinstance(key, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,8}", key)
        if named and isinstance(value, bool | int | float | str):
            with contextlib.suppress(ValueError):  # a text of several lines, a number that is none
                header[key] = value
    return header


def _noise(item: Any, shape: tuple[int, ...]) -> tuple[str, Array]:
    """EXTNAME and values of the noise, in the unit that belongs to the image's."""
    kind = item.uncertainty.uncertainty_type
    if kind not in _NOISE:
        raise InputError(
            f"an uncertainty of kind {kind!r} is no noise of pixels: give StdDevUncertainty, VarianceUncertainty or "
            "InverseVariance"
        )
    name, power = _NOISE[kind]
    values = _numbers(np.asarray(item.uncertainty.array), "the uncertainty")
    if values.shape != shape:
        raise InputError(f"the uncertainty has shape {values.shape}, the image {shape}: give one value per pixel")
    unit = item.uncertainty.unit
    if unit is not None and item.unit is not None:
        factor = u.Unit(unit).to(u.Unit(item.unit) ** power)  # astropy takes no other unit
        values = values if factor == 1 else values * factor
    return name, values


def _scene(url: str) -> tuple[fits.HDUList, tuple[str, ...]]:
    """HDUs and band names of an archive that is one scene."""
    shown = storage.redact(url)
    with open_npz(url) as archive:
        images = _read(archive["images"])
        filters = tuple(str(name) for name in decoded(_read(archive["filters"])).tolist())
        found = [fits.PrimaryHDU(), fits.ImageHDU(_numbers(images, f"images of {shown}"), name="IMAGE")]
        for key, name in (("variance", "VARIANCE"), ("mask", "MASK")):
            if key in archive:
                values = _read(archive[key])
                if values.shape != images.shape:
                    raise InputError(f"{shown}: {key} has shape {values.shape}, the images {images.shape}")
                found.append(fits.ImageHDU(_numbers(values, f"{key} of {shown}"), name=name))
        for key in ("psf", "psfs"):
            if key in archive:
                values = _read(archive[key])
                if values.ndim not in (2, 3) or (values.ndim == 3 and len(values) != len(filters)):
                    raise InputError(f"{shown}: {key} has shape {values.shape}: give (y, x) or ({len(filters)}, y, x)")
                found.append(fits.ImageHDU(_numbers(values, f"{key} of {shown}"), name="PSF"))
    return fits.HDUList(found), filters


def _read(array: NpzArray) -> Array:
    with array.blocks(max(1, array.shape[0])) as blocks:
        values: Array = blocks.read()
    return values
