"""Settings of a search: the table [search] of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_choices

FIDELITIES = ("epochs", "stamps")
ALGORITHMS = ("asha", "random", "grid", "tpe", "tpe-asha", "local", "pbt")
_DEFAULT_POPULATION = 8


@dataclass(frozen=True)
class SearchSettings:
    """How to search: the table [search] of a recipe, its `space` apart."""

    algorithm: str = "asha"
    """asha (random draws, hopeless trials stopped early), random, grid, tpe (optuna), tpe-asha, local (steps away from
    the best so far, at first from the recipe's own values), or pbt (a population whose worst members go on from the
    weights of the best)."""
    trials: int | None = None
    """Configurations to try; 32 where no other budget is given, all points for a grid; pbt: members, 8 by default."""
    hours: float | None = None
    """Wall time to search, earlier calls included."""
    total_epochs: int | None = None
    """Epochs over all trials."""
    epochs: int | None = None
    """Epochs of one trial, at most; default: the recipe's."""
    objectives: tuple[str, ...] = ("validation_loss",)
    """NAME, NAME:min or NAME:max; the first chooses the winner, all make the Pareto table."""
    fidelity: str = "epochs"
    """asha, tpe-asha: what hopeless trials are spared. epochs: they are stopped; stamps: they are trained on a part of
    the training objects first, and only the best again on more."""
    rungs: int = 3
    """Sizes of the training set, with fidelity stamps: all, and parts that are smaller by `reduction` each."""
    warm_start: tuple[str, ...] = ()
    """Studies of earlier searches: their best configurations are tried first, and tpe knows all of them."""
    seed: int = 0
    """Seed of the configurations."""
    baseline: bool = True
    """The first trial has the recipe's own values, where the space contains them, so that nothing worse wins. A grid
    stays as it is."""
    grace: int | None = None
    """ASHA: epochs before a trial may be stopped; default: until the learning rate has warmed up."""
    reduction: float = 3.0
    """ASHA: one trial of so many goes on at each rung, or to the next size."""
    interval: int = 1
    """PBT: epochs between exchanges."""
    retries: int = 2
    """Further attempts of a trial whose process fails."""
    give_up: int = 5
    """So many failed trials, and no other, end the search."""
    cpus: float = 1.0
    """Cores of one process of a trial."""
    gpus: float = 0.0
    """GPUs of one process of a trial, also fractions."""
    processes: int = 1
    """Processes that train one trial together, each on its share of the data."""
    concurrent: int | None = None
    """Trials at once, at most; default: as many as fit."""

    def __post_init__(self) -> None:
        refuse_choices(self, {"algorithm": ALGORITHMS, "fidelity": FIDELITIES}, "search")
        if self.fidelity == "stamps" and not self.algorithm.endswith("asha"):
            raise InputError(f"fidelity stamps spares trials of asha and tpe-asha, not of {self.algorithm}")
        least = {"trials": 1, "total_epochs": 1, "epochs": 1, "grace": 1, "give_up": 1}
        least |= {"retries": 0, "seed": 0, "processes": 1, "concurrent": 1, "interval": 1, "rungs": 2}
        for name, low in least.items():
            if (value := getattr(self, name)) is not None and value < low:
                raise InputError(f"search {name} must be {low} or more, not {value}")
        if (self.hours is not None and self.hours <= 0) or self.reduction <= 1 or self.gpus < 0 or self.cpus <= 0:
            raise InputError(
                f"search needs hours ({self.hours}) and cpus ({self.cpus}) above 0, reduction ({self.reduction}) above "
                f"1 and gpus ({self.gpus}) of 0 or more"
            )
        if not self.objectives:
            raise InputError("search needs at least one objective, such as validation_loss")
        if self.algorithm == "pbt" and self.trials == 1:
            raise InputError("a population needs 2 or more trials, not 1: whom should it learn from?")

    @property
    def population(self) -> int | None:
        """Members of a population; None for other algorithms."""
        return (self.trials or _DEFAULT_POPULATION) if self.algorithm == "pbt" else None
