"""Damage to a catalog is noticed, told with numbers and a remedy, and mended where that can be."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from astroml_plugin.catalog import Catalog, Column, compact, schema
from astroml_plugin.catalog.beside import DAMAGED
from astroml_plugin.catalog.checking import verify
from astroml_plugin.core.errors import CorruptError, InputError
from workflows.cli import main
from workflows.query import query

UNITS, ROWS = 6, 40
DECLARED = schema([Column("p_a", "float32", "", "stat.probability", "Probability of a")])


def rows_of(unit: int) -> pa.Table:
    drawn = np.random.default_rng(unit)
    return pa.table(
        {
            "object_id": np.arange(ROWS) + unit * ROWS,
            "image": ["field"] * ROWS,
            "tile": [f"t{unit}"] * ROWS,
            "x": drawn.uniform(0, 100, ROWS),
            "y": drawn.uniform(0, 100, ROWS),
            "ra": drawn.uniform(150, 150.1, ROWS) + unit,
            "dec": drawn.uniform(2, 2.1, ROWS),
            "primary": np.ones(ROWS, bool),
            "flags": np.zeros(ROWS, np.int32),
            "p_a": drawn.uniform(0, 1, ROWS).astype(np.float32),
        }
    )


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    made = Catalog.create(str(tmp_path / "c"), DECLARED, {"source": "here"})
    run = made.start_run({"identity": {"source": "here"}})
    made.commit_manifest(run, [made.write_part(f"t{unit}", "d", rows_of(unit)) for unit in range(UNITS)])
    made.write_failures(pa.Table.from_pylist([], schema=made.failures().schema), run)
    made.finish_run(run)
    return made


def files(catalog: Catalog) -> list[Path]:
    return sorted(Path(catalog.url, "parts").rglob("*.parquet"))


def everything(catalog: Catalog) -> pa.Table:
    return query(catalog.url).to_arrow()


def test_a_whole_catalog_is_whole(catalog: Catalog) -> None:
    for _ in range(2):
        result = verify(catalog.url)
        assert (result.damages, result.rows, result.is_whole) == ((), UNITS * ROWS, True)
        compact(catalog)


def test_a_deleted_part_is_an_error_with_numbers(catalog: Catalog) -> None:
    files(catalog)[2].unlink()
    with pytest.raises(CorruptError, match=rf"{ROWS} rows of 1 units have no file any more .*run the same infer again"):
        everything(catalog)
    (damage,) = verify(catalog.url).damages
    assert (damage.units, damage.rows, damage.mended) == (1, ROWS, False)
    assert main(["query", catalog.url]) == 2
    assert main(["verify", catalog.url]) == 3


def test_a_deleted_merged_file_is_an_error_with_numbers(catalog: Catalog) -> None:
    compact(catalog)
    (merged,) = files(catalog)
    merged.unlink()
    with pytest.raises(CorruptError, match=rf"{UNITS * ROWS} rows of {UNITS} units have no file"):
        everything(catalog)


def test_what_a_deletion_leaves_can_be_asked_again_once_it_is_measured_again(catalog: Catalog) -> None:
    files(catalog)[2].unlink()
    run = catalog.start_run({})
    gone = next(f"t{unit}" for unit in range(UNITS) if f"t{unit}" not in catalog.listed())
    catalog.commit_manifest(run, [catalog.write_part(gone, "d", rows_of(int(gone[1:])))])
    catalog.finish_run(run)
    assert everything(catalog).num_rows == UNITS * ROWS


@pytest.mark.parametrize("merged", [False, True])
def test_no_flipped_bit_is_silent_to_verify(catalog: Catalog, *, merged: bool) -> None:
    if merged:
        compact(catalog)
    file = files(catalog)[0]
    whole, drawn = file.read_bytes(), random.Random(1)
    before = everything(catalog)
    silent = noticed = 0
    for _ in range(16):
        at = drawn.randrange(4, len(whole))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << drawn.randrange(8)]) + whole[at + 1 :])
        found = verify(catalog.url).damages
        noticed += bool(found)
        if not found:
            silent += not everything(catalog).equals(before)  # no error either
    assert silent == 0
    assert noticed > 4  # much of so small a file is text for other readers, of which no value rests


def test_compact_deletes_nothing_that_it_cannot_read(catalog: Catalog) -> None:
    file = files(catalog)[3]
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptError, match=r"is damaged .*verify CATALOG --repair"):
        compact(catalog)
    assert len(files(catalog)) == UNITS


def test_repair_moves_a_damaged_part_aside_and_its_unit_is_to_be_done_again(catalog: Catalog) -> None:
    file = files(catalog)[1]
    file.write_bytes(file.read_bytes()[:200])
    result = verify(catalog.url, repair=True)
    (damage,) = result.damages
    assert (damage.units, damage.rows, damage.mended, result.is_whole) == (1, ROWS, False, False)
    assert len(list(Path(catalog.url, DAMAGED).iterdir())) == 1
    assert len(catalog.listed()) == UNITS - 1
    with pytest.raises(CorruptError, match=rf"{ROWS} rows of 1 units have no file"):  # until infer has run again
        everything(catalog)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"PAR1nonsense", b'{"run_id"'])
@pytest.mark.parametrize("name", ["schema.json", "run.json", "runs/*.json", "manifest/*.parquet", "failures.parquet"])
def test_a_damaged_small_file_is_told_in_one_sentence_or_does_no_harm_and_is_mended(
    catalog: Catalog, name: str, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (file,) = Path(catalog.url).glob(name)
    file.write_bytes(content)
    status = main(["query", catalog.url, "SELECT count(*) FROM catalog"])
    assert status == (2 if name == "schema.json" else 0)
    if status:
        assert "verify CATALOG --repair" in capfd.readouterr().err
    else:
        assert everything(catalog).num_rows == UNITS * ROWS
        run = catalog.start_run({})  # a run begins and ends beside it
        catalog.finish_run(run)
    result = verify(catalog.url, repair=True)
    assert result.is_whole, result.damages
    assert verify(catalog.url).damages == ()
    assert everything(Catalog.open(catalog.url)).num_rows == UNITS * ROWS
    assert main(["query", catalog.url, "SELECT * FROM failures"]) == 0


def test_verify_of_nothing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no catalog"):
        verify(str(tmp_path / "none"))


def test_the_verb_prints_what_is_wrong(catalog: Catalog, capfd: pytest.CaptureFixture[str]) -> None:
    files(catalog)[0].write_bytes(b"PAR1")
    assert main(["verify", catalog.url, "--json"]) == 3
    out, err = capfd.readouterr()
    assert json.loads(out)["damages"][0]["rows"] == ROWS
    assert "damaged: parts/" in err


@pytest.mark.parametrize("held", [b"", b"\0" * 4000, b"hello" * 100])
def test_an_emptied_part_names_the_remedy(catalog: Catalog, held: bytes) -> None:
    files(catalog)[1].write_bytes(held)
    with pytest.raises(CorruptError, match=r"cannot be read .*run `astroml-plugin verify CATALOG --repair`"):
        everything(catalog)
    assert not verify(catalog.url).is_whole
