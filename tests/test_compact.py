"""Compaction: the same view before, during, after, and when it is killed anywhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.table import Table
from catalogs import small_catalog, unit_rows

from astroml_plugin.catalog import HEALPIX, Catalog
from astroml_plugin.catalog.query import query
from astroml_plugin.catalog.superseded import drop_superseded
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from workflows.compact import compact


class Killed(BaseException):
    """Stands for kill -9: nothing of the program runs after it."""


def view(catalog: Catalog) -> pa.Table:
    """All rows in one order."""
    table = query(catalog.url).to_arrow()
    return table.sort_by([(HEALPIX, "ascending"), ("object_id", "ascending")]).combine_chunks()


def files(catalog: Catalog) -> list[str]:
    return storage.list_files(catalog.url + "/parts", ".parquet")


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Make the `step`-th change of the disk the last one; returns the count of changes so far."""
    done = [0]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if done[0] >= step:
                raise Killed
            done[0] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(storage, "write_atomic", counted(storage.write_atomic))
    monkeypatch.setattr(storage, "remove", counted(storage.remove))
    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    return lambda: done[0]


def test_rows_stay_and_files_become_few(tmp_path: Path) -> None:
    catalog, infos = small_catalog(tmp_path / "c", units=8)
    catalog.write_part("im_empty", "a" * 16, unit_rows("im_empty", 0))
    before, listed = view(catalog), catalog.listed()
    result = compact(catalog.url)
    assert (result.parts_merged, result.files_written, result.files_after, result.rows) == (9, 1, 1, 160)
    assert view(catalog).equals(before)
    assert catalog.listed() == listed
    assert len(files(catalog)) == 1
    again = compact(catalog.url)
    assert (again.parts_merged, again.files_after) == (0, 1)
    assert len(infos) == 8


def test_merged_files_are_in_healpix_order_of_a_good_size_and_readable(tmp_path: Path) -> None:
    catalog, infos = small_catalog(tmp_path / "c", units=8)
    target = 3 * max(info.bytes - 16_000 for info in infos)
    result = compact(catalog.url, target_bytes=target)
    assert result.files_written == 3
    ranges = []
    for name in files(catalog):
        path = f"{catalog.url}/parts/{name}"
        index = pq.read_table(path)[HEALPIX].to_pylist()
        assert index == sorted(index)
        ranges.append((index[0], len(index)))
        assert Table.read(path, format="parquet")["flux"].unit == u.nJy
        assert Table.read(path, format="parquet.votable")["flux"].unit == u.nJy
    assert sum(count for _, count in ranges) == 160


def test_rows_without_a_position_are_merged_too(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=2)
    catalog.write_part("no_wcs", "a" * 16, unit_rows("no_wcs", 5, wcs=False))
    catalog.rebuild_manifest()
    before = view(catalog)
    compact(catalog.url)
    assert view(catalog).equals(before)
    assert query(catalog.url, cone=(10.5, 0, 50)).rows == 40


def test_parts_written_after_a_compaction_join_the_next(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=3)
    compact(catalog.url)
    run = catalog.start_run({"kind": "infer"})
    assert catalog.listed()["im_0"] == {"a" * 16}  # a rerun skips what is merged
    catalog.commit_manifest(run, [catalog.write_part("late", "a" * 16, unit_rows("late"))])
    catalog.finish_run(run)
    before = view(catalog)
    assert before.num_rows == 80
    result = compact(catalog.url)
    assert (result.files_before, result.files_after) == (2, 1)
    assert view(catalog).equals(before)
    for name in catalog.manifest_names():
        storage.remove(f"{catalog.url}/manifest/{name}")
    assert view(catalog).equals(before)


@pytest.mark.slow
def test_a_kill_after_any_step_changes_nothing_and_a_rerun_finishes(tmp_path: Path) -> None:
    small_catalog(tmp_path / "probe", units=4)
    with pytest.MonkeyPatch.context() as patch:
        count = kill_at(patch, 10**6)
        compact(str(tmp_path / "probe"), target_bytes=12_000)
        steps = count()
    assert steps > 12
    for step in range(steps):
        folder = tmp_path / f"c{step}"
        catalog, _ = small_catalog(folder, units=4)
        before, listed = view(catalog), catalog.listed()
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, step)
            with pytest.raises(Killed):
                compact(catalog.url, target_bytes=12_000)
        assert view(catalog).equals(before), f"killed after step {step}"
        assert catalog.listed() == listed
        _forget_process(catalog)
        if step % 3 == 0:
            for name in catalog.manifest_names():
                storage.remove(f"{catalog.url}/manifest/{name}")
            assert view(catalog).equals(before), f"manifest lost after step {step}"
        compact(catalog.url)
        assert view(catalog).equals(before), f"run again after step {step}"
        assert catalog.listed() == listed
        assert len(files(catalog)) == 1


@pytest.mark.slow
def test_a_kill_while_a_merged_unit_is_superseded(tmp_path: Path) -> None:
    for step in range(40):
        catalog, _ = small_catalog(tmp_path / f"c{step}", units=3)
        compact(catalog.url)
        run = catalog.start_run({"kind": "infer"})
        old = view(catalog)
        catalog.commit_manifest(run, [catalog.write_part("im_1", "b" * 16, unit_rows("im_1", 5, seed=3))])
        finished = False
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, step)
            try:
                drop_superseded(catalog, run, [("im_1", "b" * 16)])
                finished = True
            except Killed:
                pass
        assert view(catalog).num_rows in (60, 45)
        if view(catalog).num_rows == 60:
            assert view(catalog).equals(old)
        again = catalog.start_run({"kind": "infer"})
        drop_superseded(catalog, again, [("im_1", "b" * 16)])
        catalog.finish_run(again)
        assert view(catalog).num_rows == 45
        assert catalog.current(reconcile=False)["rows"].to_pylist() == [20, 5, 20]
        if finished:
            return
    raise AssertionError("more steps than thought")


def _forget_process(catalog: Catalog) -> None:
    """Make the records of killed runs name a process that is gone."""
    for record in catalog.runs():
        if record["state"] == "running":
            storage.write_json(f"{catalog.url}/runs/{record['run_id']}.json", {**record, "pid": 2**22 + 1})


def test_half_files_of_killed_programs_go_after_an_hour(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=2)
    folder = tmp_path / "c" / "parts" / "compact"
    folder.mkdir()
    for name, age in ((".old.parquet.1.tmp", 7200), (".new.parquet.1.tmp", 0)):
        (folder / name).write_text("half")
        os.utime(folder / name, (time.time() - age,) * 2)
    compact(catalog.url)
    assert {path.name for path in folder.glob(".*")} == {".new.parquet.1.tmp"}


def test_two_compactions_at_once_are_refused(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=2)
    catalog.start_run({"kind": "compact"})
    with pytest.raises(InputError, match="a compaction of this catalog began"):
        compact(catalog.url)
    with pytest.raises(InputError, match="positive"):
        compact(catalog.url, target_bytes=0)


def test_units_in_doubt_are_left_to_the_next_run(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=3)
    catalog.start_run({"kind": "infer"})
    catalog.write_part("im_1", "b" * 16, unit_rows("im_1", 5, seed=3))
    before = view(catalog)
    compact(catalog.url)
    assert view(catalog).equals(before)
    assert catalog.listed()["im_1"] == {"a" * 16, "b" * 16}


def test_a_query_whose_files_were_merged_meanwhile_looks_again(tmp_path: Path) -> None:
    catalog, _ = small_catalog(tmp_path / "c", units=3)
    before = view(catalog)
    stale = catalog.entries()
    compact(catalog.url)
    for name in catalog.manifest_names():
        storage.write_table(f"{catalog.url}/manifest/{name}", stale)  # what a reader saw a moment ago
    assert view(catalog).equals(before)
    assert query(catalog.url, cone=(10.5, 0, 0.3)).rows > 0
