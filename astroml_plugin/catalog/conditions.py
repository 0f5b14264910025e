"""Conditions on rows in SQL, in which values are literals and nothing can leave its parentheses."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import pyarrow as pa

from astroml_plugin.catalog import sql
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import OBJECT_FLAGS, ObjectFlag
from astroml_plugin.core.settings import refuse_unknown

DOUBTFUL = (
    ObjectFlag.EDGE
    | ObjectFlag.MASKED
    | ObjectFlag.NONFINITE
    | ObjectFlag.SATURATED
    | ObjectFlag.DUPLICATE_ID
    | ObjectFlag.TRUNCATED
    | ObjectFlag.OUT_OF_DOMAIN
)
"""Flags that make the values of a row doubtful."""

_FLAGS = "flags"
_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--|/\*|\$\w*\$|[A-Za-z_]\w*|.""", re.DOTALL)
"""Pieces of SQL: texts, quoted names, what begins a comment or another kind of text, words, single letters."""


def condition_sql(condition: str, values: Sequence[Any] = ()) -> str:
    """A condition with its question marks filled in.

    Args:
        condition: one expression.
        values: of the question marks.

    Raises:
        InputError: it is none: it has a comment, a semicolon, a text or parenthesis that does not end, or another
            number of question marks than there are values.
    """
    waiting, depth, filled, before = list(values), 0, [], ""
    for token in _TOKEN.findall(condition):
        if token in (";", "--", "/*", "'", '"') or token.startswith("$") or (token[0] == "'" and before in ("e", "E")):
            raise InputError(
                f"the condition {_short(condition)} must be one expression: {token[:2]} cannot stand in it"
            )
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth < 0:
            break
        if token == "?":  # noqa: S105 - no password
            if not waiting:
                raise InputError(f"the condition {_short(condition)} has more question marks than {len(values)} values")
            token = literal(waiting.pop(0))
        filled.append(token)
        before = token
    if depth or not condition.strip():
        raise InputError(f"the condition {_short(condition)} must be one expression: its parentheses do not fit")
    if waiting:
        raise InputError(f"the condition {_short(condition)} has fewer question marks than {len(values)} values")
    return "".join(filled)


def equal_sql(name: str, value: Any) -> str:
    """The condition that a column has a value, or one of several."""
    if value is None:
        return f"{sql.name(name)} IS NULL"
    return f"{sql.name(name)} {'IN' if _is_list(value) else '='} {literal(value)}"


def good_sql(schema: pa.Schema, bundle: str | None, allow: Collection[str] | str) -> str:
    """The condition of rows that are primary and without `DOUBTFUL` flags; see `asking.Askable.good`."""
    allowed = [allow] if isinstance(allow, str) else list(allow)
    refuse_unknown(allowed, OBJECT_FLAGS, "the flags")
    own = [name for name in schema.names if name.endswith(f"_{_FLAGS}")]
    if bundle is not None:
        bundles = [name.removesuffix(f"_{_FLAGS}") for name in own]
        if bundles:
            refuse_unknown([bundle], bundles, "the bundles of the catalog")
            own = [f"{bundle}_{_FLAGS}"]
    mask = int(DOUBTFUL) & ~sum(OBJECT_FLAGS[name] for name in set(allowed))
    columns = own if bundle is not None and own else [name for name in (_FLAGS, *own) if name in schema.names]
    conditions = [f"({sql.name(name)} & {mask}) = 0" for name in columns]
    return " AND ".join([*(['"primary"'] if "primary" in schema.names else []), *conditions]) or "TRUE"


def literal(value: Any) -> str:
    """A value as SQL.

    Raises:
        InputError: it is no number, text, or list of them.
    """
    if hasattr(value, "to_value"):
        raise InputError(f"{value} has a unit: give a plain number, in the unit that the column has in the catalog")
    if _is_list(value):
        return f"({', '.join(map(literal, _items(value)))})" if len(value) else "(SELECT NULL WHERE FALSE)"
    if hasattr(value, "as_py"):
        value = value.as_py()  # of Arrow
    if hasattr(value, "item"):
        value = value.item()  # of NumPy
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(value)) if math.isfinite(value) else f"'{float(value)}'::DOUBLE"
    if isinstance(value, str):
        return sql.quote(value)
    raise InputError(f"a condition takes numbers, texts and lists of them, not {_short(str(value))}")


def _is_list(value: Any) -> bool:
    return not isinstance(value, str | bytes | Mapping) and hasattr(value, "__len__") and getattr(value, "ndim", 1) == 1


def _items(value: Any) -> Iterator[Any]:
    yield from value


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 80 else f"{line[:79]}…")
