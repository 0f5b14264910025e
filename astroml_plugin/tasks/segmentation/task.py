"""Segmentation: every object of a field found, outlined, taken apart from its neighbours and measured.

The network sees one image in units of its noise, of one band or of several together, and the map of usable pixels. Its
maps (`field_truth.LAYERS`) tell light from sky, where centres are, and to which centre each pixel belongs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.catalog import Column
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Cutouts, Tile, pixel_bits, to_device
from astroml_plugin.tasks.base import Task, TaskSettings
from astroml_plugin.tasks.detection import PARENT, DetectingTask, Detections, Field
from astroml_plugin.tasks.normalisation import Normalisation
from astroml_plugin.tasks.segmentation.deblending import Companions, find_companions, parts_of
from astroml_plugin.tasks.segmentation.gaussian_fluxes import PointSources, fit_gaussians, recentred
from astroml_plugin.tasks.segmentation.peaks import Outlines, around, centroids, find_peaks, outline
from astroml_plugin.tasks.segmentation.photometry import (
    aperture_flux,
    isophotal_flux,
    pixel_flags,
    second_moments,
    summed,
)
from astroml_plugin.tasks.segmentation.point_sources import point_profile, point_sources
from astroml_plugin.tasks.segmentation.truth import LAYERS
from astroml_plugin.tasks.source_check import check_pixels
from astroml_plugin.tasks.symmetries import transform

_FOREGROUND, _CENTRE, _NEAR, _X, _Y, _STAR, _SHARE = range(len(LAYERS))
_WEIGHTS = (10.0, 10.0, 10.0, 0.3, 0.3, 0.3)
"""Of foreground, centre, near, offset, star and share in the loss: about equal parts of it."""


_FLUXES = (
    ("iso", "Flux within the outlines of the patch, its part of what it shares with neighbours"),
    ("aper", "Flux in a round aperture, neighbours taken out"),
    ("total", "Total flux: Gaussian fitted together with its neighbours', and its wings"),
)
_OPTICAL = ("U", "B", "V", "R", "I")


@dataclass(frozen=True)
class SegmentSettings(TaskSettings):
    """Settings of segmentation."""

    any_band: bool = True
    """Any one band, or several together: weighted with their inverse variance, in the units of the images."""
    stamp_size: int = 256
    """Side of the pieces of sky to train on, pixels; inference works on windows."""
    normalisation: Normalisation = field(
        default_factory=lambda: Normalisation(background="none", unit="noise", stretch="asinh", softening=4.0)
    )
    """Only its softening is used: pixels are divided by the noise of each, and no background is taken off."""
    assumed_noise: float = 0.0
    """Standard deviation of the noise of a pixel where there is no variance, in the image's units (NO_VARIANCE);
    0 estimates it in each window."""
    window: int = 1024
    """Side of the network's input, pixels."""
    overlap: int = 64
    """Pixels at each side of a window that are thrown away."""
    stride: int = 8
    """Windows begin at multiples of it."""
    largest: int = 64
    """Half-extent in pixels up to which objects are promised whole."""
    foreground: float = 0.5
    """Probability above which a pixel is light."""
    near: float = 0.5
    """Probability of a centre within `field_truth.NEAR` above which a peak is an object."""
    centre: float = 0.05
    """Height of the map of centres above which a peak is looked at."""
    companion: float = 4.5
    """S/N of light beside an object, unlike that on its other side, above which it is another object; 0: no such look.
    """
    lopsided: float = 0.1
    """Part of an object's light that may be unlike on its two sides."""
    aperture: float = 5.0
    """Radius in pixels of the aperture of `flux_aper`."""
    psf_fwhm: tuple[float, float] = (2.5, 5.0)
    """FWHM of the PSF in pixels; OUT_OF_DOMAIN outside."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.window, self.overlap, self.largest) < 0 or self.stride < 1:
            raise InputError("window, overlap, largest of segmentation are 0 or more, stride 1 or more")
        if self.window % self.stride or self.overlap % self.stride or self.window <= 2 * self.overlap:
            raise InputError(
                f"window ({self.window}) and overlap ({self.overlap}) must be multiples of stride ({self.stride}), "
                f"and a window wider than two overlaps"
            )


class SegmentTask(DetectingTask):
    """Objects from maps of foreground, centres and offsets."""

    Settings: ClassVar[type[TaskSettings]] = SegmentSettings
    layers = LAYERS
    labels = ()

    window = property(lambda self: int(self.settings.window))
    overlap = property(lambda self: int(self.settings.overlap))
    stride = property(lambda self: int(self.settings.stride))
    reach = property(lambda self: int(self.settings.overlap + self.settings.largest))
    channels = len(LAYERS)

    def columns(self) -> list[Column]:
        """Area, moments, fluxes per band, star probability, blend."""
        columns = [
            Column("area", "int32", "pix2", "phys.angArea", "Pixels of the object's outline"),
            *(
                Column(f"i{name}", "float32", "pix2", "", f"Second moment {name} of the light within the outline")
                for name in ("xx", "yy", "xy")
            ),
            Column("peak_snr", "float32", "", "stat.snr", "Signal over noise of the pixel at the peak"),
            Column("p_object", "float32", "", "stat.probability", "Probability that an object is centred here"),
            Column("p_star", "float32", "", "stat.probability;src.class.starGalaxy", "Probability of a point source"),
            Column(PARENT, "int64", "", "meta.id.parent", "Brightest object of its patch of light; itself if alone"),
        ]
        for band in self.bands:
            for name, text in _FLUXES:
                ucd = f"phot.flux.density;em.opt.{band.upper()}" if band.upper() in _OPTICAL else "phot.flux.density"
                columns += [
                    Column(f"flux_{name}_{band}", "float32", "nJy", ucd, f"{text}, band {band}"),
                    Column(f"flux_{name}_{band}_err", "float32", "nJy", f"stat.error;{ucd}", "Its standard error"),
                ]
        return columns

    # ---- the network -------------------------------------------------------------------------------------------

    def build_network(self, network: str | type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
        """As in `Task`; its input is the S/N image and the map of usable pixels, whatever the bands.

        Raises:
            InputError: also a network that sees farther than `overlap`, or of another stride.
        """
        one = self.with_settings(bands=("signal", "usable"))
        built = Task.build_network(one, network, arguments)
        radius, stride = getattr(built, "radius", 0), getattr(built, "stride", 1)
        if radius > self.overlap or self.stride % stride:
            raise InputError(
                f"the network sees {radius} pixels far with a stride of {stride}: overlap ({self.overlap}) must be no "
                f"less, and the task's stride ({self.stride}) a multiple of it"
            )
        return built

    def choose_bands(self, available: Sequence[str], band: str | None = None) -> tuple[str, ...]:
        """As in `Task`; a model that takes any band takes all there are where none is named.

        Raises:
            InputError: a band is missing.
        """
        if not self.settings.any_band:
            return super().choose_bands(available, band)
        if band is not None and band not in available:
            raise InputError(f"band {band} is missing: the source has {', '.join(available)}; choose one (--band)")
        return tuple(available) if band is None else (band,)

    def prepare(self, cutouts: Cutouts) -> tuple[tuple[Tensor, ...], Tensor]:
        """S/N of every pixel and whether it can be used, (n, 2, h, w) float32.

        Several bands are added with the inverse of their variances as weights.

        Returns:
            inputs: one tensor.
            flags: (n,) int32: NO_VARIANCE, and NONFINITE where no pixel can be used.
        """
        dtype = "uint8" if cutouts.image.dtype == torch.uint8 else "float32"
        check_pixels(self.settings, dtype, cutouts.psf is not None)
        valid = cutouts.valid
        signal, estimated = self._signal(cutouts.image.to(torch.float32), cutouts.variance, valid)
        usable = valid[:, 0] if valid.shape[1] == 1 else valid.any(1)
        softening = self.settings.normalisation.softening
        image = torch.stack([(signal / softening).asinh_().mul_(softening), usable.to(torch.float32)], dim=1)
        flags = (~usable.flatten(1).any(1)).to(torch.int32) * int(ObjectFlag.NONFINITE)
        return (image,), flags | (int(ObjectFlag.NO_VARIANCE) if estimated else 0)

    def _signal(self, image: Tensor, variance: Tensor | None, valid: Tensor) -> tuple[Tensor, bool]:
        """(n, h, w) image over noise, 0 where no band can be used; and whether the noise was not given."""
        if variance is not None:
            weight = torch.where(valid & (variance > 0), 1.0 / variance.clamp_min(1e-30), 0.0)
        else:
            weight = valid / self._noise(image, valid).square()
        if image.shape[1] == 1:
            return (image * weight.sqrt())[:, 0], variance is None
        return (image * weight).sum(1) / weight.sum(1).clamp_min(1e-30).sqrt(), variance is None

    def _noise(self, image: Tensor, valid: Tensor) -> Tensor:
        """(n, band, 1, 1) noise of a pixel, stated or from differences of neighbours, 1 where there are none."""
        if self.settings.assumed_noise > 0:
            return image.new_full((*image.shape[:2], 1, 1), self.settings.assumed_noise)
        difference = (image[..., ::2, 1:] - image[..., ::2, :-1]).abs()
        both = valid[..., ::2, 1:] & valid[..., ::2, :-1]
        width = difference.masked_fill(~both, torch.nan).flatten(2).nanmedian(2).values
        width = (width / _MEDIAN_OF_DIFFERENCES)[..., None, None]
        return torch.where(width > 0, width, torch.ones_like(width))  # also where it is NaN

    # ---- learning ----------------------------------------------------------------------------------------------

    def targets(self, table: pa.Table) -> Tensor:
        """Nothing from the table, (n, 0): the layers of the stamps' truth are the targets."""
        return torch.zeros(table.num_rows, 0)

    def fit_to_training(self, table: pa.Table, cutouts: Cutouts) -> Task:
        """The same task: nothing is measured on the training split."""
        return self

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Weighted sum of the parts of the loss, from maps (n, 7, h, w) and layers of the same shape."""
        return torch.stack([weight * part for weight, part in zip(_WEIGHTS, self._parts(outputs, targets))]).sum()

    def _parts(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Cross entropies of foreground, centre and near, distance of offsets, cross entropies of star and share."""
        found, truth = outputs.float(), targets.float()
        entropies = [_entropy(found[:, layer], truth[:, layer]) for layer in (_FOREGROUND, _CENTRE, _NEAR)]
        known = truth[:, _X].isfinite()
        offset = functional.smooth_l1_loss(
            found[:, _X : _Y + 1].movedim(1, -1)[known], truth[:, _X : _Y + 1].movedim(1, -1)[known], reduction="sum"
        ) / known.sum().clamp_min(1)
        rest = [_entropy(found[:, layer], truth[:, layer]) for layer in (_STAR, _SHARE)]
        return (*entropies, offset, *rest)

    def transform_targets(self, targets: Tensor, symmetry: tuple[int, int, int]) -> Tensor:
        """Layers of stamps that went through a symmetry: offsets change their direction with it."""
        moved = transform(targets, symmetry)
        swap, flip_x, flip_y = symmetry
        if not any(symmetry):
            return moved
        moved = moved.clone()
        if swap:
            moved[:, [_X, _Y]] = moved[:, [_Y, _X]]
        for layer, flipped in ((_X, flip_x), (_Y, flip_y)):
            if flipped:
                moved[:, layer] = -moved[:, layer]
        return moved

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Loss and its parts; intersection over union of the foreground at 0.5; RMS of offsets in pixels."""
        with torch.no_grad():
            parts = [torch.stack(self._parts(*pair)) for pair in zip(outputs.split(16), targets.split(16))]
            counts = torch.tensor([float(len(part)) for part in outputs.split(16)])
            mean = (torch.stack(parts) * counts[:, None]).sum(0) / counts.sum()
            light, truth = outputs[:, _FOREGROUND] > 0, targets[:, _FOREGROUND] > 0.5
        names = ("foreground", "centre", "near", "offset", "star", "share")
        return {
            "loss": float((mean * torch.tensor(_WEIGHTS)).sum()),
            **{f"{name}_loss": float(value) for name, value in zip(names, mean)},
            "foreground_iou": float((light & truth).sum() / (light | truth).sum().clamp_min(1)),
        }

    # ---- finding -----------------------------------------------------------------------------------------------

    def detect(self, maps: np.ndarray, field: Field) -> Detections:
        """The objects of a field: peaks, outlines, measurements; where no variance is given, no error is either."""
        settings, estimated = self.settings, field.variance is None
        if estimated:
            field = replace(field, variance=self._estimated(field))
        if field.bits is not None and (field.bits & int(ObjectFlag.EDGE)).any():
            outside = (field.bits & np.uint8(ObjectFlag.EDGE)).all(0)
            maps = np.where(outside, np.float32(np.nan), maps)
        peak, certain = self.peaks(maps, field.bits)
        x, y = self.centres(maps, peak)
        if settings.companion > 0 and len(x):
            maps, peak, certain, (x, y) = self._with_companions(maps, field, peak, certain, (x, y))
        outlines = outline(maps[_FOREGROUND] > _logit(settings.foreground), maps[_X], maps[_Y], peak)
        x, y = recentred(*self._combined_light(field), (x, y), outlines.labels, outlines.patch)
        columns, snr = self._measured(maps, field, outlines, peak, (x, y))
        if estimated:
            columns |= {name: np.full(len(x), np.nan) for name in columns if name.endswith("_err")}
        columns["p_object"] = _sigmoid(certain)
        blended, columns[PARENT] = _blends(outlines, snr)
        flags = pixel_flags(field.bits, outlines.pixels, len(x)) | blended * np.int32(ObjectFlag.BLENDED)
        flags |= int(ObjectFlag.NO_VARIANCE) if estimated else 0
        flags |= self._domain(field, x, y)
        ordered = {column.name: columns[column.name].astype(column.type) for column in self.columns()}
        return Detections(outlines.labels, x, y, peak[1], peak[0], ordered, flags)

    def peaks(
        self, maps: np.ndarray, bits: np.ndarray | None = None
    ) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Rows and columns of the objects' peaks, and their log odds (n,): means of `near` over 3 x 3 pixels.

        Args:
            maps: (channels, h, w).
            bits: (band, h, w) of `Field.bits`: saturated stars have no centre to see, their best peak is enough.
        """
        found = find_peaks(maps[_CENTRE], _logit(self.settings.centre))
        odds = around(maps[_NEAR], found, 1).mean((1, 2))
        kept = odds > _logit(self.settings.near)
        if bits is not None:
            full = np.bitwise_or.reduce(bits, axis=0) & np.uint8(ObjectFlag.SATURATED) > 0
            kept |= _best_beside(full, found, odds, kept)
        return (found[0][kept], found[1][kept]), odds[kept]

    def centres(self, maps: np.ndarray, peak: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """x and y of the objects: centroids of the map of centres about each peak.

        In a blend the offsets of pixels near the fainter object point half way to the brighter one: they are not asked.
        """
        return centroids(_sigmoid(around(maps[_CENTRE], peak, 2)), peak)

    def _with_companions(
        self,
        maps: np.ndarray,
        field: Field,
        peak: tuple[np.ndarray, np.ndarray],
        certain: np.ndarray,
        centre: tuple[np.ndarray, np.ndarray],
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Maps, peaks, log odds and centres with the companions that the network did not tell from their parents.

        Pixels where a companion has most of the light point to it; their share is what both sides of the parent say.
        """
        settings, (image, variance) = self.settings, self._combined(field)
        widths = np.clip(np.nan_to_num(field.psf_fwhm_at(*centre), nan=_USUAL_WIDTH), *settings.psf_fwhm)
        widths = np.round(widths * 4) / 4  # a little more or less in the next tile is the same
        found = find_companions(
            image, variance, peak, widths, least=settings.companion, lopsided=settings.lopsided
        ).where(np.isfinite(maps[_NEAR]))
        if not len(found.row):
            return maps, peak, certain, centre
        maps = self._pointed(maps, found, *parts_of(image, variance, peak, widths, found))
        place = found.row, found.column
        odds = np.concatenate([certain, around(maps[_NEAR], place, 1).mean((1, 2))])
        rows, columns, x, y = (
            np.concatenate(pair) for pair in zip((*peak, *centre), (*place, found.column, found.row), strict=True)
        )
        order = np.lexsort((columns, rows))
        return maps, (rows[order], columns[order]), odds[order], (x[order], y[order])

    def _pointed(
        self, maps: np.ndarray, found: Companions, number: np.ndarray, row: np.ndarray, column: np.ndarray, part: Any
    ) -> np.ndarray:
        """Maps whose pixels beside companions tell of them; pixels that occur twice go by their last."""
        maps = maps.copy()
        maps[_SHARE, row, column] = _log_odds(np.clip(np.maximum(part, 1 - part), 0.5, 0.999))
        mine = part > 0.5
        number, row, column = number[mine], row[mine], column[mine]
        maps[_X, row, column] = found.column[number] - column
        maps[_Y, row, column] = found.row[number] - row
        return maps

    def _combined(self, field: Field) -> tuple[np.ndarray, np.ndarray]:
        """(h, w) float32 image of all bands, weighted with their inverse variances, and its variance; infinite: bad."""
        image, variance = field.image, _variance(field)
        good = variance > 0 if field.bits is None else (variance > 0) & (field.bits == 0)
        if len(image) == 1:
            return np.where(good, image, 0)[0], np.where(good, variance, np.inf)[0].astype(np.float32)
        weight = np.where(good, 1 / np.where(good, variance, 1).astype(np.float64), 0)
        spread = 1 / np.where(weight.any(0), weight.sum(0), np.nan)
        return (
            np.nan_to_num((image * weight).sum(0) * spread).astype(np.float32),
            np.nan_to_num(spread, nan=np.inf).astype(np.float32),
        )

    def _combined_light(self, field: Field) -> tuple[np.ndarray, np.ndarray]:
        """(h, w) float32 image of all bands and its variance, 0 where no pixel can be used."""
        image, variance = self._combined(field)
        return image, np.where(np.isfinite(variance), variance, 0).astype(np.float32)

    def _measured(
        self, maps: np.ndarray, field: Field, outlines: Outlines, peak: tuple[np.ndarray, np.ndarray], centre: Any
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Columns but the blend's, and the S/N (n,) within each outline."""
        pixels, count = outlines.pixels, len(peak[0])
        where = pixels.row, pixels.column
        share = np.where(pixels.other >= 0, np.clip(_sigmoid(maps[_SHARE][where]), 0.0, 1.0), 1.0).astype(np.float32)
        signal = self._signal_at(field, where)
        columns: dict[str, np.ndarray] = {
            "area": np.bincount(pixels.owner, minlength=count),
            **second_moments(signal * share, pixels, count),
            "peak_snr": self._signal_at(field, peak),
            "p_star": _sigmoid(around(maps[_STAR], peak, 1).mean((1, 2))),
        }
        galaxy = 1 - np.nan_to_num(columns["p_star"])
        parts, other = np.ones(maps.shape[1:], np.float32), np.full(maps.shape[1:], -1, np.int32)
        parts[where], other[where] = share, pixels.other
        for number, band in enumerate(self.bands):
            image, variance = field.image[number], _variance(field)[number]
            unit = _nanojansky(field.zero_points[number] if field.zero_points else None)
            iso = isophotal_flux(image, variance, pixels, share, count)
            aper = aperture_flux(image, variance, centre, self.settings.aperture, parts, outlines, other)
            stars = self._stars(field, number, centre, columns["p_star"])
            fitted = fit_gaussians(image, variance, centre, outlines.labels, outlines.patch, stars)
            total = fitted.total, fitted.total_error(_PROFILES * galaxy)
            for name, (flux, error) in (("iso", iso), ("aper", aper), ("total", total)):
                columns |= {f"flux_{name}_{band}": flux * unit, f"flux_{name}_{band}_err": error * unit}
        return columns, summed(signal * share, pixels, count)

    def _stars(self, field: Field, band: int, centre: Any, p_star: np.ndarray) -> PointSources | None:
        """Point sources of a band of the field; None where it has no PSF."""
        if field.psf is None:
            return None
        profiles = [point_profile(cell) for row in field.psf[band] for cell in row]
        return point_sources(profiles, field.psf_cell_at(*centre), np.nan_to_num(p_star) > _IS_STAR)

    def _estimated(self, field: Field) -> np.ndarray:
        """(band, h, w) float32 variance of a field that has none; 0 where pixels cannot be used."""
        image = torch.from_numpy(field.image)[None]
        noise = self._noise(image, image != 0)[0].numpy()
        usable = np.ones(field.image.shape, bool) if field.bits is None else field.bits == 0
        return usable * noise**2

    def _signal_at(self, field: Field, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """(m,) S/N of some pixels, as the network sees it."""
        image = torch.from_numpy(field.image[:, where[0], where[1]])[None, :, :, None]
        variance = torch.from_numpy(_variance(field)[:, where[0], where[1]])[None, :, :, None]
        usable = torch.ones_like(image, dtype=torch.bool)
        if field.bits is not None:
            usable = torch.from_numpy(field.bits[:, where[0], where[1]] == 0)[None, :, :, None]
        return self._signal(image, variance, usable)[0][0, :, 0].numpy()

    def _domain(self, field: Field, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n,) int32 OUT_OF_DOMAIN where the PSF is sharper or broader than those of the training data."""
        flags = np.zeros(len(x), np.int32)
        if field.psf is None or not len(x):
            return flags
        low, high = self.settings.psf_fwhm
        found = field.psf_fwhm_at(x, y)
        fits = (found > low / _TOLERANCE) & (found < high * _TOLERANCE)
        return (~fits).astype(np.int32) * np.int32(ObjectFlag.OUT_OF_DOMAIN)


def maps_of(task: SegmentTask, network: nn.Module, tile: Tile, pixel_scale: float | None = None) -> np.ndarray:
    """Maps (channels, h, w) float32 of a whole tile of the task's bands at once, without the engine.

    Sides are padded to whole strides with unusable pixels; a tile of 4096 pixels needs some 3 GB.
    """
    placed = to_device(tile, task.bands, pixel_scale=pixel_scale)
    valid = torch.ones_like(placed.image, dtype=torch.bool) if placed.bits is None else placed.bits == 0
    height, width = placed.image.shape[1:]
    beyond = (0, -width % task.stride, 0, -height % task.stride)
    image, usable = (functional.pad(item, beyond)[None] for item in (placed.image, valid))
    variance = None if placed.variance is None else functional.pad(placed.variance, beyond)[None]
    nowhere = torch.full((1, 2, 2), torch.nan, dtype=torch.float64)
    flags = torch.zeros(1, dtype=torch.int32)
    window = Cutouts(image, variance, usable, None, nowhere, flags, task.bands, pixel_scale)
    with torch.inference_mode():
        inputs, _ = task.prepare(window)
        found: np.ndarray = network(*inputs)[0, :, :height, :width].float().numpy()
    return found


def field_of(tile: Tile, bands: Sequence[str] = ("r",), zero_points: Sequence[float | None] = ()) -> Field:
    """A tile as detection sees it, without the engine."""
    bits = pixel_bits(tile.image, tile.variance, tile.mask)
    bad = bits != 0
    variance = None if tile.variance is None else np.where(bad, 0, tile.variance)
    seen = bits if bad.any() else None
    return Field(np.where(bad, 0, tile.image), variance, seen, tile.psf, tuple(bands), (0, 0), tuple(zero_points))


_BESIDE, _ALONE, _PERHAPS = 6, 12.0, 0.15
"""A peak within so many pixels of saturated ones, none other within so many, and the least probability that it has."""

_PROFILES = 0.15
"""Spread of the total flux of galaxies of one size and Gaussian flux, because their profiles differ."""

_IS_STAR = 0.5
"""`p_star` above which an object has the PSF's width and wings."""

_USUAL_WIDTH = 3.5
"""FWHM of the PSF in pixels where none is known."""

_TOLERANCE = 1.07
"""Of the FWHM of PSF images, in which the pixels' own width is."""


def _variance(field: Field) -> np.ndarray:
    """(band, h, w) of a field that has it, given or estimated."""
    assert field.variance is not None
    return field.variance


def _best_beside(
    full: np.ndarray, found: tuple[np.ndarray, np.ndarray], odds: np.ndarray, kept: np.ndarray
) -> np.ndarray:
    """(n,) peaks that stand for saturated stars (h, w) which none of those that are kept stands for."""
    more = np.zeros_like(kept)
    maybe = np.flatnonzero(~kept & (odds > _logit(_PERHAPS)))
    maybe = maybe[around(full, (found[0][maybe], found[1][maybe]), _BESIDE).any((1, 2))]
    for number in maybe[np.argsort(-odds[maybe], kind="stable")]:
        near = np.hypot(found[0] - found[0][number], found[1] - found[1][number]) < _ALONE
        more[number] = not (near & (kept | more)).any()
    return more


def _blends(outlines: Outlines, snr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) int32 1 for objects whose patch of light has another; (n,) number of the brightest one of their patch."""
    _, group = np.unique(outlines.patch, return_inverse=True)
    order = np.lexsort((-snr, group))
    first = np.zeros(len(order), np.int64)
    leaders = order[np.flatnonzero(np.diff(group[order], prepend=-1))]
    if len(order):
        first[:] = leaders[group]
    return (np.bincount(group, minlength=1)[group] > 1).astype(np.int32), first


def _nanojansky(zero_point: float | None) -> float:
    """nJy of one unit of an image; NaN where it is not known."""
    return float("nan") if zero_point is None or not np.isfinite(zero_point) else 10 ** (0.4 * (31.4 - zero_point))


def _logit(probability: float) -> float:
    return float(_log_odds(np.float64(probability)))


def _log_odds(probability: Any) -> Any:
    return np.log(probability / (1 - probability))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    """As probabilities; NaN stays NaN."""
    return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))


_MEDIAN_OF_DIFFERENCES = 0.9538725524
"""Median |a - b| of two unit normal deviates."""


def _entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean cross entropy where the truth is known; 0 where it is known nowhere."""
    known = truth.isfinite()
    if bool(known.all()):
        return functional.binary_cross_entropy_with_logits(logits, truth)
    chosen = functional.binary_cross_entropy_with_logits(logits[known], truth[known], reduction="sum")
    return chosen / known.sum().clamp_min(1)
