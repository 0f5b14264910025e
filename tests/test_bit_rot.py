"""Single bits that flip in files of a catalog: none is silent to `verify`; what `query` itself notices is counted."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from astroml_plugin.catalog import Catalog, compact
from astroml_plugin.catalog.checking import verify
from astroml_plugin.core.errors import AstromlError
from tests import reliability
from tests.test_catalog_verify import DECLARED, UNITS, rows_of
from workflows.query import query

KINDS = {"part": "parts/*/*.parquet", "merged file": "parts/compact/*.parquet", "manifest": "manifest/*.parquet"}


def make(folder: Path, *, merged: bool) -> Catalog:
    made = Catalog.create(str(folder), DECLARED, {"source": "here"})
    run = made.start_run({"identity": {"source": "here"}})
    made.commit_manifest(run, [made.write_part(f"t{unit}", "d", rows_of(unit)) for unit in range(UNITS)])
    made.finish_run(run)
    if merged:
        compact(made)
    return made


def everything(catalog: Catalog) -> tuple[pa.Table, int]:
    """All rows, and how many of them a cone finds, for which files are chosen by the manifest."""
    rows = query(catalog.url).to_arrow().replace_schema_metadata().sort_by("object_id")
    return rows, query(catalog.url, "SELECT object_id FROM catalog", cone=(152.05, 2.05, 0.03)).rows


def flips(kind: str, folder: Path, count: int) -> list[int]:
    """Flip bits one by one. Flips, told by verify, no value changed, silent to verify, told by query, silent to it.

    A flip that verify does not tell and that changes no value is one in bytes that no reader looks at: texts for other
    readers, and gaps between pages.
    """
    catalog = make(folder, merged=kind == "merged file")
    files = sorted(file for file in folder.glob(KINDS[kind]) if kind != "part" or file.parent.name != "compact")
    assert files
    drawn, before = random.Random(f"{kind} {count}"), everything(catalog)
    told = unchanged = silent = asked = wrong = 0
    for _ in range(count):
        file = drawn.choice(files)
        whole = file.read_bytes()
        at = drawn.randrange(len(whole))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << drawn.randrange(8)]) + whole[at + 1 :])
        found = bool(verify(catalog.url).damages)
        try:
            equal, noticed = everything(catalog) == before, False
        except AstromlError:
            equal, noticed = False, True
        told += found
        unchanged += not found and equal
        silent += not found and not equal
        asked += noticed
        wrong += not noticed and not equal
        file.write_bytes(whole)
    assert not verify(catalog.url).damages
    return [count, told, unchanged, silent, asked, wrong]


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_told_by_verify_or_changes_nothing(kind: str, tmp_path: Path) -> None:
    counts = flips(kind, tmp_path / "c", 8)
    assert counts[3] == 0


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("kind", "count"), [("part", 500), ("merged file", 500), ("manifest", 100)])
def test_many_flipped_bits(kind: str, count: int, tmp_path: Path) -> None:
    counts = flips(kind, tmp_path / "c", count)
    shutil.rmtree(tmp_path / "c")
    reliability.keep("bit rot", [[kind, *counts]])
    assert counts[3] == 0
