"""The verb `query`: answers for people, as wide as the terminal, and for programs, in full."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows.verbs import readers
from workflows.verbs.arguments import call, settings
from workflows.verbs.options import DONE, complain, finish

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 40
"""Rows for people."""
_STDOUT = "-"


def add_views(verb: argparse.ArgumentParser) -> None:
    """Add the options that only show."""
    verb.add_argument(
        "--columns", type=readers.names, metavar="A,B,…", help="columns, instead of SQL that selects them"
    )
    verb.add_argument("--vertical", action="store_true", help="print the values of a row one below the other")


def ask(options: argparse.Namespace) -> int:
    """Answer on the terminal, on stdout for a program (--to -, --json), or in a file."""
    given = settings(options)
    asked = _of_columns(options, given)
    if given.get("to") == _STDOUT:
        if options.json:
            options.refuse("--to - writes CSV, --json writes JSON: choose one")
        return _to_stdout(options, asked)
    if given.get("to"):
        result = call(options, **asked)
        told = {"rows": result.rows, "to": result.to}
        return finish(options, told, f"{result.rows:,} rows written to {options.to or result.to}")
    if options.json:
        _print_json(call(options, **asked).shown())
        return DONE
    return _for_people(options, given, asked)


def _of_columns(options: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    """The SQL that selects the columns of --columns; nothing where there are none."""
    if not options.columns:
        return {}
    if given.get("sql"):
        options.refuse("--columns stands in the place of SQL: name the columns in the SELECT")
    from astroml_plugin.catalog.asking import Catalog

    return {"sql": Catalog.open(given["catalog"]).columns(*options.columns).sql}


def _for_people(options: argparse.Namespace, given: dict[str, Any], asked: dict[str, Any]) -> int:
    """Print the first rows; of a catalog that is asked without SQL no others are read."""
    from workflows.query import query, show

    if given.get("sql"):
        result = call(options, **asked)
        return _say_empty(result.rows, finish(options, {}, show(result, _ROWS, vertical=options.vertical)))
    limit = given.get("limit")
    result = call(options, **asked, limit=min(_ROWS, limit) if limit else _ROWS)
    there = result.rows
    if there == _ROWS != limit:
        count = "SELECT count(*) AS n FROM catalog"
        more = {name: given[name] for name in ("cone", "memory", "units") if name in given}
        there = int(query(given["catalog"], count, **more).to_arrow()["n"][0].as_py())
    there = there if limit is None else min(limit, there)
    return _say_empty(there, finish(options, {}, show(result, _ROWS, vertical=options.vertical, there=there)))


def _say_empty(rows: int, status: int = DONE) -> int:
    """Say on stderr that an answer has no rows; give the exit status back."""
    return status if rows else complain("0 rows: the catalog has none, or none that is what was asked for", status)


def _to_stdout(options: argparse.Namespace, asked: dict[str, Any]) -> int:
    """Print all rows as CSV; nothing is printed where they cannot all be had."""
    with tempfile.TemporaryDirectory(prefix="astroml-") as folder:
        file = Path(folder) / "answer.csv"
        rows = call(options, **asked, to=str(file)).rows
        sys.stdout.flush()
        with file.open("rb") as written:
            shutil.copyfileobj(written, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    return _say_empty(rows)


def _print_json(table: pa.Table) -> None:
    """Print all rows as one line of JSON; numbers that are not finite are null."""
    from astroml_plugin.core.storage import finite

    names = json.dumps(table.column_names)
    sys.stdout.write(f'{{"rows": {table.num_rows}, "to": null, "columns": {names}, "data": [')
    before = ""
    for batch in table.to_batches(max_chunksize=1024):
        columns = [_own_digits(column) for column in batch.columns]
        for values in zip(*columns, strict=True):
            row = dict(zip(table.column_names, values, strict=True))
            sys.stdout.write(before + json.dumps(finite(row), default=str))
            before = ", "
    sys.stdout.write("]}\n")


def _own_digits(column: pa.Array) -> list[Any]:
    """Python values of a column; numbers of 16 and 32 bits with the digits that they have: 0.1, not 0.10000000149."""
    kind = getattr(column.type, "value_type", column.type)
    values = column.to_pylist()
    if str(kind) not in ("float", "halffloat"):
        return list(values)
    import numpy as np

    narrow = np.float32 if str(kind) == "float" else np.float16

    def own(value: Any) -> Any:
        if isinstance(value, list):
            return [own(one) for one in value]
        return None if value is None else float(str(narrow(value)))

    return [own(value) for value in values]
