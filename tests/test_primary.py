"""Which row of a source counts where images overlap: matched, the deepest first, and never none."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astroml_plugin.catalog import Catalog, compact, primary
from astroml_plugin.catalog.checking import forget, verify
from astroml_plugin.catalog.primary import cells, deciding, matching
from astroml_plugin.catalog.primary.lacking import NO_PIXELS
from astroml_plugin.core.errors import CorruptError
from astroml_plugin.core.flags import ObjectFlag
from tests import universe
from tests.overlaps import SIDE, Image, catalog_of, sky, write
from workflows.query import query

UP = 60 * universe.SCALE / 3600
"""Degrees by which images of a pair are apart."""

DEEP = Image("deep", depth=26.5)
SHALLOW = Image("a_shallow", dec=2.0 + UP, depth=24.0, offset=0.1)


def rows(catalog: Catalog, **asked: object) -> pa.Table:
    """All rows, without a word of doubt."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return query(catalog.url, "SELECT * FROM catalog ORDER BY source, image", **asked).to_arrow()


def test_a_row_without_a_psf_is_usable() -> None:
    assert not (deciding.UNUSABLE | NO_PIXELS | deciding.CUT) & ObjectFlag.NO_PSF


def assert_once(catalog: Catalog) -> pa.Table:
    """Every source that any image shows has exactly one primary row; gives the rows."""
    table = rows(catalog)
    counting = Counter(table.filter(table["primary"])["source"].to_pylist())
    assert set(counting) == set(table["source"].to_pylist())
    assert set(counting.values()) == {1}
    return table


def image_of(table: pa.Table) -> dict[int, str]:
    """Source -> image of its primary row."""
    chosen = table.filter(table["primary"])
    return dict(zip(chosen["source"].to_pylist(), chosen["image"].to_pylist(), strict=True))


def by_place(table: pa.Table, images: list[Image]) -> int:
    """Sources that had no primary row when the image that has the place farthest from its edge was to show it."""
    best: dict[int, bool] = {}
    for row in table.to_pylist():
        edges = {}
        for image in images:
            wcs = universe.Wcs.from_header(universe.header(SIDE, SIDE, image.ra, image.dec))
            x, y = wcs.to_pixel(row["ra"], row["dec"])
            edges[image.name] = float(np.min([x, SIDE - 1 - x, y, SIDE - 1 - y]))
        best[row["source"]] = best.get(row["source"], False) or row["image"] == max(edges, key=edges.__getitem__)
    return sum(not has for has in best.values())


def test_each_source_that_any_image_shows_counts_once_and_in_the_deepest(tmp_path: Path) -> None:
    table = assert_once(catalog_of(tmp_path / "c", [DEEP, SHALLOW], sky()))
    chosen = image_of(table)
    in_deep = set(table.filter(pc.equal(table["image"], "deep"))["source"].to_pylist())
    assert {source for source, image in chosen.items() if image == "deep"} == in_deep
    assert len(chosen) > len(in_deep) > 150
    assert by_place(table, [DEEP, SHALLOW]) > 20


def test_equal_depths_are_told_apart_by_the_edge_and_usable_rows_go_first(tmp_path: Path) -> None:
    one, two = replace(DEEP, depth=25.01), replace(SHALLOW, depth=25.04, offset=0.0)
    table = assert_once(catalog_of(tmp_path / "c", [one, two], sky()))
    both = [source for source, count in Counter(table["source"].to_pylist()).items() if count == 2]
    assert len(both) > 80
    chosen = image_of(table)
    edges = {
        (row["source"], row["image"]): min(row["x"] + 0.5, SIDE - 0.5 - row["x"], row["y"] + 0.5, SIDE - 0.5 - row["y"])
        for row in table.to_pylist()
    }
    assert all(
        edges[source, chosen[source]] == max(edges[source, image.name] for image in (one, two)) for source in both
    )
    marred = frozenset(both[::2])
    table = assert_once(catalog_of(tmp_path / "d", [replace(DEEP, bad=marred), replace(SHALLOW, depth=25.0)], sky()))
    bright = set(table.filter(pc.equal(table["image"], "a_shallow"))["source"].to_pylist()) & set(both)
    assert {source: image_of(table)[source] for source in bright} == {
        source: "a_shallow" if source in marred else "deep" for source in bright
    }


@pytest.mark.parametrize(("ra", "dec"), [(150.0, 2.0), (0.0, -45.0), (180.0, 89.999)], ids=["plain", "seam", "pole"])
def test_three_images_anywhere_on_the_sky(tmp_path: Path, ra: float, dec: float) -> None:
    side = UP / np.cos(np.radians(dec)) if dec < 80 else 120.0
    images = [
        Image("c", ra, dec, 25.0),
        Image("b", (ra + side) % 360, dec, 25.0, offset=0.05),
        Image("a", ra, dec - UP, 25.0, offset=-0.1),
    ]
    table = assert_once(catalog_of(tmp_path / "c", images, sky(600, ra, dec)))
    shown = Counter(table["source"].to_pylist())
    assert Counter(shown.values())[3] > 30
    assert len(set(image_of(table).values())) == 3


def test_the_place_of_an_image_without_pixels_counts_elsewhere(tmp_path: Path) -> None:
    holed = replace(DEEP, blind=lambda x, y: (abs(x - 200) < 80) & (abs(y - 260) < 80))
    table = assert_once(catalog_of(tmp_path / "c", [holed, SHALLOW], sky()))
    assert sum(image == "a_shallow" for image in image_of(table).values()) > 10


def test_depth_that_is_not_known_comes_last(tmp_path: Path) -> None:
    known = replace(SHALLOW, depth=23.5)
    made = catalog_of(tmp_path / "c", [replace(DEEP, depth=None), known], sky())
    table = assert_once(made)
    shown = set(table.filter(pc.equal(table["image"], known.name))["source"].to_pylist())
    assert {image_of(table)[source] for source in shown} == {known.name}
    record = made.runs()[-1]["primary"]
    assert record["rows_of_unknown_depth"] == table.num_rows - len(shown)
    assert record["match_radius_arcsec"] == 0.5
    assert record["matched_to_a_better_row"] == table.num_rows - pc.sum(table["primary"]).as_py()


def detected(
    places: list[tuple[float, float, int]], radius: float = 0.5, depth: tuple[float, ...] = ()
) -> matching.Detected:
    """Rows at (x, y) arcsec about (10, 0) degrees on images 0, 1, 2 … that are ever less deep."""
    x, y, image = (np.array(values) for values in zip(*places, strict=True))
    depths = np.array(depth or (26.0, 25.0, 24.0, 23.0))[image]
    count = len(places)
    return matching.Detected(
        ra=10 + x / 3600,
        dec=y / 3600,
        image=image,
        unusable=np.zeros(count, bool),
        depth=depths,
        edge=np.full(count, 50.0),
        radius=np.full(count, radius),
    )


def test_pairs_closer_than_the_radius_stay_pairs() -> None:
    both = detected([(0, 0, 0), (0.3, 0, 0), (0.1, 0, 1), (0.4, 0, 1)])
    assert matching.counted(both).tolist() == [True, True, False, False]
    blend = detected([(0, 0, 0), (0.3, 0, 0), (0.2, 0, 1)])
    assert matching.counted(blend).tolist() == [True, True, False]
    resolved_by_the_shallow_one = detected([(0.2, 0, 0), (0, 0, 1), (0.3, 0, 1)])
    assert matching.counted(resolved_by_the_shallow_one).tolist() == [True, True, False]
    assert matching.counted(detected([(0, 0, 0), (0.501, 0, 1)])).all()
    assert matching.counted(detected([(0, 0, 0), (0.499, 0, 1)])).tolist() == [True, False]
    assert matching.counted(detected([(0, 0, 0)])).all()


def test_a_row_beyond_the_radius_of_the_best_one_counts_although_another_lies_between() -> None:
    chain = detected([(0, 0, 0), (0.4, 0, 1), (0.8, 0, 2)])
    assert matching.counted(chain).tolist() == [True, False, True]


PLACES = st.lists(
    st.tuples(st.floats(0, 3, width=32), st.floats(0, 3, width=32), st.integers(0, 3)), min_size=1, max_size=40
)


@given(PLACES)
def test_a_row_does_not_count_exactly_where_a_better_one_that_counts_is_its_partner(places: list) -> None:
    found = detected(places)
    counts, rank, pairs = matching.counted(found), matching.quality_rank(found), matching.partners(found)
    better = {row: {int(b if a == row else a) for a, b in pairs if row in (a, b)} for row in range(len(places))}
    for row, others in better.items():
        beaten = any(counts[other] and rank[other] < rank[row] for other in others)
        assert counts[row] != beaten
        images = [int(found.image[other]) for other in others]
        assert len(set(images)) == len(images)
        assert int(found.image[row]) not in images


def test_small_cells_decide_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [DEEP, SHALLOW, Image("third", ra=150.0 - UP, depth=25.0)]
    whole = rows(catalog_of(tmp_path / "c", images, sky(600)))
    monkeypatch.setattr(cells, "MOST_ROWS", 300)
    monkeypatch.setattr(deciding, "_MARGIN", 1e-5)
    made = catalog_of(tmp_path / "d", images, sky(600))
    state = primary.read(made.url)
    assert state is not None
    assert len(state.cells) > 3
    assert rows(made).equals(whole)
    for cone in ((150.0, 2.0, 0.003), (150.01, 2.005, 0.001)):
        inside = rows(made, cone=cone)
        assert inside.num_rows
        assert len(state.files(cone)) < len(state.files())
        keys = ["source", "image", "primary"]
        assert set(map(tuple, (row.values() for row in inside.select(keys).to_pylist()))) <= set(
            map(tuple, (row.values() for row in whole.select(keys).to_pylist()))
        )


def test_an_image_that_is_added_decides_anew_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = [Image("far", ra=300.0, depth=25.0), Image("far_too", ra=300.0, dec=2.0 + UP, depth=24.0)]
    stars = [np.concatenate(pair) for pair in zip(sky(), sky(ra=300.0, seed=1), strict=True)]
    made = catalog_of(tmp_path / "c", [SHALLOW, *far], stars)
    before = primary.read(made.url)
    write(made, stars, DEEP)
    after = primary.read(made.url)
    assert before is not None
    assert after is not None
    assert set(before.files()) < set(after.files())
    fresh = catalog_of(tmp_path / "d", [DEEP, *far, SHALLOW], stars)
    assert assert_once(made).equals(rows(fresh))
    write(made, stars, replace(DEEP, depth=23.0), digest="b" * 16)
    made.drop_parts([path for path in made.listing()[0] if "deep_r0_c0-aaaa" in path])
    primary.decide(made)
    table = assert_once(made)
    shown = set(table.filter(pc.equal(table["image"], "a_shallow"))["source"].to_pylist())
    assert {image_of(table)[source] for source in shown} == {"a_shallow"}


def test_compacting_writes_it_into_the_files_and_changes_nothing(tmp_path: Path) -> None:
    made = catalog_of(tmp_path / "c", [DEEP], sky())
    write(made, sky(), SHALLOW, half=1)
    write(made, sky(), SHALLOW, half=2)
    before = rows(made)
    assert compact(made).files_after == 1
    assert rows(made).equals(before)
    merged = pq.read_table(next((tmp_path / "c" / "parts" / "compact").glob("*.parquet")))
    assert merged.select(before.column_names).sort_by([("source", "ascending"), ("image", "ascending")]).equals(before)
    write(made, sky(), Image("deepest", ra=150.0 + UP, depth=28.0))
    table = assert_once(made)
    deepest = set(table.filter(pc.equal(table["image"], "deepest"))["source"].to_pylist())
    assert {image_of(table)[source] for source in deepest} == {"deepest"}
    assert compact(made).files_after == 1
    assert rows(made).equals(table)
    assert verify(made.url).is_whole


def test_what_is_not_decided_is_said(tmp_path: Path) -> None:
    made = catalog_of(tmp_path / "c", [SHALLOW], sky())
    run = made.start_run({"kind": "infer"})
    unit = "deep_r0_c0"
    made.commit_manifest(run, [made.write_part(unit, "a" * 16, DEEP.rows(*sky(), unit))])
    with pytest.warns(UserWarning, match="not decided for all parts"):
        query(made.url)
    assert verify(made.url).is_whole  # a run goes on
    made.finish_run(run)
    damages = verify(made.url).damages
    assert [damage.path for damage in damages] == [primary.INDEX]
    assert "other parts" in damages[0].what
    assert verify(made.url, repair=True).is_whole
    assert_once(made)


def test_what_is_lost_or_damaged_is_told_and_made_again(tmp_path: Path) -> None:
    made = catalog_of(tmp_path / "c", [DEEP, SHALLOW], sky())
    before, folder = rows(made), tmp_path / "c" / "primary"
    named = next(folder.glob("*.parquet"))
    kept, index = named.read_bytes(), (tmp_path / "c" / primary.INDEX).read_bytes()

    def mended(path: str) -> None:
        assert [damage.path for damage in verify(made.url).damages] == [path]
        result = verify(made.url, repair=True)
        assert result.is_whole
        assert not verify(made.url).damages
        assert rows(made).equals(before)
        assert named.read_bytes() == kept

    (folder / "index.json").unlink()
    with pytest.raises(CorruptError, match="verify CATALOG --repair"):
        query(made.url)
    mended(primary.INDEX)
    (folder / "index.json").write_text("{}")
    with pytest.raises(CorruptError, match="verify CATALOG --repair"):
        query(made.url)
    mended(primary.INDEX)
    (folder / "index.json").write_bytes(index)
    named.unlink()
    with pytest.raises(CorruptError, match="verify CATALOG --repair"):
        query(made.url)
    mended(f"primary/{named.name}")
    data = bytearray(kept)
    data[len(data) // 3] ^= 1
    named.write_bytes(bytes(data))
    mended(f"primary/{named.name}")
    next((tmp_path / "c" / "parts").rglob("deep*.parquet")).unlink()
    forget(made)
    assert pc.all(assert_once(made)["primary"]).as_py()


def test_runs_that_end_together_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that decided before the last parts of another were there, and writes after it, looks again."""
    made = catalog_of(tmp_path / "c", [DEEP], sky())
    real, done = deciding.state.write, []

    def late(url: str, state: primary.State) -> None:
        if not done:
            done.append(1)
            write(made, sky(), SHALLOW)
        real(url, state)

    monkeypatch.setattr(deciding.state, "write", late)
    write(made, sky(), Image("third", ra=150.0 - UP, depth=25.0))
    monkeypatch.undo()
    fresh = catalog_of(tmp_path / "d", [DEEP, SHALLOW, Image("third", ra=150.0 - UP, depth=25.0)], sky())
    assert assert_once(made).equals(rows(fresh))
    (tmp_path / "c" / "primary" / "0-1-left.parquet").write_bytes(b"by a killed run")
    compact(made)
    assert verify(made.url).is_whole
    assert not (tmp_path / "c" / "primary" / "0-1-left.parquet").exists()


def test_a_part_that_cannot_be_read_is_told_in_one_sentence(tmp_path: Path) -> None:
    made = catalog_of(tmp_path / "c", [DEEP, SHALLOW], sky())
    before = rows(made)
    part = next((tmp_path / "c" / "parts").rglob("deep*.parquet"))
    data = part.read_bytes()
    part.write_bytes(data[:4] + bytes(len(data) // 2) + data[4 + len(data) // 2 :])
    with pytest.raises(CorruptError, match="verify CATALOG --repair"):
        primary.decide(made, again=True)
    part.write_bytes(data)
    assert rows(made).equals(before)


def test_without_overlaps_there_is_nothing(tmp_path: Path) -> None:
    made = catalog_of(tmp_path / "c", [DEEP], sky())
    (tmp_path / "c" / primary.INDEX).unlink()
    for path in list((tmp_path / "c" / "runs").glob("*.json")):
        path.unlink()
    assert primary.decide(made) is None
    assert not (tmp_path / "c" / "primary" / "index.json").exists()
    assert pc.all(rows(made)["primary"]).as_py()
