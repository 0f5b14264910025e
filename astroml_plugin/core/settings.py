"""Frozen settings from plain mappings (TOML, JSON) and back: wrong keys and wrong types are one clear sentence."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from os import PathLike
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of

S = TypeVar("S")


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Check names against the valid ones.

    Raises:
        InputError: a name is unknown; gives the nearest valid one, else all.
    """
    valid = sorted(known)
    for key in given:
        if key not in valid:
            near = difflib.get_close_matches(key, valid, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"valid are {', '.join(valid) or 'none'}"
            raise InputError(f"unknown key {key!r} in {where}: {hint}")


def refuse_choices(settings: Any, choices: Mapping[str, tuple[str, ...]], where: str) -> None:
    """Check fields that take one of a few words.

    Raises:
        InputError: a field has another value.
    """
    for name, allowed in choices.items():
        value = getattr(settings, name)
        if value not in allowed:
            raise InputError(f"{where} {name} must be one of {', '.join(allowed)}, not {value!r}")


def refuse_below(settings: Any, least: Mapping[str, float]) -> None:
    """Check numbers of options; those that are None are not given.

    Args:
        settings: the options.
        least: field name -> the smallest value that can be used.

    Raises:
        InputError: a field is smaller, or is no number.
    """
    for name, smallest in least.items():
        value = getattr(settings, name)
        if value is not None and not value >= smallest:
            raise InputError(f"{option_of(name)} is {value:g}: give {smallest:g} or more")


def from_mapping(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """An instance of the dataclass `kind` from plain values.

    Lists become tuples, whole numbers become floats where a float is asked for, nested tables nested dataclasses.

    Args:
        kind: a frozen dataclass.
        values: field name -> plain value; what is left out keeps its default.
        where: how to name the place in an error, for example "[training] of the recipe".

    Raises:
        InputError: an unknown key, a missing one, or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where} must be a table of key = value, not {values!r}")
    known = {field.name for field in fields(kind) if field.init}  # type: ignore[arg-type]
    refuse_unknown(values, known, where)
    hints = get_type_hints(kind, include_extras=True)
    filled = {key: _over_default(kind, key, value) for key, value in values.items()}
    changed = {key: converted(value, hints[key], f"{key} in {where}") for key, value in filled.items()}
    try:
        return kind(**changed)
    except TypeError as error:
        raise InputError(f"{where} is incomplete: {error}") from None


def with_changes(kind: type[S], options: S | None, changes: Mapping[str, Any], where: str) -> S:
    """Options with some fields changed by name: keywords of a call, options of a command and TOML go the same way.

    Args:
        kind: a frozen dataclass.
        options: what to start from; default: the defaults of `kind`.
        changes: field name -> value.
        where: how to name the options in an error, for example "the options of ingest".

    Raises:
        InputError: an unknown name (the nearest valid one is given), or a value of the wrong type.
    """
    if options is None:
        return from_mapping(kind, changes, where)
    values = {field.name: getattr(options, field.name) for field in fields(options) if field.init}  # type: ignore[arg-type]
    return from_mapping(type(options), {**values, **changes}, where)


def changed(options: Any) -> list[str]:
    """Fields of options whose value is not the default."""
    blank = type(options)()
    return [field.name for field in fields(options) if getattr(options, field.name) != getattr(blank, field.name)]


def option_of(name: str) -> str:
    """A field as the command line calls it."""
    return f"--{name.replace('_', '-')}"


def _over_default(kind: Any, key: str, value: Any) -> Any:
    """A nested table changes the default of its field: what it leaves out keeps that default."""
    factory = next(field for field in fields(kind) if field.name == key).default_factory
    if isinstance(value, Mapping) and factory is not MISSING and is_dataclass(default := factory()):
        return {**to_mapping(default), **value}
    return value


def texts(values: Place | Sequence[Place]) -> tuple[str, ...]:
    """Paths or URLs as texts, from one of them or several."""
    several = values if isinstance(values, Iterable) and not isinstance(values, str | bytes) else (values,)
    return tuple(text_of(value) for value in several)


def to_mapping(settings: Any) -> dict[str, Any]:
    """Plain JSON values of a settings dataclass; tuples become lists."""
    return {field.name: _plain(getattr(settings, field.name)) for field in fields(settings) if field.init}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def converted(value: Any, hint: Any, where: str) -> Any:
    """A plain value as the type `hint`; InputError with the name `where` if it cannot be."""
    origin = get_origin(hint)
    if hint is Any:
        return text_of(value) if isinstance(value, PathLike) else value
    if origin is Annotated:
        number, unit = get_args(hint)
        return _converted_quantity(value, number, unit, where)
    if origin in (Union, types.UnionType):
        return _convert_union(value, get_args(hint), where)
    if hasattr(value, "to_value"):
        raise InputError(f"{where} takes no quantity: give {value} as a plain number, in the unit that its text tells")
    if hasattr(value, "tolist"):
        value = value.tolist()  # numbers and arrays of NumPy
    if is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_mapping(hint, value, where)
    if origin is tuple:
        return _convert_tuple(value, get_args(hint), where)
    if origin is Sequence:
        return [converted(item, get_args(hint)[0], where) for item in _expect(value, list | tuple, "a list", where)]
    if origin in (dict, Mapping) or hint is dict:
        return _convert_table(_expect(value, Mapping, "a table", where), get_args(hint), where)
    if hint is bool:
        return _expect(value, bool, "true or false", where)
    if isinstance(value, bool):
        raise InputError(f"{where} must be of type {hint.__name__}, not {value!r}")
    if hint is str and isinstance(value, PathLike):
        return text_of(value)
    if hint is float:
        return float(_expect(value, int | float, "a number", where))
    kind = origin or hint
    return _expect(value, kind, {int: "a whole number", str: "a text", PathLike: "a path"}.get(kind, str(hint)), where)


def _converted_quantity(value: Any, hint: Any, unit: str, where: str) -> Any:
    """A number in a unit, from a number or from a quantity of astropy."""
    if not hasattr(value, "to_value"):
        return converted(value, hint, where)
    try:
        return float(value.to_value(unit))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} must be one angle in {unit} or what can be brought to it, not {value}") from error


def _convert_union(value: Any, options: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in options:
        return None
    kept = [option for option in options if option is not type(None)]
    for option in kept[:-1]:
        try:
            return converted(value, option, where)
        except InputError:
            continue
    return converted(value, kept[-1], where)


def _convert_table(value: Any, arguments: tuple[Any, ...], where: str) -> dict[str, Any]:
    """Values that are settings themselves are converted, others are taken as they are."""
    if len(arguments) == 2 and is_dataclass(arguments[1]) and isinstance(arguments[1], type):
        return {key: from_mapping(arguments[1], item, f"{key} in {where}") for key, item in value.items()}
    return dict(value)


def _convert_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    items = _expect(value, list | tuple, "a list", where)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(converted(item, arguments[0], where) for item in items)
    if len(items) != len(arguments):
        raise InputError(f"{where} must have {len(arguments)} values, not {len(items)}")
    return tuple(converted(item, kind, where) for item, kind in zip(items, arguments))


def _expect(value: Any, kind: Any, words: str, where: str) -> Any:
    if not isinstance(value, kind):
        raise InputError(f"{where} must be {words}, not {value!r}")
    return value
