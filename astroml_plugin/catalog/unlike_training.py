"""A sentence where a selection leaves rows away only because they are unlike what a bundle was trained on."""

from __future__ import annotations

from astroml_plugin.catalog import Catalog
from astroml_plugin.catalog.query import query
from astroml_plugin.core.flags import ObjectFlag

MANY = 0.2
"""Part of the rows from which on it is worth a sentence: of the bundle's own kind they are one in a hundred."""

_ALONE = int(ObjectFlag.OUT_OF_DOMAIN)


def sentence(catalog: Catalog | str, where: str | None) -> str:
    """How many primary rows a selection leaves away that have OUT_OF_DOMAIN and no other flag, and what can be done.

    Empty where they are few, where the selection does not leave them away, or where no bundle tells the typicality.

    Args:
        catalog: the catalog.
        where: SQL of the selection, which has been asked before.
    """
    opened = catalog if isinstance(catalog, Catalog) else Catalog.open(catalog)
    names = opened.schema.names
    told = any(name == "typicality" or name.endswith("_typicality") for name in names)
    if where is None or not told or not {"flags", "primary"} <= set(names):
        return ""
    text = (
        f"SELECT count(*) AS n, count(*) FILTER (flags = {_ALONE} AND NOT coalesce((\n{where}\n), FALSE)) AS alone "  # noqa: S608
        'FROM catalog WHERE "primary"'
    )
    found = query(opened.url, text).to_arrow().to_pylist()[0]
    if found["alone"] <= MANY * found["n"]:
        return ""
    return (
        f"{found['alone']:,} of {found['n']:,} rows are left away only for OUT_OF_DOMAIN: they are unlike what the "
        f"bundle was trained on, and nobody measured how good its answers are there. Fit what is typical on stamps of "
        f'this survey (fit-typicality), or take these rows too (--where "flags IN (0, {_ALONE})") and check them '
        f"against objects whose truth is known"
    )
