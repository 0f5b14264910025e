"""Classes of objects with calibrated probabilities: one column per class, and a label.

Probabilities hold for the class fractions of the training split: class weights of the loss are undone, a temperature
fitted on the validation split divides the logits, and the setting `prior` shifts them to the fractions of a survey
(`astroml_plugin.evaluation.calibration`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.catalog import Column
from astroml_plugin.core.description import and_more_of
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64, Columns
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation import calibration, class_comparison, class_figures, class_metrics, class_report
from astroml_plugin.evaluation.comparison import Comparison, Score, Scorer
from astroml_plugin.evaluation.measurements import Measurements
from astroml_plugin.evaluation.vote_report import against_votes
from astroml_plugin.tasks.base import Task, TaskRunOptions, TaskSettings
from astroml_plugin.tasks.classification import labels as class_labels
from astroml_plugin.tasks.classification.explained import ExplainedClasses
from astroml_plugin.tasks.classification.losses import dirichlet_loss, independent_loss, votes_loss
from astroml_plugin.tasks.classification.questions import Questions
from astroml_plugin.tasks.classification.settings import ClassifyRunOptions, ClassifySettings
from astroml_plugin.tasks.judged import Outputs, Report
from astroml_plugin.tasks.test_time_augmentation import COUNTS, averaged

_MOST_NAMED = 12
"""Classes that an error names at most."""


class ClassifyTask(ExplainedClasses):
    """p_<class> and label; the network gives one logit per class."""

    Settings: ClassVar[type[TaskSettings]] = ClassifySettings
    RunOptions: ClassVar[type[TaskRunOptions]] = ClassifyRunOptions
    turns: ClassVar[bool] = True
    few_stamps: ClassVar[Mapping[str, Any]] = {"symmetries": 8}

    @classmethod
    def from_settings(cls, values: Mapping[str, Any], where: str = "[settings] of the task") -> Task:
        """The task with plain settings; one that asks questions, too, where `also` names some."""
        made = super().from_settings(values, where)
        return _ClassifyAndAsk(made.settings) if made.settings.also else made

    @property
    def outputs(self) -> int:
        """One logit per class."""
        return len(self.settings.classes)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label columns."""
        several = (*self.settings.label_columns, *filter(None, [self.settings.votes]))
        return several or (self.settings.label,)

    def columns(self) -> list[Column]:
        """p_<class> float32 in the order of the classes, then label, text."""
        several = self.settings.multi_label
        says = "Probability of being {}" if several else "Probability that the class is {}"
        probabilities = [
            Column(f"p_{name}", "float32", "", "stat.probability;src.class", says.format(name))
            for name in self.settings.classes
        ]
        what = f"Classes of probability 0.5 or more, joined by {class_labels.SEPARATOR}" if several else ""
        if self.settings.balance:
            what = f"Class, rare ones favoured with a balance of {self.settings.balance:g}"
        return [*probabilities, Column("label", "string", "", "src.class", what or "Most probable class")]

    # ---- labels ------------------------------------------------------------------------------------------------

    def usable(self, table: pa.Table) -> np.ndarray:
        """(n,) bool, without objects of `leave_out` and, where `missing` says so, without those that have no label."""
        usable = super().usable(table)
        if self.settings.missing == "leave_out":
            usable &= ~self._missing(table)
        return usable

    def _missing(self, table: pa.Table) -> np.ndarray:
        """(n,) bool: nothing is known of the object's class."""
        settings = self.settings
        if settings.label_columns and settings.multi_label:
            return np.asarray(np.isnan(class_labels.known_fractions(table, settings.label_columns)).all(1))
        if settings.label_columns:
            return np.asarray(np.isnan(class_labels.votes(table, settings.label_columns, settings.votes)).any(1))
        if settings.multi_label:
            return np.array([classes is None for classes in class_labels.class_lists(table, settings.label, {})], bool)
        return np.array([name is None for name in class_labels.class_names(table, settings.label, {})], bool)

    def targets(self, table: pa.Table) -> Tensor:
        """Class numbers (n,) int64; of soft labels votes (n, class); with `multi_label` 0 to 1, NaN where unknown.

        Raises:
            InputError: labels that are missing or that are no class, with counts.
        """
        settings = self.settings
        column = ", ".join(self.labels)
        if not settings.multi_label and not settings.label_columns:
            names = class_labels.class_names(table, settings.label, settings.names)
            return class_labels.indices(names, settings.classes, settings.label)
        if not settings.multi_label:
            fractions = class_labels.votes(table, settings.label_columns, settings.votes)
        elif settings.label_columns:
            fractions = class_labels.known_fractions(table, settings.label_columns)
        else:
            lists = class_labels.class_lists(table, settings.label, settings.names)
            fractions = class_labels.memberships(lists, settings.classes)
        class_labels.refuse_missing(np.isnan(fractions).all(1), column)
        return torch.from_numpy(fractions)

    def fit_to_training(self, table: pa.Table, cutouts: Cutouts) -> Task:
        """Learns class names, fractions and weights from the training split, beside the scales."""
        classes = self._classes(table)
        class_labels.check_classes(classes, 1 if self.settings.multi_label else 2, table.num_rows)
        task = type(self)(replace(self.settings, classes=classes, training_prior=(), prior={}))
        targets = task.targets(table)
        class_labels.refuse_fractions(targets, self.settings.likelihood)
        shares = task.class_shares(targets)
        changes: dict[str, Any] = {"training_prior": tuple(float(value) for value in shares)}
        if self.settings.class_weights == "balanced":
            safe = np.clip(shares, 1e-6, 1 - 1e-6)
            balanced = (1 - safe) / safe if self.settings.multi_label else 1 / (len(classes) * safe)
            changes["weights"] = tuple(float(value) for value in balanced)
        return Task.fit_to_training(task.with_settings(**changes, prior=self.settings.prior), table, cutouts)

    def _classes(self, table: pa.Table) -> tuple[str, ...]:
        """Class names in column order."""
        settings = self.settings
        named = settings.classes or settings.label_columns or tuple(sorted(set(settings.names.values())))
        if named:
            return tuple(named)
        if settings.multi_label:
            lists = class_labels.class_lists(table, settings.label, {})
            return tuple(sorted({name for classes in lists if classes is not None for name in classes}))
        names = class_labels.class_names(table, settings.label, {})
        class_labels.refuse_missing(np.array([name is None for name in names], bool), settings.label)
        return tuple(sorted(set(names)))

    def class_shares(self, targets: Tensor) -> np.ndarray:
        """(class,) float64 fraction of the objects (of the votes, of the known entries) that have each class."""
        if targets.ndim == 1:
            return np.bincount(targets.numpy(), minlength=self.outputs) / max(1, len(targets))
        values = targets.numpy().astype(np.float64)
        if not self.settings.multi_label:
            return np.asarray(values.sum(0) / max(values.sum(), 1e-12))
        known = ~np.isnan(values)
        return np.asarray(np.nansum(values, 0) / np.maximum(known.sum(0), 1))

    def check_splits(self, targets: Mapping[str, Tensor]) -> None:
        """Every class must occur in every split, and with `multi_label` also objects that are known not to have it."""
        super().check_splits(targets)
        for name, values in targets.items():
            counts = self._examples(values)
            if counts.min() == 0:
                text = self._counts_text(counts)
                raise InputError(f"the {name} split lacks a class ({text}): give more objects or other split fractions")

    def _counts_text(self, counts: np.ndarray) -> str:
        """Text of the examples of every class (class, 1 or 2); of many classes, only some that are lacking."""
        classes = self.settings.classes
        shown, rest = range(len(classes)), ""
        if len(classes) > _MOST_NAMED:
            lacking = np.flatnonzero(counts.min(1) == 0)
            shown, rest = lacking[:_MOST_NAMED].tolist(), f", {len(lacking)} of {len(classes)} classes in all"
        text = ", ".join(f"{classes[k]} {'/'.join(str(int(count)) for count in counts[k])}" for k in shown)
        return text + (" (with/without)" if self.settings.multi_label else "") + rest

    def _examples(self, targets: Tensor) -> np.ndarray:
        """(class, 1) objects of each class, or (class, 2) with and without it."""
        if self.settings.multi_label:
            values = targets.numpy()
            return np.stack([(values > 0.5).sum(0), (values <= 0.5).sum(0)], axis=1)
        if targets.ndim == 1:
            return np.bincount(targets.numpy(), minlength=self.outputs)[:, None]
        result: np.ndarray = (targets.numpy() > 0).sum(0)[:, None]
        return result

    # ---- options of a run --------------------------------------------------------------------------------------

    def for_run(self, options: Any) -> Task:
        """The task for the survey's class fractions, averaged over so many symmetries.

        Raises:
            InputError: as `with_prior`.
        """
        changed = super().for_run(options).settings
        if options.symmetries is not None:
            changed = replace(changed, symmetries=options.symmetries)
        task = type(self)(changed)
        return task.with_prior(options.prior) if options.prior else task

    def with_prior(self, prior: Mapping[str, float]) -> ClassifyTask:
        """The task whose probabilities hold for these class fractions of a survey.

        Raises:
            InputError: unknown classes, fractions that cannot be, or a bundle that does not know those of its training.
        """
        settings = self.settings
        calibration.full_prior(prior, settings.classes, settings.training_prior, independent=settings.multi_label)
        return type(self)(replace(settings, prior=dict(prior)))

    @classmethod
    def takers(cls, name: str, value: Any, tasks: Sequence[Task]) -> Sequence[Task]:
        """A prior goes to the bundles that have all its classes."""
        if name != "prior":
            return tasks
        takers = [task for task in tasks if set(value) <= set(task.settings.classes)]
        if not takers:
            classes = "; ".join(and_more_of(task.settings.classes) for task in tasks)
            raise InputError(f"no bundle has all classes of the prior ({and_more_of(list(value))}): {classes}")
        return takers

    def run_record(self, options: Any) -> dict[str, Any]:
        """The prior, the number of symmetries in use and the bundle's own, which a catalog is compared with."""
        bundle = self.settings.symmetries
        used = {"prior": dict(options.prior), "symmetries": options.symmetries or bundle, "bundle_symmetries": bundle}
        return super().run_record(options) | used

    def inference_network(self, network: nn.Module) -> nn.Module:
        """The network averaged over symmetries, as the setting asks."""
        return averaged(self, network)

    # ---- loss --------------------------------------------------------------------------------------------------

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of classes, votes or independent classes; weighted, smoothed and focused as set."""
        settings = self.settings
        weights = torch.tensor(settings.weights, device=outputs.device) if settings.weights else None
        shaped = {"smoothing": settings.label_smoothing, "focal": settings.focal}
        if settings.multi_label:
            return independent_loss(outputs, targets, weights, **shaped)
        if settings.likelihood == "dirichlet":
            return dirichlet_loss(outputs, targets)
        if targets.ndim == 1 and settings.focal == 0:
            return functional.cross_entropy(outputs, targets, weight=weights, label_smoothing=settings.label_smoothing)
        return votes_loss(outputs, self._votes(targets), weights, **shaped)

    def taught(self, outputs: Tensor) -> Tensor:
        """Probabilities (n, class): votes that are one together."""
        own = self.settings.multi_label or self.settings.likelihood == "dirichlet"
        return super().taught(outputs) if own else type(self)(replace(self.settings, prior={})).probabilities(outputs)

    def calibrated(self, outputs: Tensor) -> Tensor:
        """Logits divided by the temperature."""
        return outputs / float(self.settings.temperature)

    def _votes(self, targets: Tensor) -> Tensor:
        """(n, class) from either form of targets of classes that exclude each other."""
        return functional.one_hot(targets, self.outputs).float() if targets.ndim == 1 else targets

    # ---- probabilities -----------------------------------------------------------------------------------------

    def calibrate(self, outputs: Tensor, targets: Tensor) -> Task:
        """Fits the temperature to the validation split (Guo et al. 2017)."""
        several = self.settings.multi_label
        wanted = targets if several else self._votes(targets)
        temperature = calibration.fit_temperature(
            outputs.numpy(), wanted.numpy(), offset=-self._log_weights(), independent=several
        )
        return self.with_settings(temperature=temperature)

    def class_numbers(self, probabilities: np.ndarray) -> np.ndarray:
        """(n,) number of the class that each object is called, from probabilities (n, class) of exclusive classes."""
        return calibration.labels(probabilities, self._fractions(), self.settings.balance)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(n, class) float32; they sum to 1 unless classes are independent."""
        logits = self.logits(outputs)
        return torch.sigmoid(logits) if self.settings.multi_label else torch.softmax(logits, dim=1)

    def decode(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """Probabilities and the class that the object is called, or all probable ones."""
        probabilities = self.probabilities(outputs).numpy()
        classes = np.array(self.settings.classes, object)
        columns = {f"p_{name}": probabilities[:, number] for number, name in enumerate(classes)}
        if self.settings.multi_label:
            texts = [class_labels.SEPARATOR.join(classes[row >= 0.5]) for row in probabilities]
            columns["label"] = np.array(texts, object)
        else:
            columns["label"] = classes[self.class_numbers(probabilities)]
        return columns

    def graph_columns(self, outputs: Tensor, stamps: Any) -> dict[str, Tensor]:
        """Probabilities."""
        return dict(zip((f"p_{name}" for name in self.settings.classes), self.probabilities(outputs).unbind(1)))

    # ---- how good ----------------------------------------------------------------------------------------------

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Loss, figures of `class_metrics` for these classes, and the confusion matrix (row true)."""
        basic = {"loss": float(self.loss(outputs, targets)), "count": len(targets)}
        probabilities = self.probabilities(outputs).double().numpy()
        if not np.isfinite(probabilities).all():
            return basic
        classes = {"classes": list(self.settings.classes)}
        if self.settings.multi_label:
            figures = class_metrics.multi_label(probabilities, targets.numpy(), repeats=0)
            return {**basic, **_values(figures), **classes}
        true = class_labels.most_votes(targets).numpy()
        called = self.class_numbers(probabilities)
        figures = class_metrics.classification(probabilities, true, repeats=0, labels=called)
        confusion = class_metrics.confusion(true, called, self.outputs)
        return {**basic, **_values(figures), **classes, "confusion": confusion.tolist()}

    def assess(self, measured: Measurements, targets: Tensor, table: pa.Table) -> tuple[dict[str, Any], dict[str, Any]]:
        """Scores with intervals, reliability, thresholds with what they give, and the figures of these."""
        settings = self.settings
        probabilities = np.stack([measured.own[f"p_{name}"] for name in settings.classes], axis=1).astype(np.float64)
        if settings.multi_label:
            return class_report.assess_independent(probabilities, targets.numpy(), settings.classes)
        search = class_report.Search(settings.positive, settings.search_bins, settings.negative_kind)
        called = self.class_numbers(probabilities)
        found, drawn = class_report.assess(
            probabilities,
            class_labels.most_votes(targets).numpy(),
            settings.classes,
            search=search,
            table=table,
            prior=self._fractions() if settings.prior else None,
            labels=called,
        )
        if targets.ndim == 1:
            return found, drawn
        votes = targets.numpy()
        voted, more = against_votes(probabilities, votes, settings.classes, called, confident=settings.confident)
        return {**found, "votes": voted}, {**drawn, **more}

    def run_report(self, options: Any, outputs: Outputs) -> Report:
        """Cost and gain of averaging over symmetries, for up to as many as the run asks for."""
        most = options.symmetries or 1
        if most <= 1 or self.settings.multi_label:
            return {}, {}
        probabilities, seconds, truth = {}, {}, np.zeros(0, np.int64)
        for count in [number for number in COUNTS if number <= most]:
            values, targets, seconds[count] = outputs(self.with_settings(symmetries=count))
            probabilities[count] = self.probabilities(values).double().numpy()
            truth = class_labels.most_votes(targets).numpy()
        rows = class_report.compared(probabilities, truth, seconds)
        figure = class_figures.symmetry(rows, ("accuracy", "balanced_accuracy", "nll", "ece"))
        return {"symmetries": rows}, {"symmetries": figure}

    # ---- beside other methods ----------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, where classes exclude each other."""
        return () if self.settings.multi_label else tuple(self.settings.classes)

    def truth(self, table: pa.Table) -> Columns:
        """The class of each object, of votes the one with most; nothing with `multi_label`."""
        if self.settings.multi_label:
            return {}
        names = np.array(self.settings.classes, object)
        return {"label": names[class_labels.most_votes(self.targets(table)).numpy()]}

    def scores(self, table: pa.Table) -> tuple[Score, ...]:
        """Accuracy first; AUROC where a positive class is named; none with `multi_label`."""
        if self.settings.multi_label:
            return ()
        return class_comparison.SCORES if self.settings.positive else class_comparison.PLAIN_SCORES

    def scorer(self, score: str, columns: Columns, truth: Columns) -> Scorer:
        """A score of `class_comparison.SCORES` as a function of rows."""
        return class_comparison.scorer(score, *self._judged(columns, truth), self._positive())

    def comparison(self, columns: Columns, truth: Columns, repeats: int = 500) -> Comparison:
        """Scores of the probabilities, of labels chosen as the recipe says for all methods alike, and confusion."""
        probabilities, true = self._judged(columns, truth)
        called = self.class_numbers(probabilities)
        return class_comparison.compared(probabilities, true, called, self._positive(), repeats)

    def _judged(self, columns: Columns, truth: Columns) -> tuple[F64, I64]:
        """Probabilities (n, class) and class numbers (n,)."""
        classes = self.settings.classes
        probabilities = np.stack([np.asarray(columns[f"p_{name}"], np.float64) for name in classes], axis=1)
        number = {name: number for number, name in enumerate(classes)}
        return probabilities, np.array([number[name] for name in truth["label"]], np.int64)

    def _positive(self) -> int | None:
        """Number of the class that is searched for."""
        positive, classes = self.settings.positive, tuple(self.settings.classes)
        return classes.index(positive) if positive in classes else None


class _ClassifyAndAsk(Questions, ClassifyTask):
    """Classes, and questions beside them."""


def _values(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {name: figure["value"] for name, figure in figures.items()}
