"""Lens stamps with pictures for deflectors: painted as in the simulation, alike in both classes, judges kept apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("galsim")
pytest.importorskip("lenstronomy")

from astroml_plugin.simulation.lenses.painting import Canvas
from benchmarks import deflectors
from benchmarks.drawn_deflectors import FRESH, JUDGE, Scale, pool


@pytest.fixture(scope="module")
def some() -> deflectors.Scenes:
    return deflectors.scenes(32, seed=5)


def test_a_picture_lands_as_the_simulation_paints_its_deflector(some: deflectors.Scenes) -> None:
    for row, picture in enumerate(deflectors.pictures(some.deflectors, seed=5)):
        one = some.part(slice(row, row + 1))
        dark = replace(one, light=np.zeros_like(one.light), noise=np.zeros_like(one.noise))
        x, y = one.shift[0].tolist()
        canvas = Canvas(deflectors.PSFS, deflectors.STAMP, deflectors.CAMERA.pixel_scale, (x, y))
        wanted = canvas.light(one.deflectors[0].components(deflectors.CAMERA.zero_point), [])
        assert np.abs(deflectors.composed(dark, picture[None], 5)[0] - wanted).max() < 0.01 * wanted.max()


def test_lenses_have_light_at_the_einstein_radius(some: deflectors.Scenes) -> None:
    y, x = np.mgrid[: deflectors.STAMP, : deflectors.STAMP] - deflectors.STAMP // 2
    ring = []
    for light, one, (right, up) in zip(some.light, some.deflectors, some.shift, strict=True):
        radius = np.hypot(x - right, y - up) * deflectors.CAMERA.pixel_scale
        ring.append(light[0][np.abs(radius - one.theta_e) < 0.3].mean() / light[0][radius > 3 * one.theta_e].mean())
    assert np.median(np.array(ring)[some.lens]) > 10


def test_pictures_go_by_brightness_to_both_classes_alike(some: deflectors.Scenes) -> None:
    level = np.linspace(1, 2, len(some.lens), dtype=np.float32)
    picture = deflectors.pictures(some.deflectors[:1], seed=5) * level[:, None, None, None]
    dark = replace(some, light=np.zeros_like(some.light), noise=np.zeros_like(some.noise))
    shown = deflectors.composed(dark, picture[::-1], 5)[:, 1].max((1, 2))
    bright = np.array([-one.mag[1] for one in some.deflectors])
    assert np.corrcoef(shown.argsort().argsort(), bright.argsort().argsort())[0, 1] > 0.95


def test_arms_take_the_pictures_they_name() -> None:
    pools = {name: np.full((size, 1, 1, 1), size, np.float32) for name, size in (("the few", 3), ("drawn", 20))}
    assert pool("the few", pools, 9).ravel().tolist() == [3] * 9
    assert pool("both", pools, 9).ravel().tolist() == [3] * 4 + [20] * 5


def test_deflectors_that_judge_are_in_no_training() -> None:
    seeds = range(1, Scale().seeds + 1)
    trained = {one for seed in (*seeds, *(FRESH + seed for seed in seeds)) for one in deflectors.population(200, seed)}
    assert trained.isdisjoint(deflectors.population(200, JUDGE))
