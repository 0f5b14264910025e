"""Which columns of an answer are columns of the catalog, unchanged: only those have a unit, a UCD and a description."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pyarrow as pa


def sources(database: duckdb.DuckDBPyConnection, text: str | None, schema: pa.Schema) -> list[pa.Field | None]:
    """For each column of the answer to a SELECT, the catalog's column that it is; None where it was computed.

    Args:
        database: parses the SQL.
        text: one SELECT; None for all of the catalog.
        schema: columns of the view `catalog`.

    Returns:
        One entry per column, or an empty list where the SQL is more than one SELECT from `catalog` alone (joins,
        unions, subqueries, common table expressions): nothing is known then.
    """
    if text is None:
        return list(schema)
    node = _node(database, text)
    if not _is_catalog(node):
        return []
    by_name = {field.name.lower(): field for field in schema}
    found: list[pa.Field | None] = []
    for item in node.get("select_list", []):
        if item.get("class") == "STAR":
            if not _is_plain_star(item):
                return []
            left_out = {str(name).lower() for name in item.get("exclude_list", [])}
            replaced = {str(pair["key"]).lower() for pair in item.get("replace_list", [])}
            kept = [field for field in schema if field.name.lower() not in left_out]
            found += [None if field.name.lower() in replaced else field for field in kept]
        elif item.get("class") == "COLUMN_REF":
            found.append(by_name.get(str(item["column_names"][-1]).lower()))
        else:
            found.append(None)
    return found


def counts_rows_alone(database: duckdb.DuckDBPyConnection, text: str | None) -> bool:
    """Whether a SELECT asks for nothing but the number of all rows of `catalog`, which its manifest knows."""
    if text is None:
        return False
    node = _node(database, text)
    chosen = ("where_clause", "group_expressions", "group_sets", "having", "sample", "qualify", "modifiers")
    columns = node.get("select_list", [])
    return (
        _is_catalog(node)
        and not any(node.get(name) for name in chosen)
        and not node["from_table"].get("sample")
        and not node["from_table"].get("at_clause")
        and bool(columns)
        and all(_counts_all(item) for item in columns)
    )


def _counts_all(item: dict[str, Any]) -> bool:
    """Whether a column of an answer is a plain count(*)."""
    return item.get("class") == "FUNCTION" and item.get("function_name") == "count_star" and not item.get("filter")


def _node(database: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    """The tree of one SELECT; empty where DuckDB gives none."""
    tree = json.loads(database.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0][0])
    node: dict[str, Any] = (tree.get("statements") or [{}])[0].get("node", {})
    return node


def _is_catalog(node: dict[str, Any]) -> bool:
    """Whether a SELECT reads the view `catalog` and nothing else, under the view's own names of columns."""
    table = node.get("from_table") or {}
    return (
        node.get("type") == "SELECT_NODE"
        and not (node.get("cte_map") or {}).get("map")
        and table.get("type") == "BASE_TABLE"
        and str(table.get("table_name", "")).lower() == "catalog"
        and not table.get("column_name_alias")
    )


def _is_plain_star(item: dict[str, Any]) -> bool:
    """Whether a `*` stands for columns under their own names: perhaps without some, perhaps with some replaced."""
    return not (
        item.get("expr") or item.get("columns") or item.get("rename_list") or item.get("qualified_exclude_list")
    )


def described(schema: pa.Schema, origins: list[pa.Field | None]) -> pa.Schema:
    """An answer's schema with the catalog's units, UCDs and descriptions where a column is one of the catalog's."""
    if len(origins) != len(schema):
        origins = [None] * len(schema)
    return pa.schema(
        [
            pa.field(item.name, item.type, metadata=None if origin is None else origin.metadata)
            for item, origin in zip(schema, origins, strict=True)
        ]
    )
