"""Shear of found objects: skies that are sheared as a whole, and biases that a finder's taste leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("galsim", reason="needs the extra sim")

from astroml_plugin.evaluation.detection_metrics import DetectionSet
from astroml_plugin.pixels import Tile
from astroml_plugin.sky.wcs import Box
from benchmarks import segmentation_shear as measuring

SKY = measuring.sheared_sky(3, 320, 0.7, 150.0)
BOX = Box(0, 0, 320, 320)


def test_a_sheared_sky_moves_its_galaxies_and_shears_each_under_the_same_noise() -> None:
    sheared = replace(SKY, shear=(0.05, -0.02))
    plain, moved = (sky.cell(0, 0) for sky in (SKY, sheared))
    assert np.array_equal(plain.object_id, moved.object_id)
    back = sheared.moved(moved.x, moved.y, back=True)
    np.testing.assert_allclose(back, (plain.x, plain.y), atol=1e-9)
    right = np.array([159.5 + 100]), np.array([159.5])
    x, y = sheared.moved(*right)
    norm = np.sqrt(1 - 0.05**2 - 0.02**2)
    np.testing.assert_allclose((x[0] - 159.5, y[0] - 159.5), (105 / norm, -2 / norm))
    e, after = plain.objects.e1 + 1j * plain.objects.e2, moved.objects.e1 + 1j * moved.objects.e2
    np.testing.assert_allclose(after, (e + 0.05 - 0.02j) / (1 + (0.05 + 0.02j) * e))
    empty = [replace(sky, density=0.0).render(BOX)[0].image for sky in (SKY, sheared)]
    np.testing.assert_array_equal(*empty)


def perfect_shapes(tile: Tile, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Half the shear of the sky, which its first pixel tells, with a response of a half."""
    g = np.full(len(x), float(tile.image.flat[0]))
    half = np.full(len(x), 0.5)
    return {"e1": 0.5 * g, "e2": 0.5 * g, "r11": half, "r22": half, "r12": 0 * g, "r21": 0 * g}


def test_perfect_shapes_of_whatever_is_found_have_no_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    real = measuring.ShearedSky.render

    def told(self: Any, box: Box, psf_size: int | None = None, ledger: Any = None) -> Any:
        tile, truth = real(self, box, psf_size, ledger)
        tile.image.flat[0] = self.shear[0]
        return tile, truth

    monkeypatch.setattr(measuring.ShearedSky, "render", told)
    sums = measuring.sums_of(SKY, {"peaks": bright_peaks}, perfect_shapes)
    objects = sums["peaks", measuring.EVERY][..., 0].sum(0)
    assert objects.min() > 5
    for selection in (measuring.EVERY, measuring.ISOLATED):
        for method in ("peaks", measuring.TRUE_PLACES):
            m = measuring.biases(sums[method, selection])
            np.testing.assert_allclose(m[0], 0, atol=1e-6)
    apart = sums["peaks", measuring.APART][..., 0].sum() + sums["peaks", measuring.SHARED][..., 0].sum()
    assert apart == objects.sum()


def bright_peaks(tile: Tile) -> DetectionSet:
    """Local maxima of the smoothed image, each with the pixels above 10 counts beside it."""
    smooth = ndimage.gaussian_filter(np.nan_to_num(tile.image[0]), 1.5)
    y, x = np.nonzero((ndimage.maximum_filter(smooth, 7) == smooth) & (smooth > 6))
    labels = np.zeros(smooth.shape, np.int32)
    labels[y, x] = np.arange(1, len(x) + 1)
    return DetectionSet(x.astype(float), y.astype(float), labels, {})


def test_galaxies_are_told_apart_by_their_nearest_visible_neighbour() -> None:
    import pyarrow as pa

    fwhm = 0.7 / 0.2
    x = np.array([50.0, 50 + 1.5 * fwhm, 150.0, 150 + 1.0 * fwhm, 250.0, 250 + 3 * fwhm])
    table = pa.table(
        {
            "object_id": np.arange(6),
            "x": x,
            "y": np.full(6, 159.5),
            "snr": [50.0, 20.0, 30.0, 2.0, 30.0, 7.0],  # the fourth is not seen, the last too faint to be counted
        }
    )
    still = replace(SKY, shear=(0.0, 0.0))
    found = measuring.galaxies(still, [table, table])
    assert found.blended.tolist() == [True, True, False, False, False, False]
    assert found.isolated.tolist() == [False, False, True, False, False, False]


def test_a_finder_that_likes_one_orientation_shows_as_bias() -> None:
    """Sums of objects that are lost when they lie across x: more of them under -g."""
    rng = np.random.default_rng(1)
    blocks, each = 100, 200
    sums = np.zeros((blocks, 2, len(measuring.shear_sums.FIELDS)))
    intrinsic = rng.normal(0, 0.2, (blocks, each, 2))
    for sign, g in enumerate((0.02, -0.02)):
        e = intrinsic + g
        given = {"e1": e[..., 0], "e2": e[..., 1], "r11": np.ones((blocks, each)), "r22": np.ones((blocks, each))}
        given |= {"g1": np.full((blocks, each), g), "g2": np.full((blocks, each), g)}
        for block in range(blocks):
            terms = measuring.shear_sums.weighted({name: values[block] for name, values in given.items()})
            sums[block, sign] = terms[e[block, :, 0] > -0.2].sum(0)
    m = measuring.biases(sums)
    assert m[0, 0] < -0.1
    assert abs(m[0, 1]) < 4 * m[1:, 1].std()
