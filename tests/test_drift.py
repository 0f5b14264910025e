"""Drift: what moved is reported, what is the same is not, and objects of one tile are not many witnesses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.evaluation.drift import Distribution, Tolerance, alike, drift_from, independent
from astroml_plugin.evaluation.inputs import TOLERANCES, Number, input_numbers
from astroml_plugin.evaluation.reference import Reference, plain_columns

TILES = np.repeat(np.arange(8), 40)
ONE = np.zeros(200, np.int64)


def normal(seed: int, count: int = 320, shift: float = 0.0, width: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, width, count)


def test_distances_are_those_of_others() -> None:
    reference, values = normal(0, 5000), normal(1, shift=0.4)
    known = Distribution.of(reference)
    assert known is not None
    found = drift_from(known, values, TILES)
    assert found is not None
    assert found.distance == pytest.approx(ks_2samp(reference, values).statistic, abs=0.03)
    edges = np.quantile(reference, np.arange(1, 10) / 10)
    part = np.bincount(np.searchsorted(edges, values), minlength=10) / len(values)
    assert found.stability == pytest.approx(float(((part - 0.1) * np.log(part / 0.1)).sum()), rel=0.2)


def test_the_same_again_is_not_reported_and_what_moved_is() -> None:
    reported = []
    for shift, width in ((0.0, 1.0), (0.8, 1.0), (0.0, 3.0)):
        drifts = []
        for seed in range(60):
            known = Distribution.of(normal(seed, 320), TILES)
            assert known is not None
            drift = drift_from(known, normal(1000 + seed, 320, shift, width), TILES)
            assert drift is not None
            drifts.append(drift.reported)
        reported.append(np.mean(drifts))
    assert reported[0] <= 1 / 60
    assert min(reported[1:]) == 1.0


def test_tiles_of_one_seeing_each_are_few_witnesses() -> None:
    rng = np.random.default_rng(3)
    reported = {"same": 0, "pooled": 0, "worse": 0}
    for _ in range(60):
        seeing, other = rng.uniform(3, 4, 8), rng.uniform(3, 4, 8)
        known, loose = Distribution.of(seeing[TILES], TILES), Distribution.of(seeing[TILES])
        assert known is not None
        assert loose is not None
        for name, reference, values, tiles in (
            ("same", known, other[TILES], TILES),
            ("pooled", loose, other[TILES], np.arange(320)),
            ("worse", known, 1.6 * other[TILES], TILES),
        ):
            drift = drift_from(reference, values, tiles, tolerance=Tolerance(0.0))
            assert drift is not None
            reported[name] += drift.reported
    assert reported["same"] <= 1
    assert reported["pooled"] > 20  # without tiles, chance is taken for drift
    assert reported["worse"] == 60


def test_one_tile_is_reported_only_far_from_the_reference() -> None:
    known = Distribution.of(np.random.default_rng(0).uniform(3, 4, 400))
    assert known is not None
    for seeing, wanted in ((3.4, False), (4.2, False), (6.0, True), (1.5, True)):
        drift = drift_from(known, np.full(200, seeing), ONE, tolerance=Tolerance(0.1))
        assert drift is not None
        assert drift.reported is wanted
    flux = Distribution.of(np.random.default_rng(1).lognormal(0, 1, 400))
    assert flux is not None
    brighter = drift_from(flux, np.random.default_rng(2).lognormal(1, 1, 200), ONE)
    assert brighter is not None
    assert brighter.reported  # objects of one tile differ among themselves: they are witnesses


def test_a_tenth_is_no_drift_where_it_is_borne() -> None:
    known = Distribution.of(np.full(100, 10.0), np.arange(100))
    assert known is not None
    for value, wanted in ((10.0, False), (10.4, False), (15.0, True)):
        drift = drift_from(known, np.full(200, value), np.arange(200), tolerance=Tolerance(0.1))
        assert drift is not None
        assert drift.reported is wanted


def test_numbers_that_are_often_the_same_are_parted_from_others() -> None:
    known = Distribution.of(np.repeat([0.0, 1.0], [900, 100]))
    assert known is not None
    for part, wanted in ((0.1, False), (0.9, True)):
        values = (np.arange(300) < 300 * part).astype(float)
        drift = drift_from(known, values, np.arange(300))
        assert drift is not None
        assert drift.reported is wanted


def test_few_or_no_numbers_are_not_compared() -> None:
    assert Distribution.of(np.full(50, np.nan)) is None
    known = Distribution.of(normal(0))
    assert known is not None
    assert drift_from(known, np.r_[normal(0, 11), np.nan], np.zeros(12, np.int64)) is None


def test_witnesses_are_counted_as_variances_say() -> None:
    rng = np.random.default_rng(0)
    between = rng.normal(size=200)
    values = (between[:, None] + rng.normal(size=(200, 10))).ravel()  # half of the variance between tiles
    tiles = np.repeat(np.arange(200), 10)
    part = alike(values, tiles)
    assert part == pytest.approx(0.48, abs=0.06)
    assert independent(2000, 200, part) == pytest.approx(2000 / (1 + 9 * part))
    assert alike(np.ones(20), np.repeat([0, 1], 10)) == 1.0


# ---- inputs ------------------------------------------------------------------------------------------------------


def stamps(noise: float = 2.0, flux: float = 500.0, width: float = 2.0, seed: int = 0, swap: bool = False) -> Cutouts:
    """40 stamps (g, r) of round objects; r is twice as bright and has half the noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48] - 24
    light = np.exp(-0.5 * (x**2 + y**2) / width**2) / (2 * np.pi * width**2)
    bright = flux * rng.uniform(0.8, 1.2, (40, 1, 1, 1)) * np.array([1.0, 2.0])[:, None, None]
    image = bright * light + noise * np.array([1.0, 0.5])[:, None, None] * rng.normal(size=(40, 2, 48, 48)) + 3
    psf = np.broadcast_to(light[10:39, 10:39], (40, 2, 29, 29)).astype(np.float32).copy()
    image = image[:, ::-1] if swap else image
    return from_stamps(np.ascontiguousarray(image, np.float32), None, psf, bands=("g", "r"), pixel_scale=0.2)


def test_numbers_about_pixels_are_right() -> None:
    found = input_numbers(stamps(flux=5000.0))
    middle = {(name.what, name.band): float(np.median(values)) for name, values in found.items()}
    assert middle["noise", "g"] == pytest.approx(2.0, rel=0.1)
    assert middle["noise", "r"] == pytest.approx(1.0, rel=0.1)
    assert middle["level", "g"] == pytest.approx(1.5, rel=0.15)
    assert middle["flux", "g"] == pytest.approx(5000 * (1 - np.exp(-0.5 * 5.25**2 / 4)), rel=0.06)
    assert middle["PSF FWHM", "g"] == pytest.approx(2.355 * 2, rel=0.03)
    assert middle["colour", "g - r"] == pytest.approx(2.5 * np.log10(2), abs=0.05)
    assert middle["usable", "r"] == 1.0
    assert middle["pixel scale", ""] == pytest.approx(0.2)
    assert {name.unit for name in found if name.what == "flux"} == {"stored"}
    without = input_numbers(stamps(), centred=False)
    assert not {name.what for name in without} & {"flux", "concentration", "colour"}


def test_pixels_with_a_zero_point_are_in_nanojansky() -> None:
    plain = stamps(flux=5000.0)
    known = from_stamps(plain.image.numpy(), None, None, bands=("g", "r"), zero_points=(27.0, None))
    found = input_numbers(known)
    units = {name.band: name.unit for name in found if name.what == "flux"}
    assert units == {"g": "nJy", "r": "stored"}
    factor = 10 ** (0.4 * (31.4 - 27.0))
    assert np.median(found[Number("noise", "g", "nJy")]) == pytest.approx(2.0 * factor, rel=0.1)


def test_pixels_that_cannot_be_used_are_nowhere_in_the_numbers() -> None:
    mask = np.zeros((40, 2, 48, 48), np.uint32)
    mask[:, :, :6] = 1
    plain = stamps()
    spoiled = torch.where(torch.from_numpy(mask > 0), 1e9, plain.image).numpy()
    found = input_numbers(from_stamps(spoiled, None, None, bands=("g", "r")).masked(mask))
    assert np.median(found[Number("noise", "g", "stored")]) == pytest.approx(2.0, rel=0.1)
    assert np.median(found[Number("usable", "g", "")]) == pytest.approx(42 / 48)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, set()),
        ({"noise": 4.0}, {"noise g", "noise r"}),
        ({"width": 3.0}, {"PSF FWHM g", "concentration g"}),
        ({"swap": True}, {"noise g", "noise r", "colour g - r"}),
    ],
)
def test_other_seeing_depth_and_a_swapped_band_are_reported(change: dict[str, float], named: set[str]) -> None:
    reference = Reference.of(input_numbers(stamps(flux=2000.0)), {})
    found = input_numbers(stamps(flux=2000.0, seed=1, **change))
    tiles = np.repeat(np.arange(4), 10)

    moved = set()
    for name, known in reference.inputs.items():
        drift = drift_from(known, found[name], tiles, level=1e-3, tolerance=TOLERANCES[name.what])
        if drift is not None and drift.reported:
            moved.add(str(name).partition(" [")[0])
    assert named <= moved
    if not named:
        assert not moved


def test_a_reference_is_plain_numbers_and_damage_is_refused() -> None:
    columns = {
        "p": normal(0),
        "label": np.array(["a"] * 320, object),
        "latent": np.ones((320, 3)),
        "flags": np.ones(320),
    }
    reference = Reference.of(input_numbers(stamps()), plain_columns(columns))
    assert list(reference.outputs) == ["p"]
    again = Reference.from_json(json.loads(json.dumps(reference.to_json())), "reference")
    assert again.bands == ("g", "r")
    for name, one in reference.inputs.items():
        np.testing.assert_allclose(again.inputs[name].quantiles, one.quantiles, rtol=1e-5)
    alone = Reference.of({Number("noise", "r", "nJy"): normal(0)}, {}).of_band("i")
    assert list(alone.inputs) == [Number("noise", "i", "nJy")]
    for damage in ([], {"inputs": []}, {"inputs": [{"what": "noise"}], "outputs": {}}):
        with pytest.raises(InputError, match="reference is damaged"):
            Reference.from_json(damage, "reference")
    broken = reference.to_json()
    broken["outputs"]["p"]["quantiles"] = [1.0, 2.0]
    with pytest.raises(InputError, match="reference"):
        Reference.from_json(broken, "reference")
