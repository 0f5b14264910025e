"""Search spaces written with Ray's own functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.search import sample

from astroml_plugin.core.errors import InputError


def from_ray(table: Mapping[str, Any]) -> dict[str, Any]:
    """A search space of Ray (`tune.loguniform(…)`, `tune.choice(…)`, `{"grid_search": […]}`) as a plain table.

    Raises:
        InputError: a kind of sampling that has no counterpart.
    """
    return {key: _plain_domain(key, value) for key, value in table.items()}


def _plain_domain(key: str, value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"grid_search"}:
        return {"choice": list(value["grid_search"])}
    if not isinstance(value, sample.Domain):
        return value
    if isinstance(value, sample.Categorical):
        return {"choice": list(value.categories)}
    sampler = value.get_sampler()
    logarithmic = isinstance(sampler, sample.LogUniform)
    if not (logarithmic or isinstance(sampler, sample.Uniform)) or not isinstance(value, sample.Float | sample.Integer):
        raise InputError(
            f"search space, {key!r}: {type(sampler).__name__} of Ray has no counterpart here; take uniform, "
            "loguniform, randint, lograndint, choice or grid_search"
        )
    if isinstance(value, sample.Integer):  # Ray's upper end does not occur
        return {"log_integer" if logarithmic else "integer": [value.lower, value.upper - 1]}
    return {"log_uniform" if logarithmic else "uniform": [value.lower, value.upper]}
