"""Knowledge of earlier searches: their best configurations are tried first, and TPE knows all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.search.space import Configuration, Parameter, Space, name_of
from astroml_plugin.search.study import STUDY, Study

FIRST = 5
"""Configurations of earlier studies that are tried first (Feurer et al. 2015 begin with a few, too)."""


@dataclass(frozen=True)
class Learned:
    """A configuration of an earlier search, and how good it was there."""

    configuration: Configuration
    rank: float
    """Part of the trials of its study that are better, 0 to 1: values of other data are of another scale."""


def learned(studies: Sequence[str], space: Space, own: Configuration | None) -> list[Learned]:
    """Configurations of earlier studies that fit a space, the best first.

    Keys that an earlier study did not search have the recipe's own value, and configurations that name no value of
    this space are left out.

    Args:
        studies: folders or URLs.
        space: that is searched now.
        own: the recipe's own values; None where they are outside of the space.

    Raises:
        InputError: no study there, one without a trial that ended, or with no configuration of this space.
    """
    found: list[Learned] = []
    for url in studies:
        new = _of_study(storage.absolute(url), space, own)
        if not new:
            raise InputError(
                f"nothing that the study {storage.redact(url)} tried is in this search space: search some of its keys "
                "with its values, or leave warm_start out"
            )
        found += new
    return sorted(found, key=lambda one: (one.rank, name_of(one.configuration)))


def first_of(known: Sequence[Learned], own: Configuration | None) -> list[Configuration]:
    """The configurations that are tried first: the best, each once, without the recipe's own."""
    seen = {name_of(own)}
    found: list[Configuration] = []
    for one in known:
        if (name := name_of(one.configuration)) not in seen:
            seen.add(name)
            found.append(one.configuration)
    return found[:FIRST]


def _of_study(url: str, space: Space, own: Configuration | None) -> list[Learned]:
    if not storage.exists(storage.join(url, STUDY)):
        raise InputError(f"{storage.redact(url)} holds no study: give the folder that `search --out` named")
    study = Study(url, storage.read_record(storage.join(url, STUDY), identity=str, space=dict, objectives=list))
    ended = study.usable(study.trials())
    if not ended:
        raise InputError(f"the study {storage.redact(url)} has no trial that ended: let it run first")
    known = [(rank / len(ended), _fitted(one.configuration, space, own)) for rank, one in enumerate(ended)]
    return [Learned(configuration, rank) for rank, configuration in known if configuration is not None]


def _fitted(given: Configuration, space: Space, own: Configuration | None) -> Configuration | None:
    """The configuration in this space; None where a value is outside, or nothing of it is left."""
    used: list[str] = []
    missing: list[str] = []

    def choose(one: Parameter) -> object:
        if one.key in given:
            used.append(one.key)
            if not one.contains(given[one.key]):
                missing.append(one.key)
            return given[one.key]
        if own is None or one.key not in own:
            missing.append(one.key)
            return one.extremes()[0]
        return own[one.key]

    found = space.configured(choose)
    return found if used and not missing else None
