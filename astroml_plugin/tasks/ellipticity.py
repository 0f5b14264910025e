"""Galaxy ellipticities: reduced shear e1, e2 with honest errors, in the pixel and the sky frame.

Pixel frame: x = column, e1 > 0 along +x, e2 > 0 along x = y, |e| = (a - b) / (a + b). Sky frame: +x West, +y North
(GalSim, TreeCorr). The network is given the PSF and gives the posterior mean of each component under the prior of its
training set; at low S/N it therefore shrinks towards 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin.catalog import Column
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.tasks import pictures
from astroml_plugin.tasks.base import Task, TaskSettings, float_labels
from astroml_plugin.tasks.normalisation import Normalisation

LEVELS = (0.683, 0.95)
"""Probability content of the intervals e ± e_err and e ± e_err95."""

_LARGEST = 0.999  # a reduced shear is below 1
_SNR_EDGES = (10.0, 20.0, 50.0, 100.0, 200.0)


@dataclass(frozen=True)
class EllipticitySettings(TaskSettings):
    """Settings of the ellipticity task."""

    psf: str = "required"
    """As in `TaskSettings`; the shape of a galaxy cannot be told from its PSF's without the PSF."""
    normalisation: Normalisation = field(default_factory=lambda: Normalisation(stretch="asinh", softening=3.0))
    """As in `TaskSettings`; in units of the noise, so that the network knows the S/N."""
    targets: tuple[str, str] = ("e1", "e2")
    """Label columns with the true reduced shear in the pixel frame."""
    error_scale: tuple[float, float] = (1.0, 1.0)
    """Factors on the 68.3 % and 95 % half-widths, fitted on the validation split."""


class EllipticityTask(Task):
    """e1, e2 and their errors.

    Network outputs per object: mean (2), log width (2), log ratio to it of the 68.3 % (2) and the 95 % half-width (2):
    one Gaussian width cannot meet both contents, since the posterior is not Gaussian.
    """

    Settings: ClassVar[type[TaskSettings]] = EllipticitySettings
    outputs = 8  # type: ignore[assignment]

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of the true ellipticity."""
        return tuple(self.settings.targets)

    def columns(self) -> list[Column]:
        """Ellipticities of both frames, their errors and the position angle; all float32."""
        return [Column(name, "float32", unit, ucd, text) for name, unit, ucd, text in _COLUMNS]

    def targets(self, table: pa.Table) -> Tensor:
        """True (e1, e2), (n, 2) float32."""
        return torch.from_numpy(float_labels(table, self.labels))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Gaussian negative log-likelihood for mean and width, pinball loss for the logarithm of both half-widths."""
        mean, log_width, ratios = _split(outputs)
        offset = targets - mean
        likelihood = (0.5 * (offset * torch.exp(-log_width)) ** 2 + log_width).mean()
        size = offset.detach().abs().clamp_min(1e-4).log()  # a quantile's logarithm is the quantile of the logarithms
        pinball = torch.zeros_like(likelihood)
        for level, ratio in zip(LEVELS, ratios):
            excess = size - (log_width.detach() + ratio)
            pinball = pinball + torch.maximum(level * excess, (level - 1) * excess).mean()
        return likelihood + pinball

    def calibrated(self, outputs: Tensor, targets: Tensor) -> EllipticityTask:
        """Scales both half-widths so that exactly 68.3 % and 95 % of the validation split lie inside."""
        unscaled = self.with_settings(error_scale=(1.0, 1.0))
        mean, widths = unscaled.intervals(outputs)  # type: ignore[attr-defined]
        offset = (targets - mean).abs()
        scale = tuple(float(torch.quantile(offset / width, level)) for level, width in zip(LEVELS, widths))
        return self.with_settings(error_scale=scale)  # type: ignore[return-value]

    def intervals(self, outputs: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Mean (n, 2), |e| kept below 1, and the half-widths (n, 2) of the 68.3 % and 95 % intervals."""
        mean, log_width, ratios = _split(outputs)
        modulus = torch.linalg.vector_norm(mean, dim=1, keepdim=True)
        mean = mean * (_LARGEST / modulus.clamp_min(_LARGEST))
        narrow, wide = (torch.exp(log_width + ratio) * scale for ratio, scale in zip(ratios, self.settings.error_scale))
        return mean, (narrow, torch.maximum(narrow, wide))

    def measure(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """Columns of n objects; sky-frame ones are NaN where the jacobian is unknown."""
        mean, (narrow, wide) = self.intervals(outputs)
        sky = to_sky(mean.double().numpy(), cutouts.jacobian.numpy())
        values = np.concatenate([mean.numpy(), narrow.numpy(), wide.numpy(), sky], axis=1).astype(np.float32)
        columns = {name: values[:, number] for number, (name, *_) in enumerate(_COLUMNS[:-1])}
        columns["position_angle"] = position_angle(sky).astype(np.float32)
        columns["position_angle"][columns["position_angle"] >= 180] = 0.0  # rounding of 179.9999999
        return columns

    def transform_targets(self, targets: Tensor, symmetry: tuple[int, int, int]) -> Tensor:
        """Swapping x and y reverses e1, mirroring one axis reverses e2."""
        swap, flip_x, flip_y = symmetry
        signs = torch.tensor([(-1.0) ** swap, (-1.0) ** (flip_x + flip_y)], device=targets.device)
        return targets * signs

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """RMSE, slope and offset of (e - truth) against truth, coverage; also per S/N bin if `snr` is a label."""
        mean, widths = self.intervals(outputs)
        result: dict[str, Any] = {"loss": float(self.loss(outputs, targets)), **_merit(mean, widths, targets)}
        if table is not None and "snr" in table.column_names:
            snr = torch.from_numpy(np.array(table["snr"].to_numpy(), np.float64))
            bins = {}
            for low, high in pairwise(_SNR_EDGES):
                chosen = (snr >= low) & (snr < high)
                if int(chosen.sum()) > 1:
                    inside = (widths[0][chosen], widths[1][chosen])
                    bins[f"{low:g}-{high:g}"] = _merit(mean[chosen], inside, targets[chosen])
            result["snr_bins"] = bins
        return result

    def figures(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """True against measured ellipticity."""
        mean, _ = self.intervals(outputs)
        return {"ellipticity": pictures.true_against_measured(targets.numpy(), mean.numpy(), self.labels)}


def _split(outputs: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Mean (n, 2), log width (n, 2), log ratios (n, 2) of the 68.3 % and the 95 % half-width to that width."""
    log_width = outputs[:, 2:4].clamp(-8.0, 3.0) - 1.5
    narrow = outputs[:, 4:6].clamp(-3.0, 3.0)
    wide = outputs[:, 6:8].clamp(-3.0, 3.0) + 0.7
    return outputs[:, 0:2], log_width, (narrow, wide)


def _merit(mean: Tensor, widths: tuple[Tensor, Tensor], targets: Tensor) -> dict[str, Any]:
    """Figures of merit of one sample."""
    offset = mean - targets
    centred = targets - targets.mean(0)
    slope = (centred * offset).sum(0) / (centred**2).sum(0)
    return {
        "count": len(targets),
        "rmse": [float(value) for value in offset.square().mean(0).sqrt()],
        "slope": [float(value) for value in slope],
        "offset": [float(value) for value in offset.mean(0)],
        "coverage_683": [float(value) for value in (offset.abs() <= widths[0]).double().mean(0)],
        "coverage_95": [float(value) for value in (offset.abs() <= widths[1]).double().mean(0)],
    }


def to_sky(ellipticity: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """Reduced shear on the sky from that in pixels, exactly, for any linear map: rotated, mirrored, sheared.

    The moments of an ellipse with distortion chi = 2 e / (1 + |e|²) are Q ∝ [[1 + chi1, chi2], [chi2, 1 - chi1]];
    on the sky they are J Q Jᵀ (Bartelmann & Schneider 2001, section 4).

    Args:
        ellipticity: (n, 2) in the pixel frame, |e| < 1.
        jacobian: (n, 2, 2) arcsec (+x West, +y North) per pixel (x, y).

    Returns:
        (n, 2) in the frame +x West, +y North; NaN where the jacobian is.
    """
    chi = 2 * ellipticity / (1 + (ellipticity**2).sum(1, keepdims=True))
    moments = np.empty((len(chi), 2, 2))
    moments[:, 0, 0], moments[:, 1, 1] = 1 + chi[:, 0], 1 - chi[:, 0]
    moments[:, 0, 1] = moments[:, 1, 0] = chi[:, 1]
    turned = jacobian @ moments @ jacobian.transpose(0, 2, 1)
    trace = turned[:, 0, 0] + turned[:, 1, 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        sky = np.stack([turned[:, 0, 0] - turned[:, 1, 1], 2 * turned[:, 0, 1]], axis=1) / trace[:, None]
        modulus = np.minimum((sky**2).sum(1, keepdims=True), 1.0)
        return sky / (1 + np.sqrt(1 - modulus))


def position_angle(sky: np.ndarray) -> np.ndarray:
    """Degrees of the major axis from North through East, in [0, 180), from (n, 2) in the frame +x West, +y North."""
    from_west = 0.5 * np.degrees(np.arctan2(sky[:, 1], sky[:, 0]))
    return np.mod(from_west - 90.0, 180.0)


_SHAPE, _ERROR = "src.ellipticity", "stat.error;src.ellipticity"
_COLUMNS = (
    ("e1", "", _SHAPE, "Reduced shear along pixel x, |e| = (a-b)/(a+b)"),
    ("e2", "", _SHAPE, "Reduced shear along pixel x = y"),
    ("e1_err", "", _ERROR, "Half-width of the central 68.3 % interval of e1"),
    ("e2_err", "", _ERROR, "Half-width of the central 68.3 % interval of e2"),
    ("e1_err95", "", _ERROR, "Half-width of the central 95 % interval of e1"),
    ("e2_err95", "", _ERROR, "Half-width of the central 95 % interval of e2"),
    ("e1_sky", "", _SHAPE, "Reduced shear in the frame +x West, +y North, first component"),
    ("e2_sky", "", _SHAPE, "Reduced shear in the frame +x West, +y North, second component"),
    ("position_angle", "deg", "pos.posAng", "Major axis from North through East, [0, 180)"),
)
