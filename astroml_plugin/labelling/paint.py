"""Stamps as people look at them: contrast-stretched, in colour where there are bands for it. Pure functions."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.stats import mad_std
from astropy.visualization import AsinhStretch, ManualInterval, make_lupton_rgb
from numpy.typing import NDArray

from astroml_plugin.core.typing import F64, U8, Bool

UNUSABLE = (58, 44, 66)
"""Colour of pixels without a value."""

_KNOWN = {
    **{"fuv": 153, "nuv": 231, "u": 355, "b": 440, "g": 477, "v": 550, "r": 623, "vis": 715, "i": 763, "z": 905},
    **{"y": 1000, "j": 1250, "h": 1650, "k": 2150, "ks": 2150, "w1": 3400, "w2": 4600, "w3": 12_000, "w4": 22_000},
    **{"ch1": 3600, "ch2": 4500, "ch3": 5800, "ch4": 8000, "i1": 3600, "i2": 4500, "i3": 5800, "i4": 8000},
}
"""Nanometres of bands whose names say no number."""

_WEBB = re.compile(
    r"f(070|090|115|140|150|162|164|182|187|200|210|212|250|277|300|322|335|356|360|410|430|444|480)[wmn]2?"
)
"""Filters of NIRCam, whose numbers are hundredths of a micrometre, where a set of bands has no others."""

_Q = 8.0
"""Softening of Lupton et al. (2004, PASP 116, 133)."""

_SOFT = 25.0
"""Stretch of Lupton et al. in noise sigmas: sky noise stays dark, a hundred sigmas are bright."""

_GRAY_SOFT = 12.0
_GRAY_TOP = 150.0


@dataclass(frozen=True)
class Painter:
    """Pixels (band, y, x) to pictures, the same way for all objects of a source, so that they can be compared."""

    bands: tuple[str, ...]
    """Bands of the pixels."""
    noise: tuple[float, ...] | None
    """Noise of a pixel in each band; None for stored pictures (uint8), which are shown as they are."""
    tints: tuple[float, ...] = ()
    """Divisor of each band besides its noise, so that the typical object is neither red nor blue."""

    @classmethod
    def of(cls, images: Sequence[NDArray[np.generic]], bands: Sequence[str]) -> Painter:
        """A painter for images (band, y, x) like these: their noise, and half way to their median colour.

        With noise alone a band that is deep makes everything its colour; with colours alone a noisy one a coloured
        sky. Zero points, where there are any, need not be equal.
        """
        if images and images[0].dtype == np.uint8:
            return cls(tuple(bands), None)
        noise = [
            _positive(np.nanmedian([_noise(np.asarray(image[number], np.float64)) for image in images] or [1.0]))
            for number in range(len(bands))
        ]
        signal = [
            max(
                1.0,
                float(np.nanmedian([_light(np.asarray(image[number], np.float64)) for image in images] or [1.0]))
                / spread,
            )
            for number, spread in enumerate(noise)
        ]
        signal = [value if np.isfinite(value) else 1.0 for value in signal]
        middle = float(np.exp(np.mean(np.log(signal))))
        return cls(tuple(bands), tuple(noise), tuple(float(np.sqrt(value / middle)) for value in signal))

    def picture(
        self,
        image: NDArray[np.generic],
        valid: Bool | None = None,
        *,
        contrast: float = 1.0,
        own: bool = False,
    ) -> U8:
        """(y, x, 3) uint8, first row at the bottom of the sky (y up).

        Args:
            image: (band, y, x) as stored.
            valid: same shape: which pixels can be used.
            contrast: above 1 shows fainter light.
            own: stretch to the brightest pixels of this object instead of the noise of all; stored pictures stay.
        """
        usable = np.ones(image.shape, bool) if valid is None else valid
        if self.noise is None:
            shown = _as_stored(image, self.bands)
            if contrast != 1:
                shown = (255 * (shown / 255.0) ** (1 / contrast)).astype(np.uint8)
        else:
            shown = self._stretched(np.asarray(image, np.float64), usable, contrast, own)
        shown[~usable.any(0)] = UNUSABLE
        return np.ascontiguousarray(shown[::-1] if self.noise is not None else shown)

    def _stretched(self, image: F64, usable: Bool, contrast: float, own: bool) -> U8:
        assert self.noise is not None
        scaled = np.stack(
            [
                np.where(good, (plane - _sky(plane, good)) / (noise * tint), 0.0)
                for plane, good, noise, tint in zip(
                    image, usable & np.isfinite(image), self.noise, self.tints or (1.0,) * len(self.noise), strict=True
                )
            ]
        )
        red, green, blue = (scaled[list(index)].mean(0) for index in colours(self.bands))
        top = float(np.percentile((red + green + blue) / 3, 99.5)) if own else 0.0
        if len(self.bands) == 1:
            return _gray(
                red, top / 10 if own else _GRAY_SOFT / contrast, max(top, 5.0) if own else _GRAY_TOP / contrast
            )
        soft = max(top / 10, 4.0) if own else _SOFT / contrast
        return np.asarray(make_lupton_rgb(red, green, blue, minimum=-1.0, stretch=soft, Q=_Q), np.uint8)


def colours(bands: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Which bands make red, green and blue: by wavelength where names are known, else as stored, the last is red."""
    if is_rgb(bands):
        lowered = [name.lower()[0] for name in bands]
        return (lowered.index("r"),), (lowered.index("g"),), (lowered.index("b"),)
    found = wavelengths(bands)
    order = sorted(range(len(bands)), key=lambda number: found[number])
    named = {bands[number].lower(): number for number in order}
    if len(order) > 3 and {"g", "r", "i"} <= set(named):
        order = [named["g"], named["r"], named["i"]]
    middle = (order[0], order[-1]) if len(order) == 2 else (order[len(order) // 2],)
    return (order[-1],), middle, (order[0],)


def is_rgb(bands: Sequence[str]) -> bool:
    """Whether the bands are the three colours of a picture."""
    return sorted(name.lower() for name in bands) in (["b", "g", "r"], ["blue", "green", "red"])


def wavelengths(bands: Sequence[str]) -> list[float]:
    """Nanometres of each band, for sorting: known names with or without those of a camera (HSC-I, decam_g, NISP_Y),
    numbers in names (F814W); else its place among the bands.
    """
    webb = all(_WEBB.fullmatch(name.lower()) for name in bands)
    return [_wavelength(name.lower(), place, webb=webb) for place, name in enumerate(bands)]


def _wavelength(name: str, place: int, *, webb: bool) -> float:
    words = re.split(r"[\s_.:/-]+", name)
    known = next((_KNOWN[word] for word in (name, *reversed(words)) if word in _KNOWN), None)
    if known is not None:
        return known
    digits = re.search(r"\d{3,}", name)
    if not digits:
        return float(place)
    number = float(digits[0])
    infrared = webb or (name.startswith("f") and number < 200)  # F160W of WFC3, F115W: hundredths of a micrometre
    return 10 * number if infrared else number


def _as_stored(image: NDArray[np.generic], bands: Sequence[str]) -> U8:
    """Stored pictures: three bands are red, green, blue in their order unless their names say otherwise."""
    plane = np.asarray(image, np.uint8)
    if len(plane) == 3:
        named = is_rgb(bands)
        index = [item[0] for item in colours(bands)] if named else [0, 1, 2]
    else:
        index = [item[0] for item in colours(bands)]
    return np.stack([plane[number] for number in index], axis=-1)


def _gray(values: F64, soft: float, top: float) -> U8:
    low = -2.0
    scaled = ManualInterval(low, top)(values)
    stretched = AsinhStretch(float(np.clip(soft / (top - low), 0.02, 1.0)))(scaled)
    return np.repeat((255 * np.clip(stretched, 0, 1)).astype(np.uint8)[..., None], 3, axis=-1)


def _border(plane: F64, good: Bool) -> F64:
    """Usable pixels of the outermost sixth."""
    width = max(1, min(plane.shape) // 6)
    rim = np.ones(plane.shape, bool)
    rim[width:-width, width:-width] = False
    values = plane[rim & good]
    return values if len(values) else plane[good]


def _sky(plane: F64, good: Bool) -> float:
    values = _border(plane, good)
    return float(np.median(values)) if len(values) else 0.0


def _light(plane: F64) -> float:
    """Brightness of the object above its sky: the 98th percentile."""
    good = np.isfinite(plane)
    return float(np.percentile(plane[good], 98) - _sky(plane, good)) if good.any() else float("nan")


def _noise(plane: F64) -> float:
    values = _border(plane, np.isfinite(plane))
    return float(mad_std(values)) if len(values) > 8 else float("nan")


def _positive(value: float) -> float:
    return float(value) if np.isfinite(value) and value > 0 else 1.0


def png(picture: U8) -> bytes:
    """A picture as PNG."""
    from PIL import Image as Pillow

    sink = io.BytesIO()
    Pillow.fromarray(picture).save(sink, "PNG")
    return sink.getvalue()
