from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import ellipticity_stamps, gaussians, write_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.hashing import id_fractions
from astroml_plugin.core.settings import from_mapping
from astroml_plugin.sky.duplicates import place_groups, shared_places
from astroml_plugin.sky.wcs import healpix29
from astroml_plugin.sources.survey import Survey
from astroml_plugin.training.batches import StampBatches
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.splits import SplitSettings, split_record


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LabelledStamps:
    folder = tmp_path_factory.mktemp("stamps")
    return LabelledStamps([ellipticity_stamps(str(folder / f"{seed}.zarr"), 150, seed) for seed in (1, 2)])


def stream(data: LabelledStamps, **settings) -> StampBatches:
    rows = np.flatnonzero(np.arange(300) % 3 != 0)
    return StampBatches(data, rows, torch.from_numpy(rows * 10.0), bands=("r",), batch_size=32, **settings)


@pytest.mark.parametrize("memory", [1e9, 4e5, 1.0])
def test_each_object_once_with_its_own_pixels_and_target(data: LabelledStamps, memory: float) -> None:
    shuffled = stream(data, memory=memory)
    seen = []
    for batch in shuffled.epoch(0):
        assert (batch.targets.numpy() == batch.rows * 10).all()
        for place, row in list(zip(batch.cutouts.image, batch.rows))[::9]:
            source, number = divmod(int(row), 150)
            np.testing.assert_array_equal(place, data.sources[source].read_rows([number])[0][0])
        seen += batch.rows.tolist()
    assert sorted(seen) == shuffled.rows.tolist()
    assert seen != sorted(seen)


@pytest.mark.parametrize("memory", [1e9, 4e5])
def test_order_depends_on_seed_and_epoch_only(data: LabelledStamps, memory: float) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [int(row) for batch in stream(data, memory=memory, seed=seed).epoch(epoch) for row in batch.rows]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1) != order(2, 1)
    one = stream(data, memory=memory, seed=1)
    list(one.epoch(0))
    assert [int(row) for batch in one.epoch(1) for row in batch.rows] == order(1, 1)


def test_validation_comes_in_order_and_batches_are_even(data: LabelledStamps) -> None:
    batches = list(stream(data).ordered())
    assert np.concatenate([batch.rows for batch in batches]).tolist() == stream(data).rows.tolist()
    sizes = {len(batch.rows) for batch in batches}
    assert max(sizes) <= 32
    assert max(sizes) - min(sizes) <= 1


def test_pools_mix_blocks_but_stay_within_memory(data: LabelledStamps) -> None:
    small = stream(data, memory=4e5)
    groups = small._grouped(small._blocks)
    assert 1 < len(groups) < len(small._blocks)
    assert sum(len(group) for group in groups) == len(small._blocks)


def test_split_is_even_seeded_and_by_identity() -> None:
    fractions = id_fractions(np.arange(100_000), 0)
    assert 0 <= fractions.min() < fractions.max() < 1
    np.testing.assert_allclose(np.histogram(fractions, 10, (0, 1))[0], 10_000, rtol=0.05)
    assert abs(np.corrcoef(fractions, id_fractions(np.arange(100_000), 1))[0, 1]) < 0.02
    assert (id_fractions(np.array([-5, 2**62]), 3) == id_fractions(np.array([-5, 2**62]), 3)).all()


def test_same_id_in_two_sources_is_never_split(data: LabelledStamps) -> None:
    rows = data.split(SplitSettings(fractions=(0.6, 0.2, 0.2)), np.ones(300, bool))
    ids = data.labels["object_id"].to_numpy()
    sides = [set(ids[chosen]) for chosen in rows.values()]
    assert sum(len(chosen) for chosen in rows.values()) == 300
    assert not (sides[0] & sides[1])
    assert not (sides[0] & sides[2])
    assert not (sides[1] & sides[2])
    assert all(sides)


def test_unusable_objects_are_in_no_split(data: LabelledStamps) -> None:
    usable = np.arange(300) < 100
    rows = data.split(SplitSettings(), usable)
    assert sum(len(chosen) for chosen in rows.values()) == 100


def test_split_column(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, words = gaussians(np.zeros((6, 2)), rng), ["train", "train", "val", "validation", "test", "train"]
    url = write_stamps(str(tmp_path / "a.zarr"), image, {"split": words})
    asked = SplitSettings(column="split")
    rows = LabelledStamps([url]).split(asked, np.ones(6, bool))
    assert [chosen.tolist() for chosen in rows.values()] == [[0, 1, 5], [2, 3], [4]]
    by_id = LabelledStamps([write_stamps(str(tmp_path / "plain.zarr"), image, {})])
    for settings in (
        SplitSettings(),
        SplitSettings(seed=3),
    ):  # a column of that name divides nothing unless it is asked
        unasked = LabelledStamps([url]).split(settings, np.ones(6, bool))
        assert {k: v.tolist() for k, v in unasked.items()} == {
            k: v.tolist() for k, v in by_id.split(settings, np.ones(6, bool)).items()
        }
    with pytest.raises(InputError, match=r"'fold_of' is missing: the data have .*split"):
        LabelledStamps([url]).split(SplitSettings(column="fold_of"), np.ones(6, bool))
    leaking = write_stamps(str(tmp_path / "b.zarr"), image, {"split": words}, object_id=np.array([1, 2, 1, 3, 2, 1]))
    with pytest.raises(InputError, match="2 objects are in more than one split"):
        LabelledStamps([leaking]).split(asked, np.ones(6, bool))
    words[3] = "dev"
    odd = write_stamps(str(tmp_path / "c.zarr"), image, {"split": words})
    with pytest.raises(InputError, match="1 values other than train, validation, test, such as 'dev'"):
        LabelledStamps([odd]).split(asked, np.ones(6, bool))


def test_sources_that_differ_and_surveys_are_refused(data: LabelledStamps, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    other = write_stamps(str(tmp_path / "a.zarr"), gaussians(np.zeros((4, 2)), rng), {"e1": [0.0] * 4}, bands=("g",))
    with pytest.raises(InputError, match="differ in bands"):
        LabelledStamps([data.sources[0].url, other])
    Survey.create(str(tmp_path / "s.zarr"), bands=("r",), tile_size=64, halo=8, variance=False, mask=False)
    with pytest.raises(InputError, match="is a survey: give the labels of its objects"):
        LabelledStamps([str(tmp_path / "s.zarr")])
    with pytest.raises(InputError, match="no training data"):
        LabelledStamps([])
    with pytest.raises(InputError, match="must be 0 or more and sum to 1"):
        SplitSettings(fractions=(0.5, 0.1, 0.1))


def test_labels_of_two_types_are_text_together(tmp_path: Path) -> None:
    """Of two surveys one says "spiral" and the other 3: nothing is lost, and nothing breaks."""
    image = gaussians(np.zeros((3, 2)), np.random.default_rng(0))
    words = write_stamps(str(tmp_path / "a.zarr"), image, {"kind": ["spiral", None, "star"], "size": [1, 2, 3]})
    codes = write_stamps(
        str(tmp_path / "b.zarr"), image, {"kind": [3, 1, 4], "size": [0.5, 1.5, 2.5], "only": [7, 8, 9]}
    )
    found = LabelledStamps([words, codes]).labels
    assert found["kind"].to_pylist() == ["spiral", None, "star", "3", "1", "4"]
    assert found["size"].to_pylist() == [1, 2, 3, 0.5, 1.5, 2.5]
    assert found["only"].to_pylist() == [None, None, None, 7, 8, 9]


def test_sample_and_digest(data: LabelledStamps) -> None:
    sample = data.sample(np.arange(100, 200), 20, 0)
    assert len(sample) == 20
    assert data.digest == LabelledStamps([source.url for source in data.sources]).digest
    assert data.digest != LabelledStamps([data.sources[0].url]).digest


def placed_stamps(url: str, ra: np.ndarray, dec: np.ndarray, first: int = 0) -> str:
    image = gaussians(np.zeros((len(ra), 2)), np.random.default_rng(0))
    return write_stamps(url, image, {"ra": ra, "dec": dec}, object_id=first + np.arange(len(ra)))


def test_split_by_regions_of_the_sky(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 40, 400), rng.uniform(-20, 20, 400)
    data = LabelledStamps([placed_stamps(str(tmp_path / "a.zarr"), ra, dec)])
    rows = data.split(SplitSettings(by="sky", region_order=4, fractions=(0.5, 0.25, 0.25)), np.ones(400, bool))
    cells = [set(healpix29(ra[chosen], dec[chosen]) >> 50) for chosen in rows.values()]
    assert all(cells)
    assert not cells[0] & cells[1]
    assert not cells[0] & cells[2]
    assert sum(len(chosen) for chosen in rows.values()) == 400
    with pytest.raises(InputError, match="region_order"):
        SplitSettings(region_order=40)
    nowhere = LabelledStamps(
        [write_stamps(str(tmp_path / "n.zarr"), gaussians(np.zeros((4, 2)), rng), {"e1": [0.0] * 4})]
    )
    with pytest.raises(InputError, match="4 of 4 objects have no ra and dec"):
        nowhere.split(SplitSettings(by="sky"), np.ones(4, bool))


def test_one_object_under_two_ids_on_two_sides_is_a_leak(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(10, 12, 200), rng.uniform(-1, 1, 200)
    urls = [placed_stamps(str(tmp_path / f"{first}.zarr"), ra, dec + first * 1e-8, first) for first in (0, 1000)]
    data, everything = LabelledStamps(urls), np.ones(400, bool)
    with pytest.raises(InputError, match=r"\d+ places on the sky have objects in more than one split .* by = 'sky'"):
        data.split(SplitSettings(), everything)
    rows = data.split(SplitSettings(by="sky", region_order=8), everything)
    assert sum(len(chosen) for chosen in rows.values()) == 400
    assert shared_places(np.array([[10.0, 0.0], [10.0, 0.1 / 3600]]), np.array([0, 1])) == 1
    assert shared_places(np.array([[10.0, 0.0], [10.0, 5 / 3600]]), np.array([0, 1])) == 0


@pytest.mark.parametrize(("arcsec", "same"), [(0.1, True), (0.499, True), (0.501, False), (1.8, False)])
def test_places_are_the_same_wherever_they_lie(arcsec: float, same: bool) -> None:
    rng = np.random.default_rng(3)
    ra, dec, way = rng.uniform(0, 360, 4000), np.degrees(np.arcsin(rng.uniform(-1, 1, 4000))), rng.uniform(0, 7, 4000)
    step = arcsec / 3600
    there = np.stack([ra + step * np.sin(way) / np.cos(np.radians(dec)), dec + step * np.cos(way)], axis=1)
    group = place_groups(np.concatenate([np.stack([ra, dec], axis=1), there]))
    together = group[:4000] == group[4000:]
    assert together.all() if same else not together.any()


def folded(data: LabelledStamps, fold: int, **settings) -> dict[str, np.ndarray]:
    return data.split(SplitSettings(folds=5, fold=fold, **settings), np.ones(data.labels.num_rows, bool))


def test_folds_partition_the_objects_and_validation_lies_in_the_rest(data: LabelledStamps) -> None:
    rows = [folded(data, fold, fractions=(0.6, 0.2, 0.2)) for fold in range(5)]
    assert np.sort(np.concatenate([one["test"] for one in rows])).tolist() == list(range(300))
    ids = data.labels["object_id"].to_numpy()
    for one in rows:
        assert sorted(np.concatenate(list(one.values()))) == list(range(300))
        assert not set(ids[one["test"]]) & set(ids[np.concatenate([one["train"], one["validation"]])])
        assert 0.15 < len(one["validation"]) / (300 - len(one["test"])) < 0.35
    assert rows[0]["validation"].tolist() != rows[1]["validation"].tolist()
    assert all((again["test"] == one["test"]).all() for again, one in zip([folded(data, 0)], rows))
    with pytest.raises(InputError, match="folds"):
        SplitSettings(folds=3, fold=3)


def test_limits_are_nested_subsets_of_the_training_side(data: LabelledStamps) -> None:
    whole, small, large = (folded(data, 1, limit=limit) for limit in (0, 40, 80))
    assert [len(small["train"]), len(large["train"])] == [40, 80]
    assert set(small["train"]) < set(large["train"]) < set(whole["train"])
    assert set(small["validation"]) <= set(large["validation"]) <= set(whole["validation"])
    assert len(large["validation"]) == -(-80 * len(whole["validation"]) // len(whole["train"]))
    assert (small["test"] == whole["test"]).all()
    assert set(small["train"]) != set(folded(data, 1, limit=40, limit_seed=1)["train"])
    with pytest.raises(InputError, match=r"limit \(400\) is more than the \d+ objects"):
        folded(data, 1, limit=400)


def test_settings_that_are_not_used_leave_no_trace() -> None:
    before = {"fractions": [0.8, 0.1, 0.1], "seed": 0, "column": "", "by": "object", "region_order": 6}
    assert split_record(SplitSettings()) == before
    assert split_record(SplitSettings(folds=5, fold=2)) == {**before, "folds": 5, "fold": 2}
    assert from_mapping(SplitSettings, before, "the card") == SplitSettings()


def repeated_stamps(url: str) -> str:
    """200 stamps whose second half has the pixels of the first, of which 40 are constant."""
    image = gaussians(np.zeros((100, 2)), np.random.default_rng(3))
    image[:20] = 7.0
    return write_stamps(url, np.concatenate([image, image]), {"e1": np.zeros(200)}, object_id=5 + np.arange(200))


def test_same_pixels_on_two_sides_are_a_leak(tmp_path: Path) -> None:
    data, everything = LabelledStamps([repeated_stamps(str(tmp_path / "a.zarr"))]), np.ones(200, bool)
    unchecked = data.split(SplitSettings(fractions=(0.5, 0.2, 0.3), check_pixels=False), everything)
    side = np.concatenate([np.full(len(rows), number) for number, rows in enumerate(unchecked.values())])
    side = side[np.argsort(np.concatenate(list(unchecked.values())))]
    across = int((side[20:100] != side[120:]).sum())
    assert across > 10
    with pytest.raises(InputError, match=f"{across} stamps have the very pixels .* leaks = 'drop'"):
        data.split(SplitSettings(fractions=(0.5, 0.2, 0.3)), everything)
    rows = data.split(SplitSettings(fractions=(0.5, 0.2, 0.3), leaks="drop"), everything)
    assert sum(len(chosen) for chosen in rows.values()) == 200 - across
    assert rows["train"].tolist() == unchecked["train"].tolist()
    originals = [set((chosen[chosen % 100 >= 20] % 100).tolist()) for chosen in rows.values()]
    assert not originals[0] & originals[1] | originals[0] & originals[2] | originals[1] & originals[2]


def test_dropped_leaks_of_place_and_of_the_split_column(tmp_path: Path) -> None:
    ra = np.tile(np.linspace(10, 12, 50), 2)
    data = LabelledStamps([placed_stamps(str(tmp_path / "a.zarr"), ra, np.zeros(100))])
    rows = data.split(SplitSettings(fractions=(0.5, 0.25, 0.25), leaks="drop"), np.ones(100, bool))
    assert (
        shared_places(
            np.stack([ra, np.zeros(100)], 1)[np.concatenate(list(rows.values()))],
            np.repeat([0, 1, 2], [len(chosen) for chosen in rows.values()]),
        )
        == 0
    )
    words = ["train", "test", "test", "validation"]
    image = gaussians(np.zeros((4, 2)), np.random.default_rng(0))
    url = write_stamps(str(tmp_path / "b.zarr"), image, {"split": words}, object_id=np.array([1, 1, 2, 3]))
    rows = LabelledStamps([url]).split(SplitSettings(column="split", leaks="drop"), np.ones(4, bool))
    assert [chosen.tolist() for chosen in rows.values()] == [[0], [3], [2]]
    with pytest.raises(InputError, match="divides the data already"):
        LabelledStamps([url]).split(SplitSettings(column="split", folds=2), np.ones(4, bool))


def test_identity_of_a_split_is_its_ids(data: LabelledStamps) -> None:
    everything = np.ones(300, bool)
    first = data.split_identity(data.split(SplitSettings(), everything))
    assert first == data.split_identity(data.split(SplitSettings(), everything))
    assert not set(first.values()) & set(data.split_identity(data.split(SplitSettings(seed=1), everything)).values())
