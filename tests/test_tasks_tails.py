"""Tails are continuous, strictly rising and finite; expectations and densities fit what they are given."""

import numpy as np
import pytest
import torch

from astroml_plugin.core.settings import from_mapping, to_mapping
from astroml_plugin.tasks.anomaly.tail_probability import (
    Density,
    Expectation,
    Tail,
    fit_density,
    fit_expectation,
    fit_tail,
)


@pytest.mark.parametrize("kind", ["normal", "exponential", "student"])
def test_a_tail_says_how_rare_a_value_is(kind: str) -> None:
    rng = np.random.default_rng(1)
    draw = {"normal": rng.normal, "exponential": rng.exponential, "student": lambda size: rng.standard_t(4, size)}
    tail = fit_tail(draw[kind](size=20_000))
    fresh = tail(draw[kind](size=20_000))
    for part in (0.5, 0.1, 0.01, 0.001):
        assert np.mean(fresh > -np.log10(part)) == pytest.approx(part, rel=0.6 if part < 0.005 else 0.15)


def test_a_tail_never_ends_and_has_no_ties() -> None:
    values = np.random.default_rng(2).normal(size=500)
    tail = fit_tail(values)
    far = np.concatenate([np.linspace(-8, 60, 4001), np.logspace(2, 8, 200)])
    found = tail(far)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    assert (np.diff(found[:4001]) < 0.3).all()  # no step
    assert len(np.unique(found[2000:].astype(np.float32))) == len(found[2000:])
    assert from_mapping(Tail, to_mapping(tail), "here") == tail


def test_equal_values_and_nothing_at_all() -> None:
    stuck = fit_tail(np.zeros(300))
    assert np.isfinite(stuck(np.array([-1.0, 0.0, 1.0]))).all()
    assert (np.diff(stuck(np.array([-1e-9, 0.0, 1.0]))) >= 0).all()
    assert Tail()(np.ones(3)).tolist() == [0, 0, 0]


def test_an_expectation_takes_off_what_signal_to_noise_and_size_do() -> None:
    rng = np.random.default_rng(3)
    given = np.stack([rng.uniform(1, 3, 4000), rng.uniform(0, 1, 4000)], axis=1)
    values = 2 - given[:, 0] + 0.5 * given[:, 1] ** 2 + rng.normal(size=4000) * np.exp(-given[:, 0])
    values[:40] += 50  # a few oddities have no say
    standard = fit_expectation(values, given)(values, given)
    for faint in (given[:, 0] < 1.5, given[:, 0] > 2.5):
        assert np.median(standard[faint]) == pytest.approx(0, abs=0.1)
        assert np.median(np.abs(standard[faint])) == pytest.approx(0.6745, abs=0.08)
    assert standard[:40].min() > 20


def test_an_expectation_does_not_run_away_beyond_its_population() -> None:
    rng = np.random.default_rng(4)
    given = rng.uniform(0, 1, (1000, 2))
    fitted = fit_expectation(given[:, 0] ** 2 + 0.1 * rng.normal(size=1000), given)
    edge, beyond = (fitted(np.array([1.0]), np.array([[a, 0.5]])) for a in (1.0, 50.0))
    assert edge == pytest.approx(beyond, abs=0.1)
    assert Expectation()(np.array([3.0]), given[:1]) == 3.0


def test_a_density_of_latent_vectors() -> None:
    rng = torch.Generator().manual_seed(5)
    latent = torch.randn(2000, 3, generator=rng) @ torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, 0, 0.1]])
    density = fit_density(latent, 1)
    near, far = density(torch.zeros(1, 3)), density(torch.tensor([[0.0, 0.0, 2.0]]))
    assert far > near + 20
    assert from_mapping(Density, to_mapping(density), "here") == density
    assert Density()(latent).tolist() == [0] * 2000


def test_a_density_of_two_clouds_needs_two_parts() -> None:
    rng = torch.Generator().manual_seed(6)
    latent = torch.randn(1000, 2, generator=rng) + 6 * (torch.arange(1000) % 2)[:, None]
    between = torch.full((1, 2), 3.0)
    assert fit_density(latent, 2)(between) - fit_density(latent, 2)(latent).mean() > 3
    assert fit_density(latent, 1)(between) < fit_density(latent, 1)(latent).mean()


def test_an_expectation_of_mostly_equal_values() -> None:
    given = np.random.default_rng(7).uniform(0, 1, (300, 2))
    values = np.where(np.arange(300) % 10, 0.0, 1.0)
    assert np.isfinite(fit_expectation(values, given)(values, given)).all()
