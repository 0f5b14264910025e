"""What is flagged as unlike the training set must not depend on the direction in which it lies."""

from __future__ import annotations

import pytest
import torch

from astroml_plugin.tasks.domain import DomainLimits, domain_bits

LIMITS = DomainLimits(measured=True, faintest=0.0, brightest=1e9)


def stamp(size: int, dx: int, dy: int, flux: float) -> torch.Tensor:
    """A galaxy on the object's pixel and a neighbour (dx, dy) away, without noise."""
    y, x = torch.meshgrid(torch.arange(size) - size // 2, torch.arange(size) - size // 2, indexing="ij")
    galaxy = 40 * torch.exp(-(x**2 + y**2) / 18.0)
    return (galaxy + flux * torch.exp(-((x - dx) ** 2 + (y - dy) ** 2) / 8.0))[None, None]


def flagged(image: torch.Tensor) -> bool:
    return bool(domain_bits(LIMITS, torch.ones_like(image, dtype=torch.bool), image)[0])


@pytest.mark.parametrize("size", [47, 48, 64])
def test_a_neighbour_is_seen_alike_on_every_side(size: int) -> None:
    for flux in (0.5, 2.0, 4.0, 8.0, 30.0):
        sides = {flagged(stamp(size, dx, dy, flux)) for dx, dy in ((15, 0), (-15, 0), (0, 15), (0, -15))}
        assert len(sides) == 1
    assert flagged(stamp(size, 15, 0, 30.0))


@pytest.mark.parametrize("size", [47, 48])
def test_an_elongated_galaxy_alone_is_no_neighbour(size: int) -> None:
    y, x = torch.meshgrid(torch.arange(size) - size // 2, torch.arange(size) - size // 2, indexing="ij")
    for a, b in ((1.0, 0.0), (0.0, 1.0), (0.7, 0.7), (0.7, -0.7)):
        along, across = a * x + b * y, -b * x + a * y
        assert not flagged((300 * torch.exp(-(along**2) / 120 - across**2 / 18))[None, None])


@pytest.mark.parametrize("size", [8, 16, 24])
def test_a_stamp_too_small_for_neighbours_has_none(size: int) -> None:
    assert not flagged(stamp(size, 0, 0, 0.0))
