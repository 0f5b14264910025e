"""Settings of the classify task, and what one run may ask of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from astroml_plugin.core.description import and_more_of
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_choices
from astroml_plugin.evaluation import calibration
from astroml_plugin.tasks.base import TaskRunOptions, TaskSettings
from astroml_plugin.tasks.normalisation import Normalisation
from astroml_plugin.tasks.test_time_augmentation import check_count


@dataclass(frozen=True)
class ClassifySettings(TaskSettings):
    """Settings of the classify task."""

    stamp_size: int = 0
    """Side of the input as in `TaskSettings`."""
    resize: str = "refuse"
    """Stamps of another size: refused unless allowed, since a class depends on what surrounds the object."""
    normalisation: Normalisation = field(default_factory=lambda: Normalisation(unit="scale", stretch="asinh"))
    """Normalisation as in `TaskSettings`; fixed scales keep colours."""
    classes: tuple[str, ...] = ()
    """Class names in column order; empty: `label_columns`, or the values of `names`, or what the training split has."""
    label: str = "label"
    """Label column; text or numbers. With `multi_label` names joined by ";" or "|" (none: an empty text)."""
    names: dict[str, str] = field(default_factory=dict)
    """Label value (as text) -> class name; several values may share one. Empty: the values are the names."""
    label_columns: tuple[str, ...] = ()
    """Instead of `label`, one column per class in their order: fractions or numbers of votes (soft labels, multinomial
    likelihood); with `multi_label` 0, 1, true, false or fractions."""
    votes: str = ""
    """Column with the number of votes, where `label_columns` are vote fractions."""
    likelihood: str = "multinomial"
    """Likelihood of numbers of votes: "multinomial", or "dirichlet" (Dirichlet-multinomial), where people differ more
    on one object than chance does: single objects with many votes then count for less."""
    confident: float = 0.8
    """Fraction of the votes for one class from which an evaluation takes people to agree."""
    multi_label: bool = False
    """Classes do not exclude each other: one sigmoid each; the column `label` lists all of probability 0.5 or more."""
    also: tuple[str, ...] = ()
    """Label columns of yes-or-no questions that are learned beside the classes (true, false, fractions; null or absent
    where an object was not asked), each a column p_<name>. Objects with an answer and no class are learned from."""
    missing: str = "refuse"
    """Objects without any label: "refuse" or "leave_out" (the card counts them). With `multi_label` an entry that is
    unknown beside others that are known is left out of the loss."""
    positive: str = ""
    """A rare class that is searched for: evaluations then rank by it."""
    label_smoothing: float = 0.0
    """Probability that the loss spreads evenly over the classes."""
    focal: float = 0.0
    """Exponent gamma of the focal loss (Lin et al. 2017): well-told objects count (1 - p)^gamma; 0 is cross entropy."""
    class_weights: str = "none"
    """"balanced" weighs each class by the inverse of its share in the training split; "none"."""
    weights: tuple[float, ...] = ()
    """The weights in use, per class (measured from the training split); with `multi_label` of its positives."""
    training_prior: tuple[float, ...] = ()
    """Class fractions of the training split, for which probabilities hold without `prior` (measured)."""
    prior: dict[str, float] = field(default_factory=dict)
    """Class -> fraction in the survey; classes left out share the rest as in training."""
    balance: float = 0.0
    """Which class is the label: 0 the most probable one, 1 the one that would be were all classes equally frequent;
    between them a little accuracy buys much balanced accuracy (`calibration.labels`). Probabilities do not change."""
    temperature: float = 1.0
    """Divides the logits; fitted on the validation split."""
    search_bins: tuple[str, ...] = ()
    """Label columns of numbers: an evaluation gives the figures of the search for `positive` in bins of each."""
    negative_kind: str = ""
    """Label column of text: and against the negatives of each kind alone."""
    symmetries: int = 1
    """Logits are averaged over so many symmetries of the square (1, 2, 4 or 8): steadier, at as many forwards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {"missing": ("refuse", "leave_out"), "class_weights": ("none", "balanced")}
        refuse_choices(self, {**choices, "likelihood": ("multinomial", "dirichlet")}, "classify")
        check_count(self.symmetries)
        if not 0 <= self.label_smoothing < 1 or self.focal < 0 or self.temperature <= 0:
            raise InputError(
                f"classify needs label_smoothing ({self.label_smoothing}) from 0 to below 1, focal ({self.focal}) of 0 "
                f"or more and a temperature ({self.temperature}) above 0"
            )
        if not 0 <= self.balance <= 1 or (self.balance and self.multi_label):
            raise InputError(
                f"classify needs a balance ({self.balance}) from 0, the most probable class, to 1, every class alike; "
                f"with multi_label there is none"
            )
        self._check_names()
        self._check_likelihood()

    def _check_likelihood(self) -> None:
        shaped = self.label_smoothing or self.focal or self.class_weights != "none"
        if self.likelihood == "dirichlet" and (self.multi_label or shaped or not self.label_columns):
            raise InputError(
                'likelihood = "dirichlet" is of numbers of votes (label_columns) for classes that exclude each other, '
                "without label_smoothing, focal or class_weights: leave those away"
            )

    def _check_names(self) -> None:
        named = (*self.classes, *self.also)
        repeated = sorted({name for name in named if named.count(name) > 1})
        if repeated or "" in self.classes:
            raise InputError(f"class names must differ and have letters; repeated: {', '.join(repeated) or 'none'}")
        if self.label_columns and self.classes and len(self.label_columns) != len(self.classes):
            raise InputError(f"{len(self.label_columns)} label_columns for {len(self.classes)} classes: give one each")
        if self.votes and (self.multi_label or not self.label_columns):
            raise InputError("a column of `votes` belongs to label_columns of vote fractions, without multi_label")
        if self.also and (self.multi_label or self.label_columns or self.missing != "leave_out"):
            raise InputError('`also` stands beside one `label` of exclusive classes, and missing = "leave_out"')
        if self.positive and self.classes and self.positive not in self.classes:
            raise InputError(f"positive class {self.positive!r} is none of {and_more_of(self.classes)}")
        if self.prior and self.classes and self.training_prior:
            calibration.full_prior(self.prior, self.classes, self.training_prior, independent=self.multi_label)


@dataclass(frozen=True)
class ClassifyRunOptions(TaskRunOptions):
    """Options of one run of a bundle of classes."""

    prior: dict[str, float] = field(
        default_factory=dict, metadata={"absent": "no bundle here gives classes: leave --prior away"}
    )
    """Class -> fraction of the survey's objects; probabilities then hold for these fractions, and classes that are not
    given share the rest as in training."""
    symmetries: int | None = field(
        default=None, metadata={"absent": "no bundle here averages over symmetries: leave --symmetries away"}
    )
    """Logits are averaged over 1, 2, 4 or 8 symmetries of the square, at as many forwards; None: as the bundle says."""

    def __post_init__(self) -> None:
        if self.symmetries is not None:
            check_count(self.symmetries)
        wrong = {name: value for name, value in self.prior.items() if not isinstance(value, int | float)}
        if wrong:
            raise InputError(f"the fractions of a prior are numbers, not {wrong}")
