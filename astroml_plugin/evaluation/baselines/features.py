"""Catalogued features of stamps, the classical way: named columns from pixels, many stamps at once.

`shape_features` measures structure as morphological catalogues do; `gabor_features` and `edge_features` are those of
classical entries of the strong-lens finding challenge (Metcalf et al. 2019, A&A 625, A119). Every value is finite or
NaN, where a stamp does not allow it to be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from astroml_plugin.cutouts import Cutouts, from_stamps

Float = NDArray[Any]

_CHUNK = 128
"""Stamps measured together: what they need stays in the processor's cache."""
_ORDERS = 4
"""Highest order of the Fourier modes about the centre."""
_RADII = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Edges of the annuli, in Petrosian radii."""
_SHIFTS = tuple((dy, dx) for dy in range(-2, 3) for dx in range(-2, 3))
"""Twice the offsets in pixels of the centres about which a stamp is turned."""


@dataclass(frozen=True)
class Features:
    """A table of measurements."""

    names: tuple[str, ...]
    """Of the columns."""
    values: Float
    """(n, columns) float32; NaN where it cannot be measured."""


def shape_features(cutouts: Cutouts) -> Features:
    """Structure, profile, symmetry and colours of n stamps of any bands.

    On the mean of the bands, background (median of the border) removed:

    - `petrosian`, `r20`, `r50`, `r80`, `concentration` = 5 lg(r80 / r20): pixels, within 1.5 Petrosian radii
      (Petrosian 1976, ApJ 209, L1; Bershady, Jangren & Conselice 2000, AJ 119, 2645).
    - `asymmetry` under half a turn about the best of 25 centres, less that of the noise, `smoothness`: what a box of a
      quarter of the Petrosian radius takes away outside the innermost quarter, less that of the noise (Conselice 2003,
      ApJS 147, 1); `asymmetry_quarter` under a quarter turn.
    - `gini`, `m20` over the pixels above the surface brightness at the Petrosian radius (Lotz, Primack & Madau 2004,
      AJ 128, 163).
    - `ellipticity` = (a - b) / (a + b), `size` (fourth root of the determinant, pixels), `thickness` (rms width across,
      pixels) and `edge_on` = 1 - b / a of the area, not weighted by light, from second moments of those pixels.
    - `slope_…`: lg of the ratio of surface brightness from one annulus to the next; `light_…`: fractions within parts
      of the Petrosian radius; `growth_ratio`: logarithmic slope of the growth curve inside r50 over that outside, which
      grows with the Sersic index (growth curves: Graham & Driver 2005, PASA 22, 118); `peak`: lg of the central
      brightness over the mean within r50.
    - `mode<m>_<k>`: relative amplitude of the Fourier mode m in annulus k (Considere & Athanassoula 1988, A&AS 76,
      365); `twist<m>`: how little its phase keeps over the annuli, since arms turn with radius, bars and disks seen
      from the edge do not; `winding`: by how much mode 2 turns, `handed`: how much of that in one sense, whichever.
    - `second_source`: flux of the brightest other peak over that of the centre, in 5 x 5 pixels, `second_distance` in
      pixels, `sources`: peaks of a tenth of the centre or more; `offset` of the centre of light, `area` (square root),
      both in pixels; `snr` (lg); `surface`: lg of the brightness at the Petrosian radius.

    For every band `flux_<band>` (lg), `r50_<band>`, `concentration_<band>`; for neighbouring bands `colour_<a>_<b>` =
    -2.5 lg(a / b) and `colour_gradient_<a>_<b>`, that within r50 less that from there to the edge.

    Args:
        cutouts: n stamps of one size, raw pixels.
    """
    return _in_parts(cutouts, _shape_part)


def _in_parts(cutouts: Cutouts, measure: Callable[[Cutouts], dict[str, Float]]) -> Features:
    """The table of a few stamps at a time; what is not finite becomes NaN."""
    if len(cutouts) == 0:
        blank = np.zeros((1, *cutouts.image.shape[1:]), np.float32)
        found = _in_parts(from_stamps(blank, None, None, bands=cutouts.bands), measure)
        return Features(found.names, found.values[:0])
    parts = [measure(cutouts.take(slice(start, start + _CHUNK))) for start in range(0, len(cutouts), _CHUNK)]
    names = tuple(parts[0])
    values = np.concatenate([np.stack([part[name] for name in names], axis=1) for part in parts]).astype(np.float32)
    return Features(names, np.where(np.isfinite(values), values, np.float32(np.nan)))


def _shape_part(cutouts: Cutouts) -> dict[str, Float]:
    pixels, noise = _cleaned(cutouts)
    with np.errstate(all="ignore"):
        light = pixels.mean(1)
        sigma = np.sqrt((noise**2).sum(1)) / pixels.shape[1]
        rings = _rings(light.shape[1:])
        seen = _Profile(light, sigma, rings)
        smooth = _box(light, 3)
        used, level = _object_pixels(light, smooth, seen, rings)
        return {
            **seen.columns(sigma),
            **_gini_m20(light, used),
            **_moments(light, used),
            **_asymmetry(light, sigma, seen, rings),
            **_smoothness(light, smooth, sigma, seen, rings),
            **_modes(light, seen, rings),
            **_second_source(light, smooth, sigma, rings),
            "area": np.sqrt(used.sum((1, 2))),
            "surface": _lg(level),
            **_colours(pixels, seen, rings, cutouts.bands),
        }


def _cleaned(cutouts: Cutouts) -> tuple[Float, Float]:
    """Pixels (n, band, h, w) float32 less their background, and the noise of each band (n, band), from the border."""
    pixels = cutouts.image.to(torch.float32).numpy()
    height, width = pixels.shape[-2:]
    edge = max(2, min(height, width) // 16)
    frame = np.ones((height, width), bool)
    frame[edge:-edge, edge:-edge] = False
    valid = cutouts.valid.numpy()
    if valid.all():
        low, middle, high = _quantiles(pixels[:, :, frame])
        return pixels - middle[:, :, None, None], (high - low) / 2
    low, middle, high = _valid_quantiles(pixels[:, :, frame], valid[:, :, frame])
    return np.where(valid, pixels - middle[:, :, None, None], np.float32(0)), (high - low) / 2


_QUANTILES = (0.1587, 0.5, 0.8413)


def _quantiles(border: Float) -> tuple[Float, Float, Float]:
    """16, 50 and 84 % along the last axis."""
    places = [int(part * border.shape[-1]) for part in _QUANTILES]
    found = np.partition(border, places, axis=-1)
    return found[..., places[0]], found[..., places[1]], found[..., places[2]]


def _valid_quantiles(border: Float, valid: Float) -> tuple[Float, Float, Float]:
    """The same of valid pixels; 0 where there are none."""
    ranked = np.sort(np.where(valid, border, np.inf), axis=-1)
    count = valid.sum(-1)
    places = [(part * count).astype(int)[..., None] for part in _QUANTILES]
    found = [np.take_along_axis(ranked, np.minimum(place, ranked.shape[-1] - 1), -1)[..., 0] for place in places]
    low, middle, high = (np.where(count > 0, values, np.float32(0)) for values in found)
    return low, middle, high


@dataclass(frozen=True)
class _Rings:
    """Rings one pixel wide about the centre, for stamps of one size."""

    radius: Float
    """(h, w) pixels from the centre."""
    member: Float
    """(h w, rings) float32, 1 where the pixel lies in the ring."""
    count: Float
    """(rings,) pixels in each ring."""
    waves: Float
    """(h w, 2 orders rings) cosine and sine of each order within each ring."""
    inward: tuple[tuple[Float, Float], ...]
    """Per ring from 1 px on: its pixels, and for each the next one on the way to the centre."""

    @property
    def area(self) -> Float:
        """(rings,) pi ((k + 1)^2 - k^2) pixels."""
        return np.pi * (2 * np.arange(self.last) + 1)

    @property
    def last(self) -> int:
        """Number of rings."""
        return len(self.count)


@lru_cache(maxsize=8)
def _rings(shape: tuple[int, int]) -> _Rings:
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    radius = np.hypot(x, y)
    last = max(2, min(height, width) // 2)
    number = np.minimum(radius.astype(int), last)
    member = (number.reshape(-1, 1) == np.arange(last)).astype(np.float32)
    angle = np.arctan2(y, x).reshape(-1, 1)
    waves = [member * wave(order * angle) for order in range(1, _ORDERS + 1) for wave in (np.cos, np.sin)]
    inner = [
        np.rint(axis * (1 - 1 / np.maximum(radius, 1)) + middle).astype(int)
        for axis, middle in ((y, (height - 1) / 2), (x, (width - 1) / 2))
    ]
    steps = np.ravel_multi_index(tuple(inner), shape).reshape(-1)
    order = [np.flatnonzero(np.floor(radius.reshape(-1)) == ring) for ring in range(1, int(radius.max()) + 1)]
    return _Rings(
        radius,
        member,
        member.sum(0),
        np.concatenate(waves, 1).astype(np.float32),
        tuple((pixels, steps[pixels]) for pixels in order),
    )


def _ring_sums(image: Float, rings: _Rings) -> Float:
    """(n, rings) light in each ring: the mean of its pixels times its area."""
    return (image.reshape(len(image), -1) @ rings.member) * (rings.area / rings.count)


class _Profile:
    """The radial profile of n images and the radii that follow from it.

    The Petrosian radius comes from the part of the light that is there on both sides of the centre (the lesser of each
    pair of pixels, less what noise takes away), so that a neighbour does not make an object larger.
    """

    def __init__(self, light: Float, sigma: Float, rings: _Rings) -> None:
        self.sums = _ring_sums(light, rings)
        self.grown = np.concatenate([np.zeros((len(light), 1)), np.cumsum(self.sums, 1)], axis=1)
        self.mean = self.sums / rings.area
        both = _ring_sums(np.minimum(light, light[:, ::-1, ::-1]), rings) + rings.count * sigma[:, None] / np.sqrt(
            np.pi
        )
        inside = np.cumsum(both, 1) / np.cumsum(rings.area)
        self.petrosian = _first_below(both / rings.area / inside, 0.2, start=2) + 0.5
        self.edge = np.minimum(1.5 * self.petrosian, rings.last)
        self.total = _at(self.grown, self.edge)
        self.r20, self.r50, self.r80 = (_reaches(self.grown, part * self.total) for part in (0.2, 0.5, 0.8))

    def columns(self, sigma: Float) -> dict[str, Float]:
        fractions = {f"light_{part}": _at(self.grown, part * self.petrosian) / self.total for part in _RADII}
        edges = [_at(self.grown, part * self.petrosian) for part in (0.0, *_RADII)]
        areas = [(part * self.petrosian) ** 2 for part in (0.0, *_RADII)]
        levels = [(b - a) / (d - c) for a, b, c, d in zip(edges, edges[1:], areas, areas[1:])]
        slopes = {f"slope_{number}": _lg(b) - _lg(a) for number, (a, b) in enumerate(pairwise(levels))}
        curve = np.log(0.5 / 0.2) / np.log(self.r50 / self.r20) / (np.log(0.8 / 0.5) / np.log(self.r80 / self.r50))
        return {
            "petrosian": self.petrosian,
            "r20": self.r20,
            "r50": self.r50,
            "r80": self.r80,
            "concentration": 5 * np.log10(self.r80 / self.r20),
            "growth_ratio": curve,
            "peak": _lg(self.mean[:, 0] / (self.total / (np.pi * self.r50**2))),
            "snr": _lg(self.total / (sigma * np.sqrt(np.pi) * self.edge)),
            **fractions,
            **slopes,
        }


def _first_below(values: Float, level: float, start: int) -> Float:
    """(n,) place where `values` (n, k) first falls below the level from `start` on, interpolated; the last if never."""
    below = values[:, start:] < level
    place = np.where(below.any(1), below.argmax(1) + start, values.shape[1] - 1)
    rows = np.arange(len(values))
    high, low = values[rows, place - 1], values[rows, place]
    step = np.clip((high - level) / np.where(high > low, high - low, 1), 0, 1)
    return np.where(below.any(1), place - 1 + step, place)


def _at(grown: Float, radius: Float) -> Float:
    """(n,) the growth curve (n, k) at radii (n,), linear between whole pixels in area."""
    place = np.clip(np.nan_to_num(radius), 0, grown.shape[1] - 1)
    below = np.minimum(place.astype(int), grown.shape[1] - 2)
    rows = np.arange(len(grown))
    step = (place**2 - below**2) / (2 * below + 1)
    return grown[rows, below] * (1 - step) + grown[rows, below + 1] * step


def _reaches(grown: Float, wanted: Float) -> Float:
    """(n,) radius at which the growth curve (n, k) first reaches a value (n,), linear in area; NaN without light."""
    above = grown >= wanted[:, None]
    place = np.maximum(above.argmax(1), 1)
    rows = np.arange(len(grown))
    low, high = grown[rows, place - 1], grown[rows, place]
    step = np.clip((wanted - low) / np.where(high > low, high - low, 1), 0, 1)
    radius = np.sqrt((place - 1) ** 2 + step * (2 * place - 1))
    return np.where((wanted > 0) & above.any(1), radius, np.nan)


def _lg(values: Float) -> Float:
    return np.log10(np.where(values > 0, values, np.nan))


def _object_pixels(light: Float, smooth: Float, seen: _Profile, rings: _Rings) -> tuple[Float, Float]:
    """Pixels (n, h, w) bool of the object, and their least surface brightness (n,), that at the Petrosian radius.

    Their 3 x 3 mean is at least that bright, and so is every pixel on the way to the centre: neighbours stay out.
    """
    ring = np.clip(seen.petrosian.astype(int), 0, rings.last - 1)
    level = np.maximum(seen.mean[np.arange(len(light)), ring], 0)
    bright = (smooth >= level[:, None, None]) & (light != 0)
    inside = np.ascontiguousarray(bright.reshape(len(light), -1).T)
    for pixels, inner in rings.inward:
        inside[pixels] &= inside[inner]
    return inside.T.reshape(light.shape) & (rings.radius <= seen.edge[:, None, None]), level


def _box(image: Float, side: int) -> Float:
    """Mean over side x side pixels (odd); beyond the edge the edge goes on."""
    half = side // 2
    padded = np.pad(image, ((0, 0), (half, half), (half, half)), mode="edge")
    height, width = image.shape[1:]
    rows = padded[:, :height].copy()
    for k in range(1, side):
        rows += padded[:, k : k + height]
    found = rows[:, :, :width].copy()
    for k in range(1, side):
        found += rows[:, :, k : k + width]
    found *= np.float32(1 / side**2)
    return found


def _gini_m20(light: Float, used: Float) -> dict[str, Float]:
    flat, inside = np.abs(np.where(used, light, 0)).reshape(len(light), -1), used.reshape(len(light), -1)
    count = inside.sum(1)
    ranked = np.sort(flat, axis=1)  # pixels outside are the zeros in front
    order = np.arange(1, flat.shape[1] + 1, dtype=np.float32)
    total = ranked.sum(1, dtype=np.float64)
    offset = 2 * (flat.shape[1] - count) + count + 1
    gini = (2 * (ranked @ order).astype(np.float64) - offset * total) / (total * (count - 1))
    grown = np.cumsum(ranked[:, ::-1], axis=1)
    fifth = np.minimum((grown < 0.2 * total[:, None]).sum(1), flat.shape[1] - 1)
    level = ranked[np.arange(len(flat)), flat.shape[1] - 1 - fifth]
    bright = np.where(flat >= level[:, None], flat, 0)
    height, width = light.shape[1:]
    y, x = (axis.reshape(-1).astype(np.float32) for axis in np.mgrid[:height, :width])
    base = np.stack([np.ones_like(x), x, y, x * x + y * y], axis=1)
    whole, brightest = (flat @ base).astype(np.float64), (bright @ base).astype(np.float64)
    cx, cy = whole[:, 1] / whole[:, 0], whole[:, 2] / whole[:, 0]

    def second(sums: Float) -> Float:
        return sums[:, 3] - 2 * cx * sums[:, 1] - 2 * cy * sums[:, 2] + (cx**2 + cy**2) * sums[:, 0]

    offset_x, offset_y = cx - (width - 1) / 2, cy - (height - 1) / 2
    return {"gini": gini, "m20": _lg(second(brightest) / second(whole)), "offset": np.hypot(offset_x, offset_y)}


def _moments(light: Float, used: Float) -> dict[str, Float]:
    height, width = light.shape[1:]
    y, x = (axis.reshape(-1).astype(np.float32) for axis in np.mgrid[:height, :width])
    base = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)

    def axes(weight: Float) -> tuple[Float, Float]:
        sums = (weight.reshape(len(weight), -1) @ base).astype(np.float64)
        _, sx, sy, sxx, sxy, syy = (sums / sums[:, :1]).T
        xx, xy, yy = sxx - sx**2, sxy - sx * sy, syy - sy**2
        half, root = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
        return np.sqrt(half + root), np.sqrt(np.maximum(half - root, 0))

    major, minor = axes(np.where(used, np.maximum(light, 0), 0))
    long, short = axes(used.astype(np.float32))
    peak = np.where(used, light, 0).reshape(len(light), -1).max(1)
    core_long, core_short = axes((used & (light > 0.25 * peak[:, None, None])).astype(np.float32))
    return {
        "ellipticity": (major - minor) / (major + minor),
        "size": np.sqrt(major * minor),
        "thickness": minor,
        "edge_on": 1 - short / long,
        "edge_on_core": 1 - core_short / core_long,
        "core": core_long / long,
        "fill": 4 * np.pi * long * short / used.sum((1, 2)),
    }


def _overlap(image: Float, dy: int, dx: int) -> Float:
    """The part of images (n, h, w) that remains when they are moved by (dy, dx) pixels over their stamp."""
    height, width = image.shape[1:]
    return image[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]


def _turned_difference(light: Float, weight: Float, dy: int, dx: int) -> tuple[Float, Float]:
    """Sums of |I - I turned by half| and of weights, about a centre that is (dy, dx) half pixels off."""
    within = _overlap(weight, dy, dx)
    part = np.abs(_overlap(light, dy, dx) - _overlap(light[:, ::-1, ::-1], -dy, -dx))
    return np.einsum("nyx,nyx->n", part, within), within.sum((1, 2))


def _best_centres(light: Float) -> NDArray[np.int64]:
    """(n,) number in `_SHIFTS` of the centre about which the innermost quarter of a stamp is most alike when turned."""
    height, width = light.shape[1:]
    core = np.ascontiguousarray(light[:, height // 4 : height - height // 4, width // 4 : width - width // 4])
    even = np.ones_like(core)
    found = [np.divide(*_turned_difference(core, even, dy, dx)) for dy, dx in _SHIFTS]
    return np.argmin(found, axis=0)


def _asymmetry(light: Float, sigma: Float, seen: _Profile, rings: _Rings) -> dict[str, Float]:
    weight = (rings.radius <= seen.edge[:, None, None]).astype(np.float32)
    total = np.einsum("nyx,nyx->n", np.abs(light), weight)
    best = _best_centres(light)
    sums, counts = np.empty(len(light)), np.empty(len(light))
    for number in np.unique(best):
        rows = np.flatnonzero(best == number)
        sums[rows], counts[rows] = _turned_difference(light[rows], weight[rows], *_SHIFTS[number])
    noise = counts * 2 * sigma / np.sqrt(np.pi)
    columns = {"asymmetry": (sums - noise) / total}
    if light.shape[1] == light.shape[2]:
        quarter = np.abs(light - np.swapaxes(light, 1, 2)[:, :, ::-1])
        columns["asymmetry_quarter"] = (np.einsum("nyx,nyx->n", quarter, weight) - noise) / total
    return columns


def _smoothness(light: Float, smooth: Float, sigma: Float, seen: _Profile, rings: _Rings) -> dict[str, Float]:
    side = 2 * np.clip((seen.petrosian / 8).round(), 1, 4).astype(int) + 1
    found = np.empty(len(light))
    for width in np.unique(side):
        rows = np.flatnonzero(side == width)
        radius = rings.radius[None]
        outer, inner = seen.edge[rows, None, None], 0.25 * seen.petrosian[rows, None, None]
        where = (radius <= outer) & (radius >= inner)
        rest = np.maximum(light[rows] - (smooth[rows] if width == 3 else _box(light[rows], int(width))), 0)
        noise = sigma[rows] * np.sqrt((1 - 1 / width**2) / (2 * np.pi))
        found[rows] = ((rest * where).sum((1, 2)) - where.sum((1, 2)) * noise) / (light[rows] * where).sum((1, 2))
    return {"smoothness": found}


def _modes(light: Float, seen: _Profile, rings: _Rings) -> dict[str, Float]:
    sums = (light.reshape(len(light), -1) @ rings.waves).reshape(len(light), _ORDERS, 2, rings.last)
    grown = np.cumsum(sums[:, :, 0] + 1j * sums[:, :, 1], axis=2)
    grown = np.concatenate([np.zeros((len(light), _ORDERS, 1)), grown], axis=2)
    columns: dict[str, Float] = {}
    light_at = [_at(seen.grown, part * seen.petrosian) for part in (0.0, *_RADII)]
    rings_light = np.stack([b - a for a, b in pairwise(light_at)], axis=1)
    for order in range(1, _ORDERS + 1):
        at = [_at(grown[:, order - 1], part * seen.petrosian) for part in (0.0, *_RADII)]
        mode = np.stack([b - a for a, b in pairwise(at)], axis=1)
        for number in range(len(_RADII)):
            columns[f"mode{order}_{number}"] = np.abs(mode[:, number]) / rings_light[:, number]
        columns[f"twist{order}"] = 1 - np.abs(mode[:, 1:].sum(1)) / np.abs(mode[:, 1:]).sum(1)
        if order == 2:
            turn = np.angle(mode[:, 1:] * np.conj(mode[:, :-1]))
            columns["handed"] = np.abs(turn.sum(1)) / np.abs(turn).sum(1)
            columns["winding"] = np.abs(turn.sum(1))
    return columns


def _second_source(light: Float, smooth: Float, sigma: Float, rings: _Rings) -> dict[str, Float]:
    wide = _box(light, 5)
    height, width = light.shape[1:]
    inside = smooth[:, 1:-1, 1:-1]
    peak = inside > 2 * sigma[:, None, None]
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
        peak &= inside >= smooth[:, 1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx]
    radius = rings.radius[1:-1, 1:-1]
    centre = np.where(radius <= 4, wide[:, 1:-1, 1:-1], -np.inf).max((1, 2))
    others = np.where(peak & (radius > 5), wide[:, 1:-1, 1:-1], 0).reshape(len(light), -1)
    place = others.argmax(1)
    brightest = others[np.arange(len(light)), place]
    return {
        "second_source": brightest / centre,
        "second_distance": np.where(brightest > 0, radius.reshape(-1)[place], 0),
        "sources": (others > 0.1 * centre[:, None]).sum(1).astype(np.float64),
    }


def _colours(pixels: Float, seen: _Profile, rings: _Rings, bands: Sequence[str]) -> dict[str, Float]:
    columns: dict[str, Float] = {}
    within, beyond = [], []
    for number, name in enumerate(bands):
        sums = _ring_sums(pixels[:, number], rings)
        grown = np.concatenate([np.zeros((len(sums), 1)), np.cumsum(sums, 1)], axis=1)
        total, core = _at(grown, seen.edge), _at(grown, seen.r50)
        within.append(core)
        beyond.append(total - core)
        columns[f"flux_{name}"] = _lg(total)
        r20, r50, r80 = (_reaches(grown, part * total) for part in (0.2, 0.5, 0.8))
        columns |= {f"r50_{name}": r50 / seen.r50, f"concentration_{name}": 5 * np.log10(r80 / r20)}
    for number, (a, b) in enumerate(pairwise(bands)):
        inner, outer = (-2.5 * (_lg(part[number]) - _lg(part[number + 1])) for part in (within, beyond))
        columns[f"colour_{a}_{b}"] = -2.5 * (columns[f"flux_{a}"] - columns[f"flux_{b}"])
        columns[f"colour_gradient_{a}_{b}"] = inner - outer
    return columns


# ---- the features of the strong-lens finding challenge -----------------------------------------------------------


def gabor_features(cutouts: Cutouts) -> Features:
    """Responses to a bank of Gabor filters: 3 wavelengths, 6 directions, of the mean of the bands and first less last.

    Mean and standard deviation of the amplitude over all directions, and the largest direction over their mean, each in
    the centre, in an annulus and outside it, as fed to a support vector machine by Hartley et al. 2017 (MNRAS 471,
    3378).

    Args:
        cutouts: n stamps of 16 px or more, raw pixels.
    """
    return _in_parts(cutouts, _gabor_part)


_WAVELENGTHS = (3.0, 6.0, 12.0)
_DIRECTIONS = 6


@lru_cache(maxsize=16)
def _gabor_bank(size: tuple[int, int], wavelength: float) -> torch.Tensor:
    """(direction, h, w // 2 + 1) transfer functions of zero mean, for stamps of that size."""
    ky, kx = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1]), indexing="ij")
    bank = np.zeros((_DIRECTIONS, *kx.shape))
    width = 0.56 * wavelength
    for number in range(_DIRECTIONS):
        angle = np.pi * number / _DIRECTIONS
        fx, fy = np.cos(angle) / wavelength, np.sin(angle) / wavelength
        for sign in (1, -1):
            bank[number] += np.exp(-2 * (np.pi * width) ** 2 * ((kx - sign * fx) ** 2 + (ky - sign * fy) ** 2))
    bank[:, 0, 0] = 0
    return torch.from_numpy(bank.astype(np.float32))


def _gabor_part(cutouts: Cutouts) -> dict[str, Float]:
    pixels, noise = _cleaned(cutouts)
    stretched = [_stretched(pixels[:, number], noise[:, number]) for number in range(pixels.shape[1])]
    planes = {"mean": np.mean(stretched, axis=0)}
    if len(stretched) > 1:
        planes["difference"] = stretched[0] - stretched[-1]
    columns: dict[str, Float] = {}
    for name, plane in planes.items():
        for number, wavelength in enumerate(_WAVELENGTHS):
            binned, step = _halved(plane, number)
            columns |= _gabor_columns(binned, wavelength / step, f"gabor_{name}_{wavelength:g}")
    return columns


def _halved(plane: Float, times: int) -> tuple[Float, int]:
    """Images (n, h, w) averaged in 2 x 2 pixels up to so many times, while 16 px remain; and pixels per pixel."""
    step = 1
    while step < 2**times and min(plane.shape[1:]) >= 32:
        height, width = plane.shape[1] // 2, plane.shape[2] // 2
        plane = plane[:, : 2 * height, : 2 * width].reshape(len(plane), height, 2, width, 2).mean((2, 4))
        step *= 2
    return plane, step


def _gabor_columns(plane: Float, wavelength: float, name: str) -> dict[str, Float]:
    size = plane.shape[1:]
    columns: dict[str, Float] = {}
    turned = torch.fft.rfft2(torch.from_numpy(np.ascontiguousarray(plane)))
    found = torch.fft.irfft2(turned[:, None] * _gabor_bank(size, wavelength), s=size).abs().flatten(2)
    radius, fourth = _rings(size).radius.reshape(-1), min(size) / 4
    inner, outer = radius < fourth / 2, radius >= fourth
    for zone, where in {"centre": inner, "annulus": ~inner & ~outer, "outside": outer}.items():
        weight = torch.from_numpy(where.astype(np.float32)) / where.sum()
        mean, square = (found @ weight).numpy(), ((found**2) @ weight).numpy()
        middle = mean.mean(1)
        columns[f"{name}_{zone}_mean"] = middle
        columns[f"{name}_{zone}_scatter"] = np.sqrt(np.maximum(square.mean(1) - middle**2, 0))
        columns[f"{name}_{zone}_direction"] = mean.max(1) / np.maximum(middle, 1e-12)
    return columns


def _stretched(plane: Float, noise: Float) -> Float:
    """arcsinh of the signal-to-noise of each pixel."""
    scale = np.where(noise > 0, noise, np.maximum(np.abs(plane).max((1, 2)), 1e-12) / 100)
    return np.arcsinh(plane / scale[:, None, None]).astype(np.float32)


def edge_features(cutouts: Cutouts) -> Features:
    """Histograms of oriented gradients of the mean of the bands: 9 directions in cells of an eighth of the stamp.

    Cells are normalised in blocks of 2 x 2 (Dalal & Triggs 2005, CVPR 1, 886), as fed to a logistic regression by
    Avestruz et al. 2019 (ApJ 877, 58).

    Args:
        cutouts: n stamps of 16 px or more, raw pixels.
    """
    return _in_parts(cutouts, _edge_part)


_CELLS, _BINS = 8, 9


def _edge_part(cutouts: Cutouts) -> dict[str, Float]:
    pixels, noise = _cleaned(cutouts)
    plane = _stretched(pixels.mean(1), np.sqrt((noise**2).sum(1)) / pixels.shape[1])
    count, height, width = plane.shape
    dy, dx = np.zeros_like(plane), np.zeros_like(plane)
    dy[:, 1:-1], dx[:, :, 1:-1] = plane[:, 2:] - plane[:, :-2], plane[:, :, 2:] - plane[:, :, :-2]
    size = np.hypot(dx, dy)
    place = (np.arctan2(dy, dx) % np.pi) * (_BINS / np.pi)
    low = place.astype(np.int64)
    step = (place - low).astype(np.float32)
    cell = np.add.outer(np.arange(height) * _CELLS // height * _CELLS, np.arange(width) * _CELLS // width)
    base = (np.arange(count)[:, None, None] * _CELLS**2 + cell) * _BINS
    total = count * _CELLS**2 * _BINS
    histogram = np.bincount((base + low % _BINS).ravel(), (size * (1 - step)).ravel(), total)
    histogram += np.bincount((base + (low + 1) % _BINS).ravel(), (size * step).ravel(), total)
    cells = histogram.reshape(count, _CELLS, _CELLS, _BINS)
    blocks = np.concatenate([cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1], cells[:, 1:, 1:]], axis=-1)
    blocks = blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + 1e-6)
    flat = blocks.reshape(count, -1)
    return {f"edge_{number}": flat[:, number] for number in range(flat.shape[1])}


def pixel_features(cutouts: Cutouts, side: int = 32) -> Features:
    """Stretched pixels, binned to at most `side` x `side` per band: what a principal component analysis is fed.

    Args:
        cutouts: n stamps, raw pixels.
        side: stamps of twice the side or more are averaged in whole pixels.
    """
    return _in_parts(cutouts, lambda part: _pixel_part(part, side))


def _pixel_part(cutouts: Cutouts, side: int) -> dict[str, Float]:
    pixels, noise = _cleaned(cutouts)
    count, bands, height, width = pixels.shape
    step = max(1, min(height, width) // side)
    top, left = (height % step) // 2, (width % step) // 2
    cut = pixels[:, :, top : top + height // step * step, left : left + width // step * step]
    binned = cut.reshape(count, bands, height // step, step, width // step, step).mean((3, 5))
    flat = binned.reshape(count * bands, *binned.shape[2:])
    values = _stretched(flat, noise.reshape(-1) / step).reshape(count, -1)
    return {f"pixel_{number}": values[:, number] for number in range(values.shape[1])}


def simple_features(cutouts: Cutouts) -> Features:
    """Those of `shape_features` that anyone would look at first: fluxes, colour of the centre less that around it,
    asymmetry. A search that these solve is too easy to tell classifiers apart."""
    whole = shape_features(cutouts)
    chosen = [number for number, name in enumerate(whole.names) if name.startswith(_SIMPLE)]
    return Features(tuple(whole.names[number] for number in chosen), whole.values[:, chosen])


_SIMPLE = ("flux_", "colour_gradient_", "asymmetry")

INPUTS: dict[str, Callable[[Cutouts], Features]] = {
    "features": shape_features,
    "simple": simple_features,
    "pixels": pixel_features,
    "gabor": gabor_features,
    "edges": edge_features,
}
"""By the name that methods of `classical` ask for."""
