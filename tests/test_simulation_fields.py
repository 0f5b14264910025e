"""Fields: pieces of sky with the truth of every pixel, the same alone and with others; trained on end to end."""

from dataclasses import replace

import numpy as np
import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping, to_mapping
from astroml_plugin.simulation.fields import FieldSet, render_scene
from astroml_plugin.simulation.population import Population, tail_fraction
from astroml_plugin.sky.wcs import Box
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks.segmentation.truth import LAYERS
from astroml_plugin.training.labelled import LabelledStamps
from workflows.recipe import read_recipe
from workflows.simulate import simulate
from workflows.train import train

pytest.importorskip("galsim")

SMALL = FieldSet(6, seed=3, block=4, size=96)


@pytest.fixture(scope="module")
def block():
    return SMALL.make(0)


def test_a_block_is_the_same_alone_and_within_others(block) -> None:
    again = replace(SMALL, count=400).make(0)
    for mine, theirs in zip(block[:3], again[:3]):
        assert np.array_equal(mine, theirs)
    assert np.array_equal(block.truth, again.truth, equal_nan=True)
    assert SMALL.make(1).image.shape == (2, 1, 96, 96)
    assert from_mapping(FieldSet, to_mapping(SMALL), "here") == SMALL


def test_truth_is_that_of_the_sky_it_was_cut_from(block) -> None:
    sky = SMALL.sky(0)
    tile, table, scene, ledger = render_scene(sky, Box(0, 0, 192, 192))
    model = sky.model(Box(0, 0, 192, 192))[0][0]
    np.testing.assert_array_equal(scene.foreground, model > sky.camera.sky_sigma)
    np.testing.assert_array_equal(block.truth[1][0], scene.foreground[:96, 96:])
    np.testing.assert_array_equal(
        block.image[2][0], np.nan_to_num(np.where(tile.mask[0] == 0, tile.image[0], 0))[96:, :96]
    )
    for x, y in zip(table["x"].to_pylist(), table["y"].to_pylist()):
        row, column = round(y), round(x)
        if 0 <= row < 96 and 0 <= column < 96:
            assert block.truth[0][LAYERS.index("near"), row, column] == 1
            assert block.truth[0][LAYERS.index("centre"), row, column] > 0.8
    assert set(table["object_id"].to_pylist()) <= set(ledger.object_id)
    assert np.nanmin(block.truth[:, LAYERS.index("share")]) > 0.2


def test_offsets_point_to_centres_of_objects(block) -> None:
    layers = block.truth[3].astype(np.float32)
    rows, columns = np.nonzero(layers[0])
    x, y = (
        columns + layers[LAYERS.index("offset_x")][rows, columns],
        rows + layers[LAYERS.index("offset_y")][rows, columns],
    )
    inside = (x > 0) & (x < 95) & (y > 0) & (y < 95)
    assert inside.any()
    at = np.floor(y[inside] + 0.5).astype(int), np.floor(x[inside] + 0.5).astype(int)
    assert np.all(layers[LAYERS.index("centre")][at] > 0.8)


def test_counts_go_on_into_the_tail() -> None:
    population = Population(tail=0.7, star_fraction=0.0)
    assert tail_fraction(population) == pytest.approx(0.22, abs=0.01)
    assert tail_fraction(Population()) == 0
    with pytest.raises(InputError, match="tail"):
        Population(tail=-1)
    with pytest.raises(InputError, match="square number"):
        FieldSet(4, block=5)


def test_fields_are_written_learned_and_refused_without_truth(tmp_path) -> None:
    changes = {"stamps": {"block": 4}}
    made = simulate(out=str(tmp_path / "fields"), preset="fields", count=12, size=64, seed=5, changes=changes)
    stamps = Stamps.open(made.source)
    assert stamps.layers == LAYERS
    assert stamps.read_truth(1).shape == (4, len(LAYERS), 64, 64)
    assert stamps.read_rows([5, 2])[0].shape == (2, 1, 64, 64)
    recipe = read_recipe("segment")
    recipe = replace(
        recipe,
        settings={**recipe.settings, "stamp_size": 64, "bands": ["r"]},
        network_arguments={"widths": [8, 8], "depth": [1, 1], "head": 8},
        training=replace(recipe.training, epochs=2, batch_size=4),
        split=replace(recipe.split, fractions=(0.6, 0.2, 0.2)),
    )
    result = train(recipe, data=[made.source], out=tmp_path / "bundle")
    assert result.metrics["test"]["loss"] > 0
    assert train(recipe, data=[made.source], out=tmp_path / "bundle").skipped
    plain = simulate(out=str(tmp_path / "plain"), count=16, size=64, seed=5)
    with pytest.raises(InputError, match="no truth of its pixels"):
        train(recipe, data=[plain.source], out=tmp_path / "other")
    assert LabelledStamps([made.source]).first.has_truth
