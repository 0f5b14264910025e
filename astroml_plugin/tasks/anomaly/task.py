"""How odd is an object: learned and measured signs of oddity, each against what the training population shows.

Trained on unlabelled stamps. The network gives raw numbers; here they become tail probabilities of the population at
the object's own S/N and size, and one `anomaly_score` (docs/anomaly.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from astroml_plugin.core.settings import refuse_unknown
from astroml_plugin.cutouts import Cutouts, is_complete
from astroml_plugin.evaluation import anomaly_report
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.evaluation.ranking_metrics import search_figures
from astroml_plugin.networks import autoencoder, structure
from astroml_plugin.networks.autoencoder import Measured
from astroml_plugin.networks.layers import lower_median
from astroml_plugin.pixels import native
from astroml_plugin.sources.labels import label_texts
from astroml_plugin.tasks.anomaly import graph
from astroml_plugin.tasks.anomaly.explained import ExplainedScore
from astroml_plugin.tasks.anomaly.injection import UNDECIDED, Injection
from astroml_plugin.tasks.anomaly.signs import PICTURE_WEIGHTS, SIGNS, WEIGHTS
from astroml_plugin.tasks.anomaly.tail_probability import (
    Density,
    Expectation,
    Tail,
    fit_density,
    fit_expectation,
    fit_tail,
)
from astroml_plugin.tasks.base import Task, TaskSettings
from astroml_plugin.tasks.graph import GivenStamps
from astroml_plugin.tasks.normalisation import Normalisation, border_level, border_pixels
from astroml_plugin.tasks.source_check import refuse_few

ARTEFACTS = ("none", "trail", "edge", "saturation", "pixels")
"""Values of the column `artefact`."""

LEAST = 100
"""Training stamps below which there is no population."""

_STRUCTURE = len(structure.PARTS)
_SNR_AND_SIZE = [structure.PARTS.index("log_snr"), structure.PARTS.index("log_radius")]
_EXPECTED = ("critic", "reconstruction", "latent", "line", "sharpness")
"""Signs whose expected value follows S/N and size. The judge of foreign light learned to see past both; the other signs
have the noise taken off already."""
_TRAIL_TAIL, _SHARP_TAIL = 2.0, 3.0  # -lg p of a line or of sharp pixels beyond which they are called an artefact
_LEAST_LINE, _LEAST_SHARP = 9.0, 8.0  # and in noise
_PLATEAU = 4  # further pixels of the highest value
_EDGE = 0.02  # part of the stamp without pixels


def _linear_noise() -> Normalisation:
    return Normalisation(background="border", unit="noise", stretch="linear")


@dataclass(frozen=True)
class AnomalySettings(TaskSettings):
    """Settings of `AnomalyTask`."""

    stamp_size: int = 64
    normalisation: Normalisation = field(default_factory=_linear_noise)
    latent: int = 16
    """Length of the latent vector."""
    keep_latent: bool = False
    """Whether the catalog gets the latent vector, as the column `latent`."""
    weights: dict[str, float] = field(default_factory=dict)
    """Sign -> how much its -lg p counts in the score; those left out keep `WEIGHTS` or `PICTURE_WEIGHTS`."""
    power: float = 2.0
    """Exponent of the power mean of the signs: 1 is their sum, large values let the strongest decide."""
    density_components: int = 1
    """Normal distributions in the density of latent vectors."""
    divergence: float = 1e-3
    """Weight of the divergence in the loss of a variational autoencoder."""
    injection: Injection = field(default_factory=Injection)
    """Light painted into training stamps, for networks that judge foreign light."""
    label: str = ""
    """For `evaluate` only: a label column that tells anomalies; nothing is learned from it."""
    anomalies: tuple[str, ...] = ()
    """Values of the label column, as text, that are anomalies; empty: all but "normal"."""
    density: Density = field(default_factory=Density)
    """Density of the latent vectors; training finds it, as well as the next three."""
    expectations: dict[str, Expectation] = field(default_factory=dict)
    """Sign or sharpness -> its expected value and spread in the population, by S/N and size."""
    tails: dict[str, Tail] = field(default_factory=dict)
    """Sign or sharpness -> tail of its values after the expected value is taken off."""
    score: Tail = field(default_factory=Tail)
    """Tail of the weighted power mean of the signs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unknown(self.weights, SIGNS, "weights of the task")
        if self.latent < 1 or self.density_components < 1 or self.divergence < 0:
            raise InputError(
                f"latent ({self.latent}) and density_components ({self.density_components}) must be 1 or more and "
                f"divergence ({self.divergence}) 0 or more"
            )
        if min(self.weights.values(), default=1.0) < 0 or self.power < 1:
            raise InputError(f"weights must be 0 or more ({self.weights}) and power 1 or more ({self.power})")
        if self.normalisation.stretch != "linear" or self.psf != "none":
            raise InputError("anomalies are sought in linear pixels (stretch = 'linear') and without a PSF")


class AnomalyTask(ExplainedScore):
    """Score, its signs, what kind of artefact it may be, and optionally the latent vector."""

    Settings: ClassVar[type[TaskSettings]] = AnomalySettings
    calibrates_on: ClassVar[tuple[str, ...]] = ("train", "validation")
    learns_labels: ClassVar[bool] = False
    labels = ()

    @property
    def outputs(self) -> int:
        """Numbers per object: structure, errors of the network, latent vector."""
        return _STRUCTURE + self.network_outputs

    @property
    def network_outputs(self) -> int:
        """Errors and latent vector."""
        return len(autoencoder.ERRORS) + int(self.settings.latent)

    def build_network(self, network: str | type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
        """The learned network, and the fixed layers before it."""
        return Measured(super().build_network(network, arguments), structure.Structure(), _STRUCTURE)

    @property
    def signs(self) -> dict[str, str]:
        """Signs that differ from object to object in the population -> what each is; before calibration all.

        What the network cannot give is the same number for all and has no tail: an autoencoder has no critic.
        """
        known = self.settings.tails or SIGNS
        return {name: text for name, text in SIGNS.items() if name in known}

    def columns(self) -> list[Column]:
        """Score and signs (float32), structure, artefact."""
        columns = [
            Column("anomaly_score", "float32", "", "stat.likelihood", "-lg of the population's part that is odder"),
            *(
                Column(f"anomaly_{name}", "float32", "", "stat.likelihood", f"-lg p: {text}")
                for name, text in self.signs.items()
            ),
            Column("asymmetry", "float32", "", "stat.asymmetry;src.morph.param", "Asymmetry under half a turn"),
            Column(
                "second_source",
                "float32",
                "",
                "phot.flux;arith.ratio",
                "Second source over the centre, fading outwards",
            ),
            Column("artefact", "string", "", "meta.code.qual", "none, trail, edge, saturation or pixels"),
        ]
        if self.settings.keep_latent:
            columns.append(Column("latent", f"float32[{self.settings.latent}]", "", "stat.param", "Latent vector"))
        return columns

    def targets(self, table: pa.Table) -> Tensor:
        """(n,) zeros: the stamps are unlabelled."""
        return torch.zeros(table.num_rows)

    def check_splits(self, targets: Mapping[str, Tensor]) -> None:
        """Refuse an empty split, and fewer than `LEAST` training stamps."""
        super().check_splits(targets)
        refuse_few(targets, LEAST, "a population")

    def prepare(self, cutouts: Cutouts) -> tuple[tuple[Tensor, ...], Tensor]:
        """Image as in `Task`, and a weight per pixel: variance of the sky over that of the pixel, 0 where invalid."""
        (image,), flags = super().prepare(cutouts)
        stamps = self.fitted_stamps(cutouts)
        if stamps.variance is None:
            return (image, stamps.valid.to(torch.float32)), flags
        complete, border = is_complete(stamps.valid), self.settings.normalisation.border
        known = None if complete else stamps.valid
        if native.takes(stamps.variance, known):
            usable = None if known is None else known.numpy()
            return (image, torch.from_numpy(native.sky_weights(stamps.variance.numpy(), usable, border))), flags
        sky = border_level(stamps.variance, known, border)
        weight = (sky[..., None, None] / stamps.variance.clamp_min(1e-30)).clamp_(0, 2)
        return (image, weight if complete else weight.mul_(stamps.valid)), flags

    def input_shapes(self) -> list[tuple[int, int, int]]:
        """Image and weight."""
        return 2 * super().input_shapes()

    def pretext(
        self, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Foreign light is painted into some stamps; the targets say into which."""
        image, weight = inputs
        injection = self.settings.injection
        if injection.adding == "auto":
            injection = replace(injection, adding="max" if self.settings.dtype == "uint8" else "sum")
        painted, judged = injection.apply(image, weight, generator)
        return (painted, weight), judged

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Reconstruction, critic and divergence of ordinary stamps; the judge's cross entropy of all that teach."""
        numbers = self._named(outputs)
        ordinary, taught = targets == 0, targets != UNDECIDED
        judged = functional.binary_cross_entropy_with_logits(
            numbers["foreign"], (targets == 1).float(), reduction="none"
        )
        unlike = numbers["reconstruction"] + numbers["critic"] + self.settings.divergence * numbers["divergence"]
        return _mean(unlike, ordinary) + _mean(judged, taught)

    def _named(self, outputs: Tensor) -> dict[str, Tensor]:
        names = (*structure.PARTS, *autoencoder.ERRORS)
        return {name: outputs[:, number] for number, name in enumerate(names)} | {"latent": outputs[:, len(names) :]}

    # ---- the population ----------------------------------------------------------------------------------------

    def calibrate(self, outputs: Tensor, targets: Tensor) -> Task:
        """Fit expectations, latent density, tails and score to the numbers of the training population.

        Raises:
            InputError: fewer than `LEAST` objects.
        """
        if len(outputs) < LEAST:
            raise InputError(f"a population of {len(outputs)} objects has no tail: {LEAST} are needed")
        snr_and_size = outputs[:, _SNR_AND_SIZE].double().numpy()
        density = fit_density(self._named(outputs)["latent"], self.settings.density_components)
        task = self.with_settings(density=density, expectations={}, tails={}, score=Tail())
        raw = task._raw(outputs)  # type: ignore[attr-defined]
        expectations = {name: fit_expectation(raw[name], snr_and_size) for name in _EXPECTED if np.ptp(raw[name]) > 0}
        task = task.with_settings(expectations=expectations)
        standard = task._standard(outputs)  # type: ignore[attr-defined]
        tails = {name: fit_tail(values) for name, values in standard.items() if np.ptp(values) > 0}
        task = task.with_settings(tails=tails)
        task = task.with_settings(weights=self._weights())  # a bundle keeps those that its score was calibrated with
        return task.with_settings(score=fit_tail(task._sum(task._tails(outputs))))  # type: ignore[attr-defined]

    def _raw(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Sign (and sharpness) -> (n,) float64, on scales on which populations are near normal."""
        numbers = self._named(outputs)
        plain = {name: numbers[name].double().numpy() for name in ("foreign", "reconstruction", "asymmetry", "line")}
        rooted = {
            name: np.sqrt(numbers[name].clamp_min(0).double().numpy())
            for name in ("critic", "second_source", "residual")
        }
        sharp = np.log10(numbers["sharpness"].clamp_min(1).double().numpy())
        return {**plain, **rooted, "sharpness": sharp, "latent": self.settings.density(numbers["latent"])}

    def _standard(self, outputs: Tensor) -> dict[str, np.ndarray]:
        snr_and_size = outputs[:, _SNR_AND_SIZE].double().numpy()
        known = self.settings.expectations
        return {
            name: known.get(name, Expectation())(values, snr_and_size) for name, values in self._raw(outputs).items()
        }

    def _tails(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Sign (and sharpness) -> (n,) -lg p."""
        known = self.settings.tails
        return {name: known.get(name, Tail())(values) for name, values in self._standard(outputs).items()}

    def _weights(self) -> dict[str, float]:
        """Sign -> weight in the score, for all signs."""
        return {**(PICTURE_WEIGHTS if self.settings.dtype == "uint8" else WEIGHTS), **self.settings.weights}

    def _sum(self, tails: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n,) weighted power mean of the signs; its tail is the score."""
        weights, power = self._weights(), self.settings.power
        values: np.ndarray = np.sum([weights[name] * tails[name] ** power for name in self.signs], axis=0) ** (
            1 / power
        )
        return values

    # ---- the catalog -------------------------------------------------------------------------------------------

    def decode(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """Columns of n objects."""
        tails, numbers = self._tails(outputs), self._named(outputs)
        columns = {"anomaly_score": self.settings.score(self._sum(tails))}
        columns |= {f"anomaly_{name}": tails[name] for name in self.signs}
        columns |= {name: numbers[name].numpy() for name in ("asymmetry", "second_source")}
        plain = {name: np.asarray(values, np.float32) for name, values in columns.items()}
        plain["artefact"] = self._artefacts(tails, numbers, cutouts)
        if self.settings.keep_latent:
            plain["latent"] = numbers["latent"].numpy()
        return plain

    def graph_inputs(self, stamps: GivenStamps) -> tuple[Tensor, ...]:
        """Image and weight, as of `prepare`."""
        (image,), valid = super().graph_inputs(stamps), stamps.valid.to(torch.float32)
        if stamps.variance is None:
            return image, valid
        border = border_pixels(stamps.hidden(stamps.variance), None, self.settings.normalisation.border)
        sky = lower_median(border)[..., None, None]
        return image, (sky / stamps.variance.clamp_min(1e-30)).clamp(0.0, 2.0) * valid

    def graph_columns(self, outputs: Tensor, stamps: GivenStamps) -> dict[str, Tensor]:
        """Score, signs, structure and latent vector; an artefact's kind needs flags of pixels."""
        numbers, weights = self._named(outputs), {name: self._weights()[name] for name in self.signs}
        columns = {name: numbers[name] for name in ("asymmetry", "second_source")}
        columns |= {"latent": numbers["latent"]} if self.settings.keep_latent else {}
        return graph.scored(self.settings, numbers, outputs[:, _SNR_AND_SIZE], weights) | columns

    def _artefacts(
        self, tails: Mapping[str, np.ndarray], numbers: Mapping[str, Tensor], cutouts: Cutouts
    ) -> np.ndarray:
        """(n,) values of `ARTEFACTS`; flags and missing pixels go before measured signs."""
        flags = self.cut_flags(cutouts)
        valid = self.fitted_stamps(cutouts).valid
        missing = np.zeros(len(flags)) if is_complete(valid) else 1 - valid.flatten(1).float().mean(1).cpu().numpy()
        sharp = (tails["sharpness"] > _SHARP_TAIL) & (numbers["sharpness"].numpy() > _LEAST_SHARP)
        line = (tails["line"] > _TRAIL_TAIL) & (numbers["line"].numpy() > _LEAST_LINE)
        full = 10 ** numbers["plateau"].numpy() - 1 > _PLATEAU
        edge = int(ObjectFlag.EDGE)
        kinds = {
            "saturation": (flags & int(ObjectFlag.SATURATED) > 0) | full,
            "edge": ((flags & edge) > 0) | (missing > _EDGE),
            "trail": line,
            "pixels": sharp,
        }
        return np.select(list(kinds.values()), list(kinds), "none").astype(object)

    # ---- how good it is ----------------------------------------------------------------------------------------

    def anomalous(self, table: pa.Table) -> np.ndarray | None:
        """(n,) bool by the label column, or None where the data do not tell."""
        if not self.settings.label or self.settings.label not in table.column_names:
            return None
        texts = label_texts(table, self.settings.label)
        odd = (
            np.isin(texts, np.array(self.settings.anomalies, object)) if self.settings.anomalies else texts != "normal"
        )
        return odd if 0 < odd.sum() < len(odd) else None

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Loss; how well the judge tells painted stamps; with labels and a calibrated task, figures of the ranking."""
        figures: dict[str, Any] = {"loss": float(self.loss(outputs, targets))}
        named = self._named(outputs)
        figures |= anomaly_report.painted(named["foreign"].numpy(), targets.numpy())
        odd = None if table is None else self.anomalous(table)
        if odd is not None and self.settings.score.knots:
            figures |= search_figures(self.settings.score(self._sum(self._tails(outputs))), odd, anomaly_report.FPR)
        return figures

    def baselines(self) -> Mapping[str, Callable[[Cutouts], dict[str, np.ndarray]]]:
        """Classical searches of `anomaly_report`."""
        return {name: _prepared(self, function) for name, function in anomaly_report.BASELINES.items()}

    def default_baselines(self, *, has_psf: bool, has_variance: bool) -> Mapping[str, str | None]:
        """All classical searches, each with the input that it needs."""
        return {name: anomaly_report.NEEDS.get(name) for name in anomaly_report.BASELINES}

    def assess(self, measured: Measurements, targets: Tensor, table: pa.Table) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rankings by score, signs and baselines where labels tell the anomalies, and figures of them."""
        return anomaly_report.assessed(measured, self.anomalous(table), table, self.settings.label)


Measure = Callable[[Cutouts], dict[str, np.ndarray]]
"""Columns of stamps."""


def _prepared(task: Task, function: Measure) -> Measure:
    return lambda cutouts: function(task.fitted_stamps(cutouts))


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values (n,) where the mask (n,) is true; 0 where it is true nowhere."""
    return (values * mask).sum() / mask.sum().clamp_min(1)
