"""Structure of galaxies from stamps, as morphological catalogues have it: many stamps at once.

Every value is finite or NaN, where a stamp does not allow it to be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from astroml_plugin.core.typing import I64, Array
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation.baselines.feature_table import Features, cleaned, in_parts
from astroml_plugin.evaluation.baselines.radial_profile import (
    ORDERS,
    RADII,
    Profile,
    Rings,
    lg,
    light_within,
    radius_holding,
    ring_sums,
    rings_of,
)

_SHIFTS = tuple((dy, dx) for dy in range(-2, 3) for dx in range(-2, 3))
"""Twice the offsets in pixels of the centres about which a stamp is turned."""


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
    return in_parts(cutouts, _shape_part)


def _shape_part(cutouts: Cutouts) -> dict[str, Array]:
    pixels, noise = cleaned(cutouts)
    with np.errstate(all="ignore"):
        light = pixels.mean(1)
        sigma = np.sqrt((noise**2).sum(1)) / pixels.shape[1]
        rings = rings_of(light.shape[1:])
        seen = Profile(light, sigma, rings)
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
            "surface": lg(level),
            **_colours(pixels, seen, rings, cutouts.bands),
        }


def _object_pixels(light: Array, smooth: Array, seen: Profile, rings: Rings) -> tuple[Array, Array]:
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


def _box(image: Array, side: int) -> Array:
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


def _gini_m20(light: Array, used: Array) -> dict[str, Array]:
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

    def second(sums: Array) -> Array:
        values: Array = sums[:, 3] - 2 * cx * sums[:, 1] - 2 * cy * sums[:, 2] + (cx**2 + cy**2) * sums[:, 0]
        return values

    offset_x, offset_y = cx - (width - 1) / 2, cy - (height - 1) / 2
    return {"gini": gini, "m20": lg(second(brightest) / second(whole)), "offset": np.hypot(offset_x, offset_y)}


def _moments(light: Array, used: Array) -> dict[str, Array]:
    height, width = light.shape[1:]
    y, x = (axis.reshape(-1).astype(np.float32) for axis in np.mgrid[:height, :width])
    base = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)

    def axes(weight: Array) -> tuple[Array, Array]:
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


def _overlap(image: Array, dy: int, dx: int) -> Array:
    """The part of images (n, h, w) that remains when they are moved by (dy, dx) pixels over their stamp."""
    height, width = image.shape[1:]
    return image[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]


def _turned_difference(light: Array, weight: Array, dy: int, dx: int) -> tuple[Array, Array]:
    """Sums of |I - I turned by half| and of weights, about a centre that is (dy, dx) half pixels off."""
    within = _overlap(weight, dy, dx)
    part = np.abs(_overlap(light, dy, dx) - _overlap(light[:, ::-1, ::-1], -dy, -dx))
    return np.einsum("nyx,nyx->n", part, within), within.sum((1, 2))


def _best_centres(light: Array) -> I64:
    """(n,) number in `_SHIFTS` of the centre about which the innermost quarter of a stamp is most alike when turned."""
    height, width = light.shape[1:]
    core = np.ascontiguousarray(light[:, height // 4 : height - height // 4, width // 4 : width - width // 4])
    even = np.ones_like(core)
    found = [np.divide(*_turned_difference(core, even, dy, dx)) for dy, dx in _SHIFTS]
    values: I64 = np.argmin(found, axis=0)
    return values


def _asymmetry(light: Array, sigma: Array, seen: Profile, rings: Rings) -> dict[str, Array]:
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


def _smoothness(light: Array, smooth: Array, sigma: Array, seen: Profile, rings: Rings) -> dict[str, Array]:
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


def _modes(light: Array, seen: Profile, rings: Rings) -> dict[str, Array]:
    sums = (light.reshape(len(light), -1) @ rings.waves).reshape(len(light), ORDERS, 2, rings.last)
    grown = np.cumsum(sums[:, :, 0] + 1j * sums[:, :, 1], axis=2)
    grown = np.concatenate([np.zeros((len(light), ORDERS, 1)), grown], axis=2)
    columns: dict[str, Array] = {}
    light_at = [light_within(seen.grown, part * seen.petrosian) for part in (0.0, *RADII)]
    rings_light = np.stack([b - a for a, b in pairwise(light_at)], axis=1)
    for order in range(1, ORDERS + 1):
        at = [light_within(grown[:, order - 1], part * seen.petrosian) for part in (0.0, *RADII)]
        mode = np.stack([b - a for a, b in pairwise(at)], axis=1)
        for number in range(len(RADII)):
            columns[f"mode{order}_{number}"] = np.abs(mode[:, number]) / rings_light[:, number]
        columns[f"twist{order}"] = 1 - np.abs(mode[:, 1:].sum(1)) / np.abs(mode[:, 1:]).sum(1)
        if order == 2:
            turn = np.angle(mode[:, 1:] * np.conj(mode[:, :-1]))
            columns["handed"] = np.abs(turn.sum(1)) / np.abs(turn).sum(1)
            columns["winding"] = np.abs(turn.sum(1))
    return columns


def _second_source(light: Array, smooth: Array, sigma: Array, rings: Rings) -> dict[str, Array]:
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


def _colours(pixels: Array, seen: Profile, rings: Rings, bands: Sequence[str]) -> dict[str, Array]:
    columns: dict[str, Array] = {}
    within, beyond = [], []
    for number, name in enumerate(bands):
        sums = ring_sums(pixels[:, number], rings)
        grown = np.concatenate([np.zeros((len(sums), 1)), np.cumsum(sums, 1)], axis=1)
        total, core = light_within(grown, seen.edge), light_within(grown, seen.r50)
        within.append(core)
        beyond.append(total - core)
        columns[f"flux_{name}"] = lg(total)
        r20, r50, r80 = (radius_holding(grown, part * total) for part in (0.2, 0.5, 0.8))
        columns |= {f"r50_{name}": r50 / seen.r50, f"concentration_{name}": 5 * np.log10(r80 / r20)}
    for number, (a, b) in enumerate(pairwise(bands)):
        inner, outer = (-2.5 * (lg(part[number]) - lg(part[number + 1])) for part in (within, beyond))
        columns[f"colour_{a}_{b}"] = -2.5 * (columns[f"flux_{a}"] - columns[f"flux_{b}"])
        columns[f"colour_gradient_{a}_{b}"] = inner - outer
    return columns
