"""Classes of objects with calibrated probabilities: one column per class, and the most probable one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin.catalog import Column
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.errors import InputError
from astroml_plugin.tasks import pictures
from astroml_plugin.tasks.base import Task, TaskSettings, label_texts
from astroml_plugin.tasks.normalisation import Normalisation

CALIBRATION_BINS = 15
"""Equal-width bins of the expected calibration error."""


@dataclass(frozen=True)
class ClassifySettings(TaskSettings):
    """Settings of the classify task."""

    stamp_size: int = 0
    """As in `TaskSettings`."""
    resize: str = "refuse"
    """As in `TaskSettings`: a class depends on what surrounds the object, so another size is refused unless allowed."""
    normalisation: Normalisation = field(default_factory=lambda: Normalisation(unit="scale", stretch="asinh"))
    """As in `TaskSettings`; fixed scales keep colours."""
    classes: tuple[str, ...] = ()
    """Class names in column order; empty: those of `names`, else those found in the training split, sorted."""
    label: str = "label"
    """Label column; text or numbers."""
    names: dict[str, str] = field(default_factory=dict)
    """Label value (as text) -> class name; several values may share one. Empty: the values are the names."""
    label_smoothing: float = 0.0
    """Probability that the loss spreads over the other classes."""
    class_weights: str = "none"
    """"balanced" weighs each class by the inverse of its share in the training split; "none"."""
    weights: tuple[float, ...] = ()
    """The weights in use, per class (measured from the training split)."""
    temperature: float = 1.0
    """Divides the logits; fitted on the validation split."""


class ClassifyTask(Task):
    """p_<class> and label; the network gives one logit per class."""

    Settings: ClassVar[type[TaskSettings]] = ClassifySettings

    @property
    def outputs(self) -> int:
        """One logit per class."""
        return len(self.settings.classes)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label column."""
        return (self.settings.label,)

    def columns(self) -> list[Column]:
        """p_<class> float32 in the order of the classes, then label, text."""
        probabilities = [
            Column(f"p_{name}", "float32", "", "stat.probability;src.class", f"Probability that the class is {name}")
            for name in self.settings.classes
        ]
        return [*probabilities, Column("label", "string", "", "src.class", "Most probable class")]

    def adapted(self, table: pa.Table, cutouts: Cutouts) -> Task:
        """Learns class names and weights from the training split, beside the scales."""
        found = self._names(table)
        classes = self.settings.classes or tuple(sorted(set(self.settings.names.values() or found)))
        if len(classes) < 2:
            raise InputError(
                f"a classifier needs two classes or more, and the {len(found)} objects have only {', '.join(classes)}"
            )
        task = self.with_settings(classes=tuple(classes))
        if self.settings.class_weights == "balanced":
            indices = task.targets(table).numpy()
            counts = np.maximum(np.bincount(indices, minlength=len(classes)), 1)
            task = task.with_settings(weights=tuple(float(len(indices) / (len(classes) * count)) for count in counts))
        return Task.adapted(task, table, cutouts)

    def _names(self, table: pa.Table) -> np.ndarray:
        """(n,) class names."""
        texts = label_texts(table, self.settings.label)
        missing = int((texts == None).sum())  # noqa: E711
        if missing:
            column = self.settings.label
            raise InputError(
                f"{missing} of {len(texts)} objects have no label in column {column!r}: label or remove them"
            )
        names: Mapping[str, str] = self.settings.names
        if not names:
            return texts
        known = np.isin(texts, np.array(list(names), object))
        if not known.all():
            raise InputError(_unknown(texts[~known], sorted(names), "names"))
        return np.array([names[text] for text in texts], object)

    def targets(self, table: pa.Table) -> Tensor:
        """Class indices, (n,) int64.

        Raises:
            InputError: labels that are missing or that are no class, with counts.
        """
        found = self._names(table)
        position = {name: index for index, name in enumerate(self.settings.classes)}
        known = np.isin(found, np.array(list(position), object))
        if not known.all():
            raise InputError(_unknown(found[~known], list(position), "classes"))
        return torch.tensor([position[name] for name in found], dtype=torch.int64)

    def check_splits(self, targets: Mapping[str, Tensor]) -> None:
        """Every class must occur in every split."""
        super().check_splits(targets)
        classes = self.settings.classes
        for name, values in targets.items():
            counts = torch.bincount(values, minlength=len(classes))
            if int(counts.min()) == 0:
                told = ", ".join(f"{label} {int(count)}" for label, count in zip(classes, counts))
                raise InputError(f"the {name} split lacks a class ({told}): give more objects or other split fractions")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy, weighted and smoothed as set."""
        weights = torch.tensor(self.settings.weights, device=outputs.device) if self.settings.weights else None
        return torch.nn.functional.cross_entropy(
            outputs, targets, weight=weights, label_smoothing=self.settings.label_smoothing
        )

    def calibrated(self, outputs: Tensor, targets: Tensor) -> Task:
        """Fits the temperature to the validation split (Guo et al. 2017)."""
        grid = torch.logspace(-1, 1, 201)
        losses = [float(torch.nn.functional.cross_entropy(outputs / value, targets)) for value in grid]
        return self.with_settings(temperature=float(grid[int(np.argmin(losses))]))

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(n, class) float32 that sum to 1."""
        return torch.softmax(outputs / self.settings.temperature, dim=1)

    def measure(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """Probabilities and the most probable class."""
        probabilities = self.probabilities(outputs).numpy()
        columns = {f"p_{name}": probabilities[:, number] for number, name in enumerate(self.settings.classes)}
        columns["label"] = np.array(self.settings.classes, object)[probabilities.argmax(1)]
        return columns

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Accuracy, balanced accuracy, ECE, NLL and confusion matrix (row true, column predicted)."""
        probabilities = self.probabilities(outputs)
        chosen = probabilities.argmax(1)
        count = len(self.settings.classes)
        confusion = torch.bincount(targets * count + chosen, minlength=count**2).reshape(count, count)
        recall = confusion.diagonal() / confusion.sum(1).clamp_min(1)
        seen = confusion.sum(1) > 0
        likelihood = torch.log(probabilities.gather(1, targets[:, None]).clamp_min(1e-12))
        return {
            "loss": float(self.loss(outputs, targets)),
            "count": len(targets),
            "accuracy": float((chosen == targets).double().mean()),
            "balanced_accuracy": float(recall[seen].mean()),
            "ece": expected_calibration_error(probabilities, targets),
            "nll": -float(likelihood.mean()),
            "classes": list(self.settings.classes),
            "confusion": confusion.tolist(),
        }

    def figures(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Confusion matrix and reliability diagram."""
        confusion = np.array(self.metrics(outputs, targets)["confusion"])
        confidence, chosen = self.probabilities(outputs).max(1)
        right = (chosen == targets).numpy()
        return {
            "confusion": pictures.confusion_matrix(confusion, self.settings.classes),
            "reliability": pictures.reliability_diagram(confidence.numpy(), right, CALIBRATION_BINS),
        }


def expected_calibration_error(probabilities: Tensor, targets: Tensor) -> float:
    """Mean |accuracy - confidence| of the most probable class over 15 equal-width bins, weighted by their counts."""
    confidence, chosen = probabilities.double().max(1)
    right = (chosen == targets).double()
    bins = (confidence * CALIBRATION_BINS).long().clamp_max(CALIBRATION_BINS - 1)
    gap = torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, bins, right - confidence)
    return float(gap.abs().sum() / len(targets))


def _unknown(values: np.ndarray, known: list[str], setting: str) -> str:
    names, counts = np.unique(values.astype(str), return_counts=True)
    told = ", ".join(f"{str(name)!r} {count} times" for name, count in list(zip(names, counts))[:10])
    return f"labels that are no class: {told}; the classes are {', '.join(known)}: extend `{setting}` or leave_out"
