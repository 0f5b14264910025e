"""Recipes by name: those that ship here, or your own TOML file by path or URL."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astroml_plugin.core import foreign, storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place, text_of
from astroml_plugin.training.recipe import Recipe

_SHIPPED = Path(__file__).parent / "recipes"


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def read_recipe(recipe: Place | Recipe) -> Recipe:
    """A recipe by shipped name or by path or URL of a TOML file; its table [search] is for `search` alone.

    Raises:
        InputError: no such recipe, no TOML, unknown keys or wrong types.
    """
    return recipe if isinstance(recipe, Recipe) else Recipe.from_mapping(_values(text_of(recipe)))


def search_table(recipe: Place | Recipe) -> dict[str, Any]:
    """The table [search] of a recipe, empty where it has none.

    Raises:
        InputError: no such recipe, no TOML, or `search` is no table.
    """
    found = {} if isinstance(recipe, Recipe) else _values(text_of(recipe)).get("search", {})
    if not isinstance(found, Mapping):
        raise InputError(f"[search] of the recipe must be a table, not {found!r}")
    return dict(found)


def _values(name: str) -> dict[str, Any]:
    """Tables of the TOML file."""
    url = str(_SHIPPED / f"{name}.toml") if name in shipped() else name
    try:
        data = storage.read_bytes(url)
    except (FileNotFoundError, IsADirectoryError):
        names = ", ".join(shipped())
        raise InputError(f"no recipe {name!r}: give a TOML file or one of the shipped ones, {names}") from None
    with foreign.refusing(f"recipe {storage.redact(name)}", "it must be TOML in UTF-8"):
        return tomllib.loads(data.decode())
