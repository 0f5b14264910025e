"""Selections that leave rows away only for being unlike a training set say so, and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from astroml_plugin.catalog import Catalog, Column, schema
from astroml_plugin.catalog.unlike_training import sentence
from astroml_plugin.core.errors import InputError
from workflows import rank as ranking
from workflows import shear as shears

SHAPES = ("e1", "e2", "r11", "r12", "r21", "r22")


def made(folder: Path, unlike: int, count: int = 100) -> str:
    """A catalog with so many rows that are OUT_OF_DOMAIN and nothing else."""
    columns = [Column(name, "float32") for name in (*SHAPES, "typicality")]
    catalog = Catalog.create(str(folder), schema(columns), {"source": folder.name})
    run, random = catalog.start_run({"kind": "infer"}), np.random.default_rng(0)
    flags = np.where(np.arange(count) < unlike, 256, 0).astype(np.int32)
    rows = {
        **{"object_id": np.arange(count), "image": ["im"] * count, "tile": ["t"] * count},
        **{"x": np.zeros(count), "y": np.zeros(count)},
        **{name: pa.nulls(count, pa.float64()) for name in ("ra", "dec")},
        **{"primary": np.ones(count, bool), "flags": flags},
        **{name: random.normal(0.5, 0.1, count).astype(np.float32) for name in SHAPES},
        "typicality": np.where(flags, 0.001, 0.5).astype(np.float32),
    }
    catalog.commit_manifest(run, [catalog.write_part("im", "a" * 16, pa.table(rows))])
    catalog.finish_run(run)
    return str(folder)


def test_a_survey_that_is_unlike_the_training_gets_a_sentence_instead_of_nothing(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole", 100)
    with pytest.raises(InputError, match=r"100 of 100 rows are left away only for OUT_OF_DOMAIN.*fit-typicality"):
        shears.shear(whole)
    assert shears.shear(whole, where="flags IN (0, 256)").objects == 100
    empty = ranking.rank(whole, score="e1", where="flags = 0", top=5)
    assert len(empty) == 0
    assert "100 of 100 rows" in ranking.show(empty)


def test_some_are_told_and_few_are_not(tmp_path: Path) -> None:
    some, few = made(tmp_path / "some", 40), made(tmp_path / "few", 3)
    told = shears.shear(some)
    assert told.objects == 60
    assert "40 of 100 rows" in shears.show(told)
    assert shears.shear(few).note == ""
    assert sentence(some, None) == ""
    assert sentence(some, "flags < 300") == ""
    assert "40 of 100" in sentence(some, "flags = 0")
