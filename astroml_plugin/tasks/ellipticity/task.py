"""Galaxy ellipticities: reduced shear e1, e2 with honest errors and their shear response, in the pixel and sky frame.

Pixel frame: x = column, e1 > 0 along +x, e2 > 0 along x = y, |e| = (a - b) / (a + b). Sky frame: +x West, +y North
(GalSim, TreeCorr). The network is given the PSF and gives the posterior mean of each component under the prior of its
training set; at low S/N it therefore shrinks towards 0, and a shear is <e> / <R>, never <e>.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from astroml_plugin.catalog import Column
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.core.typing import Columns
from astroml_plugin.cutouts import Cutouts, is_complete, steps_taken
from astroml_plugin.evaluation import figures, input_errors, shape_report
from astroml_plugin.evaluation.baselines import shapes
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.networks.layers import lower_median
from astroml_plugin.sources.labels import float_labels
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.domain import DomainLimits, aperture_snr, domain_bits, measure_limits
from astroml_plugin.tasks.ellipticity import response
from astroml_plugin.tasks.graph import GivenStamps
from astroml_plugin.tasks.intervals import Intervals, IntervalSettings, IntervalTask
from astroml_plugin.tasks.normalisation import (
    Normalisation,
    border_level,
    border_pixels,
    border_width,
    normalise_psf,
    robust_width,
)
from astroml_plugin.tasks.response_fit import ResponseFit

_LARGEST = 0.999  # a reduced shear is below 1
_SCATTER_QUANTILE = 0.999  # of the validation split, above which the members disagree too much


@dataclass(frozen=True)
class EllipticitySettings(IntervalSettings):
    """Settings of the ellipticity task."""

    sizes: str = "pixels"
    """Sizes as in `TaskSettings`: an ellipticity is a ratio, and the PSF is given in the same pixels."""
    psf: str = "required"
    """PSF as in `TaskSettings`; the shape of a galaxy cannot be told from its PSF's without the PSF."""
    normalisation: Normalisation = field(default_factory=lambda: Normalisation(stretch="asinh", softening=3.0))
    """Normalisation as in `TaskSettings`; in units of the noise, so that the network knows the S/N."""
    targets: tuple[str, str] = ("e1", "e2")
    """Label columns with the true reduced shear in the pixel frame."""
    domain: DomainLimits = field(default_factory=DomainLimits)
    """Limits beyond which an object is unlike the training set; measured on the training split."""
    largest_scatter: float = 0.0
    """Standard deviation of the members over the 68.3 % half-width above which an object is OUT_OF_DOMAIN; 0 never.
    Measured on the validation split."""
    response: bool = False
    """Whether the network's response outputs were fitted (`response.fit_response`); r11 ... r22 are NaN otherwise."""


class EllipticityTask(IntervalTask):
    """e1, e2, their errors, and the response of (e1, e2) to a shear.

    Outputs of a member: those of `IntervalTask` for two values, then R11, R12, R21, R22.
    """

    Settings: ClassVar[type[IntervalSettings]] = EllipticitySettings
    has_response = True
    extra = 4
    values = 2

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of the true ellipticity."""
        return tuple(self.settings.targets)

    def columns(self) -> list[Column]:
        """Ellipticities of both frames, their errors, position angle, shear response and S/N; all float32."""
        return [Column(name, "float32", unit, ucd, text) for name, unit, ucd, text in _COLUMNS]

    def targets(self, table: pa.Table) -> Tensor:
        """True (e1, e2), (n, 2) float32.

        Raises:
            InputError: labels that are missing, no numbers, or no reduced shears.
        """
        values = float_labels(table, self.labels)
        beyond = int((np.hypot(values[:, 0], values[:, 1]) >= 1).sum())
        if beyond:
            raise InputError(
                f"labels {' and '.join(self.labels)} have |e| of 1 or more for {beyond} of {len(values)} objects: "
                f"give reduced shears, |e| = (a - b) / (a + b)"
            )
        return torch.from_numpy(values)

    def members(self, outputs: Tensor) -> Tensor:
        """Outputs (n, member, number); means from a stamp that was turned by 90 or 270 degrees are turned back."""
        turns = outputs.reshape(outputs.shape[0], -1, self.settings.members, self.per_member)
        if turns.shape[1] == 1:
            return turns[:, 0]
        signs = torch.ones_like(turns[:1, :, :1])
        signs[:, 1::2, :, :2] = -1.0
        return (turns * signs).flatten(1, 2)

    def intervals(self, outputs: Tensor) -> Intervals:
        """Means (n, 2), |e| kept below 1, and half-widths (n, 2)."""
        intervals = super().intervals(outputs)
        modulus = torch.linalg.vector_norm(intervals.mean, dim=1, keepdim=True)
        return replace(intervals, mean=intervals.mean * (_LARGEST / modulus.clamp_min(_LARGEST)))

    def response(self, outputs: Tensor) -> Tensor:
        """(n, 4) R11, R12, R21, R22 = d e_i / d g_j in the pixel frame; NaN where the bundle has none."""
        if not self.settings.response:
            return torch.full((outputs.shape[0], 4), torch.nan)
        return self.members(outputs)[..., -self.extra :].mean(1)

    def snr(self, cutouts: Cutouts) -> Tensor:
        """(n,) measured S/N as of `domain.aperture_snr`, on the CPU; the border tells what the stamps do not know."""
        stamps, scaling = self.fitted_stamps(cutouts), self.settings.normalisation
        image, variance = stamps.image.to(torch.float32), stamps.variance
        known = None if is_complete(stamps.valid) else stamps.valid
        level = border_level(image, known, scaling.border)
        if scaling.background == "none":
            level = torch.zeros_like(level)
        if variance is None:
            variance = border_width(image, known, scaling.border).square()[..., None, None]
        return aperture_snr(image, level, variance, stamps.valid).cpu()

    def scatter(self, outputs: Tensor) -> Tensor:
        """(n,) standard deviation of the members' means over the 68.3 % half-width, the larger of both components."""
        mean = self.members(outputs)[..., :2]
        if mean.shape[1] == 1:
            return torch.zeros(len(outputs))
        return (mean.std(1) / self.intervals(outputs).narrow).amax(1)

    def fit_to_training(self, table: pa.Table, cutouts: Cutouts) -> Task:
        """Fits normalisation as `Task` does, and learns what S/N and concentration the training stamps have."""
        task = super().fit_to_training(table, cutouts)
        inputs, _ = task.with_settings(domain=DomainLimits()).prepare(cutouts)
        return task.with_settings(domain=measure_limits(*inputs))

    def calibrate(self, outputs: Tensor, targets: Tensor) -> Task:
        """Fits the half-widths as `IntervalTask` does, and learns how far the members may disagree."""
        task = super().calibrate(outputs, targets)
        scatter = task.scatter(outputs)  # type: ignore[attr-defined]
        return task.with_settings(largest_scatter=1.5 * float(torch.quantile(scatter, _SCATTER_QUANTILE)))

    def prepare(self, cutouts: Cutouts) -> tuple[tuple[Tensor, ...], Tensor]:
        """Network inputs and flags of `Task.prepare`; OUT_OF_DOMAIN too for what `domain_bits` finds."""
        inputs, flags = super().prepare(cutouts)
        if self.settings.domain.measured:
            flags = flags | domain_bits(self.settings.domain, self.fitted_stamps(cutouts).valid, *inputs)
        return inputs, flags

    def to_columns(self, outputs: Tensor, cutouts: Cutouts, flags: Tensor) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Catalog columns and flags of `Task`; OUT_OF_DOMAIN too where the members disagree more than in validation."""
        columns, bits = super().to_columns(outputs, cutouts, flags)
        if self.settings.largest_scatter > 0:
            torn = (self.scatter(outputs.detach().float().cpu()) > self.settings.largest_scatter).numpy()
            bits[torn] |= int(ObjectFlag.OUT_OF_DOMAIN)
        return columns, bits

    def decode(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """Columns of n objects; sky-frame ones are NaN where the jacobian is unknown."""
        intervals = self.intervals(outputs)
        sky = to_sky(intervals.mean.double().numpy(), cutouts.jacobian.numpy())
        angle = position_angle(sky).astype(np.float32)
        angle[angle >= 180] = 0.0  # rounding of 179.9999999
        snr = self.snr(cutouts)[:, None]
        parts = [intervals.mean, intervals.narrow, intervals.wide, sky, angle[:, None], self.response(outputs), snr]
        values = np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)
        return {name: values[:, number] for number, (name, *_) in enumerate(_COLUMNS)}

    def graph_columns(self, outputs: Tensor, stamps: GivenStamps) -> dict[str, Tensor]:
        """Columns of the pixel frame, and the S/N; those of the sky need a WCS."""
        found, scaling = self.intervals(outputs), self.settings.normalisation
        edge = border_pixels(stamps.hidden(stamps.image), None, scaling.border)
        level = lower_median(edge) if scaling.background == "border" else torch.zeros_like(edge[..., 0])
        variance = stamps.variance
        if variance is None:
            variance = robust_width(edge).square()[..., None, None].expand_as(stamps.image)
        snr = aperture_snr(stamps.image, level, variance, stamps.valid)
        values = torch.cat([found.mean, found.narrow, found.wide, self.response(outputs), snr[:, None]], dim=1)
        return dict(zip(_IN_PIXELS, values.unbind(1)))

    def explained(self) -> dict[str, str]:
        """Both components in the pixel frame."""
        return {name: text for name, _, _, text in _COLUMNS[:2]}

    def explained_value(self, name: str, outputs: Tensor, place: Tensor) -> Tensor:
        """A component of the posterior mean."""
        return self.intervals(outputs).mean[:, ("e1", "e2").index(name)]

    def transform_targets(self, targets: Tensor, symmetry: tuple[int, int, int]) -> Tensor:
        """Swapping x and y reverses e1, mirroring one axis reverses e2."""
        swap, flip_x, flip_y = symmetry
        signs = torch.tensor([(-1.0) ** swap, (-1.0) ** (flip_x + flip_y)], device=targets.device)
        return targets * signs

    def fit_response(self, network: nn.Module, stamps: Iterable[Cutouts], asked: ResponseFit) -> tuple[Task, Any]:
        """Fit r11, r12, r21, r22 by `response.fit`, or take out what follows the PSF's ellipticity."""
        report = response.fit(self, network, stamps, asked)
        return (self if asked.kind == "leakage" else self.with_settings(response=True)), report

    def truth(self, table: pa.Table) -> Columns:
        """True e1 and e2; the label `snr` is not of the column's aperture."""
        values = self.targets(table).double().numpy()
        return {"e1": values[:, 0], "e2": values[:, 1]}

    def perturbations(self) -> Mapping[str, Callable[[Cutouts], Cutouts]]:
        """The usual errors of PSF model, background and noise."""
        return input_errors.USUAL

    def default_baselines(self, *, has_psf: bool, has_variance: bool) -> Mapping[str, str | None]:
        """HSM of GalSim where it is installed, and adaptive moments; both need PSF and variance."""
        return {"hsm": "galsim", "moments": None} if has_psf and has_variance else {}

    def baselines(self) -> Mapping[str, Callable[[Cutouts], dict[str, np.ndarray]]]:
        """hsm, moments, unweighted and ngmix on the one band of the stamps; the variance must be known."""
        return {name: partial(_classical, name) for name in shapes.METHODS}

    def assess(self, measured: Measurements, targets: Tensor, table: pa.Table) -> tuple[dict[str, Any], dict[str, Any]]:
        """Accuracy, coverage, response, shear biases where the labels allow, robustness, and the same of baselines."""
        return shape_report.assess(measured, targets.double().numpy(), table)

    def figures(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """True against measured ellipticity."""
        mean = self.intervals(outputs).mean
        return {"ellipticity": figures.true_against_measured(targets.numpy(), mean.numpy(), self.labels)}


def _classical(method: str, cutouts: Cutouts) -> dict[str, np.ndarray]:
    """e1, e2 of a classical method from the first band's pixels as stored."""
    if cutouts.psf is None or cutouts.variance is None or not cutouts.pixel_scale:
        raise InputError(f"{method} needs the PSF, the variance and the pixel scale of the stamps")
    planes = (cutouts.image, cutouts.variance, normalise_psf(cutouts.psf, int(cutouts.psf.shape[-1]))[0])
    image, variance, psf = (plane[:, 0].cpu().numpy() for plane in planes)
    pixel_scale = cutouts.pixel_scale * float(steps_taken(cutouts).mean())
    ellipticity = shapes.measure(method, image, variance, psf, pixel_scale)
    return {"e1": ellipticity[:, 0], "e2": ellipticity[:, 1]}


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
        values: np.ndarray = sky / (1 + np.sqrt(1 - modulus))
        return values


def position_angle(sky: np.ndarray) -> np.ndarray:
    """Degrees of the major axis from North through East, in [0, 180), from (n, 2) in the frame +x West, +y North."""
    from_west = 0.5 * np.degrees(np.arctan2(sky[:, 1], sky[:, 0]))
    values: np.ndarray = np.mod(from_west - 90.0, 180.0)
    return values


_IN_PIXELS = ("e1", "e2", "e1_err", "e2_err", "e1_err95", "e2_err95", "r11", "r12", "r21", "r22", "snr")
"""Columns that need no WCS."""

_SHAPE, _ERROR, _RESPONSE = "src.ellipticity", "stat.error;src.ellipticity", "arith.factor;src.ellipticity"
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
    ("r11", "", _RESPONSE, "Shear response d e1 / d g1, pixel frame: a mean shear is <e> / <R>"),
    ("r12", "", _RESPONSE, "Shear response d e1 / d g2, pixel frame"),
    ("r21", "", _RESPONSE, "Shear response d e2 / d g1, pixel frame"),
    ("r22", "", _RESPONSE, "Shear response d e2 / d g2, pixel frame"),
    (
        "snr",
        "",
        "stat.snr",
        "Measured S/N in a round Gaussian aperture of sigma 3 px, background of the border removed",
    ),
)
