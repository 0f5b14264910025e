"""Files for --config: all options of a verb in TOML, with their texts and defaults."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from workflows.verbs.signatures import REQUIRED, Parameter

_WIDTH = 100
_EXAMPLES = (("dict", "{}"), ("Mapping", "{}"), ("tuple", "[]"), ("Sequence", "[]"), ("int", "0"), ("float", "0.0"))
"""How a type is written -> a value of it in TOML; a type that is not here is a text."""


def config_file(command: str, found: Sequence[Parameter]) -> str:
    """TOML text that `--config` of a verb reads: defaults stand as values, options without a default behind a #."""
    lines = [
        f"# Options of `{command} --config FILE.toml`.",
        "# What the command line says comes before what this file says. Lines behind a # are not set.",
    ]
    for holder in dict.fromkeys(one.holder for one in sorted(found, key=lambda one: bool(one.holder))):
        lines += ["", f"[{holder}]"] if holder else [""]
        for parameter in found:
            if parameter.holder == holder:
                lines += _lines(parameter)
    return "\n".join(lines) + "\n"


def _lines(parameter: Parameter) -> Iterator[str]:
    text = " ".join(parameter.help.split()).replace("`", "")
    yield from textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    default = parameter.default
    if default == REQUIRED:
        yield f"# {parameter.name} = {_example(parameter)}  # required"
    elif default is None or default == ():
        yield f"# {parameter.name} = {_example(parameter)}"
    else:
        yield f"{parameter.name} = {_toml(default)}"


def _example(parameter: Parameter) -> str:
    kind = next((kind for kind in parameter.kinds if kind.startswith(("tuple", "Sequence"))), parameter.kinds[0])
    if kind.startswith("tuple[int, int"):
        return _toml([0] * (1 + kind.count(",")))
    return next((example for start, example in _EXAMPLES if kind.startswith(start)), '""')


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value)
    return json.dumps(value, ensure_ascii=False)
