"""Stamps of other kinds than a bundle was trained on, in the form that it takes: bands, side, kind of pixels, depth.

Real images of others are brought to the depth of the bundle's own stamps, so that not the unit gives them away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits

from astroml_plugin.core.typing import F32, F64, Array

Random = np.random.Generator


@dataclass(frozen=True)
class OwnStamps:
    """Stamps of a bundle's own population, or foreign ones in their form."""

    image: Array
    """(n, band, h, w) float32, or uint8 of pictures."""
    variance: F32 | None
    """(n, band, h, w), None where the population has none."""
    psf: F32 | None
    """(n, band, y, x), None where the population has none."""

    @property
    def pictures(self) -> bool:
        """Whether these are 8-bit pictures."""
        return bool(self.image.dtype == np.uint8)

    def with_image(self, image: Array, places: Array | None = None) -> OwnStamps:
        """Other pixels (m, band, h, w), with variances and PSFs of some of these stamps, the first ones by default."""
        chosen = np.arange(len(image)) % len(self.image) if places is None else places
        pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8) if self.pictures else image.astype(np.float32)
        variance = None if self.variance is None else self.variance[chosen]
        return OwnStamps(pixels, variance, None if self.psf is None else self.psf[chosen])


def border(image: Array, width: int = 4) -> F32:
    """(n, band, pixels) of the outermost pixels."""
    edge = np.ones(image.shape[-2:], bool)
    edge[width:-width, width:-width] = False
    return image[..., edge].astype(np.float32)


def sky(image: Array) -> tuple[F32, F32]:
    """Level and noise (n, band, 1, 1) of the outermost pixels."""
    pixels = border(image)
    level = np.median(pixels, axis=2)
    noise = 1.4826 * np.median(np.abs(pixels - level[..., None]), axis=2)
    return level[..., None, None], noise[..., None, None]


def white_noise(own: OwnStamps, random: Random) -> OwnStamps:
    """Normal noise in every pixel; of pictures of any level and size."""
    shape = own.image.shape
    if own.pictures:
        size, level = random.uniform(5, 60, (len(own.image), 1, 1, 1)), random.uniform(20, 128, (shape[0], 1, 1, 1))
        return own.with_image(level + size * random.normal(size=shape))
    level, noise = sky(own.image)
    return own.with_image(level + noise * random.normal(size=shape))


def drawn_stars(own: OwnStamps, random: Random) -> OwnStamps:
    """Point sources as bright as the population's objects, with its PSFs and noise."""
    level, noise = sky(own.image)
    side = own.image.shape[-1]
    light = np.maximum(own.image.astype(np.float32) - level, 0)
    middle = slice(side // 2 - 6, side // 2 + 7)
    total = np.maximum(light[..., middle, middle].sum((2, 3)), 10 * noise[..., 0, 0])[..., None, None]
    if own.psf is not None:
        profile = _placed(own.psf / own.psf.sum((2, 3), keepdims=True), side)
    else:
        profile = _points(side, random.uniform(2.6, 4.5, len(light)))[:, None]
    if own.pictures:
        return own.with_image(level + noise * random.normal(size=light.shape) + 3 * total * profile)
    return own.with_image(level + noise * random.normal(size=light.shape) + total * profile)


def _placed(small: F32, side: int) -> F32:
    """Images of odd or even side about pixel side // 2 of larger ones."""
    whole = np.zeros((*small.shape[:2], side, side), np.float32)
    height = min(side, small.shape[-1])
    cut = small.shape[-1] // 2 - height // 2
    start = side // 2 - height // 2
    whole[..., start : start + height, start : start + height] = small[..., cut : cut + height, cut : cut + height]
    return whole


def _points(side: int, fwhm: F64, x: Array | float = 0.0, y: Array | float = 0.0) -> F32:
    """(n, side, side) Moffat profiles of unit sum with wings, x and y pixels off the centre."""
    grid = np.arange(side) - side // 2
    across = grid[None, None, :] - np.reshape(x, (-1, 1, 1))
    along = grid[None, :, None] - np.reshape(y, (-1, 1, 1))
    core = np.reshape(fwhm, (-1, 1, 1)) / (2 * np.sqrt(2 ** (1 / 3.0) - 1))
    profile = (1 + (across**2 + along**2) / core**2) ** -3.0
    found: F32 = (profile * 2 / (np.pi * core**2)).astype(np.float32)
    return found


def wrong_band_order(own: OwnStamps, random: Random) -> OwnStamps | None:
    """Bands reversed; None of one band."""
    if own.image.shape[1] == 1:
        return None
    variance, psf = (None if plane is None else plane[:, ::-1].copy() for plane in (own.variance, own.psf))
    return OwnStamps(own.image[:, ::-1].copy(), variance, psf)


def inverted(own: OwnStamps, random: Random) -> OwnStamps:
    """Dark objects on a light sky."""
    if own.pictures:
        return own.with_image(255.0 - own.image)
    level, _ = sky(own.image)
    return own.with_image(2 * level - own.image)


def bright_star(own: OwnStamps, random: Random) -> OwnStamps:
    """A star 10 to 100 times as bright as the object, 6 pixels off to a third of the side."""
    level, _ = sky(own.image)
    count, _, side, _ = own.image.shape
    light = np.maximum(own.image.astype(np.float32) - level, 0).sum((2, 3), keepdims=True)
    radius, angle = random.uniform(6, side / 3, count), random.uniform(0, 2 * np.pi, count)
    star = _points(side, random.uniform(3, 4.5, count), radius * np.cos(angle), radius * np.sin(angle))
    factor = 10 ** random.uniform(1, 2, (count, 1, 1, 1))
    return own.with_image(own.image + factor * light * star[:, None])


def _halved(image: Array) -> F32:
    """Means of 2 x 2 pixels."""
    height, width = image.shape[-2] // 2 * 2, image.shape[-1] // 2 * 2
    part = image[..., :height, :width].astype(np.float32)
    found: F32 = part.reshape(*part.shape[:-2], height // 2, 2, width // 2, 2).mean((-3, -1))
    return found


def half_scale(own: OwnStamps, random: Random) -> OwnStamps:
    """Pixels twice as large: objects of half the size; what is missing around is mirrored."""
    small = _halved(own.image)
    side, have = own.image.shape[-1], small.shape[-1]
    before = (side - have) // 2
    pad = ((0, 0), (0, 0), (before, side - have - before), (before, side - have - before))
    image = np.pad(small, pad, mode="symmetric")
    found = own.with_image(image * (1 if own.pictures else 4))
    return found if found.variance is None else replace(found, variance=4 * found.variance)


def twice_scale(own: OwnStamps, random: Random) -> OwnStamps:
    """Pixels half as large, interpolated: objects of twice the size."""
    side = own.image.shape[-1]
    start = side // 2 - side // 4
    middle = own.image[..., start : start + side // 2 + 1, start : start + side // 2 + 1].astype(np.float32)
    place = np.arange(side) / 2
    low = np.floor(place).astype(int)
    part = (place - low).astype(np.float32)
    high = np.minimum(low + 1, middle.shape[-1] - 1)
    rows = middle[..., low, :] * (1 - part)[:, None] + middle[..., high, :] * part[:, None]
    image = rows[..., low] * (1 - part) + rows[..., high] * part
    if own.pictures or own.variance is None:
        return own.with_image(image)
    _, noise = sky(image)
    return replace(own.with_image(image), variance=np.broadcast_to(noise**2, image.shape).astype(np.float32).copy())


def trail(own: OwnStamps, random: Random) -> OwnStamps:
    """A straight line of 20 noises or more across the stamp, as of a satellite."""
    _, noise = sky(own.image)
    count, _, side, _ = own.image.shape
    angle, offset = random.uniform(0, np.pi, count)[:, None, None], random.uniform(-8, 8, count)[:, None, None]
    grid = np.arange(side) - side // 2
    distance = grid[None, None, :] * np.cos(angle) + grid[None, :, None] * np.sin(angle) - offset
    bright = 10 ** random.uniform(1.3, 2.3, (count, 1, 1, 1)) * np.maximum(noise, 1e-6)
    return own.with_image(own.image + bright * np.exp(-0.5 * (distance / 1.6) ** 2)[:, None])


def stripes(own: OwnStamps, random: Random) -> OwnStamps:
    """Rows that rise and fall by three noises, as of a bad readout."""
    _, noise = sky(own.image)
    side = own.image.shape[-1]
    wave = np.where(np.arange(side) // 2 % 2, 3.0, -3.0)[:, None]
    return own.with_image(own.image + np.maximum(noise, 1.0 if own.pictures else 0.0) * wave)


def dressed(raw: Array, own: OwnStamps, random: Random) -> OwnStamps:
    """Images of others (m, h, w) or (m, band, h, w) as such a user of the bundle would have them.

    Cut or padded to the side, one band for all; pictures are stretched from 1 % to 99.8 % of the pixels unless they are
    pictures already, others are brought to the noise of the population.
    """
    side, bands = own.image.shape[-1], own.image.shape[1]
    stack = raw[:, None] if raw.ndim == 3 else raw
    stack = _fitted(stack, side)
    if stack.shape[1] != bands:
        stack = np.repeat(stack[:, :1], bands, axis=1)
    places = random.integers(0, len(own.image), len(stack))
    if own.pictures:
        if stack.dtype != np.uint8:
            low, high = np.percentile(stack, [1, 99.8], axis=(1, 2, 3), keepdims=True)
            stack = 255 * (stack - low) / np.maximum(high - low, 1e-12)
        return own.with_image(stack, places)
    level, noise = sky(stack)
    _, wanted = sky(own.image[places])
    spread = np.where(noise > 0, noise, stack.std((2, 3), keepdims=True).clip(1e-12))
    return own.with_image((stack - level) / spread * wanted, places)


def _fitted(image: Array, side: int) -> Array:
    height = image.shape[-1]
    if height >= side:
        start = height // 2 - side // 2
        return image[..., start : start + side, start : start + side]
    before = side // 2 - height // 2
    return np.pad(image, ((0, 0), (0, 0), (before, side - height - before), (before, side - height - before)), "edge")


def real_stars(data: Path) -> Array | None:
    """(n, 64, 64) stars of the 1.3 m Devasthal telescope, 8-bit."""
    return _devasthal(data, "star")


def devasthal_galaxies(data: Path) -> Array | None:
    """(n, 64, 64) galaxies of the 1.3 m Devasthal telescope, 8-bit."""
    return _devasthal(data, "galaxy")


def _devasthal(data: Path, kind: str) -> Array | None:
    files = sorted((data / "stargalaxy").glob("*.npz"))
    if not files:
        return None
    with np.load(files[0]) as found:
        return np.asarray(found["images"][found["kind"] == kind][:, 0])


def radio(data: Path) -> Array | None:
    """(n, 100, 100) radio galaxies of FIRST (MiraBest)."""
    path = data / "radio" / "mirabest_first100_dev.npz"
    if not path.exists():
        return None
    with np.load(path) as found:
        return np.asarray(found["images"][:, 0])


def hubble(data: Path) -> Array | None:
    """(n, 96, 96) galaxies of HST, COSMOS F814W, at 0.03 arcsec per pixel."""
    path = data / "cosmos_real26" / "real_galaxy_images_extension.fits"
    if not path.exists():
        return None
    with fits.open(path, memmap=False) as file:
        images = [np.asarray(one.data, np.float32) for one in file if one.data is not None]
    return np.concatenate([_fitted(_square(one)[None, None], 96)[:, 0] for one in images])


def _square(image: F32) -> F32:
    side = min(image.shape)
    y, x = (length // 2 - side // 2 for length in image.shape)
    return image[y : y + side, x : x + side]


def sdss_pictures(data: Path) -> Array | None:
    """(n, 3, 64, 64) colour pictures of SDSS (Galaxy Zoo 2), 8-bit."""
    files = sorted((data / "gz2").glob("*.npz"))
    if not files:
        return None
    with np.load(files[0]) as found:
        return np.asarray(found["images"])


CHANGED: Mapping[str, Callable[[OwnStamps, Random], OwnStamps | None]] = {
    "white noise": white_noise,
    "stars, drawn": drawn_stars,
    "wrong band order": wrong_band_order,
    "inverted": inverted,
    "bright star beside": bright_star,
    "half the size": half_scale,
    "twice the size": twice_scale,
    "satellite trail": trail,
    "striped rows": stripes,
}
"""Kinds that are made, mostly of the population's own stamps."""

REAL: Mapping[str, Callable[[Path], Array | None]] = {
    "stars, Devasthal": real_stars,
    "galaxies, Devasthal": devasthal_galaxies,
    "radio galaxies": radio,
    "HST galaxies": hubble,
    "SDSS pictures": sdss_pictures,
}
"""Kinds that are real images of others."""
