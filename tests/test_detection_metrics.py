"""Figures of merit of detections: matches are mutual, chance is told, blends are pairs, Source Extractor beside it."""

import numpy as np
import pytest

from astroml_plugin.evaluation.baselines.extractor import ExtractorSettings, extract, gaussian
from astroml_plugin.evaluation.detection_metrics import (
    DetectionSet,
    Truth,
    blended,
    chance,
    counts,
    flux_errors,
    match,
    matched_filter_ceiling,
    pairs,
    pooled,
)

SIDE = 200


def scene(count=40, seed=3):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(20, SIDE - 20, (2, count))
    x[1], y[1] = x[0] + 6, y[0]
    flux = np.full(count, 3000.0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    light = [f * np.exp(-((columns - a) ** 2 + (rows - b) ** 2) / 8) / (8 * np.pi) for a, b, f in zip(x, y, flux)]
    light = np.array(light)
    truth = Truth(
        *(x, y, np.full(count, 22.5), flux, np.full(count, 30.0), np.zeros(count, bool)),
        *(light.sum(0) > 1, np.where(light.max(0) > 0.01, light.argmax(0), -1).astype(np.int32), 4.0),
    )
    return light.sum(0) + rng.normal(0, 1, (SIDE, SIDE)), truth


def test_matches_are_mutual_and_one_to_one() -> None:
    found = match(np.array([10.0, 11.0, 50.0, 90.0]), np.zeros(4), np.array([10.4, 52.0, 70.0]), np.zeros(3))
    assert found.tolist() == [0, -1, 1, -1]
    assert match(np.zeros(0), np.zeros(0), np.zeros(1), np.zeros(1)).tolist() == []


def test_chance_is_the_density_times_the_circle() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 1000, (2, 2000))
    expected = 1 - np.exp(-np.pi * 9 * 2000 / 1e6)
    assert chance(*rng.uniform(0, 1000, (2, 500)), x, y, (1000, 1000)) == pytest.approx(expected, rel=0.25)


def test_a_perfect_catalog_has_perfect_figures() -> None:
    _, truth = scene()
    labels = np.where(truth.foreground, truth.owner + 1, 0).astype(np.int32)
    sums = counts(DetectionSet(truth.x, truth.y, labels, {"total": truth.flux * 1.1}), truth)
    figures = pooled([sums, sums], 20)
    for name in ("purity", "iou", "completeness 20-23", "pairs", "instance_pixels"):
        assert figures[name] == [1.0, 1.0, 1.0]
    assert np.isnan(figures["completeness 24-25"][0])
    number, error = flux_errors(DetectionSet(truth.x, truth.y, labels, {"total": truth.flux * 1.1}), truth, "total")
    assert len(number) == len(truth.x)
    np.testing.assert_allclose(error, 0.1)


def test_what_is_missing_or_too_much_counts() -> None:
    _, truth = scene()
    keep = np.arange(len(truth.x)) != 1
    x, y = np.append(truth.x[keep], 100.0), np.append(truth.y[keep], 3.0)
    sums = counts(DetectionSet(x, y, np.zeros((SIDE, SIDE), np.int32), {}), truth, border=0)
    assert sums["purity"].tolist() == [39, 40]
    assert sums["completeness 20-23"].tolist() == [39, 40]
    first, second = pairs(truth)
    assert (0, 1) in set(zip(first.tolist(), second.tolist()))
    assert sums["pairs"][0] == sums["pairs"][1] - sum(1 in pair for pair in zip(first, second))
    assert blended(truth)[:2].all()


def test_the_ceiling_rises_with_signal_and_falls_with_purity() -> None:
    snr = np.full(2000, 5.0)
    low, found = matched_filter_ceiling(snr, 1e6, 2.0, 0.97)
    high, fewer = matched_filter_ceiling(snr, 1e6, 2.0, 0.999)
    assert 3 < low < high < 5
    assert found[0] > fewer[0] > 0.5


def test_source_extractor_finds_and_measures_what_is_there() -> None:
    pytest.importorskip("sep")
    image, truth = scene()
    settings = ExtractorSettings(3.0, 1.5, 5, 32, 0.005)
    found = extract(image.astype(np.float32), np.ones((SIDE, SIDE), np.float32), None, settings)
    matched = match(found.x, found.y, truth.x, truth.y)
    assert (matched >= 0).mean() > 0.9
    alone = (matched >= 0) & ~blended(truth, 5.0)[matched]
    assert np.median(found.auto[alone]) == pytest.approx(3000, rel=0.05)
    assert np.median(found.aperture[alone]) == pytest.approx(3000 * (1 - np.exp(-25 / 8)), rel=0.05)
    assert gaussian(3.0).sum() == pytest.approx(1)
