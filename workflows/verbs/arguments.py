"""Command lines from signatures: each parameter of a verb's function, and each field of its option objects, is one."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import converted, from_mapping, refuse_unknown
from workflows.at_work import AtWork
from workflows.verbs import readers
from workflows.verbs.options import silence
from workflows.verbs.signatures import REQUIRED, Parameter, parameters

FROM_PYTHON = {
    "client": "--scheduler and the options beside it make one",
    "progress": "the command shows its own",
    "ready": "the command prints the address of the page",
}
"""Parameters that are no option of any verb -> why."""

_CLUSTER = "astroml_plugin.compute.cluster.options:ClusterOptions"
"""Options that make a client for verbs whose function takes one."""

_IN_GIGABYTES = {"memory", "job_memory"}
"""Parameters in bytes that are typed in GB."""

RUN_OPTIONS = "options"
"""Parameter that takes what the tasks of the bundles declare: --option, --prior and --symmetries."""


@dataclass(frozen=True)
class Verb:
    """A verb: what it runs, and where its command line differs from the signature."""

    run: Callable[[argparse.Namespace], int]
    """Runs the verb and gives the exit status."""
    function: str
    """Function whose parameters are the options, "module:name"."""
    description: str
    """Sentence that says what the verb does."""
    example: str
    """A command line, without the verb's name."""
    more: tuple[str, ...] = ()
    """Functions and option objects, "module:name", whose parameters the function takes as keywords."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """Parameter -> option, where it is not called as the parameter."""
    changed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parameter -> keywords of argparse that are other than its type and its text tell."""
    hidden: Mapping[str, str] = field(default_factory=dict)
    """Parameter -> why it is no option."""
    add: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    """Adds options that are no parameters."""

    def parameters(self) -> list[Parameter]:
        """Parameters that the command line, or the file of --config, can give."""
        found: dict[str, Parameter] = {}
        for parameter in (one for reference in (self.function, *self.more) for one in parameters(reference)):
            if not {parameter.name, parameter.holder} & {*FROM_PYTHON, *self.hidden}:
                found.setdefault(parameter.name, parameter)
        return list(found.values())

    def hints(self) -> dict[str, Any]:
        """Parameter -> type; this imports the function."""
        return {name: hint for one in (*self.more, self.function) for name, hint in get_type_hints(_load(one)).items()}


def add_arguments(parser: argparse.ArgumentParser, verb: Verb, *, by_file: bool) -> None:
    """Add the options of a verb.

    Args:
        parser: of the verb.
        verb: the verb.
        by_file: whether required values may stand in the file of --config.
    """
    found = verb.parameters()
    for parameter in found:
        if parameter.name == RUN_OPTIONS:
            readers.add_run_options(parser)
        else:
            _add(parser, verb, parameter, required=parameter.default == REQUIRED and not by_file)
    own = {one.name for one in parameters(verb.function)}
    if own_cluster := "client" in own and "scheduler" not in own:
        for parameter in parameters(_CLUSTER):
            _add(parser, verb, parameter, required=False)
    parser.add_argument("--config", type=readers.toml, metavar="TOML", help="a file with any of these options")
    text = "print a file for --config with all defaults"
    parser.add_argument("--print-config", action=_PrintConfig, nargs=0, const=verb, help=text)
    verb.add(parser)
    parser.set_defaults(run=verb.run, specification=verb, own_cluster=own_cluster, refuse=parser.error)


class _PrintConfig(argparse.Action):
    """Prints the file and ends, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from workflows.verbs.config_file import config_file

        print(config_file(parser.prog, self.const.parameters()), end="")
        parser.exit()


def _add(parser: argparse.ArgumentParser, verb: Verb, parameter: Parameter, *, required: bool) -> None:
    name, negative = parameter.name, parameter.default is True
    flag = verb.flags.get(name, f"--{'no-' if negative else ''}{name.replace('_', '-')}")
    given: dict[str, Any] = {"help": _help(parameter, negative=negative)}
    if "bool" in parameter.kinds:
        parser.add_argument(flag, dest=name, action="store_const", const=not negative, **given)
        return
    given |= {**_shape(parameter), **verb.changed.get(name, {})}
    if not parameter.positional:
        parser.add_argument(flag, dest=name, **{"required": required, **given})
        return
    if not required:
        given["nargs"] = "*" if "nargs" in given else "?"
    parser.add_argument(name, **{**given, "metavar": name.upper()})


def _shape(parameter: Parameter) -> dict[str, Any]:
    """How many words an option takes, and how each is read."""
    kinds = parameter.kinds
    if "str" in kinds and any(kind.startswith(("Sequence[str", "tuple[str")) for kind in kinds):
        return {"nargs": "+"}
    if row := re.fullmatch(r"tuple\[(int|float)((?:, \1){2,})\]", kinds[0]):
        count = 1 + row[2].count(",")
        words = re.search(rf"\((\w+(?:, \w+){{{count - 1}}})\)", parameter.help)
        columns = tuple(words[1].upper().split(", ")) if words else ("X",) * count
        return {"nargs": count, "type": {"int": int, "float": float}[row[1]], "metavar": columns}
    if parameter.name in _IN_GIGABYTES and "int" in kinds:
        return {"type": readers.gigabytes, "metavar": "GB"}
    return next(({"type": read, "metavar": what} for kind, read, what in readers.READERS if kind in kinds), {})


def _help(parameter: Parameter, *, negative: bool) -> str:
    text = " ".join(parameter.help.split()).replace("`", "").removesuffix(".")
    if text[1:2].islower():
        text = text[0].lower() + text[1:]
    default = parameter.default
    if negative:
        text = f"switch off: {text}"
    elif default and default != REQUIRED and default is not True and "default" not in text:
        text = f"{text} (default {', '.join(map(str, default)) if isinstance(default, tuple) else default})"
    return text.replace("%", "%%")


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Keywords of the verb's function: what the command line says comes before what the file of --config says.

    The file has the names of the function's parameters; an option object is a table there.

    Raises:
        InputError: the file names something unknown, or a value is of the wrong type.
    """
    verb, found = options.specification, options.specification.parameters()
    refuse_unknown(options.config or {}, {one.holder or one.name for one in found}, "the file of --config")
    file = _with_words(verb, found, options)
    keywords: dict[str, Any] = {}
    objects: dict[str, dict[str, Any]] = {}
    for one in found:
        told = objects.setdefault(one.holder, _table(file.get(one.holder, {}))) if one.holder else keywords
        if one.name in file and not one.holder:
            told[one.name] = converted(file[one.name], verb.hints().get(one.name, Any), f"{one.name} in --config")
        value = getattr(options, one.name)
        if one.name == RUN_OPTIONS:
            value = {**told.get(one.name, {}), **dict(value or ())}
        if value not in (None, [], {}):
            told[one.name] = value
        if one.default == REQUIRED and one.name not in told:
            name = one.name.upper() if one.positional else f"--{one.name}"
            options.refuse(f"{name} is required, here or in the file of --config")
    kinds = {one.holder: one.options for one in found}
    for holder, table in objects.items():
        if table:
            keywords[holder] = from_mapping(_load(kinds[holder]), table, f"the options of {options.verb}")
    return keywords


def _with_words(verb: Verb, found: Sequence[Parameter], options: argparse.Namespace) -> dict[str, Any]:
    """The file of --config, words such as "auto" read as on the command line, where an option has its own reader."""
    file = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in (options.config or {}).items()
    }
    for one in found:
        read, place = verb.changed.get(one.name, {}).get("type"), file.get(one.holder, {}) if one.holder else file
        word = place.get(one.name) if isinstance(place, Mapping) else None
        if read is None or not isinstance(word, str) or getattr(options, one.name) is not None:
            continue
        try:
            place[one.name] = read(word)
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise InputError(f"{one.name} in --config: {error}") from error
    return file


def _table(value: Any) -> dict[str, Any]:
    """Fields of an option object; a plain value is an objects table that needs no more said about it."""
    return dict(value) if isinstance(value, Mapping) else {"table": value}


def _load(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def call(options: argparse.Namespace, *, log: str = "distributed", watched: bool = True, **more: Any) -> Any:
    """The result of the verb's function, with the options that were given.

    Args:
        options: the parsed command line.
        log: library whose own log is silenced.
        watched: whether it is said how long the work goes on, where nobody says anything.
        more: further keywords of the function.
    """
    function, keywords = _load(options.specification.function), settings(options) | more
    silence(log)
    with AtWork(f"{options.verb}: at work") if watched else contextlib.nullcontext():
        return _run(options, function, keywords)


def _run(options: argparse.Namespace, function: Callable[..., Any], keywords: dict[str, Any]) -> Any:
    """The result of a function, with a client where its verb has options for one."""
    if not options.own_cluster:
        return function(**keywords)
    from astroml_plugin.compute.cluster import connect

    given = {one.name: getattr(options, one.name) for one in parameters(_CLUSTER)}
    with connect(**{name: value for name, value in given.items() if value is not None}) as client:
        return function(client=client, **keywords)
