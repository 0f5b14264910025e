"""Options of one run: which bundle takes which of them, and names that nobody knows refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from astroml_plugin.core import registry
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping, refuse_unknown, to_mapping
from astroml_plugin.tasks.base import Task, TaskRunOptions


@dataclass(frozen=True)
class AssignedOptions:
    """Run options that were checked and given to the bundles that take them; all values are plain JSON."""

    given: dict[str, Any] = field(default_factory=dict)
    """NAME, for every bundle that takes it, or BUNDLE.NAME -> value: the run's identity keeps them so."""
    by_bundle: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Bundle -> NAME -> value, only those that were given."""


def assign_options(tasks: Mapping[str, Task], options: Mapping[str, Any]) -> AssignedOptions:
    """Give a run's options to its bundles.

    Args:
        tasks: bundle name -> its task.
        options: NAME or BUNDLE.NAME -> plain value, or BUNDLE -> table of NAME -> value. NAME alone goes to every
            bundle that takes it, BUNDLE.NAME comes before it. None counts as not given.

    Raises:
        InputError: a name that no bundle knows (gives the nearest), or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    by_bundle: dict[str, dict[str, Any]] = {name: {} for name in tasks}
    for bundle, name, value in sorted(_split(tasks, options), key=lambda item: item[0] != ""):  # named ones come last
        takers = [bundle] if bundle else _takers(tasks, name, value)
        plain = to_mapping(run_options(tasks[takers[0]], {name: value}, takers[0]))[name]
        values[f"{bundle}.{name}" if bundle else name] = plain
        for taker in takers:
            by_bundle[taker][name] = plain
    for bundle, of_bundle in by_bundle.items():
        run_options(tasks[bundle], of_bundle, bundle)
    return AssignedOptions(values, by_bundle)


def run_options(task: Task, values: Mapping[str, Any], bundle: str = "") -> TaskRunOptions:
    """The task's `RunOptions` from plain values.

    Raises:
        InputError: unknown name or wrong type.
    """
    where = f"the run options of bundle {bundle}" if bundle else "the run options"
    return from_mapping(task.RunOptions, values, where)


def option_names(task: Task | type[Task]) -> list[str]:
    """The run options that a task knows."""
    return [item.name for item in fields(task.RunOptions)]


def _split(tasks: Mapping[str, Task], options: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(bundle or "", option, value) of each option that is given."""
    for key, value in options.items():
        bundle = next((name for name in tasks if key.startswith(f"{name}.")), "")
        if key in tasks and isinstance(value, Mapping):
            yield from ((key, name, item) for name, item in value.items() if item is not None)
        elif value is not None:
            if "." in key and not bundle:
                refuse_unknown([key.rpartition(".")[0]], tasks, "the bundles of the run")
            yield bundle, key.removeprefix(f"{bundle}.") if bundle else key, value


def _takers(tasks: Mapping[str, Task], name: str, value: Any) -> list[str]:
    """The bundles that a common option goes to: at least one."""
    knowing = {bundle: task for bundle, task in tasks.items() if name in option_names(task)}
    if not knowing:
        _refuse_unknown_option(name, tasks)
    if name == "band":
        return _any_band(tasks)
    if len(tasks) == 1:
        return list(knowing)
    takers: list[Task] = []
    for kind in dict.fromkeys(type(task) for task in knowing.values()):
        takers += kind.takers(name, value, [task for task in knowing.values() if type(task) is kind])
    if not takers:
        raise InputError(f"run option {name} = {value!r} means nothing to {', '.join(knowing)}: leave it away")
    return [bundle for bundle, task in knowing.items() if any(task is taker for taker in takers)]


def _any_band(tasks: Mapping[str, Task]) -> list[str]:
    """The bundles that a band can be chosen for."""
    takers = [bundle for bundle, task in tasks.items() if task.takes_any_band]
    if not takers:
        bundle, task = next(iter(tasks.items()))
        raise InputError(f"bundle {bundle} reads {', '.join(task.bands)}, no band can be chosen: leave --band away")
    return takers


def _refuse_unknown_option(name: str, tasks: Mapping[str, Task]) -> None:
    """Raise InputError: the sentence of a registered task that knows the option, or the nearest valid name."""
    for kind in _registered():
        for item in fields(kind.RunOptions):
            if item.name == name:
                default = f"no bundle here takes the run option {name}: leave it away"
                raise InputError(item.metadata.get("absent", default))
    known = {option for task in tasks.values() for option in option_names(task)}
    refuse_unknown([name], known, "the run options")


def _registered() -> Sequence[type[Task]]:
    """Tasks that are installed and can be imported."""
    kinds = []
    for name in registry.names(registry.TASKS):
        try:
            kinds.append(registry.load(registry.TASKS, name))
        except (ImportError, AttributeError):  # another plug-in's fault: say what is wrong with the option
            continue
    return kinds
