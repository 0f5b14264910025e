"""Options by name: from keywords of a call, a command line or TOML, with one sentence for what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import converted, texts, with_changes


@dataclass(frozen=True)
class Lens:
    focal_length: float = 1.0


@dataclass(frozen=True)
class Options:
    tile_size: int = 4096
    edges: tuple[float, ...] = ()
    table: str | None = None
    lens: Lens = field(default_factory=Lens)


def test_options_are_changed_by_name() -> None:
    changed = with_changes(Options, None, {"tile_size": np.int64(64), "edges": np.array([1, 2.5])}, "the options")
    assert changed == Options(64, (1.0, 2.5))
    assert with_changes(Options, changed, {"table": Path("a.csv")}, "the options") == Options(64, (1.0, 2.5), "a.csv")


def test_settings_within_settings_are_objects_or_tables() -> None:
    for lens in (Lens(2.0), {"focal_length": 2}):
        assert with_changes(Options, None, {"lens": lens}, "the options").lens == Lens(2.0)


def test_a_misspelt_name_gives_the_nearest_valid_one() -> None:
    with pytest.raises(InputError, match="'tilesize' in the options: did you mean 'tile_size'"):
        with_changes(Options, Options(), {"tilesize": 3}, "the options")


@pytest.mark.parametrize("wrong", [{"tile_size": "x"}, {"tile_size": True}, {"edges": "1,2"}, {"lens": 3}])
def test_a_value_of_another_kind_is_one_sentence(wrong: dict) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} in the options must be"):
        with_changes(Options, None, wrong, "the options")


def test_one_path_or_several_become_texts() -> None:
    assert texts("s3://a/b") == ("s3://a/b",)
    assert texts(Path("a.zarr")) == ("a.zarr",)
    assert texts([Path("a"), "b"]) == ("a", "b")
    assert texts(()) == ()


def test_a_list_of_paths_is_converted_or_refused() -> None:
    hint = Sequence[str | PathLike[str]]
    assert converted(["a.fits", Path("b.fits")], hint, "inputs") == ["a.fits", "b.fits"]
    with pytest.raises(InputError, match=r"inputs must be a path, not 0\.5"):
        converted([0.5], hint, "inputs")
