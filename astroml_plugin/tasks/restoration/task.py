"""Galaxies as a sharper eye would see them: seeing and noise taken off. For looking at, never for measuring.

A restored pixel is what galaxies of the training set make likely, not what was observed: shapes, fluxes and details
are drawn towards them (docs/generation.md says how much). Catalog columns and card carry the warning with the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from astroml_plugin.catalog import Column
from astroml_plugin.core import registry
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.cutouts import Cutouts, is_complete
from astroml_plugin.networks.framing import shape_of
from astroml_plugin.networks.tikhonet import Tikhonet, blurred, moffat
from astroml_plugin.networks.tikhonet import restored as filtered
from astroml_plugin.tasks.base import Task, TaskSettings
from astroml_plugin.tasks.normalisation import Normalisation, border_level, border_width, normalise_psf
from astroml_plugin.tasks.symmetries import transform

WARNING = "restored, not observed: not for measuring"
"""Warning in every description of restored pixels."""
_MEASURED = 4096  # objects whose shapes are compared


def _raw() -> Normalisation:
    return Normalisation(background="border", unit="scale")


@dataclass(frozen=True)
class RestoreSettings(TaskSettings):
    """Settings of `RestoreTask`."""

    stamp_size: int = 0
    psf: str = "required"
    normalisation: Normalisation = field(default_factory=_raw)
    """The background is taken off; the network works in units of each stamp's noise."""
    sharp_fwhm: float = 0.4
    """Arcsec: PSF (round Moffat, beta 3) of the restored pixels, that of the truth trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.psf != "required" or self.normalisation.unit != "scale" or self.normalisation.stretch != "linear":
            raise InputError(
                "restoring needs the PSF (psf = 'required') and linear pixels in one unit (unit = 'scale')"
            )
        if self.sharp_fwhm <= 0:
            raise InputError(f"sharp_fwhm ({self.sharp_fwhm}) must be above 0 arcsec")


class RestoreTask(Task):
    """Restored pixels as one column of vectors, and whether they agree with what was observed."""

    Settings: ClassVar[type[TaskSettings]] = RestoreSettings
    labels = ()

    @property
    def layers(self) -> tuple[str, ...]:  # type: ignore[override]
        """The truth of pixels that is learned: `sharp_<band>` of each band (simulate --preset restoration)."""
        return tuple(f"sharp_{band}" for band in self.bands)

    @property
    def outputs(self) -> int:
        """Pixels of a stamp, all bands."""
        return len(self.bands) * self.stamp_size**2

    @property
    def sharp_pixels(self) -> float:
        """FWHM of the restored pixels' PSF, pixels."""
        if not self.pixel_scale:
            raise InputError("restoring needs the pixel scale of the stamps: give it when they are ingested")
        return float(self.settings.sharp_fwhm / self.pixel_scale)

    def build_network(self, network: str | type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
        """The network of maps, behind the filter that knows the PSF.

        Raises:
            InputError: also a stamp size that the network's strides do not divide.
        """
        kind = registry.load(registry.NETWORKS, network) if isinstance(network, str) else network
        try:
            built = kind(2 * len(self.bands) + 1, len(self.bands), **arguments)
        except (TypeError, ValueError) as error:
            raise InputError(f"network {network!r} cannot be built with {dict(arguments)}: {error}") from None
        stride = getattr(built, "stride", 1)
        if self.stamp_size % stride:
            raise InputError(
                f"stamps of {self.stamp_size} px cannot be restored: the network takes multiples of {stride}"
            )
        return Tikhonet(built, self.sharp_pixels, self.stamp_size)

    def columns(self) -> list[Column]:
        """Pixels in the stamps' own units, band by band, row by row; and reduced chi² of the observed ones."""
        return [
            Column(
                "restored", f"float32[{self.outputs}]", "", "phot.flux;obs.image", f"Pixels (band, y, x), {WARNING}"
            ),
            Column("restored_chi2", "float32", "", "stat.fit.chi2", "Reduced chi2 of the observed pixels against them"),
        ]

    def fit_to_training(self, table: pa.Table, cutouts: Cutouts) -> Task:
        """Pixels keep their unit.

        Raises:
            InputError: stamps of another size than the truth of their pixels.
        """
        if tuple(cutouts.image.shape[-2:]) != (self.stamp_size, self.stamp_size):
            raise InputError(
                f"the stamps are {cutouts.image.shape[-1]} px wide and stamp_size is {self.stamp_size}: the truth of "
                f"pixels is not cut, leave stamp_size at 0"
            )
        ones = (1.0,) * len(self.bands)
        return self.with_settings(normalisation=Normalisation(background="border", unit="scale", scales=ones))

    @property
    def scale_free(self) -> bool:
        """True: pixels are in units of their noise, and what is restored is in the unit of the stamps."""
        return True

    def targets(self, table: pa.Table) -> Tensor:
        """Nothing from the table, (n, 0): layers of the truth of pixels are the targets."""
        return torch.zeros(table.num_rows, 0)

    def prepare(self, cutouts: Cutouts) -> tuple[tuple[Tensor, ...], Tensor]:
        """Pixels in units of the noise (n, b, s, s), PSFs, and the noise (n, b, 1, 1)."""
        (image, psf), flags = super().prepare(cutouts)
        noise, estimated = self._noise(cutouts)
        flags = flags | (int(ObjectFlag.NO_VARIANCE) if estimated else 0)
        return (image / noise, psf, noise), flags

    def _noise(self, cutouts: Cutouts) -> tuple[Tensor, bool]:
        """(n, b, 1, 1) noise of the sky, and whether it was estimated from the border because no variance is there."""
        stamps = self.fitted_stamps(cutouts)
        valid, border = (None if is_complete(stamps.valid) else stamps.valid), self.settings.normalisation.border
        if stamps.variance is not None:
            level = border_level(stamps.variance, valid, border)
            noise = torch.where(level > 0, level.clamp_min(0).sqrt(), torch.ones_like(level))
        else:
            noise = border_width(stamps.image.to(torch.float32), valid, border)
        return noise[..., None, None], stamps.variance is None

    def input_shapes(self) -> list[tuple[int, int, int]]:
        """Image, PSF, noise."""
        return [*super().input_shapes(), (len(self.bands), 1, 1)]

    def transform_targets(self, targets: Tensor, symmetry: tuple[int, int, int]) -> Tensor:
        """Truth of stamps that went through a symmetry."""
        return transform(targets, symmetry)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Minus the peak signal-to-noise ratio, in units of 20 dB: bright and faint galaxies count alike."""
        return -self.psnr(outputs, targets).mean() / 20

    def psnr(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(n,) dB: squared peak of the truth over the mean squared error."""
        truth = targets.float().flatten(1)
        peak = truth.amax(1).clamp_min(1e-6)
        return -10 * ((outputs - truth).square().mean(1) / peak.square()).clamp_min(1e-12).log10()

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Loss, PSNR (dB), and what became of flux, size and ellipticity of the light: see `shape_bias`."""
        figures = {"loss": float(self.loss(outputs, targets)), "psnr": float(self.psnr(outputs, targets).mean())}
        shape = (-1, len(self.bands), self.stamp_size, self.stamp_size)
        return figures | shape_bias(outputs[:_MEASURED].reshape(shape), targets[:_MEASURED].float().reshape(shape))

    def decode(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """Columns of n objects."""
        stamps = self.fitted_stamps(cutouts)
        image, _ = self.settings.normalisation.apply(stamps.image, stamps.variance, stamps.valid)
        pixels = outputs.reshape(image.shape).to(image.device)
        noise, _ = self._noise(cutouts)
        variance = noise.square() if stamps.variance is None else stamps.variance.clamp_min(1e-30)
        seen = blurred(pixels, self._psf(stamps), self._sharp(image))
        chi2 = ((seen - image).square() / variance * stamps.valid).flatten(1).sum(1)
        chi2 = chi2 / stamps.valid.flatten(1).sum(1).clamp_min(1)
        return {"restored": outputs.numpy(), "restored_chi2": chi2.cpu().numpy().astype(np.float32)}

    def baselines(self) -> Mapping[str, Any]:
        """The Wiener filter of the network's first step alone."""
        return {"wiener": self._wiener}

    def _wiener(self, cutouts: Cutouts) -> dict[str, np.ndarray]:
        (image, psf, noise), _ = self.prepare(cutouts)
        return {"restored": (filtered(image, psf, self._sharp(image)) * noise).flatten(1).cpu().numpy()}

    def _psf(self, cutouts: Cutouts) -> Tensor:
        return cutouts.of_psf(normalise_psf, self.settings.psf_size)[0]

    def _sharp(self, like: Tensor) -> Tensor:
        return moffat(self.sharp_pixels, self.stamp_size).to(like.device)


def shape_bias(restored: Tensor, truth: Tensor) -> dict[str, float]:
    """How wrong it would be to measure restored images (n, b, s, s), against the truth (same shape).

    Returns:
        ellipticity_m, ellipticity_c (means of both components): slope less 1 and offset of e against the true one;
        ellipticity_rms; flux_bias, size_bias: medians of the relative errors; flux_scatter: 68 % half-width;
        shapeless: part of the objects whose light fits no Gaussian any more.
    """
    ours, right = shape_of(restored.sum(1)), shape_of(truth.sum(1))
    good = (ours.size > 0) & (right.size > 0)
    restored_e, true_e = ours.e[good], right.e[good]
    if int(good.sum()) < 3:
        return {"shapeless": float(1 - good.float().mean())}
    centred = true_e - true_e.mean(0)
    slope = (centred * restored_e).sum(0) / centred.square().sum(0).clamp_min(1e-12)
    flux = ours.flux[good] / right.flux[good] - 1
    return {
        "ellipticity_m": float(slope.mean() - 1),
        "ellipticity_c": float((restored_e - slope * true_e).mean()),
        "ellipticity_rms": float((restored_e - true_e).square().mean().sqrt()),
        "flux_bias": float(flux.median()),
        "flux_scatter": float((flux.quantile(0.84) - flux.quantile(0.16)) / 2),
        "size_bias": float((ours.size[good] / right.size[good] - 1).median()),
        "shapeless": float(1 - good.float().mean()),
    }
