"""What the typicality of `segmentation` flags of what it finds: skies of its own kind, changed ones, real images.

python -m benchmarks --only foreign_fields     # skies are simulated once, below ASTROML_BENCH
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.nddata import NDData, VarianceUncertainty
from scipy import ndimage

from astroml_plugin.core import storage
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.typing import F32, F64, Array
from astroml_plugin.evaluation.calibration import wilson
from astroml_plugin.sources.survey import Survey
from benchmarks.foreign_tiles import SKIES
from benchmarks.harness import Section, scratch, shared_data
from benchmarks.segmentation_real import flat
from bundles.typicality import SURVEYS
from tests.pages import table
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.query import query
from workflows.simulate import simulate

BUNDLE = "segmentation"

LEAST = 20
"""Detections below which a kind says nothing: there the bundle finds next to nothing by itself."""

_SIDE, _SEED = 1024, 951
_FWHM = 3.5
"""Pixels, of the PSF that is given with images that have none."""

_SQL = 'SELECT typicality, flags FROM catalog WHERE "primary"'


@dataclass(frozen=True)
class Image:
    """One band of a field."""

    pixels: F32
    """(h, w), background 0."""
    variance: F32
    """(h, w)."""
    fwhm: float = _FWHM
    """Of the PSF that is given with it, pixels."""


def own() -> Iterator[tuple[str, str]]:
    """Name and source of skies of other seeds than those of the fit: five depths, and the usual one of `simulate`."""
    folder = storage.join(str(scratch()), "foreign_fields")
    for number in range(0, SKIES.skies, 2):
        options = {**SKIES.options(number), "kind": "survey", "seed": SKIES.seed + number}
        sigma = options["changes"]["camera"]["sky_sigma"]
        yield f"own, noise of {sigma:.2g} counts of 30 mag", simulate(out=f"{folder}/sky-{number}", **options).source
    usual = simulate(out=f"{folder}/sky", kind="survey", seed=2031, shape=(_SIDE, _SIDE), density=40.0, tile_size=1280)
    yield "own, as `simulate` makes skies", usual.source


def changed() -> Iterator[tuple[str, Image]]:
    """One more sky of the usual kind in r, pixels that lack filled with noise, changed in ways that the fit has not
    seen in this form."""
    random = np.random.default_rng(3)
    made = simulate(
        out=storage.join(str(scratch()), "foreign_fields", "changed"),
        kind="survey",
        seed=_SEED,
        shape=(_SIDE, _SIDE),
        tile_size=_SIDE,
        bands=("r",),
    )
    survey = Survey.open(made.source)
    tile = survey.read_tile(next(iter(survey)))
    sigma = float(np.sqrt(np.nanmedian(tile.variance)))
    noise = sigma * random.normal(size=(_SIDE, _SIDE))
    sky = np.where(np.isfinite(tile.image[0]), tile.image[0], noise)
    for name, change in _CHANGES.items():
        yield name, change(sky, sigma, random)


def _image(pixels: Array, sigma: float | Array, fwhm: float = _FWHM) -> Image:
    variance = np.broadcast_to(np.square(sigma), pixels.shape)
    return Image(pixels.astype(np.float32), variance.astype(np.float32), fwhm)


def _half(sky: F64, sigma: float, random: np.random.Generator) -> Image:
    side = len(sky) // 2
    return _image(sky.reshape(side, 2, side, 2).sum((1, 3)), 2 * sigma, _FWHM / 2)


def _twice(sky: F64, sigma: float, random: np.random.Generator) -> Image:
    return _image(ndimage.zoom(sky[: len(sky) // 2, : len(sky) // 2], 2, order=1), sigma, 2 * _FWHM)


def _smoothed(sky: F64, sigma: float, random: np.random.Generator) -> Image:
    pixels = ndimage.gaussian_filter(sky, 1.0)
    return _image(pixels, 1.4826 * float(np.median(np.abs(pixels - np.median(pixels)))))


def _trails(sky: F64, sigma: float, random: np.random.Generator) -> Image:
    y, x = np.indices(sky.shape) - len(sky) // 2
    pixels = sky.copy()
    for angle in random.uniform(0, np.pi, 12):
        distance = np.abs(x * np.sin(angle) - y * np.cos(angle) - random.uniform(-0.4, 0.4) * len(sky))
        pixels += 20 * sigma * np.exp(-(distance**2) / 8)
    return _image(pixels, sigma)


def _hits(sky: F64, sigma: float, random: np.random.Generator) -> Image:
    pixels, places = sky.copy(), tuple(random.integers(0, len(sky), (2, 3000)))
    pixels[places] += random.uniform(10, 200, 3000) * sigma
    return _image(pixels, sigma)


def _waves(sky: F64, sigma: float, random: np.random.Generator) -> Image:
    y, x = np.indices(sky.shape)
    return _image(sky + 3 * sigma * np.sin(x / 12) * np.sin(y / 17), sigma)


def _stars(fwhm: float) -> Callable[[F64, float, np.random.Generator], Image]:
    def change(sky: F64, sigma: float, random: np.random.Generator) -> Image:
        points = np.zeros(sky.shape)
        points[tuple(random.integers(10, len(sky) - 10, (2, 800)))] = 10 ** random.uniform(1.8, 4, 800) * sigma
        points *= max(1.0, (fwhm / _FWHM) ** 2)
        noise = sigma * random.normal(size=sky.shape)
        return _image(ndimage.gaussian_filter(points, fwhm / 2.355) + noise, sigma, fwhm)

    return change


_CHANGES: Mapping[str, Callable[[F64, float, np.random.Generator], Image]] = {
    "white noise": lambda sky, sigma, random: _image(sigma * random.normal(size=sky.shape), sigma),
    "inverted": lambda sky, sigma, random: _image(-sky, sigma),
    "half the size": _half,
    "twice the size": _twice,
    "smoothed (correlated noise) *": _smoothed,
    "striped rows *": lambda sky, sigma, random: _image(sky + 2 * sigma * random.normal(size=(len(sky), 1)), sigma),
    "waves in the background": _waves,
    "variance a tenth of the true one *": lambda sky, sigma, random: _image(sky, sigma * 0.1**0.5),
    "variance ten times the true one *": lambda sky, sigma, random: _image(sky, sigma * 10**0.5),
    "3,000 hit pixels": _hits,
    "twelve trails, all detections": _trails,
    "stars alone, FWHM 1.4 pixels": _stars(1.4),
    "stars alone, FWHM 3.5 pixels, 68 per arcmin²": _stars(3.5),
    "stars alone, FWHM 9 pixels": _stars(9.0),
}


def real() -> Iterator[tuple[str, Image]]:
    """Images of the data set, their background taken off; mosaics are of stamps side by side."""
    data = shared_data(".")
    if data is None:
        return
    for name, read in _REAL.items():
        tile = flat(read(data), 32 if name == "Spitzer IRAC" else 64)
        assert tile.variance is not None
        yield name, Image(tile.image[0], tile.variance[0])


def _mosaic(path: Path, key: str, side: int) -> F64:
    with np.load(path, allow_pickle=False) as kept:
        stamps = kept[key][: side * side, 0]
    height, width = stamps.shape[1:]
    mosaic: F64 = stamps.reshape(side, side, height, width).swapaxes(1, 2).reshape(side * height, side * width)
    return mosaic


def _first_plane(path: Path) -> Array:
    with fits.open(path) as opened:
        return next(np.squeeze(item.data) for item in opened if item.data is not None and item.data.ndim >= 2)


_REAL: Mapping[str, Callable[[Path], Array]] = {
    "NTT/EMMI": lambda data: _first_plane(data / "ntt" / "sep_ntt_emmi_256.fits"),
    "Euclid VIS, a group": lambda data: _first_plane(data / "euclid" / "group.fits"),
    "M 51": lambda data: _first_plane(data / "m51_512.fits"),
    "Spitzer IRAC": lambda data: _first_plane(data / "spitzer" / "spitzer_example_image.fits"),
    "FIRST, 1.4 GHz": lambda data: _first_plane(sorted((data / "radio").glob("*.fits"))[0]),
    "FIRST, mosaic of stamps": lambda data: _mosaic(data / "radio" / "mirabest_first100_dev.npz", "images", 10),
    "Devasthal, mosaic of stamps": lambda data: _mosaic(
        data / "stargalaxy" / "aries_stargalaxy64_dev.npz", "images", 16
    ),
}


def measured(bundle: str = BUNDLE) -> dict[str, dict[str, Any]]:
    """Kind -> detections, the part below the limit of the typicality, the part with OUT_OF_DOMAIN for any reason."""
    folder = Path(str(scratch())) / "foreign_fields"
    found = {name: _rates(source, bundle, str(folder / "catalogs" / name)) for name, source in own()}
    for images in (changed(), real()):
        for name, image in images:
            found[name] = _rates(_source(image, folder / "images" / name), bundle, str(folder / "catalogs" / name))
    return found


def _source(image: Image, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[-10:11, -10:11]
    psf = np.exp(-0.5 * (y**2 + x**2) / (image.fwhm / 2.355) ** 2)
    fits.writeto(folder / "psf.fits", (psf / psf.sum()).astype(np.float32), overwrite=True)
    given = NDData(image.pixels, uncertainty=VarianceUncertainty(image.variance))
    return ingest(given, out=str(folder / "survey.zarr"), bands="r", psf=(str(folder / "psf.fits"),)).source


def _rates(source: str, bundle: str, out: str) -> dict[str, Any]:
    rows = query(infer(source, bundle=bundle, out=out).catalog, _SQL).to_arrow()
    low = rows["typicality"].to_numpy() < 0.01
    flagged = (rows["flags"].to_numpy() & int(ObjectFlag.OUT_OF_DOMAIN)) > 0
    if not len(low):
        return {"detections": 0}
    return {"detections": len(low), "untypical": float(low.mean()), "flagged": float(flagged.mean())}


def run() -> Section:
    """How much is flagged of what `segmentation` finds on fields that it was not trained on."""
    rates = measured()
    text = (
        f"{run.__doc__} Of the detections the part with OUT_OF_DOMAIN, in brackets the part by the typicality alone "
        f"and its 95 % interval (Wilson). `own` are skies of other seeds than the {len(SURVEYS[BUNDLE])} depths that "
        f"it was fitted to. Where it finds fewer than {LEAST} objects, it finds next to nothing, and no part is told. "
        "Of kinds with a star (*) the fit has seen the same sort. Images without a PSF were given a Gaussian of "
        f"{_FWHM:g} pixels.\n\n"
    )
    rows = [[name, *_cells(one)] for name, one in rates.items()]
    return Section("Foreign fields", text + table(["field", "detections", "flagged"], rows), {"rates": rates})


def _cells(rate: Mapping[str, Any]) -> tuple[str, str]:
    count = rate["detections"]
    if count < LEAST:
        return f"{count:,}", "–"
    low, high = (float(end) for end in wilson(rate["untypical"], count))
    return f"{count:,}", f"{rate['flagged']:.3f} ({rate['untypical']:.3f}, {low:.3f} to {high:.3f})"
