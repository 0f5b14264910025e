"""Small files of a catalog that are damaged, gone, swapped or folders: `verify` tells, and mends what follows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from catalogs import small_catalog, unit_rows

from astroml_plugin.catalog.beside import UNPLACED_SCHEMA
from astroml_plugin.catalog.checking import verify
from astroml_plugin.catalog.objects import given
from astroml_plugin.catalog.objects.given import TableRecord
from astroml_plugin.core.errors import DamagedError, InputError

TABLES = [TableRecord("/a.parquet", 120, "0" * 32, {"columns": None})]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, _ = small_catalog(tmp_path_factory.mktemp("small") / "c")
    given.write_record(str(Path(made.url, "objects")), TABLES)
    made.write_unplaced(UNPLACED_SCHEMA.empty_table())
    run = made.start_run({"identity": {}})
    made.write_failures(pa.Table.from_pylist([], schema=made.failures().schema), run)
    made.finish_run(run)
    return Path(made.url)


def harmed(file: Path, harm: str, sibling: Path) -> None:
    data = file.read_bytes()
    if harm == "one bit":
        data = data[: len(data) // 3] + bytes([data[len(data) // 3] ^ 1]) + data[len(data) // 3 + 1 :]
    elif harm == "cut":
        data = data[: len(data) // 2]
    file.unlink()
    if harm == "folder":
        file.mkdir()
        (file / "x").write_text("x")
    elif harm == "swapped":
        shutil.copy(sibling, file)
    elif harm != "gone":
        file.write_bytes(b"" if harm == "empty" else data)


SIBLINGS = {
    "objects/tables.json": "run.json",
    "objects/tables.copy.json": "run.json",
    "run.json": "runs/0",
    "runs/1": "runs/0",
    "index.json": "run.json",
    "failures.parquet": "unplaced.parquet",
    "unplaced.parquet": "failures.parquet",
}
_FURTHER = [pytest.param(harm, marks=pytest.mark.slow) for harm in ("cut", "empty", "gone")]
HARMS = [*_FURTHER, "one bit", "swapped", "folder"]
NEVER_TOLD = [("run.json", "gone"), ("index.json", "gone"), ("failures.parquet", "gone"), ("unplaced.parquet", "gone")]
"""These are not there in every catalog."""


def place(folder: Path, name: str) -> Path:
    parent, _, number = name.partition("/")
    return sorted((folder / "runs").glob("*.json"))[int(number)] if parent == "runs" else folder / name


@pytest.mark.parametrize("name", SIBLINGS)
@pytest.mark.parametrize("harm", HARMS)
def test_every_harm_to_a_small_file_is_told_and_mended(whole: Path, tmp_path: Path, name: str, harm: str) -> None:
    folder = tmp_path / "c"
    shutil.copytree(whole, folder)
    harmed(place(folder, name), harm, place(folder, SIBLINGS[name]))
    found = verify(str(folder), repair=True)
    assert bool(found.damages) != ((name, harm) in NEVER_TOLD)
    assert found.is_whole or name == "unplaced.parquet"  # which the same infer writes again
    assert verify(str(folder)).damages == ()
    assert given.read_record(str(folder / "objects")) == TABLES


def test_a_record_of_tables_without_a_whole_copy_is_one_sentence(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(whole, folder)
    record, copy = folder / "objects/tables.json", folder / "objects/tables.copy.json"
    record.write_text("")
    copy.unlink()
    with pytest.raises(DamagedError, match="put a copy of the file back, or choose another --out"):
        given.read_record(str(folder / "objects"))
    for repair in (True, False):
        assert [damage.mended for damage in verify(str(folder), repair=repair).damages] == [False, False]
    record.write_text('{"format": 1, "tables": []}')  # as versions before wrote it: no digest, no copy
    assert verify(str(folder)).damages == ()


def test_a_folder_in_the_place_of_a_part_is_moved_away_and_the_part_written_again(tmp_path: Path) -> None:
    made, infos = small_catalog(tmp_path / "c", units=2)
    part = Path(made.url, infos[0].path)
    part.unlink()
    part.mkdir()
    assert "it is a folder" in {damage.what for damage in verify(made.url).damages}
    made.write_part("im_0", "a" * 16, unit_rows("im_0"))
    assert part.is_file()
    part.unlink()
    part.mkdir()
    verify(made.url, repair=True)
    assert not part.exists()


def test_a_survey_is_no_damaged_catalog(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text("{}")
    with pytest.raises(InputError, match="is a Zarr store, as surveys and stamps are, and no catalog"):
        verify(str(tmp_path))
