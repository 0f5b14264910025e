"""A PSF that varies over an image, fitted to the pixels of its stars at once.

The PSF is a surface of cubic B-splines on a grid of nodes, and the value of each node a polynomial of the place in the
image. One linear least-squares fit to all pixels of all stars gives them; positions and fluxes of the stars follow, and
the two take turns. (The model of PSFEx, Bertin 2011, and Piff, Jarvis et al. 2021, MNRAS 501, 1282.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

from astroml_plugin.core.typing import F64, Bool
from astroml_plugin.pixels.moments import best_gaussians

_NODES_PER_FWHM = 4.0
_SPACING = (0.5, 2.0)
"""Least and largest distance of nodes in pixels."""

_MODEL_ERROR = 0.01
"""Part of a pixel's light that no model is trusted beyond: it keeps the brightest stars from deciding alone."""

_DAMPING = 1e-3
"""Ridge in units of the typical weight of a node; as it acts on changes alone, what the stars tell comes through."""

_TURNS, _STEPS = 4, 30
_VARIES_WITHIN = 2.5
"""FWHMs from the centre within which the PSF may vary over the image; its wings are one."""

_FARTHEST = 1.5
"""Pixels by which a star's centre may move."""

_VARIATION, _FLOOR = 0.3, 0.003
"""Deviation of the terms of the polynomial beyond the first that is expected, in units of the first, and least value of
that in units of its peak: few stars do not make up a variation."""

_WING = 0.003
"""Light that is expected in the wings, in units of the peak: nodes there that hardly a star tells stay near to 0."""

_TRUSTED = 3.0
"""Deviations of a pixel beyond which it counts less: it may be light of another object."""

MARGIN = 3
"""Pixels by which stamps of stars are wider than the PSF on each side: nodes at their rim are badly known."""

_ODD_FIT = 6.0
"""Scatters of the median chi² beyond which a star is no star, or no single one."""


@dataclass(frozen=True, eq=False)
class Stars:
    """Pixels of stars without their sky, (n, s, s) each with the pixel nearest to the star in the middle."""

    x: F64
    """(n,) position in the image's pixels."""
    y: F64
    pixels: F64
    good: Bool
    """(n, s, s) pixels of this star alone."""
    noise: F64
    """(n,) of a pixel."""

    def __len__(self) -> int:
        return len(self.x)

    def part(self, chosen: np.ndarray) -> Stars:
        """Some of the stars, by number or as (n,) bool."""
        return Stars(self.x[chosen], self.y[chosen], self.pixels[chosen], self.good[chosen], self.noise[chosen])


@dataclass(frozen=True, eq=False)
class PsfField:
    """A fitted PSF."""

    nodes: F64
    """(term, node, node) values of the nodes for each term of the polynomial."""
    spacing: float
    """Pixels between nodes."""
    size: int
    """Side in pixels of the stamps that were fitted, odd."""
    order: int
    """Order of the polynomial."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 of the stars: beyond, the PSF is that of the nearest place within."""

    def at(self, x: F64, y: F64) -> F64:
        """(n, s, s) PSF at n places, centred on the middle pixel by its adaptive moments, of unit sum."""
        values = np.tensordot(self.terms(x, y), self.nodes, 1)
        dx, dy = np.zeros(len(x)), np.zeros(len(x))
        found = self.drawn(values, dx, dy)
        for _ in range(3):
            off = centroid(found)
            dx, dy = dx - np.nan_to_num(off[:, 0]), dy - np.nan_to_num(off[:, 1])
            found = self.drawn(values, dx, dy)
        found = found[:, MARGIN : self.size - MARGIN, MARGIN : self.size - MARGIN]
        return np.asarray(found / found.sum((1, 2), keepdims=True))

    def terms(self, x: F64, y: F64) -> F64:
        """(n, term) of the polynomial at n places."""
        x0, y0, x1, y1 = self.box
        u = 2 * (np.clip(x, x0, x1) - x0) / max(x1 - x0, 1.0) - 1
        v = 2 * (np.clip(y, y0, y1) - y0) / max(y1 - y0, 1.0) - 1
        legendre = np.polynomial.legendre.legvander
        across, up = legendre(u, self.order), legendre(v, self.order)
        return np.stack([across[:, i] * up[:, j] for i, j in powers(self.order)], axis=1)

    def drawn(self, values: F64, dx: F64, dy: F64) -> F64:
        """(n, size, size) of node values (n, node, node), moved by dx, dy pixels."""
        across, up = self._splines(dx), self._splines(dy)
        return np.asarray(up @ values @ across.transpose(0, 2, 1))

    def _splines(self, shift: F64) -> F64:
        return _splines(shift, self.size, self.nodes.shape[-1], self.spacing)


@dataclass(frozen=True, eq=False)
class Fit:
    """A PSF with what the fit found out about its stars."""

    psf: PsfField
    dx: F64
    """(n,) offset of each star from its middle pixel."""
    dy: F64
    flux: F64
    chi2: F64
    """(n,) per pixel."""
    kept: Bool
    """(n,) False for stars that look otherwise than the rest."""


def powers(order: int) -> list[tuple[int, int]]:
    """Orders in x and y of the terms of a polynomial, the constant first."""
    return [(total - up, up) for total in range(order + 1) for up in range(total + 1)]


def centroid(images: F64) -> F64:
    """(n, 2) offset x, y of the light of images (n, s, s) from the middle pixel, within the Gaussian that fits it."""
    return best_gaussians(images)[2]


def fit_psf(stars: Stars, fwhm: float, order: int, start: Fit | None = None) -> Fit:
    """Fit the PSF to stars.

    Args:
        stars: without sky.
        fwhm: in pixels, to a tenth or so.
        order: of the polynomial in x and y.
        start: a fit to all stars, whose positions and fluxes stay: then these stars give the PSF alone.
    """
    size = stars.pixels.shape[-1]
    spacing = float(np.clip(fwhm / _NODES_PER_FWHM, *_SPACING))
    count = 2 * int(np.ceil((size / 2 + _FARTHEST) / spacing) + 1) + 1
    box = (float(stars.x.min()), float(stars.y.min()), float(stars.x.max()), float(stars.y.max()))
    psf = PsfField(np.zeros((len(powers(order)), count, count)), spacing, size, order, box)
    terms = psf.terms(stars.x, stars.y)
    if start is None:
        dx, dy = stars.x - np.rint(stars.x), stars.y - np.rint(stars.y)
        flux = np.maximum((stars.pixels * stars.good).sum((1, 2)), stars.noise)
        kept = np.ones(len(stars), bool)
    else:
        dx, dy, flux, kept = start.dx, start.dy, start.flux, start.kept
    weight = plain = stars.good / (stars.noise[:, None, None] ** 2 + (_MODEL_ERROR * np.maximum(stars.pixels, 0)) ** 2)
    core = _core(psf, fwhm)
    chi2 = np.ones(len(stars))
    for _ in range(_TURNS):
        pull = weight * (kept * flux**2)[:, None, None]
        nodes = _solved(psf, terms, stars.pixels / flux[:, None, None], pull, (dx, dy), core)
        psf = PsfField(nodes, spacing, size, order, psf.box)
        if start is None:
            dx, dy, flux = _followed(psf, terms, stars, weight, (dx, dy, flux))
        model = psf.drawn(np.tensordot(terms, psf.nodes, 1), dx, dy)
        square = plain * (stars.pixels - flux[:, None, None] * model) ** 2
        if start is None:
            chi2 = square.sum((1, 2)) / np.maximum(stars.good.sum((1, 2)), 1)
            kept = _alike(chi2) & (np.hypot(dx, dy) < _FARTHEST) & (flux > 0)
        typical = max(1.0, float(np.median(chi2[kept]))) if kept.any() else 1.0
        weight = plain / typical / np.maximum(1, square / (_TRUSTED**2 * typical))
    return Fit(psf, dx, dy, flux, chi2, kept)


def _alike(chi2: F64) -> Bool:
    middle = float(np.median(chi2))
    scatter = 1.4826 * float(np.median(np.abs(chi2 - middle)))
    return np.asarray(chi2 <= middle + _ODD_FIT * max(scatter, 0.02 * middle))


def _core(psf: PsfField, fwhm: float) -> F64:
    """(node, node): 1 where the PSF may vary over the image, 0 in its wings."""
    count = psf.nodes.shape[-1]
    along = (np.arange(count) - count // 2) * psf.spacing
    return np.asarray(np.hypot(along[:, None], along) <= _VARIES_WITHIN * fwhm, np.float64)


def _solved(psf: PsfField, terms: F64, aim: F64, weight: F64, shift: tuple[F64, F64], core: F64) -> F64:
    """Node values that bring the PSF closer to `aim` (n, s, s), from those it has on."""
    across, up = psf._splines(shift[0]), psf._splines(shift[1])
    free = np.stack([np.ones_like(core), *[core] * (len(psf.nodes) - 1)])

    def forward(nodes: F64) -> F64:
        return np.asarray(up @ np.tensordot(terms, nodes, 1) @ across.transpose(0, 2, 1))

    def backward(pixels: F64) -> F64:
        return np.asarray(np.tensordot(terms.T, up.transpose(0, 2, 1) @ pixels @ across, 1) * free)

    shape = psf.nodes.shape
    diagonal = np.tensordot(terms.T**2, (up**2).transpose(0, 2, 1) @ weight @ across**2, 1)
    ridge = _DAMPING * float(np.median(diagonal[0][diagonal[0] > 0]))
    prior = _prior(psf.nodes, core)
    inverse = (free / (diagonal + ridge + prior) + (1 - free)).ravel()

    def normal(flat: F64) -> F64:
        nodes = flat.reshape(shape) * free
        return (backward(weight * forward(nodes)) + (ridge + prior) * nodes).ravel()

    total = psf.nodes.size
    operator = LinearOperator((total, total), matvec=normal, dtype=np.float64)
    conditioner = LinearOperator((total, total), matvec=lambda flat: inverse * flat, dtype=np.float64)
    rest = (backward(weight * (aim - forward(psf.nodes))) - prior * psf.nodes * free).ravel()
    change, _ = cg(operator, rest, rtol=1e-4, maxiter=_STEPS, M=conditioner)
    return np.asarray(psf.nodes + change.reshape(shape) * free)


def _prior(nodes: F64, core: F64) -> F64:
    """(term, node, node) inverse variance with which a term is 0: for the first in the wings alone; none before
    the first is known."""
    found = np.zeros_like(nodes)
    peak = float(np.abs(nodes[0]).max())
    if peak > 0:
        found[0] = (1 - core) / (_WING * peak) ** 2
        found[1:] = 1 / (_VARIATION * np.maximum(np.abs(nodes[0]), _FLOOR * peak)) ** 2
    return found


def _followed(psf: PsfField, terms: F64, stars: Stars, weight: F64, now: tuple[F64, F64, F64]) -> tuple[F64, F64, F64]:
    """Offsets and fluxes of the stars under a PSF, by two steps of Gauss and Newton."""
    dx, dy, flux = now
    values = np.tensordot(terms, psf.nodes, 1)
    for _ in range(2):
        model = psf.drawn(values, dx, dy)
        light = flux[:, None, None]
        slopes = [
            light * (psf.drawn(values, dx + _SMALL, dy) - model) / _SMALL,
            light * (psf.drawn(values, dx, dy + _SMALL) - model) / _SMALL,
        ]
        parts = np.stack([model, *slopes], axis=-1).reshape(len(stars), -1, 3)
        pull = weight.reshape(len(stars), -1)
        rest = (stars.pixels - light * model).reshape(len(stars), -1)
        matrix = np.einsum("npi,np,npj->nij", parts, pull, parts, optimize=True)
        aim = np.einsum("npi,np,np->ni", parts, pull, rest, optimize=True)
        size = np.sqrt(np.maximum(np.einsum("nii->ni", matrix), 1e-300))
        scaled = matrix / size[:, :, None] / size[:, None, :] + 1e-9 * np.eye(3)
        step = np.linalg.solve(scaled, (aim / size)[..., None])[..., 0] / size
        flux = flux + step[:, 0]
        dx, dy = (
            np.clip(at + move, -2 * _FARTHEST, 2 * _FARTHEST) for at, move in ((dx, step[:, 1]), (dy, step[:, 2]))
        )
    return dx, dy, np.maximum(flux, 1e-6 * now[2])


_SMALL = 1e-3


def _splines(shift: F64, size: int, count: int, spacing: float) -> F64:
    """(n, size, count) cubic B-splines of `count` nodes about the middle at the pixels of a row, moved by `shift`."""
    nodes = (np.arange(count) - count // 2) * spacing
    pixels = np.arange(size) - size // 2
    far = np.abs(pixels[None, :, None] - shift[:, None, None] - nodes) / spacing
    outer, inner = np.maximum(2 - far, 0), np.maximum(1 - far, 0)
    return np.asarray((outer * outer * outer - 4 * inner * inner * inner) / 6)
