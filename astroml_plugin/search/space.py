"""Search space: keys of a recipe and the values they may take, some only where other keys have certain values.

A configuration is a plain mapping from dotted recipe keys to values. Drawing one is a function of a seed and a number,
so that a study needs no state of a random generator to go on.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_unknown

Configuration = dict[str, Any]
"""Dotted key of the recipe -> value; keys whose condition does not hold are absent."""

RANGES = ("uniform", "log_uniform", "integer", "log_integer")
KINDS = (*RANGES, "choice")
_GRID_LIMIT = 100_000


@dataclass(frozen=True)
class Parameter:
    """One key of the recipe."""

    key: str
    """Dotted, as "training.learning_rate"."""
    kind: str
    """uniform, log_uniform, integer, log_integer or choice."""
    values: tuple[Any, ...]
    """Lowest and highest value (both may occur), or the choices."""
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """(other key, its values) that must all hold for this key to be set."""
    steps: int = 0
    """Values on a grid, for a range."""

    def __post_init__(self) -> None:
        where = f"search space, {self.key!r}"
        if self.kind == "choice":
            if not self.values:
                raise InputError(f"{where}: choice is empty, give at least one value")
            return
        if len(self.values) != 2 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in self.values):
            raise InputError(f"{where}: {self.kind} needs two numbers [lowest, highest], not {list(self.values)}")
        low, high = self.values
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"{where}: the lowest value ({low}) must be below the highest ({high})")
        if self.kind.startswith("log") and low <= 0:
            raise InputError(f"{where}: {self.kind} needs values above 0, not {low}")
        if self.whole and not all(isinstance(value, int) for value in self.values):
            raise InputError(f"{where}: {self.kind} needs whole numbers, not {list(self.values)}")
        if self.steps < 0:
            raise InputError(f"{where}: steps ({self.steps}) must be 2 or more")

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return self.kind.endswith("integer")

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers in order, so that neighbours resemble each other."""
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)
        return numbers and len(self.values) > 1 and list(self.values) == sorted(self.values)

    @property
    def logarithmic(self) -> bool:
        """Whether values are spread evenly in their logarithm."""
        return self.kind.startswith("log")

    def at(self, place: float) -> Any:
        """The value at a place in [0, 1), the cumulative probability."""
        if self.kind == "choice":
            return self.values[int(place * len(self.values))]
        low, high = (float(value) for value in self.values)
        if self.whole:
            low, high = low - 0.5 * self.logarithmic, high + (0.5 if self.logarithmic else 1.0)
        value = low * (high / low) ** place if self.logarithmic else low + (high - low) * place
        if not self.whole:
            return value
        return min(max(round(value) if self.logarithmic else math.floor(value), self.values[0]), self.values[1])

    def place(self, value: Any) -> float:
        """Position of a value from 0 (lowest, first choice) to 1: about the inverse of `at`."""
        if self.kind == "choice":
            return self.values.index(frozen(value)) / max(1, len(self.values) - 1)
        low, high, value = (math.log(v) if self.logarithmic else float(v) for v in (*self.values, value))
        return float((value - low) / (high - low))

    def contains(self, value: Any) -> bool:
        """Whether a value may occur."""
        if self.kind == "choice":
            return frozen(value) in self.values
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        return number and bool(self.values[0] <= value <= self.values[1])

    def on_grid(self) -> list[Any]:
        """The values of a grid.

        Raises:
            InputError: a range of real numbers without steps.
        """
        if self.kind == "choice":
            return list(self.values)
        low, high = self.values
        if self.whole and not self.steps:
            return list(range(low, high + 1))
        if self.steps < 2:
            raise InputError(f"search space, {self.key!r}: a grid over {self.kind} needs steps, such as steps = 4")
        spaced = np.geomspace if self.logarithmic else np.linspace
        found = [float(value) for value in spaced(low, high, self.steps)]
        return list(dict.fromkeys(round(value) for value in found)) if self.whole else found

    def extremes(self) -> list[Any]:
        """Values that stand for all where types are checked: the ends of a range, every choice."""
        real = self.kind in ("uniform", "log_uniform")
        return [float(value) for value in self.values] if real else list(self.values)


@dataclass(frozen=True)
class Space:
    """All parameters, each after those that its condition names."""

    parameters: tuple[Parameter, ...]

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any]) -> Space:
        """A space from a TOML table: key -> { log_uniform = [1e-4, 1e-2] }, with optional `when` and `steps`.

        Raises:
            InputError: an empty space, unknown kinds, wrong ranges, conditions on keys that are not searched or that
                go round in a circle.
        """
        found = [_parameter(key, value) for key, value in flattened(table).items()]
        if not found:
            raise InputError(
                'the search space is empty: declare [search.space], as "training.learning_rate" = '
                "{ log_uniform = [1e-4, 1e-2] }"
            )
        return cls(tuple(_ordered(found)))

    def to_mapping(self) -> dict[str, Any]:
        """The plain table, as read by `from_mapping`."""
        table: dict[str, Any] = {}
        for one in self.parameters:
            table[one.key] = {one.kind: plain(one.values)}
            if one.when:
                table[one.key]["when"] = {key: plain(values) for key, values in one.when}
            if one.steps:
                table[one.key]["steps"] = one.steps
        return table

    def __getitem__(self, key: str) -> Parameter:
        return next(one for one in self.parameters if one.key == key)

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, conditional ones too."""
        return tuple(one.key for one in self.parameters)

    def configured(self, choose: Callable[[Parameter], Any]) -> Configuration:
        """A configuration whose values `choose` gives; it is asked only for parameters whose condition holds."""
        found: Configuration = {}
        for one in self.parameters:
            if active(one, found):
                found[one.key] = plain(choose(one))
        return found

    def drawn(self, seed: int, number: int) -> Configuration:
        """The configuration that belongs to a seed and a number, independent of all others."""

        def choose(one: Parameter) -> Any:
            words = [seed, number, *one.key.encode()]
            return one.at(float(np.random.default_rng(words).random()))

        return self.configured(choose)

    def grid(self) -> list[Configuration]:
        """Every combination once.

        Raises:
            InputError: a range without steps, or far too many combinations.
        """
        axes = [one.on_grid() for one in self.parameters]
        count = math.prod(len(axis) for axis in axes)
        if count > _GRID_LIMIT:
            raise InputError(f"the grid has {count:,} points: give fewer steps, or let algorithm = 'random' sample it")
        found: dict[str, Configuration] = {}
        for values in itertools.product(*axes):
            given = dict(zip(self.keys, values))
            one = self.configured(lambda parameter, given=given: given[parameter.key])  # type: ignore[misc]
            found.setdefault(name_of(one), one)
        return list(found.values())

    def corners(self) -> Iterator[tuple[Parameter, Configuration]]:
        """For every parameter and each of its extremes, a configuration in which it has this value."""
        for one in self.parameters:
            for value in one.extremes():
                yield one, self._with(one, value)

    def _with(self, wanted: Parameter, value: Any) -> Configuration:
        """A configuration with this value: what conditions ask for, and first values otherwise."""
        fixed = {wanted.key: value}
        for one in reversed(self.parameters):
            if one.key in fixed:
                fixed |= {key: values[0] for key, values in one.when if key not in fixed}
        return self.configured(lambda one: fixed.get(one.key, one.extremes()[0]))


def name_of(configuration: Configuration | None) -> str:
    """A text that is the same for equal configurations alone."""
    return json.dumps(configuration, sort_keys=True)


def active(one: Parameter, found: Configuration) -> bool:
    """Whether the condition of a parameter holds in what is configured so far."""
    return all(key in found and frozen(found[key]) in values for key, values in one.when)


def flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Mapping[str, Any]]:
    """Nested TOML tables by dotted key: "training.learning_rate" with or without its quotes."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and not set(value) & set(KINDS) and value and _is_table(value):
            found |= flattened(value, f"{key}.")
        else:
            found[key] = value
    return found


def _is_table(value: Mapping[str, Any]) -> bool:
    return all(isinstance(item, Mapping) for item in value.values())


def _parameter(key: str, value: Any) -> Parameter:
    where = f"the search space, {key!r}"
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be a table such as {{ choice = [1, 2] }}, not {value!r}")
    refuse_unknown(value, [*KINDS, "when", "steps"], where)
    kinds = [name for name in value if name in KINDS]
    if len(kinds) != 1:
        raise InputError(f"{where} needs exactly one of {', '.join(KINDS)}, not {len(kinds)}")
    values, when, steps = value[kinds[0]], value.get("when", {}), value.get("steps", 0)
    if not isinstance(values, list | tuple):
        raise InputError(f"{where}: {kinds[0]} must be a list, not {values!r}")
    if not isinstance(when, Mapping):
        raise InputError(f'{where}: when must be a table such as {{ "network" = "mlp" }}, not {when!r}')
    if not isinstance(steps, int) or isinstance(steps, bool) or steps == 1:
        raise InputError(f"{where}: steps must be a whole number of 2 or more, not {steps!r}")
    given = _conditions(when)
    conditions = tuple(
        (name, tuple(frozen(v) for v in (one if isinstance(one, list) else [one]))) for name, one in given
    )
    return Parameter(key, kinds[0], tuple(frozen(item) for item in values), conditions, steps)


def _conditions(when: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) pairs of a condition, quoted keys or nested tables alike."""
    found: list[tuple[str, Any]] = []
    for name, value in when.items():
        found += _conditions(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return found


def _ordered(found: list[Parameter]) -> Iterator[Parameter]:
    """Conditions first."""
    known = {one.key for one in found}
    for one in found:
        for key, _ in one.when:
            refuse_unknown([key], known - {one.key}, f"the condition of {one.key!r} in the search space")
    done: set[str] = set()
    while found:
        free = [one for one in found if all(key in done for key, _ in one.when)]
        if not free:
            raise InputError(f"the conditions of {', '.join(one.key for one in found)} go round in a circle")
        yield from free
        done |= {one.key for one in free}
        found = [one for one in found if one.key not in done]


def frozen(value: Any) -> Any:
    """Lists as tuples, so that values compare and hash."""
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
