from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import ellipticity_stamps, gaussians, write_stamps

from astroml_plugin.errors import InputError
from astroml_plugin.sky import healpix29
from astroml_plugin.stream import BlockStream, LabelledStamps, SplitSettings, id_fractions, shared_places
from astroml_plugin.survey import Survey


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LabelledStamps:
    folder = tmp_path_factory.mktemp("stamps")
    return LabelledStamps([ellipticity_stamps(str(folder / f"{seed}.zarr"), 150, seed) for seed in (1, 2)])


def stream(data: LabelledStamps, **settings) -> BlockStream:
    rows = np.flatnonzero(np.arange(300) % 3 != 0)
    return BlockStream(data, rows, torch.from_numpy(rows * 10.0), bands=("r",), batch_size=32, **settings)


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
    rows = LabelledStamps([url]).split(SplitSettings(), np.ones(6, bool))
    assert [chosen.tolist() for chosen in rows.values()] == [[0, 1, 5], [2, 3], [4]]
    leaking = write_stamps(str(tmp_path / "b.zarr"), image, {"split": words}, object_id=np.array([1, 2, 1, 3, 2, 1]))
    with pytest.raises(InputError, match="2 objects are in more than one split"):
        LabelledStamps([leaking]).split(SplitSettings(), np.ones(6, bool))
    words[3] = "dev"
    odd = write_stamps(str(tmp_path / "c.zarr"), image, {"split": words})
    with pytest.raises(InputError, match="1 values other than train, validation, test, such as 'dev'"):
        LabelledStamps([odd]).split(SplitSettings(), np.ones(6, bool))


def test_sources_that_differ_and_surveys_are_refused(data: LabelledStamps, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    other = write_stamps(str(tmp_path / "a.zarr"), gaussians(np.zeros((4, 2)), rng), {"e1": [0.0] * 4}, bands=("g",))
    with pytest.raises(InputError, match="differ in bands"):
        LabelledStamps([data.sources[0].url, other])
    Survey.create(str(tmp_path / "s.zarr"), bands=("r",), tile_size=64, halo=8, variance=False, mask=False)
    with pytest.raises(InputError, match="is a survey, and training reads stamps"):
        LabelledStamps([str(tmp_path / "s.zarr")])
    with pytest.raises(InputError, match="no training data"):
        LabelledStamps([])
    with pytest.raises(InputError, match="must be 0 or more and sum to 1"):
        SplitSettings(fractions=(0.5, 0.1, 0.1))


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
