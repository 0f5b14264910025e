"""Yes-or-no questions beside classes that exclude each other: learned together, often from other objects.

Galaxy Zoo asked several surveys different questions of like galaxies. What one network must know for all of them it
learns from all: objects of which only an answer is known teach what the classes need, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from astroml_plugin.catalog import Column
from astroml_plugin.core.typing import F32, Bool, Columns
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation import ranking_metrics
from astroml_plugin.evaluation.comparison import Comparison, Scorer
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.classification import labels as class_labels
from astroml_plugin.tasks.classification.losses import independent_loss
from astroml_plugin.tasks.judged import Report


class Questions(Task):
    """Changes of a task of classes where `also` names questions; stands before that task among the bases.

    The network gives the classes' logits, then one for each question. Targets are (n, class + question): the class as 0
    and 1, and the answers; NaN what is not known of an object.
    """

    @property
    def network_outputs(self) -> int:
        """Logits of the classes and of the questions."""
        return self.outputs + len(self.settings.also)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label columns of both."""
        return (*super().labels, *self.settings.also)  # type: ignore[safe-super]

    def columns(self) -> list[Column]:
        """Columns of the classes, with p_<question> before the label."""
        *classes, label = super().columns()  # type: ignore[safe-super]
        says = "Probability that the answer to {} is yes"
        asked = [Column(f"p_{one}", "float32", "", "stat.probability", says.format(one)) for one in self.settings.also]
        return [*classes, *asked, label]

    # ---- labels ------------------------------------------------------------------------------------------------

    def usable(self, table: pa.Table) -> np.ndarray:
        """(n,) bool: objects with a class or an answer."""
        answered = ~np.isnan(self._answers(table)).all(1)
        return np.asarray(super().usable(table) | (Task.usable(self, table) & answered))

    def _answers(self, table: pa.Table) -> F32:
        """(n, question) 0 to 1, NaN where not asked, and where the table has no such column."""
        found = np.full((table.num_rows, len(self.settings.also)), np.nan, np.float32)
        for place, name in enumerate(self.settings.also):
            if name in table.column_names and not pa.types.is_null(table[name].type):
                found[:, [place]] = class_labels.known_fractions(table, [name])
        return found

    def _classed(self, table: pa.Table) -> Bool:
        """(n,) bool: the class is known; of a table without the label column none is."""
        label = self.settings.label
        if label not in table.column_names:
            return np.zeros(table.num_rows, bool)
        return np.array([name is not None for name in class_labels.class_names(table, label, {})], bool)

    def targets(self, table: pa.Table) -> Tensor:
        """(n, class + question), NaN where unknown."""
        known = self._classed(table)
        classes = torch.full((table.num_rows, self.outputs), torch.nan)
        if known.any():
            numbers = super().targets(table.filter(pa.array(known)))  # type: ignore[safe-super]
            classes[torch.from_numpy(known)] = torch.nn.functional.one_hot(numbers, self.outputs).float()
        return torch.cat([classes, torch.from_numpy(self._answers(table))], dim=1)

    def _numbers(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) bool, objects whose class is known, and their class numbers."""
        known = ~targets[:, 0].isnan()
        return known, targets[known, : self.outputs].argmax(1)

    def class_shares(self, targets: Tensor) -> np.ndarray:
        """(class,) fractions of the objects whose class is known."""
        shares: np.ndarray = super().class_shares(self._numbers(targets)[1])  # type: ignore[misc]
        return shares

    def check_splits(self, targets: Mapping[str, Tensor]) -> None:
        """Every class occurs in every split, among the objects whose class is known."""
        super().check_splits({name: self._numbers(values)[1] for name, values in targets.items()})

    # ---- loss and probabilities --------------------------------------------------------------------------------

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The classes' loss and the binary cross entropy of the answers, each summed over what is known, per object."""
        if targets.ndim == 1:  # of classes alone
            return super().loss(outputs, targets)  # type: ignore[safe-super]
        known, truth = self._numbers(targets)
        if bool(((votes := targets[known, : self.outputs]) % 1 != 0).any()):  # of `taught`
            truth = votes
        answers = targets[:, self.outputs :]
        asked = (~answers.isnan()).sum()
        logits = outputs[:, self.outputs :]
        total = asked * independent_loss(logits, answers, None, smoothing=0.0, focal=0.0)
        if bool(known.any()):
            total = total + known.sum() * super().loss(outputs[known, : self.outputs], truth)  # type: ignore[safe-super]
        return total / len(targets)

    def taught(self, outputs: Tensor) -> Tensor:
        """Probabilities (n, class + question) of the classes and of the answers."""
        return torch.cat([super().taught(outputs), outputs[:, self.outputs :].sigmoid()], dim=1)

    def calibrate(self, outputs: Tensor, targets: Tensor) -> Task:
        """Fits the temperature on the objects whose class is known."""
        known, numbers = self._numbers(targets)
        return super().calibrate(outputs[known, : self.outputs], numbers)

    def logits(self, outputs: Tensor) -> Tensor:
        """(n, class) float32 logits of the classes' probabilities."""
        logits: Tensor = super().logits(outputs[:, : self.outputs])  # type: ignore[misc]
        return logits

    def decode(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """Columns of classes and questions."""
        chances = outputs[:, self.outputs :].sigmoid().numpy()
        answers = {f"p_{name}": chances[:, place] for place, name in enumerate(self.settings.also)}
        return {**super().decode(outputs, cutouts), **answers}  # type: ignore[safe-super]

    def graph_columns(self, outputs: Tensor, stamps: Any) -> dict[str, Tensor]:
        """Probabilities of both."""
        chances = outputs[:, self.outputs :].sigmoid().unbind(1)
        answers = {f"p_{name}": chance for name, chance in zip(self.settings.also, chances)}
        return {**super().graph_columns(outputs, stamps), **answers}

    # ---- how good ----------------------------------------------------------------------------------------------

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Figures of the classes, of objects whose class is known, and the AUROC of each question."""
        known, numbers = self._numbers(targets)
        found: dict[str, Any] = {"count": 0}
        if bool(known.any()):
            found = super().metrics(outputs[known, : self.outputs], numbers)
        for place, name in enumerate(self.settings.also, self.outputs):
            asked = ~targets[:, place].isnan()
            yes = targets[asked, place].numpy() > 0.5
            if yes.any() and not yes.all():
                found[f"auroc_{name}"] = ranking_metrics.auroc(outputs[asked, place].double().numpy(), yes)
        return {**found, "loss": float(self.loss(outputs, targets))}

    def assess(self, measured: Measurements, targets: Tensor, table: pa.Table) -> Report:
        """Report of the classes, on objects whose class is known."""
        known, numbers = self._numbers(targets)
        mask = known.numpy()
        own = replace(measured, own={name: values[mask] for name, values in measured.own.items()})
        return super().assess(own, numbers, table.filter(pa.array(mask)))

    def truth(self, table: pa.Table) -> Columns:
        """The class of each object; None where unknown."""
        known = self._classed(table)
        names = np.full(table.num_rows, None, object)
        if known.any():
            numbers = super().targets(table.filter(pa.array(known)))  # type: ignore[safe-super]
            names[known] = np.array(self.settings.classes, object)[numbers.numpy()]
        return {"label": names}

    def scorer(self, score: str, columns: Columns, truth: Columns) -> Scorer:
        """A score as a function of rows: those without a class do not count."""
        known = _known(truth)
        place = np.cumsum(known) - 1
        inner = super().scorer(score, *(_only(given, known) for given in (columns, truth)))
        return lambda rows: inner(place[rows][known[rows]])

    def comparison(self, columns: Columns, truth: Columns, repeats: int = 500) -> Comparison:
        """Scores of the classes, on objects whose class is known."""
        known = _known(truth)
        return super().comparison(_only(columns, known), _only(truth, known), repeats)


def _known(truth: Columns) -> Bool:
    return np.array([name is not None for name in truth["label"]], bool)


def _only(columns: Columns, rows: Bool) -> Columns:
    return {name: np.asarray(values)[rows] for name, values in columns.items()}
