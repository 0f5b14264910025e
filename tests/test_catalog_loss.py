"""A loss of rows stays a loss: compact and repair do not make it silent; files are compared with name and manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from astroml_plugin.catalog import Catalog, compact
from astroml_plugin.catalog.beside import DAMAGED
from astroml_plugin.catalog.checking import verify
from astroml_plugin.catalog.done import DoneUnits
from astroml_plugin.core.errors import CorruptError
from tests.test_bit_rot import make
from tests.test_catalog_verify import ROWS, UNITS, everything, files, rows_of
from workflows.cli import main

LOST = rf"{ROWS} rows of 1 units have no file any more"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return make(tmp_path / "c", merged=False)


def measure_again(catalog: Catalog) -> None:
    """Do what is missing, as infer does."""
    run = catalog.start_run({})
    missing = [f"t{unit}" for unit in range(UNITS) if f"t{unit}" not in catalog.listed()]
    catalog.commit_manifest(run, [catalog.write_part(unit, "d", rows_of(int(unit[1:]))) for unit in missing])
    catalog.finish_run(run)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[300] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("manifest_too", [False, True])
@pytest.mark.parametrize("how", [flip, lambda file: file.write_bytes(b""), Path.unlink])
def test_a_loss_stays_told_until_it_is_measured_again(
    catalog: Catalog, how: Callable[[Path], None], *, manifest_too: bool
) -> None:
    how(files(catalog)[1])
    if manifest_too:
        for file in Path(catalog.url, "manifest").iterdir():
            file.unlink()
    with pytest.raises(CorruptError):
        compact(catalog)
    assert not verify(catalog.url, repair=True).is_whole
    for _ in range(2):
        with pytest.raises(CorruptError, match=LOST):
            everything(catalog)
        with pytest.raises(CorruptError, match=LOST):
            compact(catalog)
        (damage,) = verify(catalog.url, repair=True).damages
        assert (damage.units, damage.rows, damage.mended) == (1, ROWS, False)
    assert len(files(catalog)) == UNITS - 1
    measure_again(catalog)
    assert everything(catalog).num_rows == UNITS * ROWS
    assert verify(catalog.url).is_whole
    assert compact(catalog).rows == UNITS * ROWS


def test_a_link_that_leads_nowhere_is_a_file_that_is_gone(catalog: Catalog) -> None:
    part = files(catalog)[1]
    part.unlink()
    part.symlink_to("nowhere")
    with pytest.raises(CorruptError, match=LOST):
        everything(catalog)
    (damage,) = verify(catalog.url, repair=True).damages
    assert (damage.units, damage.rows) == (1, ROWS)
    measure_again(catalog)
    assert everything(catalog).num_rows == UNITS * ROWS
    assert verify(catalog.url).is_whole


def test_a_merged_file_that_is_gone_stays_told(catalog: Catalog) -> None:
    compact(catalog)
    files(catalog)[0].unlink()
    verify(catalog.url, repair=True)
    with pytest.raises(CorruptError, match=rf"{UNITS * ROWS} rows of {UNITS} units"):
        everything(catalog)
    run = catalog.start_run({})  # a run that does one unit of them
    catalog.commit_manifest(run, [catalog.write_part("t0", "d", rows_of(0))])
    catalog.finish_run(run)
    with pytest.raises(CorruptError, match=rf"{(UNITS - 1) * ROWS} rows of {UNITS - 1} units"):
        compact(catalog)
    measure_again(catalog)
    assert compact(catalog).rows == everything(catalog).num_rows == UNITS * ROWS


@pytest.mark.parametrize("manifest_too", [False, True])
def test_a_loss_can_be_given_up(catalog: Catalog, *, manifest_too: bool) -> None:
    files(catalog)[1].unlink()
    if manifest_too:
        shutil.rmtree(Path(catalog.url, "manifest"))
    assert main(["verify", catalog.url, "--forget-lost"]) == 3
    assert everything(catalog).num_rows == compact(catalog).rows == (UNITS - 1) * ROWS
    assert verify(catalog.url).damages == ()
    files(catalog)[0].unlink()
    with pytest.raises(CorruptError, match=rf"{(UNITS - 1) * ROWS} rows of {UNITS - 1} units"):
        everything(catalog)


def copy(catalog: Catalog) -> None:
    shutil.copy(files(catalog)[0], files(catalog)[1])


def swap(catalog: Catalog) -> None:
    first, second = (file.read_bytes() for file in files(catalog)[:2])
    files(catalog)[0].write_bytes(second)
    files(catalog)[1].write_bytes(first)


def rewrite(catalog: Catalog) -> None:
    """Another program changes values and keeps the footer."""
    table = pq.read_table(files(catalog)[0])
    at = table.schema.get_field_index("p_a")
    zeros = pc.multiply(table["p_a"], pa.scalar(0, pa.float32()))
    pq.write_table(table.set_column(at, table.schema.field(at), zeros), files(catalog)[0])


@pytest.mark.parametrize(
    ("harm", "units", "what"),
    [
        (copy, 1, "rows of unit"),
        (swap, 2, "rows of unit"),
        (rewrite, 1, "something else has"),
    ],
)
def test_a_part_that_is_another_one_is_told_and_moved(
    catalog: Catalog, harm: Callable[[Catalog], None], units: int, what: str
) -> None:
    harm(catalog)
    if harm is not rewrite:
        with pytest.raises(CorruptError, match=rf"{what} .*put the right one back, or run `astroml-plugin verify"):
            everything(catalog)
    with pytest.raises(CorruptError, match=what):
        compact(catalog)
    damages = verify(catalog.url, repair=True).damages
    assert [what in damage.what for damage in damages] == [True] * units
    assert len(list(Path(catalog.url, DAMAGED).iterdir())) == units
    with pytest.raises(CorruptError, match=rf"{units * ROWS} rows of {units} units"):
        everything(catalog)
    measure_again(catalog)
    assert verify(catalog.url).damages == ()


def test_a_merged_file_under_another_name_is_told(catalog: Catalog) -> None:
    compact(catalog)
    (file,) = files(catalog)
    file.rename(file.with_name("0" * 24 + ".parquet"))
    with pytest.raises(CorruptError, match="other units than its name says"):
        everything(catalog)
    assert any("other units than its name" in damage.what for damage in verify(catalog.url).damages)


def test_a_resumed_run_does_not_rely_on_another_units_rows(catalog: Catalog) -> None:
    copy(catalog)
    wrong = f"parts/{files(catalog)[1].relative_to(Path(catalog.url, 'parts'))}"
    assert not DoneUnits.of(catalog)._is_right(wrong)


def test_wrong_counts_of_a_manifest_are_told_and_made_again(catalog: Catalog) -> None:
    (file,) = Path(catalog.url, "manifest").glob("*.parquet")
    table = pq.read_table(file)
    at = table.schema.get_field_index("rows")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array([1] * UNITS, pa.int64())), file)
    with pytest.raises(CorruptError, match=r"rows of unit t\d is 40 in the file and 1 in the manifest"):
        compact(catalog)
    (damage,) = verify(catalog.url, repair=True).damages
    assert (damage.path, damage.units, damage.mended) == ("manifest", UNITS, True)
    assert verify(catalog.url).damages == ()
    assert compact(catalog).rows == UNITS * ROWS


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    ("old", "new"), [('"p_a"', '"p_b"'), ("float32", "float64"), ('"deg"', '"rad"'), ('"EDGE"', '"EGDE"')]
)
def test_a_schema_that_the_parts_contradict_is_the_damaged_file(
    catalog: Catalog, old: str, new: str, *, sealed: bool
) -> None:
    before, file = everything(catalog), Path(catalog.url, "schema.json")
    value = json.loads(file.read_text().replace(old, new, 1))
    if not sealed:
        del value["sha256"]  # as older versions wrote it
    file.write_text(json.dumps(value))
    if sealed:
        assert main(["query", catalog.url]) == 2
    damages = verify(catalog.url).damages
    assert [(damage.path, damage.mended) for damage in damages] == [("schema.json", False)]
    assert verify(catalog.url, repair=True).is_whole
    assert verify(catalog.url).damages == ()
    assert len(files(catalog)) == UNITS
    assert everything(Catalog.open(catalog.url)).equals(before, check_metadata=False)
    assert Catalog.open(catalog.url).schema.equals(catalog.schema, check_metadata=True)
