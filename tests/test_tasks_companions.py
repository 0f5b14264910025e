"""The second look: companions beside brighter objects, and nothing beside lonely, elliptical or saturated ones."""

import numpy as np
import pytest

from astroml_plugin.tasks.segmentation.deblending import find_companions, parts_of
from astroml_plugin.tasks.segmentation.settings import SegmentSettings
from astroml_plugin.tasks.segmentation.task import SegmentTask
from tests.test_tasks_segment import field_of, gaussians, perfect, scene, truth_layers

SIGMA = 1.6
FWHM = 2.3548 * SIGMA
X, Y = np.array([60.3, 65.9, 25.0]), np.array([50.8, 52.4, 25.0])
FLUX = np.array([6000.0, 700.0, 4000.0])


def look(light, x, y, variance=None, **changes):
    """Companions of objects whose peaks are at x, y."""
    image = light.sum(0)
    variance = np.ones_like(image) if variance is None else variance
    peak = np.round(y).astype(np.int64), np.round(x).astype(np.int64)
    settings = {"least": 4.5, "lopsided": 0.1, **changes}
    return find_companions(image, variance, peak, np.full(len(x), FWHM), **settings)


@pytest.fixture(scope="module")
def light():
    return gaussians(X, Y, FLUX, np.full(3, SIGMA), (100, 100))


def test_a_companion_is_found_beside_its_parent(light) -> None:
    found = look(light, X[[0, 2]], Y[[0, 2]])
    assert list(found.parent) == [0]
    assert np.hypot(found.column - X[1], found.row - Y[1])[0] < 1
    assert found.snr[0] > 10
    peak = np.round(Y[[0, 2]]).astype(np.int64), np.round(X[[0, 2]]).astype(np.int64)
    _, row, column, part = parts_of(light.sum(0), np.ones((100, 100), np.float32), peak, np.full(2, FWHM), found)
    true = (light[1] / light.sum(0).clip(1e-9))[row, column]
    lit = light.sum(0)[row, column] > 3
    assert np.abs(part - true)[lit].mean() < 0.1


def test_nothing_is_beside_objects_that_are_alone_or_known(light) -> None:
    assert len(look(light[[0, 2]], X[[0, 2]], Y[[0, 2]]).row) == 0
    assert len(look(light, X, Y).row) == 0  # the companion is in the list
    rows, columns = np.mgrid[:100, :100]
    along, across = (columns - 50.2) + (rows - 40.9), (columns - 50.2) - (rows - 40.9)
    disc = 200 * np.exp(-np.sqrt(along**2 / 50 + across**2 / 8 + 0.5))[None].astype(np.float32)
    assert len(look(disc, np.array([50.2]), np.array([40.9])).row) == 0
    assert len(look(light, X[[0]], Y[[0]], lopsided=10.0).row) == 0


def test_wings_of_a_bright_neighbour_are_no_companion() -> None:
    x, y = np.array([40.0, 54.0]), np.array([50.0, 50.0])
    light = gaussians(x, y, np.array([300.0, 4e5]), np.array([SIGMA, 3.0]), (100, 100))
    assert len(look(light, x, y).row) == 0


def test_half_a_saturated_star_has_no_companion(light) -> None:
    variance = np.ones((100, 100), np.float32)
    variance[51:54, 60:62] = np.inf
    assert len(look(light, X[[0]], Y[[0]], variance).row) == 0


def test_what_lies_far_away_changes_nothing(light) -> None:
    x, y = X[[0, 2]], Y[[0, 2]]
    whole, part = look(light, x, y), look(light[:, 20:, 30:], x[:1] - 30, y[:1] - 20)
    assert (part.row + 20, part.column + 30) == (whole.row, whole.column)
    assert part.snr == whole.snr


def test_the_task_divides_the_light_of_what_its_network_took_for_one(light) -> None:
    task = SegmentTask(SegmentSettings(bands=("r",), stamp_size=96))
    maps = perfect(truth_layers(scene(light[[0, 2]], X[[0, 2]], Y[[0, 2]])))
    maps[0] = perfect(truth_layers(scene(light, X, Y)))[0]
    field = field_of(light)
    assert len(task.with_settings(companion=0.0).detect(maps, field)) == 2
    found = task.detect(maps, field)
    assert len(found) == 3
    number = np.hypot(found.x[:, None] - X, found.y[:, None] - Y).argmin(0)
    np.testing.assert_allclose(found.columns["flux_iso_r"][number], FLUX, rtol=0.15)
    assert list(found.columns["parent"][number]) == [number[0], number[0], number[2]]
    assert np.all(np.diff(found.peak_y * 100 + found.peak_x) > 0)
