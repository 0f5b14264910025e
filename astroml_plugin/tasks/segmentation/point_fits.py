"""Stars beside their PSF: how far each is from a point source, and fluxes and places of stars that share light."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from astroml_plugin.core.typing import F32, F64, I32, I64, Bool
from astroml_plugin.tasks.segmentation.gaussian_fluxes import (
    GaussianFluxes,
    Pairs,
    PointSources,
    near_pairs,
    wide_gaussian,
)

_HALF = 8
"""Half-side in pixels of what is compared."""

_REACH = 4.0
"""Radius in σ of the PSF within which a star is compared with it."""

_ALLOWED = 0.015
"""Part of the star's light in each pixel that an image of the PSF may be wrong by: samples, phases, centres."""

_EXCESS = 3.0
"""Standard deviations of noise that a misfit exceeds."""

_ALIKE, _ALIKE_BLENDED = 0.35, 2.0
"""Relative error of a total over the misfit. Measured: 0.17 to 0.4 for pairs that are one object, for galaxies of
half-light radii up to a PSF's sigma and for PSF images that are too narrow; up to 2 where the PSF itself is fitted."""

_UNLIKE = 0.05
"""Misfit of what is flagged. It is that of a PSF image whose FWHM is 4 % off, of two equal stars 0.35 FWHM apart, and
of an exponential disk whose half-light radius is 0.13 FWHM."""

_GALAXIES = 0.15
"""Part of the light of a galaxy under a star that may be the star's: galaxies are fitted with Gaussians."""

_HIDDEN = 0.03
"""Relative error of a total of which nothing is seen within `_REACH`, as of a star with a masked core: the wings of a
PSF image are not better known. In proportion to the energy that is hidden."""

_MUCH = 0.05
"""Part of the energy from which on a star of which this is hidden is fitted with the PSF, as those that share light."""

_CORRELATED = 3.78
"""Pixels of one independent value after smoothing with 1 2 1 along both axes."""

_LEAST_SNR = 10.0
"""S/N of stars that are compared."""

_SEEN = 0.5
"""Part of the PSF's energy that must be seen in pixels that can be used."""

_STEPS, _STEP, _FARTHEST, _LOOSE = 4, 0.7, 1.5, 0.5
"""Steps of the common fit of stars, the most pixels of one and of all, and the spread in pixels of a centre before."""

_ROUNDS = 3
"""Times that stars are fitted together, each without those that were no points."""

_BATCH = 2048
"""Stars whose pixels are in memory at once."""

_SIDE = np.arange(-_HALF, _HALF + 1)


@dataclass(frozen=True)
class _Scene:
    """A band of a field and its objects, for the fit of stars."""

    image: F32
    variance: F32
    labels: I32
    patch: I64
    centre: tuple[F64, F64]
    stars: PointSources
    fitted: GaussianFluxes
    total: F64
    pairs: Pairs

    def stamps(self, chosen: I64) -> tuple[I64, I64, F64, F64]:
        """Rows and columns (n, k), image and noise (n, k, k) about some objects; noise 0 where a pixel is not used."""
        height, width = self.image.shape
        x, y = (at[chosen] for at in self.centre)
        columns, rows = (np.floor(at + 0.5).astype(np.int64)[:, None] + _SIDE for at in (x, y))
        at = (rows.clip(0, height - 1) * width)[:, :, None] + columns.clip(0, width - 1)[:, None, :]
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        square = ((rows - y[:, None]) ** 2)[:, :, None] + ((columns - x[:, None]) ** 2)[:, None, :]
        inside &= square < (_REACH**2 * self.stars.square[chosen]).clip(4.0**2, _HALF**2)[:, None, None]
        label = self.labels.ravel()[at]
        inside &= (label == 0) | (np.concatenate([[-1], self.patch])[label] == self.patch[chosen, None, None])
        noise = self.variance.ravel()[at] * inside
        return rows, columns, self.image.ravel()[at] * (noise > 0).astype(np.float64), noise.astype(np.float64)

    def point(self, number: I64, rows: I64, columns: I64) -> F64:
        """(m, k, k) unit light of stars in given rows and columns (m, k)."""
        values = np.empty((len(number), rows.shape[1], columns.shape[1]))
        cells = self.stars.cell[number]
        for cell in np.unique(cells):
            these = cells == cell
            picture = self.stars.pictures[cell]
            down = rows[these, 0] - self.centre[1][number[these]] + picture.centre[1]
            right = columns[these, 0] - self.centre[0][number[these]] + picture.centre[0]
            values[these] = _drawn(picture.spline, (down, right), values.shape[1:])
        return values

    def light(self, number: I64, rows: I64, columns: I64) -> F64:
        """(m, k, k) light of any objects in given rows and columns (m, k)."""
        values = np.zeros((len(number), rows.shape[1], columns.shape[1]))
        star = self.fitted.is_star[number]
        if star.any():
            which = number[star]
            values[star] = self.total[which, None, None] * self.point(which, rows[star], columns[star])
        if not star.all():
            which = number[~star]
            x, y = (at[which, None] for at in self.centre)
            place = columns[~star] - x, rows[~star] - y
            values[~star] = wide_gaussian(place, self.fitted.sigma[which], self.fitted.flux[which], self.total[which])
        return values

    def beside(self, chosen: I64, rows: I64, columns: I64) -> tuple[F64, F64, I64, I64]:
        """Light (n, k, k) of the neighbours of some objects, of those that are galaxies, and the pairs: places in
        `chosen`, and neighbours."""
        place = np.full(len(self.patch), -1)
        place[chosen] = np.arange(len(chosen))
        pairs = np.flatnonzero(place[self.pairs.mine] >= 0)
        mine, other = place[self.pairs.mine[pairs]], self.pairs.other[pairs]
        light = np.zeros((2, len(chosen), rows.shape[1], columns.shape[1]))
        for start in range(0, len(mine), _BATCH):
            part = slice(start, start + _BATCH)
            star = self.fitted.is_star[other[part]].astype(np.int64)
            np.add.at(light, (star, mine[part]), self.light(other[part], rows[mine[part]], columns[mine[part]]))
        return light.sum(0), light[0], mine, other


def compared(
    image: F32,
    variance: F32,
    centre: tuple[F64, F64],
    labels: I32,
    patch: I64,
    stars: PointSources,
    fitted: GaussianFluxes,
) -> tuple[GaussianFluxes, F64]:
    """Fluxes with what the PSF itself says about stars, and the misfit (n,) of each star; 0 for others.

    Stars that share their patch of light with others near are fitted together with the PSF, places too, and stars of
    which much is hidden. The misfit of a
    star is what the pixels have beside it and its neighbours, in units of its light: the root of the energy within
    `_REACH` σ, weighted with the PSF, without that of noise and of `_ALLOWED` of the light. It enlarges the error, and
    so does the light of galaxies beside a star.

    Args:
        image, variance, centre, labels, patch, stars: those of `fit_gaussians`.
        fitted: its result.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        bright = fitted.is_star & (fitted.flux > _LEAST_SNR * fitted.error) & (fitted.total > 0)
    misfit = np.zeros(len(patch))
    if not bright.any():
        return fitted, misfit
    pairs = near_pairs(centre, patch)
    known = replace(fitted, flux=np.nan_to_num(fitted.flux).clip(0), sigma=np.nan_to_num(fitted.sigma, nan=1.0))
    total = np.nan_to_num(fitted.total).clip(0)
    scene = _Scene(image, variance, labels, patch, centre, stars, known, total, pairs)
    every = np.flatnonzero(bright)
    misfit[every], doubts = _misfits(scene, every)
    unsure = np.hypot(fitted.unsure, _ALIKE * misfit)
    unsure[every] = np.hypot(unsure[every], doubts)
    beside = np.bincount(pairs.mine, minlength=len(patch)) > 0
    together = every[beside[every] | (doubts > _HIDDEN * _MUCH)]
    totals = fitted.total.copy()
    points, after, doubts, refined = _together(scene, together)
    better = after <= misfit[together[points]]
    points, after, doubts = points[better], after[better], doubts[better]
    number = together[points]
    misfit[number], totals[number] = after, refined.total[number]
    unsure[number] = np.hypot(fitted.unsure[number], _ALIKE_BLENDED * after + doubts)
    return replace(fitted, total=totals, unsure=unsure), misfit


def unlike(misfit: F64) -> Bool:
    """(n,) which stars are flagged, because they do not look like the PSF."""
    flagged: Bool = misfit > _UNLIKE
    return flagged


def _misfits(scene: _Scene, chosen: I64) -> tuple[F64, F64]:
    """Root of the energy beside some stars and their neighbours, over that of the star, and relative errors (n,).

    The errors are for light of galaxies under a star, and for its own light that pixels that are not used hide.
    """
    values, doubts = np.zeros(len(chosen)), np.zeros(len(chosen))
    for part, numbers in _batches(chosen):
        rows, columns, light, noise = scene.stamps(numbers)
        used = noise > 0
        point = scene.point(numbers, rows, columns)
        whole = (point**2).sum((1, 2))
        beside, of_galaxies, _, _ = scene.beside(numbers, rows, columns)
        total = scene.total[numbers]
        energy_seen = (point**2 * used).sum((1, 2))
        under = (point * used * of_galaxies).sum((1, 2)) / total / np.maximum(energy_seen, 1e-30)
        hidden = 1 - energy_seen / np.maximum(whole, 1e-30)
        doubts[part] = np.hypot(_GALAXIES * under, _HIDDEN * hidden)
        own = _smoothed(point * used)
        rest = _smoothed((light - beside - total[:, None, None] * point) * used)
        weight = point.clip(0) / np.maximum(point.max((1, 2), keepdims=True), 1e-30)
        spread = _smoothed(noise, (1 / 16, 1 / 4)) * weight
        excess = (weight * rest**2).sum((1, 2)) - spread.sum((1, 2))
        excess -= _EXCESS * np.sqrt(2 * _CORRELATED * (spread**2).sum((1, 2)))
        energy = (weight * own**2).sum((1, 2))
        seen = energy_seen > _SEEN * whole
        with np.errstate(invalid="ignore", divide="ignore"):
            square = excess / (energy * total**2) - _ALLOWED**2
        values[part] = np.where(seen & (square > 0), np.sqrt(np.maximum(np.nan_to_num(square), 0)), 0)
    return values, doubts


def _together(scene: _Scene, chosen: I64) -> tuple[I64, F64, F64, _Scene]:
    """Fit some stars together, and leave out what turns out to be no point source: it stays the Gaussian that it was.

    Returns:
        Places in `chosen` of those that are points, their misfits and relative errors, and the scene.
    """
    points = np.arange(len(chosen))
    refined, misfit, doubts = scene, np.zeros(len(chosen)), np.zeros(len(chosen))
    for last in [False] * (_ROUNDS - 1) + [True]:
        refined = _fitted_together(scene, chosen[points])
        misfit, doubts = _misfits(refined, chosen[points])
        worst = unlike(misfit) & _worst_of_its_neighbours(refined, chosen[points], misfit)
        if last or not worst.any():
            break
        is_star = scene.fitted.is_star.copy()
        is_star[chosen[points[worst]]] = False
        scene = replace(scene, fitted=replace(scene.fitted, is_star=is_star))
        points = points[~worst]
    return points, misfit, doubts, refined


def _worst_of_its_neighbours(scene: _Scene, chosen: I64, misfit: F64) -> Bool:
    """(n,) whether the light that does not fit at a star is more than at any star near it."""
    light, most = np.zeros(len(scene.patch)), np.zeros(len(scene.patch))
    light[chosen] = misfit * scene.total[chosen]
    np.maximum.at(most, scene.pairs.mine, light[scene.pairs.other])
    worst: Bool = light[chosen] >= most[chosen]
    return worst


def _fitted_together(scene: _Scene, chosen: I64) -> _Scene:
    """The scene with fluxes and places of some stars that explain the pixels best, with those of their neighbours."""
    start = scene.centre
    moved = np.array([at.copy() for at in start])
    total = scene.total.copy()
    for _ in range(_STEPS if len(chosen) else 0):
        scene = replace(scene, centre=(moved[0].copy(), moved[1].copy()), total=total.copy())
        step = _step(scene, chosen, np.array(start)[:, chosen])
        total[chosen] = np.maximum(total[chosen] + step[:, 0], 0.02 * total[chosen])
        for axis in range(2):
            to = moved[axis, chosen] + np.clip(step[:, 1 + axis], -_STEP, _STEP)
            moved[axis, chosen] = np.clip(to, start[axis][chosen] - _FARTHEST, start[axis][chosen] + _FARTHEST)
    return replace(scene, centre=(moved[0], moved[1]), total=total)


def _step(scene: _Scene, chosen: I64, start: F64) -> F64:
    """(n, 3) changes of flux, x and y of some stars."""
    place = np.full(len(scene.patch), -1)
    place[chosen] = np.arange(len(chosen))
    entries: list[tuple[I64, I64, F64]] = []
    right = np.zeros((len(chosen), 3))
    own = np.zeros((len(chosen), 3, 3))
    for part, numbers in _batches(chosen):
        rows, columns, light, noise = scene.stamps(numbers)
        used = noise > 0
        basis = _basis(scene, numbers, rows, columns) * used[:, None]
        beside, _, mine, other = scene.beside(numbers, rows, columns)
        rest = (light - beside - scene.light(numbers, rows, columns)) * used
        right[part] = np.einsum("nakl,nkl->na", basis, rest)
        own[part] = np.einsum("nakl,nbkl->nab", basis, basis)
        level = noise.sum((1, 2)) / np.maximum(used.sum((1, 2)), 1)
        for axis in range(2):  # a centre is known to some pixels before
            own[part, 1 + axis, 1 + axis] += level / _LOOSE**2
            right[part, 1 + axis] -= level / _LOOSE**2 * (scene.centre[axis][numbers] - start[axis, part])
        both = place[other] >= 0
        mine, other = mine[both], other[both]
        for at in range(0, len(mine), _BATCH):
            few, theirs = mine[at : at + _BATCH], other[at : at + _BATCH]
            blocks = np.einsum("makl,mbkl->mab", basis[few], _basis(scene, theirs, rows[few], columns[few]))
            entries.append((few + part.start, place[theirs], blocks))
    entries.append((np.arange(len(chosen)), np.arange(len(chosen)), own))
    line, column, block = (np.concatenate(items) for items in zip(*entries, strict=True))
    unit = np.sqrt(np.maximum(own[:, (0, 1, 2), (0, 1, 2)], 1e-30))
    block = block / unit[line][:, :, None] / unit[column][:, None, :]
    lines = np.broadcast_to((3 * line[:, None] + np.arange(3))[:, :, None], block.shape)
    columns_of = np.broadcast_to((3 * column[:, None] + np.arange(3))[:, None, :], block.shape)
    size = 3 * len(chosen)
    matrix = sparse.csc_matrix((block.ravel(), (lines.ravel(), columns_of.ravel())), shape=(size, size))
    matrix = matrix + sparse.identity(size, format="csc") * 1e-6
    solved: F64 = np.nan_to_num(spsolve(matrix, (right / unit).ravel())).reshape(-1, 3) / unit
    return solved


def _basis(scene: _Scene, number: I64, rows: I64, columns: I64) -> F64:
    """(m, 3, k, k) changes of the light of stars with flux, x and y."""
    around = np.concatenate([rows[:, :1] - 1, rows, rows[:, -1:] + 1], axis=1)
    across = np.concatenate([columns[:, :1] - 1, columns, columns[:, -1:] + 1], axis=1)
    point = scene.point(number, around, across)
    total = scene.total[number, None, None]
    right = total * (point[:, 1:-1, :-2] - point[:, 1:-1, 2:]) / 2
    down = total * (point[:, :-2, 1:-1] - point[:, 2:, 1:-1]) / 2
    return np.stack([point[:, 1:-1, 1:-1], right, down], axis=1)


def _drawn(spline: F64, start: tuple[F64, F64], shape: tuple[int, ...]) -> F64:
    """Values (m, *shape) of a cubic spline at places one apart from `start` (row, column) on; 0 outside."""
    padded = np.pad(spline, 1)
    whole = [np.floor(at).astype(np.int64) for at in start]
    index = [
        np.clip(first[:, None] + np.arange(-1, side + 2) + 1, 0, size - 1)
        for first, side, size in zip(whole, shape, padded.shape, strict=True)
    ]
    values: F64 = padded.ravel()[index[0][:, :, None] * padded.shape[1] + index[1][:, None, :]]
    for axis in range(2):
        t = start[axis] - whole[axis]
        taps = (1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6
        views = [np.moveaxis(values, 1 + axis, 0)[at : at + shape[axis]] for at in range(4)]
        rows = sum(tap[:, None] * view for tap, view in zip(taps, views, strict=True))
        values = np.moveaxis(np.asarray(rows), 0, 1 + axis)
    return values


def _smoothed(stamps: F64, taps: tuple[float, float] = (0.25, 0.5)) -> F64:
    """Stamps (n, k, k) convolved with (outer, inner, outer) along both axes; nothing comes from beyond."""
    outer, inner = taps
    values = stamps
    for axis in (1, 2):
        padded = np.pad(values, [(1, 1) if axis == this else (0, 0) for this in range(3)])
        low, high = (padded[:, :-2], padded[:, 2:]) if axis == 1 else (padded[:, :, :-2], padded[:, :, 2:])
        values = inner * values + outer * (low + high)
    return values


def _batches(chosen: I64) -> Iterator[tuple[slice, I64]]:
    for start in range(0, len(chosen), _BATCH):
        part = slice(start, min(start + _BATCH, len(chosen)))
        yield part, chosen[part]
