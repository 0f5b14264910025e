"""Parameters of functions and fields of option objects, read from their source, so that `--help` imports no torch."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_OURS = ("astroml_plugin", "workflows")
_NONE = ast.Constant(None)
_PLACE = re.compile(r"\bPlace\b")
"""A path or URL, which is typed as a text."""
REQUIRED = "required"
"""Place of a default where there is none."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function, or a field of an option object that the function takes."""

    name: str
    """Name in Python."""
    kinds: tuple[str, ...]
    """Alternatives of the type as they are written, without None."""
    default: Any
    """Default where it is a plain value, else None; `REQUIRED` where there is none."""
    help: str
    """Text under the field, or after the name in the docstring of the function."""
    positional: bool = False
    """Whether callers may give it by position."""
    holder: str = ""
    """Parameter of the function that takes the option object; empty: the value itself is a keyword of the function."""
    options: str = ""
    """Class of the option object, "module:name"."""


def parameters(reference: str) -> list[Parameter]:
    """Parameters of a function, or fields of a dataclass, without those of star and double star.

    A parameter that takes an option object gives the object's fields. If it takes one of several classes of option
    objects, the fields are keywords of the function.

    Args:
        reference: "module:name" in this project.
    """
    module, _, name = reference.partition(":")
    origin = _find(module, name)
    if origin is None:
        raise LookupError(f"{module} has no {name}")
    return list(_fields(*origin) if isinstance(origin[1], ast.ClassDef) else _arguments(*origin))


@functools.cache
def _source(module: str) -> ast.Module:
    path = _ROOT.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8"))


def _statements(source: ast.Module) -> Iterator[ast.stmt]:
    """Statements of a module, and those for type checkers only: of names that are imported when they are first used."""
    for node in source.body:
        yield from node.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" else [node]


def _find(module: str, name: str) -> tuple[str, Any] | None:
    """Module and statement that define a name which `module` defines, or imports from this project."""
    for node in _statements(_source(module)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return module, node.value
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in _OURS:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(node.module, alias.name)
    return None


def _fields(module: str, node: ast.ClassDef) -> Iterator[Parameter]:
    """Fields of a dataclass, those of its bases first."""
    found: dict[str, Parameter] = {}
    for base in node.bases:
        if (origin := _find(module, ast.unparse(base))) is not None:
            found |= {field.name: field for field in _fields(*origin)}
    for item, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(item, ast.AnnAssign):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            name = ast.unparse(item.target)
            found[name] = Parameter(name, _kinds(item.annotation), _default(module, item.value), str(text))
    yield from found.values()


def _arguments(module: str, node: ast.FunctionDef) -> Iterator[Parameter]:
    """Parameters of a function, option objects replaced by their fields."""
    texts = _argument_texts(ast.get_docstring(node) or "")
    spec = node.args
    first = [None] * (len(spec.args) - len(spec.defaults)) + list(spec.defaults)
    named = [*zip(spec.args, first, strict=True), *zip(spec.kwonlyargs, spec.kw_defaults, strict=True)]
    for argument, default in named:
        kinds = _kinds(argument.annotation or _NONE)
        origins = [] if "str" in kinds else [_find(module, kind) for kind in kinds if kind.isidentifier()]
        classes = [found for found in origins if found and isinstance(found[1], ast.ClassDef) and _is_frozen(found[1])]
        for where, kind in classes:
            place = (argument.arg, f"{where}:{kind.name}") if len(classes) == 1 else ("", "")
            for field in _fields(where, kind):
                yield replace(field, holder=place[0], options=place[1])
        if not classes:
            text, value = texts.get(argument.arg, ""), _default(module, default)
            yield Parameter(argument.arg, kinds, value, text, argument in spec.args)


def _is_frozen(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _kinds(node: ast.expr) -> tuple[str, ...]:
    """Alternatives of a type."""
    if isinstance(node, ast.BinOp):
        return (*_kinds(node.left), *_kinds(node.right))
    text = _PLACE.sub("str", ast.unparse(node))
    return () if text == "None" else (text,)


def _default(module: str, node: ast.expr | None) -> Any:
    """A default that is a plain value, or the name of one; None for others."""
    if node is None:
        return REQUIRED
    if isinstance(node, ast.Name) and (origin := _find(module, node.id)) is not None:
        node = origin[1]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


def _argument_texts(docstring: str) -> dict[str, str]:
    """Name -> text of the section "Args" of a docstring."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", inspect.cleandoc(docstring), re.M)
    entries = re.split(r"^    (?=\w)", section[1], flags=re.M) if section else []
    pairs = [entry.partition(":") for entry in entries]
    return {name.strip(): text for names, _, text in pairs for name in names.split(",")}
